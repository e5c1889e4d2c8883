"""Turns what a manager assigned into what an executor runs: templates expanded, files resolved.

Pure. The fields are Swarm's (``model/template.py``); a placeholder that cannot be expanded rejects
the task, though the API has checked it before. A secret or config that is a template is filled in
here too, with what its own task may read and nothing else: other secrets and configs by their
target, as they were stored, and the task's environment. No error quotes any of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..model.task import SecretFile, TaskAssignment, place_of, task_name
from ..model.template import TEMPLATE_DRIVER, Lookups, NoSuchTarget, expand, expand_data
from .executor import ExecutorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..model.session import AssignedTask, Dependency
    from ..model.spec import ConfigReference, ContainerSpec, Mount, SecretReference
    from ..model.task import HostNetwork, Task
    from .executor import NodeIdentity

SECRETS_DIRECTORY = "/run/secrets"


def assignment_of(
    assigned: AssignedTask,
    node: NodeIdentity,
    platform: tuple[str, str],
    secrets: Mapping[str, Dependency],
    configs: Mapping[str, Dependency],
    networks: Mapping[str, HostNetwork],
    *,
    names: bool = True,
) -> TaskAssignment:
    """Return what the executor gets.

    Args:
        platform: this node's operating system and architecture.
        secrets, configs, networks: what this node was given, by id.
        names: somebody here answers the names of its networks.

    Raises:
        ExecutorError: a template that cannot be expanded, or data that was not given.
    """
    task = assigned.task
    container = task.Spec.ContainerSpec
    secret_files: tuple[SecretFile, ...] = ()
    config_files: tuple[SecretFile, ...] = ()
    if container is not None:
        fields = _fields(assigned, node, platform)
        container = _expand_container(container, fields, assigned.service_labels)
        own = _Own(container, fields, assigned.service_labels, secrets, configs)
        secret_files = tuple(_secret(use, own) for use in container.Secrets)
        config_files = tuple(_config(use, own) for use in container.Configs if use.File)
        task = replace(task, Spec=replace(task.Spec, ContainerSpec=container))
    return TaskAssignment(
        task=task,
        service_name=assigned.service_name,
        service_labels=assigned.service_labels,
        registry_auth=assigned.registry_auth,
        secrets=secret_files,
        configs=config_files,
        log_driver=task.Spec.LogDriver or assigned.log_driver,
        cluster_id=node.cluster_id,
        by_node=assigned.by_node,
        ports=assigned.ports,
        networks=tuple(_networks(task, networks)),
        names=names,
    )


def adoption_of(assigned: AssignedTask, node: NodeIdentity) -> TaskAssignment:
    """Return what the executor gets for a task that was given its data long ago.

    To watch, stop and remove it takes neither its files nor its templates, hence this never fails.
    """
    task = assigned.task
    container = task.Spec.ContainerSpec
    if container is not None:
        bare = replace(container, Secrets=(), Configs=())
        task = replace(task, Spec=replace(task.Spec, ContainerSpec=bare))
    return TaskAssignment(
        task=task,
        service_name=assigned.service_name,
        service_labels=assigned.service_labels,
        log_driver=task.Spec.LogDriver or assigned.log_driver,
        cluster_id=node.cluster_id,
        by_node=assigned.by_node,
        ports=assigned.ports,
    )


def _networks(task: Task, networks: Mapping[str, HostNetwork]) -> Iterator[HostNetwork]:
    """Yield what this node has in a task's networks, those of the engine left out."""
    for attachment in task.NetworksAttachments:
        network = attachment.Network
        if network.ID in networks:
            yield networks[network.ID]
        elif attachment.Addresses:
            raise ExecutorError(f"network {network.Spec.Name} was not given to this node")


def _fields(
    assigned: AssignedTask, node: NodeIdentity, platform: tuple[str, str]
) -> dict[str, str]:
    """Return what a template may name, but for the service's labels."""
    task = assigned.task
    return {
        ".Service.ID": task.ServiceID,
        ".Service.Name": assigned.service_name,
        ".Node.ID": node.node_id,
        ".Node.Hostname": node.hostname,
        ".Node.Platform.OS": platform[0],
        ".Node.Platform.Architecture": platform[1],
        ".Task.ID": task.ID,
        ".Task.Name": task_name(assigned.service_name, task, by_node=assigned.by_node),
        ".Task.Slot": place_of(task, by_node=assigned.by_node),
    }


