"""What a plain process cannot honour, as a table: field, when it is asked for, why not.

Law: nothing in a spec is silently ignored. Every field of TaskSpec and ContainerSpec is either
honoured, says something about scheduling or bookkeeping, or stands in this table (a test compares
them with the model). A task that asks for one is rejected by ``prepare``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins.model import ContainerSpec, bound_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarmctl.plugins.model import TaskAssignment

IMAGES = ("host", "host:latest")
LOG_DRIVERS = ("", "json-file", "local")
LOG_OPTIONS = ("max-size", "max-file")


class Refusal(NamedTuple):
    """One row of the table.

    Attributes:
        field: as the Engine API spells it.
        asked: whether a task asks for it.
        reason: why a plain process cannot have it, or what to write instead.
    """

    field: str
    asked: Callable[[ContainerSpec, TaskAssignment], object]
    reason: str


def objections(assignment: TaskAssignment) -> list[str]:
    """Return a sentence for each thing that a task asks for and a plain process cannot have."""
    spec = assignment.task.Spec.ContainerSpec or ContainerSpec()
    return [f"{row.field}: {row.reason}" for row in TABLE if row.asked(spec, assignment)]


_OWN_ROOT = "a plain process sees the host's own file system"
_OWN_NETWORK = "a plain process uses the host's own network"
_OWN_USER = "a plain process has the capabilities of its user"

TABLE: tuple[Refusal, ...] = (
    Refusal(
        "ContainerSpec",
        lambda _, a: a.task.Spec.ContainerSpec is None,
        "missing; the process executor runs nothing else",
    ),
    Refusal(
        "ContainerSpec.Image",
        lambda c, a: a.task.Spec.ContainerSpec is not None and c.Image not in IMAGES,
        'the process executor knows one image, "host" (the host itself), without a digest',
    ),
    Refusal(
        "ContainerSpec.Command",
        lambda c, a: a.task.Spec.ContainerSpec is not None and not (c.Command or c.Args),
        'image "host" has no command of its own; give Command or Args',
    ),
    Refusal(
        "ContainerSpec.Dir",
        lambda c, _: c.Dir and not c.Dir.startswith("/"),
        "must be an absolute path",
    ),
    Refusal("ContainerSpec.Hostname", lambda c, _: c.Hostname, "a plain process has the host's"),
    Refusal("ContainerSpec.TTY", lambda c, _: c.TTY, "a plain process gets no terminal"),
    Refusal("ContainerSpec.OpenStdin", lambda c, _: c.OpenStdin, "stdin of a task is empty"),
    Refusal("ContainerSpec.ReadOnly", lambda c, _: c.ReadOnly, _OWN_ROOT),
    Refusal("ContainerSpec.Mounts", lambda c, _: c.Mounts, _OWN_ROOT),
    Refusal("ContainerSpec.Hosts", lambda c, _: c.Hosts, "a plain process reads the host's"),
    Refusal(
        "ContainerSpec.DNSConfig",
        lambda c, _: (
            c.DNSConfig and (c.DNSConfig.Nameservers or c.DNSConfig.Search or c.DNSConfig.Options)
        ),
        "a plain process has the host's resolver",
    ),
    Refusal(
        "ContainerSpec.Isolation",
        lambda c, _: c.Isolation not in ("", "default"),
        "there is no isolation technology to choose",
    ),
    Refusal("ContainerSpec.Sysctls", lambda c, _: c.Sysctls, "they would change the whole host"),
    Refusal("ContainerSpec.CapabilityAdd", lambda c, _: c.CapabilityAdd, _OWN_USER),
    Refusal("ContainerSpec.CapabilityDrop", lambda c, _: c.CapabilityDrop, _OWN_USER),
    Refusal(
        "ContainerSpec.Privileges.CredentialSpec",
        lambda c, _: c.Privileges and c.Privileges.CredentialSpec,
        "Windows only",
    ),
    Refusal(
        "ContainerSpec.Privileges.SELinuxContext",
        lambda c, _: (
            c.Privileges and c.Privileges.SELinuxContext and not c.Privileges.SELinuxContext.Disable
        ),
        "a plain process keeps the context that the host's policy gives it",
    ),
    Refusal(
        "ContainerSpec.Privileges.Seccomp",
        lambda c, _: (
            c.Privileges
            and c.Privileges.Seccomp
            and c.Privileges.Seccomp.Mode not in ("", "unconfined")
        ),
        'a plain process has no system call filter; only "unconfined" is true of it',
    ),
    Refusal(
        "ContainerSpec.Privileges.AppArmor",
        lambda c, _: (
            c.Privileges
            and c.Privileges.AppArmor
            and c.Privileges.AppArmor.Mode not in ("", "disabled")
        ),
        'a plain process has no profile of its own; only "disabled" is true of it',
    ),
    Refusal(
        "ContainerSpec.Configs.Runtime",
        lambda c, _: any(config.Runtime is not None for config in c.Configs),
        "there is no container runtime that would read it",
    ),
    Refusal(
        "TaskTemplate.PluginSpec",
        lambda _, a: a.task.Spec.PluginSpec,
        "there is no engine that could run plugins",
    ),
    Refusal(
        "TaskTemplate.NetworkAttachmentSpec",
        lambda _, a: a.task.Spec.NetworkAttachmentSpec,
        _OWN_NETWORK,
    ),
    Refusal(
        "TaskTemplate.Runtime",
        lambda _, a: a.task.Spec.Runtime not in ("", "container"),
        'only "container" tasks run here',
    ),
    Refusal("TaskTemplate.Networks", lambda _, a: _foreign_networks(a), _OWN_NETWORK),
    Refusal(
        "EndpointSpec.Ports",
        lambda _, a: any(
            bound_to(a.service_labels, port.PublishedPort, port.Protocol or "tcp")
            for port in a.ports
            if port.PublishMode == "host"
        ),
        "a plain process listens where it likes; a label cannot bind its host-mode port",
    ),
    Refusal("Task.Volumes", lambda _, a: a.task.Volumes, _OWN_ROOT),
    Refusal(
        "TaskTemplate.LogDriver",
        lambda _, a: log_driver(a)[0] not in LOG_DRIVERS,
        "output goes to rotated files, as with json-file and local",
    ),
    Refusal(
        "TaskTemplate.LogDriver.Options",
        lambda _, a: log_driver(a)[0] in LOG_DRIVERS and set(log_driver(a)[1]) - set(LOG_OPTIONS),
        "of a log driver's options, max-size and max-file are known here",
    ),
)


def log_driver(assignment: TaskAssignment) -> tuple[str, dict[str, str]]:
    """Return name and options of a task's log driver: its own, else the cluster's default."""
    driver = assignment.task.Spec.LogDriver or assignment.log_driver
    return (driver.Name, driver.Options) if driver is not None else ("", {})


def _foreign_networks(assignment: TaskAssignment) -> bool:
    """Is the task on any network but the host's own (and the routing mesh, which has its own way)?

    A network is named by its id in the spec and described in the task's attachments.
    """
    attached = {
        entry.Network.ID: entry.Network.Spec
        for entry in assignment.task.NetworksAttachments
        if not entry.Network.Spec.Ingress
    }
    known_as_host = {id_ for id_, spec in attached.items() if spec.Name == "host"} | {"host"}
    wanted = {config.Target for config in assignment.task.Spec.Networks} | set(attached)
    return bool(wanted - known_as_host)
