"""What this release understands but does not do yet: refused, or done without and said so.

Nothing may be accepted silently and not done. A feature that would be missed at once (a volume that
is not there, a lock that locks nothing) is refused; one whose absence leaves a service running
with less is a warning, shown in the answer and beside the service. The issue that builds a feature
takes its line out of here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Unimplemented
from .constraint import parse_constraint
from .network import asked_networks, publishes_ingress
from .pinned import pinned_warnings
from .rolling import why_not_start_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .objects import NetworkSpec, NodeRow, SecretSpec
    from .spec import ContainerSpec, Placement, ServiceSpec

NAMES_SHOWN = 3


def check_service_available(spec: ServiceSpec) -> None:
    """Check that this release can run such a service at all.

    Raises:
        Unimplemented: what it cannot do.
    """
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


def quiet_nodes(nodes: Iterable[NodeRow]) -> tuple[str, ...]:
    """Return the names of nodes that carry no traffic between tasks, in order."""
    return tuple(sorted(row.api.Description.Hostname or row.api.ID for row in nodes))


def needs_traffic(spec: ServiceSpec) -> bool:
    """Return whether it matters to a service which nodes carry no traffic."""
    return bool(asked_networks(spec) or spec.Networks) or publishes_ingress(spec)


def service_warnings(spec: ServiceSpec, quiet: Sequence[str] = ()) -> tuple[str, ...]:
    """Return a sentence for each thing a normalized spec asks for that is not done yet.

    Args:
        quiet: nodes that carry no traffic.
    """
    return (
        *(_quiet_warnings(spec, _listed(quiet)) if quiet else ()),
        *_network_warnings(spec),
        *pinned_warnings(spec),
        *_update_warnings(spec),
        *_placement_warnings(spec.TaskTemplate.Placement),
        *_container_warnings(spec.TaskTemplate.ContainerSpec),
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def _quiet_warnings(spec: ServiceSpec, where: str) -> Iterator[str]:
    """Yield what a service has to do without on nodes that carry no traffic."""
    endpoint = spec.EndpointSpec
    for port in endpoint.Ports if endpoint is not None else ():
        if port.PublishMode == "host":
            continue
        name = f"published port {port.PublishedPort}" if port.PublishedPort else "a port"
        yield (
            f"{name} is reserved but not routed to the service (target port {port.TargetPort}) on "
            f"{where}, where no network driver works; mode=host publishes it on the nodes that run "
            "a task"
        )
    networks = spec.TaskTemplate.Networks or spec.Networks
    if networks:
        yield (
            f"tasks on {where} reach others, by address and by name, only on the same node: no "
            "network driver works there"
        )
        if endpoint is None or endpoint.Mode != "dnsrr":
            yield f"the service's virtual IPs are reserved but not answered on {where}"
    if any(network.Aliases for network in spec.Networks) and not spec.TaskTemplate.Networks:
        yield (
            f"aliases of Spec.Networks are not set on {where}; those of "
            "Spec.TaskTemplate.Networks are"
        )


def _network_warnings(spec: ServiceSpec) -> Iterator[str]:
    for network in spec.TaskTemplate.Networks or spec.Networks:
        if network.DriverOpts:
            yield f"driver options of network {network.Target} have no effect"


def check_network_available(spec: NetworkSpec) -> None:
    """Check that this release can make such a network.

    Raises:
        Unimplemented: what it cannot do.
    """
    if spec.ConfigOnly or (spec.ConfigFrom is not None and spec.ConfigFrom.Network):
        raise Unimplemented("networks made from the configuration of another are not supported")
    configs = (spec.IPAM.Config or ()) if spec.IPAM is not None else ()
    subnets = [config.Subnet for config in configs]
    if len(subnets) > len({":" in subnet for subnet in subnets}):
        raise Unimplemented(
            "a network has one subnet of each address family; give it one that is large enough"
        )
    if "encrypted" in spec.Options:
        raise Unimplemented(
            "encrypted networks are not available in this release: their traffic would not be "
            "encrypted"
        )


def network_warnings(quiet: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for what a new network does not do.

    Args:
        quiet: nodes that carry no traffic.
    """
    if quiet:
        yield (
            f"tasks on {_listed(quiet)} reach each other over the network only on the same node: "
            "no network driver works there"
        )


def _update_warnings(spec: ServiceSpec) -> Iterator[str]:
    for word, config in (("updates", spec.UpdateConfig), ("rollbacks", spec.RollbackConfig)):
        reason = why_not_start_first(spec, config)
        if reason:
            yield f"{word} are stop-first although start-first is asked for: {reason}"


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
