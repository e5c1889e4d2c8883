"""The names that follow from the tables: what a task on some networks may ask for, both ways.

Pure. Rules taken from Docker's resolver (libnetwork sandbox.go, ResolveName), so that programs find
what they find under Swarm:

- ``web`` is a service's virtual addresses, or its ready members where it has none (``dnsrr``);
  ``tasks.web`` is its ready members; so are the aliases and other names of the service.
- ``web.1.<task id>`` is one member, ready or not; it is also what an address leads back to.
- A container that a user put on a network is found by its own names, on its host, where no
  service has that name.
- Each of them may be followed by the name of the network: ``web.backend``.
- The first network that has an address of the asked family answers; services of one network that
  share a name answer together.

A name that is known but has no address of the asked family is *known*: nobody else is asked for
it. (Who asks elsewhere gets "no such name" for the whole name, which some resolvers believe.)
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from swarmctl.core.model.endpoints import Member, NetworkTable, ServiceEndpoint

    from .state import Client, ResponderState

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Visitors = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

TASKS = "tasks."
VIP_TTL_S = 60
"""A virtual address stays as long as its service does. Docker says 600, which outlives services
that are removed and made anew under their name; this is what programs wait at most then."""

MEMBER_TTL_S = 1
"""Members come and go, and one that is about to stop is taken out before it does (Docker: 600,
so that programs which believe it go on asking tasks that are long gone)."""


class Found(NamedTuple):
    """What a name stands for: bare addresses of both families, maybe none, and for how long."""

    addresses: tuple[str, ...]
    ttl_s: int

    def of_family(self, version: int) -> tuple[str, ...]:
        """Return the addresses of IPv4 or IPv6."""
        return tuple(one for one in self.addresses if (":" in one) == (version == 6))


class Asker(NamedTuple):
    """Who asks.

    Attributes:
        key: tells askers apart, where each may ask only so much at once.
        networks: ids of the networks whose names it sees, the preferred first.
        forwards: whether names that are not ours are asked elsewhere for it.
        nameservers: where; empty for the host's own servers.
        is_host: it is this host itself, perhaps the very server that we would ask.
    """

    key: str
    networks: tuple[str, ...]
    forwards: bool = True
    nameservers: tuple[str, ...] = ()
    is_host: bool = False


class NetworkNames:
    """The names of one network.

    Args:
        visitors: names and addresses of containers that users put there.
    """

    def __init__(self, table: NetworkTable, visitors: Visitors = ()) -> None:
        self.table = table
        self.visitors = visitors
        self.suffix = f".{_folded(table.network.name)}"
        self.subnets = tuple(_networks(table.network.subnets))
        self._services: dict[str, list[ServiceEndpoint]] = {}
        self._members: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, str] = {}
        for service in table.services:
            self._add(service)
        self._add_visitors()

    def find(self, name: str) -> Found | None:
        """Return what a name stands for in this network; None when it is not known here."""
        if (services := self._services.get(name)) is not None:
            virtual = [vip for service in services for vip in service.vips]
            plain = [service for service in services if not service.vips]
            if not plain:
                return Found(_unique(virtual), VIP_TTL_S)
            return Found(_unique([*virtual, *_ready(plain)]), MEMBER_TTL_S)
        if name.startswith(TASKS):
            services = self._services.get(name[len(TASKS) :])
            if services is not None:
                return Found(_unique(_ready(services)), MEMBER_TTL_S)
        addresses = self._members.get(name)
        return None if addresses is None else Found(addresses, MEMBER_TTL_S)

    def reverse(self, address: str) -> str | None:
        """Return the full name of an address, if it is somebody's here."""
        name = self._names.get(address)
        return None if name is None else f"{name}{self.suffix}"

    def _is_inside(self, text: str) -> bool:
        address = _address(text)
        return address is not None and self.holds(address)

    def holds(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Return whether an address lies in the network, whoever has it."""
        return any(address in subnet for subnet in self.subnets)

    def _add(self, service: ServiceEndpoint) -> None:
        for name in service.names:
            self._services.setdefault(_folded(name), []).append(service)
        if not service.names:
            return
        for vip in service.vips:
            self._names.setdefault(vip, service.names[0])
        for member in service.members:
            name = member_name(service, member)
            self._members[_folded(name)] = member.addresses
            for address in () if member.on_host else member.addresses:
                self._names.setdefault(address, name)

    def _add_visitors(self) -> None:
        """Add those whose names are no task's; of one name all answer, as with Docker."""
        found: dict[str, list[str]] = {}
        for names, addresses in self.visitors:
            own = [one for one in addresses if self._is_inside(one)]
            for name in dict.fromkeys(map(_folded, names)):
                found.setdefault(name, []).extend(own)
            for address in own:
                self._names.setdefault(address, names[0])
        for name, several in found.items():
            self._members.setdefault(name, _unique(several))


def _visitors(state: ResponderState, network_id: str) -> Visitors:
    return tuple(
        (client.names, client.addresses)
        for client in state.clients
        if client.names and network_id in client.networks
    )


class Zone:
    """All names of a node's networks, and who may see which.

    Args:
        last: the zone before, whose networks that did not change are taken over.
    """

    def __init__(self, state: ResponderState, last: Zone | None = None) -> None:
        known = {} if last is None else last.networks
        self.networks: dict[str, NetworkNames] = {}
        for table in state.networks:
            names = known.get(table.network.id)
            visitors = _visitors(state, table.network.id)
            if names is None or names.table != table or names.visitors != visitors:
                names = NetworkNames(table, visitors)
            self.networks[table.network.id] = names
        self.clients: dict[str, Client] = {client.id: client for client in state.clients}
        self._by_address = {
            (network, address): client
            for client in state.clients
            for network in client.networks
            for address in client.addresses
        }
        self.gateways = frozenset(
            gateway.partition("/")[0]
            for table in state.networks
            for gateway in table.network.gateways
        )

    # --- who asks --------------------------------------------------------------------------------

    def inside(self, client_id: str) -> Asker | None:
        """Return who asks from within a namespace; None when it is on no network any more."""
        client = self.clients.get(client_id)
        return None if client is None else self._asker(client, client.networks)

    def at_gateway(self, network_id: str, source: str) -> Asker | None:
        """Return who asks at a network's gateway; None for a stranger, who gets no answer."""
        names = self.networks.get(network_id)
        if names is None:
            return None
        if source in self.gateways:
            return Asker(f"host {network_id}", (network_id,), forwards=False, is_host=True)
        client = self._by_address.get((network_id, source))
        if client is not None:
            others = (one for one in client.networks if one != network_id)
            return self._asker(client, (network_id, *others))
        address = _address(source)
        if address is None or not names.holds(address):
            return None
        forwards = not names.table.network.internal
        return Asker(f"{network_id} {source}", (network_id,), forwards=forwards)

    def _asker(self, client: Client, networks: Sequence[str]) -> Asker:
        known = tuple(one for one in networks if one in self.networks)
        # Nothing beyond is reached from a network that is internal, by names neither.
        forwards = any(not self.networks[one].table.network.internal for one in known)
        return Asker(client.id, known, forwards, client.nameservers)

    # --- what there is ---------------------------------------------------------------------------

    def find(self, name: str, networks: Sequence[str], version: int) -> Found | None:
        """Return what a name stands for on some networks; None when none of them knows it.

        Args:
            name: without the last dot; capital letters count as small ones.
            version: of the addresses that are asked for; 0 for both.
        """
        known = None
        for found in self._findings(_folded(name), networks):
            addresses = found.of_family(version) if version else found.addresses
            known = Found(addresses, found.ttl_s)
            if addresses:
                break
        return known

    def reverse(self, address: str, networks: Sequence[str]) -> str | None:
        """Return an address's name; "" for one that is ours and nobody's, None for others'."""
        parsed = _address(address)
        if parsed is None:
            return None
        ours = [self.networks[one] for one in networks if one in self.networks]
        for names in ours:
            if (name := names.reverse(str(parsed))) is not None:
                return name
        return "" if any(names.holds(parsed) for names in ours) else None

    def _findings(self, name: str, networks: Sequence[str]) -> Iterator[Found]:
        ours = [self.networks[one] for one in networks if one in self.networks]
        for names in ours:
            if (found := names.find(name)) is not None:
                yield found
        for names in ours:
            if name.endswith(names.suffix):
                found = names.find(name[: -len(names.suffix)])
                if found is not None:
                    yield found


def member_name(service: ServiceEndpoint, member: Member) -> str:
    """Return a task's name as Swarm writes it: by its slot, or its node where it has none."""
    return f"{service.names[0]}.{member.slot or member.node_id}.{member.task_id}"


def _ready(services: Iterable[ServiceEndpoint]) -> Iterator[str]:
    for service in services:
        for member in service.members:
            if member.ready:
                yield from member.addresses


def _folded(name: str) -> str:
    return name.lower()


def _unique(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(addresses))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _networks(subnets: Iterable[str]) -> Iterator[Network]:
    for subnet in subnets:
        yield ipaddress.ip_network(subnet, strict=False)
