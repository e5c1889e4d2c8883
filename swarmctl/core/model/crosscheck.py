"""The rules between objects: what a spec refers to must be there, what it takes must be free.

These checks give a client its answer at once and in words. What keeps the tables right is the
``requires`` of the transaction that follows, checked again when it is applied; so a check here may
be stale and still do no harm.

Reads through :class:`Tables`, which ``store.view.View`` answers, or through rows that the caller
hands in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from ..errors import (
    AlreadyExists,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    MissingNetwork,
    NameTaken,
)
from .change import Exists, Free, Index, Kind, Ref
from .network import asked_networks, publishes_ingress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .change import Requirement
    from .objects import ConfigRow, NetworkRow, SecretRow, ServiceRow
    from .spec import NetworkAttachmentConfig, PortConfig, ServiceSpec


class Tables(Protocol):
    """What these checks ask of the cluster's state."""

    def secret(self, secret_id: str, /) -> SecretRow | None: ...
    def config(self, config_id: str, /) -> ConfigRow | None: ...


def check_references(spec: ServiceSpec, tables: Tables) -> None:
    """Check that every secret and config a service names exists, under that name.

    Raises:
        InvalidArgument: which are not there.
    """
    container = spec.TaskTemplate.ContainerSpec
    if container is None:
        return
    for kind, find, wanted in (
        ("secret", tables.secret, [(ref.SecretID, ref.SecretName) for ref in container.Secrets]),
        ("config", tables.config, [(ref.ConfigID, ref.ConfigName) for ref in container.Configs]),
    ):
        missing = []
        for object_id, name in wanted:
            row = find(object_id)
            if row is None or row.api.Spec.Name != name:
                missing.append(name)
        if missing:
            plural = "s" if len(missing) > 1 else ""
            raise InvalidArgument(f"{kind}{plural} not found: {', '.join(missing)}")


def rests_on(
    spec: ServiceSpec, networks: Iterable[NetworkRow], *, own_id: str = ""
) -> tuple[Requirement, ...]:
    """Return what has to hold when a service gets this spec, judged again as that is applied.

    Args:
        networks: all that there are.
        own_id: the service, if it is there already.
    """
    requires: list[Requirement] = []
    container = spec.TaskTemplate.ContainerSpec
    if container is not None:
        requires += [Exists(ref=Ref(Kind.SECRET, use.SecretID)) for use in container.Secrets]
        requires += [Exists(ref=Ref(Kind.CONFIG, use.ConfigID)) for use in container.Configs]
    requires += [Exists(ref=Ref(Kind.NETWORK, use.Target)) for use in asked_networks(spec)]
    if publishes_ingress(spec):
        ingress = (row.api.ID for row in networks if row.api.Ingress)
        requires += [Exists(ref=Ref(Kind.NETWORK, network_id)) for network_id in ingress]
    for port in _spec_ports(spec):
        if port.PublishMode == "ingress" and port.PublishedPort:
            key = f"{port.Protocol}/{port.PublishedPort}"
            requires.append(Free(index=Index.INGRESS_PORT, key=key, holder=own_id))
    return tuple(requires)


def resolve_networks(spec: ServiceSpec, networks: Sequence[NetworkRow]) -> ServiceSpec:
    """Return the spec with the networks it joins named by id.

    A target is an id, else a name, else the only id that begins so.

    Raises:
        MissingNetwork: no such network.
        InvalidArgument: the ingress network, which no service may join, or an ambiguous target.
        Forbidden: a network of one engine only.
    """

    def resolve(
        attachments: tuple[NetworkAttachmentConfig, ...],
    ) -> tuple[NetworkAttachmentConfig, ...]:
        return tuple(
            replace(one, Target=_find_network(one.Target, networks)) for one in attachments
        )

    return replace(
        spec,
        Networks=resolve(spec.Networks),
        TaskTemplate=replace(spec.TaskTemplate, Networks=resolve(spec.TaskTemplate.Networks)),
    )


