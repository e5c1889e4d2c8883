"""What this release understands but does not do yet: refused, or done without and said so.

Nothing may be accepted silently and not done. A feature that would be missed at once (a mode that
starts no task, a lock that locks nothing) is refused; one whose absence leaves a service running
with less is a warning, shown in the answer and beside the service. The issue that builds a feature
takes its line out of here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import Unimplemented
from .constraint import parse_constraint
from .defaults import DEFAULT_UPDATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .objects import SecretSpec
    from .spec import ContainerSpec, Placement, ServiceSpec, UpdateConfig


def check_service_available(spec: ServiceSpec) -> None:
    """Check that this release can run such a service at all.

    Raises:
        Unimplemented: what it cannot do.
    """
    for name, given in (
        ("global", spec.Mode.Global),
        ("replicated-job", spec.Mode.ReplicatedJob),
        ("global-job", spec.Mode.GlobalJob),
    ):
        if given is not None:
            raise Unimplemented(f"services of mode {name} are not available in this release")
    container = spec.TaskTemplate.ContainerSpec
    for mount in container.Mounts if container is not None else ():
        if mount.Type == "cluster":
            raise Unimplemented("cluster volumes are not supported")


def check_secret_available(spec: SecretSpec) -> None:
    """Check that this release can keep such a secret.

    Raises:
        Unimplemented: its data should come from a driver.
    """
    if spec.Driver is not None:
        raise Unimplemented(
            f"secret driver {spec.Driver.Name!r} is not available in this release: the swarm keeps "
            "the data itself, so create the secret from a file or standard input"
        )


def service_warnings(spec: ServiceSpec) -> tuple[str, ...]:
    """Return a sentence for each thing a normalized spec asks for that is not done yet."""
    return (
        *_network_warnings(spec),
        *_update_warnings(spec),
        *_placement_warnings(spec.TaskTemplate.Placement),
        *_container_warnings(spec.TaskTemplate.ContainerSpec),
    )


def _network_warnings(spec: ServiceSpec) -> Iterator[str]:
    endpoint = spec.EndpointSpec
    for port in endpoint.Ports if endpoint is not None else ():
        if port.PublishMode == "host":
            continue
        name = f"published port {port.PublishedPort}" if port.PublishedPort else "a port"
        yield (
            f"{name} is reserved but not yet routed to the service (target port "
            f"{port.TargetPort}); mode=host publishes it on the nodes that run a task"
        )
    networks = spec.TaskTemplate.Networks or spec.Networks
    if networks:
        names = ", ".join(network.Target for network in networks)
        yield f"tasks are not yet attached to networks ({names})"
        if endpoint is None or endpoint.Mode != "dnsrr":
            yield "the service gets no virtual IP yet"


def _update_warnings(spec: ServiceSpec) -> Iterator[str]:
    update = spec.UpdateConfig or DEFAULT_UPDATE
    # What asks for no more than the defaults is what happens, or would be missed by nobody; clients
    # that read with insertDefaults post the defaults back.
    followed = replace(DEFAULT_UPDATE, Parallelism=update.Parallelism, Delay=update.Delay)
    if _with_monitor(update) != followed:
        yield (
            "of the update settings only parallelism and delay are followed yet: tasks are "
            "replaced stop-first, and a failing update goes on"
        )
    rollback = spec.RollbackConfig
    if rollback is not None and _with_monitor(rollback) != followed:
        yield "rollback settings are kept but not yet followed: the update settings count"


def _with_monitor(config: UpdateConfig) -> UpdateConfig:
    return replace(config, Monitor=config.Monitor or DEFAULT_UPDATE.Monitor)


def _placement_warnings(placement: Placement | None) -> Iterator[str]:
    for text in placement.Constraints if placement is not None else ():
        reason = parse_constraint(text).why_never()
        if reason is not None:
            yield f"constraint {text!r} matches no node: {reason}"


def _container_warnings(container: ContainerSpec | None) -> Iterator[str]:
    if container is None:
        return
    if container.Privileges is not None and container.Privileges.CredentialSpec is not None:
        yield "the credential spec has no effect: it is for Windows containers"
    if container.Isolation not in ("", "default"):
        yield f"isolation {container.Isolation!r} has no effect: it is for Windows containers"