def _expand_container(
    container: ContainerSpec, fields: Mapping[str, str], labels: Mapping[str, str]
) -> ContainerSpec:
    def text(value: str) -> str:
        try:
            return expand(value, fields, labels)
        except ValueError as error:
            raise ExecutorError(f"expanding {value!r} failed: {error}") from error

    def mount(value: Mount) -> Mount:
        options = value.VolumeOptions
        if options is not None:
            driver = options.DriverConfig
            if driver is not None:
                driver = replace(
                    driver, Options={key: text(each) for key, each in driver.Options.items()}
                )
            options = replace(
                options,
                Labels={key: text(each) for key, each in options.Labels.items()},
                DriverConfig=driver,
            )
        return replace(
            value, Source=text(value.Source), Target=text(value.Target), VolumeOptions=options
        )

    return replace(
        container,
        Hostname=text(container.Hostname),
        Env=tuple(text(value) for value in container.Env),
        Mounts=tuple(mount(value) for value in container.Mounts),
    )


# --- secrets and configs -------------------------------------------------------------------------


class _Own(NamedTuple):
    """What one task has, and so all that its templates may read.

    Attributes:
        container: its spec, expanded.
        secrets, configs: what this node was given, by id; others' too.
    """

    container: ContainerSpec
    fields: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, Dependency]
    configs: Mapping[str, Dependency]


def _secret(use: SecretReference, own: _Own) -> SecretFile:
    target = use.File
    name = target.Name if target is not None and target.Name else use.SecretName
    return SecretFile(
        id=use.SecretID,
        target=name if name.startswith("/") else f"{SECRETS_DIRECTORY}/{name}",
        uid=(target.UID if target is not None else "") or "0",
        gid=(target.GID if target is not None else "") or "0",
        mode=target.Mode if target is not None else 0o444,
        data=_shown(own, own.secrets, use.SecretID, f"secret {use.SecretName}"),
    )


def _config(use: ConfigReference, own: _Own) -> SecretFile:
    assert use.File is not None
    name = use.File.Name or use.ConfigName
    return SecretFile(
        id=use.ConfigID,
        target=name if name.startswith("/") else f"/{name}",
        uid=use.File.UID or "0",
        gid=use.File.GID or "0",
        mode=use.File.Mode,
        data=_shown(own, own.configs, use.ConfigID, f"config {use.ConfigName}"),
    )


def _shown(own: _Own, given: Mapping[str, Dependency], item_id: str, what: str) -> bytes:
    """Return what a task finds in a file."""
    found = _given(given, item_id, what)
    if not found.templating:
        return found.data
    if found.templating != TEMPLATE_DRIVER:
        raise ExecutorError(f"{what} has the unknown template driver {found.templating!r}")
    try:
        return expand_data(found.data, own.fields, own.labels, _lookups(own))
    except ValueError as error:
        raise ExecutorError(f"{what} cannot be expanded: {error}") from None


def _lookups(own: _Own) -> Lookups:
    """Return the functions of templates; they see data as it was stored, so they cannot loop."""
    # swarmkit template/context.go: by the target's name, not the secret's
    secrets = {use.File.Name: use.SecretID for use in own.container.Secrets if use.File}
    configs = {use.File.Name: use.ConfigID for use in own.container.Configs if use.File}

    def secret(target: str) -> str:
        return _stored(own.secrets, secrets.get(target))

    def config(target: str) -> str:
        return _stored(own.configs, configs.get(target))

    def env(name: str) -> str:
        pairs = (entry.partition("=") for entry in own.container.Env)
        return next((value for key, _, value in pairs if key == name), "")

    return Lookups(secret, config, env)


def _stored(given: Mapping[str, Dependency], item_id: str | None) -> str:
    found = given.get(item_id) if item_id is not None else None
    if found is None:
        raise NoSuchTarget
    return found.data.decode(errors="surrogateescape")


def _given(given: Mapping[str, Dependency], item_id: str, what: str) -> Dependency:
    found = given.get(item_id)
    if found is None:
        raise ExecutorError(f"{what} is not available on this node: it was removed")
    return found