def _find_network(target: str, networks: Sequence[NetworkRow]) -> str:
    found = (
        [row.api for row in networks if row.api.Id == target]
        or [row.api for row in networks if row.api.Name == target]
        or [row.api for row in networks if target and row.api.Id.startswith(target)]
    )
    if not found:
        raise MissingNetwork(f"network {target} not found")
    if len(found) > 1:
        raise InvalidArgument(f"network {target} is ambiguous ({len(found)} matches found)")
    (network,) = found
    if network.Ingress:
        raise InvalidArgument(
            f'Service cannot be explicitly attached to the ingress network "{network.Name}"'
        )
    if network.Scope != "swarm":
        raise Forbidden(
            f"The network {target} cannot be used with services. Only networks scoped to the "
            "swarm can be used, such as those created with the overlay driver."
        )
    return network.Id


# --- ports ---------------------------------------------------------------------------------------


def check_ports(spec: ServiceSpec, services: Iterable[ServiceRow], *, own_id: str = "") -> None:
    """Check that the ports a service publishes are not another's.

    An ingress port may meet neither an ingress nor a host port of another service, a host port no
    ingress port; host ports of several services are the scheduler's to keep apart.

    Args:
        own_id: the service that is being updated. It cannot clash with itself, and a port that it
            has already is no question: an update of something else is not refused for it.

    Raises:
        InvalidArgument: which port, and whose it is.
    """
    wanted = [port for port in _spec_ports(spec) if port.PublishedPort]
    if not wanted:
        return
    rows = list(services)
    own = {_number(port) for row in rows if own_id == row.api.ID for port in _ports_of(row)}
    wanted = [port for port in wanted if _number(port) not in own]
    for row in rows:
        if own_id == row.api.ID:
            continue
        taken = _ports_of(row)
        for port in wanted:
            for other in taken:
                if _clash(port, other):
                    how = "as a host-published port" if _is_host(other) else "as an ingress port"
                    raise InvalidArgument(
                        f"port '{port.PublishedPort}' is already in use by service "
                        f"'{row.api.Spec.Name}' ({row.api.ID}) {how}"
                    )


def check_ingress_network(spec: ServiceSpec, networks: Iterable[NetworkRow]) -> None:
    """Check that there is an ingress network for a service that publishes a port through it.

    Raises:
        FailedPrecondition: there is none.
    """
    if any(not _is_host(port) for port in _spec_ports(spec)) and not any(
        row.api.Ingress for row in networks
    ):
        raise FailedPrecondition("service needs ingress network, but no ingress network is present")


def _spec_ports(spec: ServiceSpec) -> tuple[PortConfig, ...]:
    return spec.EndpointSpec.Ports if spec.EndpointSpec is not None else ()


def _ports_of(row: ServiceRow) -> tuple[PortConfig, ...]:
    """Return what a service has and what it asks for."""
    return (*row.api.Endpoint.Ports, *_spec_ports(row.api.Spec))


def _number(port: PortConfig) -> tuple[str, int, bool]:
    return port.Protocol or "tcp", port.PublishedPort, _is_host(port)


def _is_host(port: PortConfig) -> bool:
    return port.PublishMode == "host"


def _clash(port: PortConfig, other: PortConfig) -> bool:
    return (
        port.PublishedPort == other.PublishedPort
        and (port.Protocol or "tcp") == (other.Protocol or "tcp")
        and not (_is_host(port) and _is_host(other))
    )


# --- names and users -----------------------------------------------------------------------------


def name_taken(kind: Kind, name: str) -> AlreadyExists | NameTaken:
    """Return the error for a name that another object of its kind has."""
    if kind is Kind.SERVICE:
        return AlreadyExists(
            f"name conflicts with an existing object: service {name} already exists"
        )
    if kind is Kind.NETWORK:
        return NameTaken(f"network with name {name} already exists")
    return AlreadyExists(f"{kind.value} {name} already exists")


def check_unused(kind: Kind, name: str, users: Iterable[str]) -> None:
    """Check that no service uses the secret or config that is to be removed.

    Args:
        users: names of the services that refer to it.

    Raises:
        InvalidArgument: which services do.
    """
    names = sorted(users)
    if names:
        service = "services" if len(names) > 1 else "service"
        raise InvalidArgument(
            f"{kind.value} '{name}' is in use by the following {service}: {', '.join(names)}"
        )
