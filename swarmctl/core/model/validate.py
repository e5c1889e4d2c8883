"""The rules a service spec keeps, with the texts that Docker's clients know.

``check_service_spec`` takes a spec as a client sent it (null groups and all) and raises the right
leaf of SwarmError at the first rule it breaks; a spec that passes can be normalized and stored. The
rules are swarmkit's (swarm-behaviour.md section 5.2) and the Engine API's converters'
(docker-api.md section 4.4), those included that swarmkit states but forgets to apply (quirks 11 and
12). Converters answer in plain text, the control API with gRPC's prefix; clients match on both.

It sees one spec and nothing of the cluster: crosscheck.py asks about other objects, release.py
about features that this release does not have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import BadRequest, InvalidArgument, Unimplemented
from .constraint import parse_constraints
from .labels import NAME, SERVICES, check_labels
from .reference import parse_reference
from .template import check_template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .spec import (
        ContainerSpec,
        EndpointSpec,
        FileTarget,
        HealthConfig,
        Mount,
        ResourceRequirements,
        RestartPolicy,
        ServiceMode,
        ServiceSpec,
        TaskSpec,
        UpdateConfig,
    )

MAX_NAME_LENGTH = 63
MAX_REPLICAS = 100_000
"""More tasks than any cluster holds. Swarm has no such bound and dies of a mistyped number."""

_NAME = re.compile(NAME)
_MILLISECOND = 1_000_000
_MIN_NANO_CPUS = 1_000_000
_MIN_MEMORY = 4 * 1024 * 1024
_MAX_PORT = 65_535

_ORDERS = ("", "stop-first", "start-first")
_FAILURE_ACTIONS = ("", "pause", "continue", "rollback")
_CONDITIONS = ("", "none", "on-failure", "any")
_MOUNT_TYPES = ("bind", "volume", "tmpfs", "npipe", "cluster", "image")
_ENDPOINT_MODES = ("", "vip", "dnsrr")
_PROTOCOLS = ("", "tcp", "udp", "sctp")
_PUBLISH_MODES = ("", "ingress", "host")
_SECCOMP_MODES = ("", "default", "unconfined", "custom")
_APPARMOR_MODES = ("", "default", "disabled")


def check_service_spec(spec: ServiceSpec) -> None:
    """Check everything about a service spec that it can tell by itself.

    Raises:
        BadRequest: a word that the API does not have.
        InvalidArgument: a value that is not allowed, or a swarmctl label (labels.py).
        InvalidConstraint: a placement constraint that cannot be parsed.
        Unimplemented: a kind of service that is not offered.
    """
    _check_words(spec)
    check_object_name(spec.Name)
    check_labels(spec.Labels, on=SERVICES)
    _check_task(spec.TaskTemplate)
    _check_update("update", spec.UpdateConfig)
    _check_update("rollback", spec.RollbackConfig)
    _check_mode(spec)
    if spec.EndpointSpec is not None:
        _check_endpoint(spec.EndpointSpec)


def check_service_update(old: ServiceSpec, new: ServiceSpec) -> None:
    """Check what an update may not change; both specs normalized.

    Raises:
        Unimplemented: another mode or name, or changed service-level networks.
    """
    if _mode_name(old.Mode) != _mode_name(new.Mode):
        raise Unimplemented("service mode change is not allowed")
    if old.Name != new.Name:
        raise Unimplemented("renaming services is not supported")
    if old.Networks and new.Networks != old.Networks and not new.TaskTemplate.Networks:
        raise Unimplemented("networks must be migrated to TaskSpec before being changed")


def check_object_name(name: str) -> None:
    """Check the name of a service or network.

    Raises:
        InvalidArgument: empty, longer than 63 characters, or no DNS label.
    """
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name must be valid as a DNS name component")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidArgument(f"name must be {MAX_NAME_LENGTH} characters or fewer")


# --- words of the API (plain errors, as the Engine's converters give them) -----------------------


def _check_words(spec: ServiceSpec) -> None:
    task, mode = spec.TaskTemplate, spec.Mode
    if sum(one is not None for one in _modes(mode)) > 1:
        raise BadRequest("must specify only one service mode")
    _check_runtime(task)
    for update in (spec.UpdateConfig, spec.RollbackConfig):
        if update is not None:
            _one_of(update.Order, _ORDERS, f"unrecognized update order {update.Order}")
            action = update.FailureAction
            _one_of(action, _FAILURE_ACTIONS, f"unrecognized update failure action {action}")
    if task.RestartPolicy is not None:
        condition = task.RestartPolicy.Condition
        _one_of(condition, _CONDITIONS, f'invalid RestartCondition: "{condition}"')
    if task.ContainerSpec is not None:
        _check_container_words(task.ContainerSpec)
    if spec.EndpointSpec is not None:
        _check_endpoint_words(spec.EndpointSpec)


def _check_endpoint_words(endpoint: EndpointSpec) -> None:
    _one_of(endpoint.Mode, _ENDPOINT_MODES, f'invalid EndpointSpec.Mode: "{endpoint.Mode}"')
    for port in endpoint.Ports:
        _one_of(port.Protocol, _PROTOCOLS, f'invalid Protocol: "{port.Protocol}"')
        _one_of(port.PublishMode, _PUBLISH_MODES, f'invalid PublishMode: "{port.PublishMode}"')


def _one_of(word: str, allowed: tuple[str, ...], text: str) -> None:
    if word not in allowed:
        raise BadRequest(text)


def _check_runtime(task: TaskSpec) -> None:
    given = {
        "container": task.ContainerSpec is not None,
        "plugin": task.PluginSpec is not None,
        "attachment": task.NetworkAttachmentSpec is not None,
    }
    runtime = task.Runtime or "container"
    if runtime not in given:
        raise BadRequest("unsupported runtime")
    if [name for name, is_given in given.items() if is_given] != [runtime]:
        raise BadRequest("mismatched Runtime and *Spec fields")
    if runtime != "container":
        raise Unimplemented(f"services with the runtime {runtime} are not supported")


def _check_container_words(container: ContainerSpec) -> None:
    for mount in container.Mounts:
        _one_of(mount.Type, _MOUNT_TYPES, f'invalid MountType: "{mount.Type}"')
    for config in container.Configs:
        if (config.File is None) is (config.Runtime is None):
            raise BadRequest("either File or Runtime should be set")
    privileges = container.Privileges
    if privileges is not None and privileges.Seccomp is not None:
        seccomp = privileges.Seccomp
        _one_of(seccomp.Mode, _SECCOMP_MODES, f'invalid Seccomp.Mode: "{seccomp.Mode}"')
        if bool(seccomp.Profile) is not (seccomp.Mode == "custom"):
            raise BadRequest("Seccomp.Profile goes with Seccomp.Mode custom, and only with it")
    if privileges is not None and privileges.AppArmor is not None:
        mode = privileges.AppArmor.Mode
        _one_of(mode, _APPARMOR_MODES, f'invalid AppArmor.Mode: "{mode}"')


# --- the task ------------------------------------------------------------------------------------


def _check_task(task: TaskSpec) -> None:
    if task.Resources is not None:
        _check_resources(task.Resources)
    if task.RestartPolicy is not None:
        _check_restart(task.RestartPolicy)
    if task.Placement is not None:
        parse_constraints(task.Placement.Constraints)
        for preference in task.Placement.Preferences:
            if preference.Spread is None or not preference.Spread.SpreadDescriptor:
                raise InvalidArgument("Placement: a preference must name what to spread over")
    if task.ContainerSpec is not None:
        _check_container(task.ContainerSpec)


def _check_resources(resources: ResourceRequirements) -> None:
    for group in (resources.Limits, resources.Reservations):
        if group is None:
            continue
        if group.NanoCPUs and group.NanoCPUs < _MIN_NANO_CPUS:
            raise InvalidArgument(
                f"invalid cpu value {_shortest(group.NanoCPUs / 1e9)}: Must be at least 0.001"
            )
        if group.MemoryBytes and group.MemoryBytes < _MIN_MEMORY:
            raise InvalidArgument(
                f"invalid memory value {group.MemoryBytes}: Must be at least 4MiB"
            )
    for generic in resources.Reservations.GenericResources if resources.Reservations else ():
        named, discrete = generic.NamedResourceSpec, generic.DiscreteResourceSpec
        if named is not None or discrete is None:
            kind = named.Kind if named is not None else ""
            raise InvalidArgument(
                f"invalid generic resource {kind!r}: a service reserves a count, such as gpu=2; "
                "only nodes have named ones"
            )
        if not discrete.Kind or discrete.Value < 0:
            raise InvalidArgument(
                f"invalid generic resource {discrete.Kind!r}: it needs a kind and a count of at "
                "least 0"
            )


def _shortest(number: float) -> str:
    # as Go's %g: no trailing ".0"
    return repr(number).removesuffix(".0")


def _check_restart(restart: RestartPolicy) -> None:
    if restart.Delay is not None and restart.Delay < 0:
        raise InvalidArgument("TaskSpec: restart-delay cannot be negative")
    if restart.Window is not None and restart.Window < 0:
        raise InvalidArgument("TaskSpec: restart-window cannot be negative")


def _check_container(container: ContainerSpec) -> None:
    if not container.Image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    try:
        parse_reference(container.Image)
    except ValueError as error:
        raise InvalidArgument(f"ContainerSpec: {error}") from None
    if container.StopGracePeriod is not None and container.StopGracePeriod < 0:
        raise InvalidArgument("ContainerSpec: StopGracePeriod cannot be negative")
    _check_mounts(container.Mounts)
    _check_templates(container)
    if container.Healthcheck is not None:
        _check_health(container.Healthcheck)
    _check_file_references(
        "secret", [(ref.SecretID, ref.SecretName, ref.File) for ref in container.Secrets]
    )
    _check_file_references(
        "config", [(ref.ConfigID, ref.ConfigName, ref.File) for ref in container.Configs]
    )
    _check_credential_spec(container)


def _check_mounts(mounts: Iterable[Mount]) -> None:
    targets: set[str] = set()
    for mount in mounts:
        if mount.Target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.Target}")
        targets.add(mount.Target)


def _check_templates(container: ContainerSpec) -> None:
    texts = {
        "hostname": (container.Hostname,),
        "env": container.Env,
        "mounts": tuple(text for mount in container.Mounts for text in _mount_texts(mount)),
    }
    for place, several in texts.items():
        for text in several:
            try:
                check_template(text)
            except ValueError as error:
                raise InvalidArgument(f"ContainerSpec: expanding {place} failed: {error}") from None


def _mount_texts(mount: Mount) -> Iterable[str]:
    yield mount.Source
    yield mount.Target
    if mount.VolumeOptions is not None:
        yield from mount.VolumeOptions.Labels.values()
        driver = mount.VolumeOptions.DriverConfig
        yield from driver.Options.values() if driver is not None else ()


def _check_health(health: HealthConfig) -> None:
    durations = {
        "Interval": health.Interval,
        "Timeout": health.Timeout,
        "StartPeriod": health.StartPeriod,
        "StartInterval": health.StartInterval,
    }
    for name, duration in durations.items():
        if duration and duration < _MILLISECOND:
            raise InvalidArgument(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if health.Retries < 0:
        raise InvalidArgument("ContainerSpec: Retries in HealthConfig cannot be negative")


def _check_file_references(
    kind: str, references: Iterable[tuple[str, str, FileTarget | None]]
) -> None:
    """Check references to secrets or configs, given as id, name and file."""
    taken: dict[str, str] = {}
    for object_id, name, file in references:
        if not object_id or not name:
            raise InvalidArgument(f"malformed {kind} reference")
        if file is None:
            if kind == "secret":
                raise InvalidArgument("malformed secret reference, no target provided")
            continue  # a config that the runtime reads
        target = file.Name
        if not target:
            raise InvalidArgument(
                f"malformed file {kind} reference, invalid target file name provided"
            )
        if target in taken:
            raise InvalidArgument(
                f"{kind} references '{taken[target]}' and '{name}' have a conflicting target: "
                f"'{target}'"
            )
        taken[target] = name


def _check_credential_spec(container: ContainerSpec) -> None:
    privileges = container.Privileges
    if privileges is None or privileges.CredentialSpec is None:
        return
    wanted = privileges.CredentialSpec.Config
    if wanted and not any(
        config.ConfigID == wanted and config.Runtime is not None for config in container.Configs
    ):
        raise InvalidArgument(
            f"CredentialSpec references config '{wanted}', but that config isn't in config "
            "references with RuntimeTarget"
        )


# --- update, mode, endpoint ----------------------------------------------------------------------


def _check_update(which: str, update: UpdateConfig | None) -> None:
    if update is None:
        return
    if update.Delay < 0:
        raise InvalidArgument(f"TaskSpec: {which}-delay cannot be negative")
    if update.Monitor < 0:
        raise InvalidArgument(f"TaskSpec: {which}-monitor cannot be negative")
    if not 0 <= update.MaxFailureRatio <= 1:
        raise InvalidArgument(
            f"TaskSpec: {which}-maxfailureratio cannot be less than 0 or bigger than 1"
        )
    if which == "rollback" and update.FailureAction == "rollback":
        raise InvalidArgument("TaskSpec: rollback-failure-action cannot be rollback")


def _check_mode(spec: ServiceSpec) -> None:
    replicated, job = spec.Mode.Replicated, spec.Mode.ReplicatedJob
    if replicated is not None:
        _check_count(replicated.Replicas, "Number of replicas must be non-negative")
    if job is not None:
        _check_count(job.MaxConcurrent, "Maximum concurrent jobs must not be negative")
        _check_count(job.TotalCompletions, "Total completed jobs must not be negative")
    if job is not None or spec.Mode.GlobalJob is not None:
        if spec.UpdateConfig is not None:
            raise InvalidArgument("Jobs may not have an update config")
        if spec.RollbackConfig is not None:
            raise InvalidArgument("Jobs may not have a rollback config")


def _check_count(count: int | None, negative: str) -> None:
    if count is None:
        return
    if count >= 2**63:  # Go's conversion turns it into a negative number
        raise InvalidArgument(negative)
    if count > MAX_REPLICAS:
        raise InvalidArgument(f"{count} tasks are more than the {MAX_REPLICAS} a service may have")


def _modes(mode: ServiceMode) -> tuple[object | None, ...]:
    return (mode.Replicated, mode.Global, mode.ReplicatedJob, mode.GlobalJob)


def _mode_name(mode: ServiceMode) -> int:
    """Return which mode is set; none at all means replicated."""
    return next((at for at, one in enumerate(_modes(mode)) if one is not None), 0)


def _check_endpoint(endpoint: EndpointSpec) -> None:
    published: set[tuple[str, int]] = set()
    for port in endpoint.Ports:
        if endpoint.Mode == "dnsrr" and port.PublishMode in ("", "ingress"):
            raise InvalidArgument(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
            )
        if not 1 <= port.TargetPort <= _MAX_PORT or port.PublishedPort > _MAX_PORT:
            raise InvalidArgument(
                f"EndpointSpec: port {port.PublishedPort}:{port.TargetPort} is not in the range "
                f"1 to {_MAX_PORT}"
            )
        key = (port.Protocol or "tcp", port.PublishedPort)
        if port.PublishedPort and key in published:
            raise InvalidArgument("EndpointSpec: duplicate published ports provided")
        published.add(key)
