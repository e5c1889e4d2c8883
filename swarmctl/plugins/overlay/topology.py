"""Links, forwarding entries and neighbours: what the table asks for, and how that differs.

For each network whose bridge is on this host: a VXLAN device in that bridge, for each peer a place
to send floods to, and for each address beyond this host three entries: the bridge's (its MAC is
behind the VXLAN port), the device's (at which host), and the host's neighbour, from which the
bridge also answers what containers ask. Nothing is learned from packets.

A value of the kernel is *ours* when it is of an interface that carries our alias, or a permanent
neighbour on a network's bridge. Everything else is left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins import bridge_name, mac_address

from .names import bare, owner_alias, owner_of, vxlan_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from swarmctl.plugins.model import EndpointTable, NetworkTable

FLOOD_MAC = "00:00:00:00:00:00"
MTU_OPTION = "com.docker.network.driver.mtu"
DEFAULT_MTU = 1450
BRIDGE, VXLAN = "bridge", "vxlan"
LINK_LOCAL = "fe80:"


class Link(NamedTuple):
    """An interface as it is, or as it shall be.

    Attributes:
        mac: "" for any.
        mtu: 0 for any.
        master: the bridge that it is a port of, by name.
        vni, local, port: of a VXLAN device: its number, and the UDP endpoint here.
        is_static_port: as a port it learns nothing and the bridge answers for who is behind it.
    """

    name: str
    kind: str
    mac: str = ""
    mtu: int = 0
    is_up: bool = True
    alias: str = ""
    master: str = ""
    vni: int = 0
    local: str = ""
    port: int = 0
    is_static_port: bool = False


class Forwarding(NamedTuple):
    """Where a MAC address is: behind a port of its bridge (``peer`` ""), or at a peer."""

    device: str
    mac: str
    peer: str = ""


class Neighbour(NamedTuple):
    """The MAC address of an IP address."""

    device: str
    address: str
    mac: str


class InterfaceAddress(NamedTuple):
    """An address in CIDR form on an interface."""

    device: str
    cidr: str


class Topology(NamedTuple):
    """What there is, or shall be."""

    links: Mapping[str, Link] = {}
    forwarding: frozenset[Forwarding] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    addresses: frozenset[InterfaceAddress] = frozenset()


class Step(NamedTuple):
    """One change: put a value, over one of the same key if there is one, or take it away."""

    put: bool
    value: Link | Forwarding | Neighbour | InterfaceAddress

    def __str__(self) -> str:
        """Name what was not as it should be."""
        value = self.value
        if isinstance(value, Link):
            what = f"{value.kind} {value.name}"
        elif isinstance(value, Forwarding):
            what = f"forwarding of {value.device}"
        elif isinstance(value, Neighbour):
            what = f"neighbours of {value.device}"
        else:
            what = f"addresses of {value.device}"
        return what


class Site(NamedTuple):
    """What the table does not say of the host.

    Attributes:
        bridges: names of the bridges that are there.
        own_bridges: those of them that this driver made, or makes where an engine makes none.
        at_work: ids of other nodes that have a daemon at work on this host.
    """

    node_id: str
    bridges: Collection[str] = ()
    own_bridges: Collection[str] = ()
    at_work: Collection[str] = ()


def wanted_topology(table: EndpointTable, site: Site) -> Topology:
    """Return what the kernel shall have."""
    links: dict[str, Link] = {}
    forwarding: set[Forwarding] = set()
    neighbours: set[Neighbour] = set()
    addresses: set[InterfaceAddress] = set()
    for part in table.networks:
        network = part.network
        bridge = bridge_name(network.id)
        if bridge not in site.bridges and not (makes_bridge(part) and table.published):
            continue  # nobody here is on it now
        gateways = [bare(cidr) for cidr in network.gateways]
        mac = mac_address(*gateways) if gateways else ""
        own = bridge in site.own_bridges or bridge not in site.bridges
        alias = owner_alias(site.node_id) if own else ""
        mtu = network_mtu(part)
        links[bridge] = Link(bridge, BRIDGE, mac=mac, mtu=mtu if own else 0, alias=alias)
        if own:
            addresses.update(InterfaceAddress(bridge, cidr) for cidr in network.gateways)
        device = vxlan_name(network.id)
        links[device] = Link(
            device,
            VXLAN,
            mtu=mtu,
            alias=owner_alias(site.node_id),
            master=bridge,
            vni=network.vni,
            local=table.own_addr,
            port=table.data_path_port,
            is_static_port=True,
        )
        peers = reachable_peers(part, table.own_addr)
        forwarding.update(Forwarding(device, FLOOD_MAC, peer) for peer in peers.values())
        placed: set[str] = set()
        for node_id, its_addresses in remote_addresses(part, site.node_id):
            its_mac = mac_address(*its_addresses)
            if node_id in peers and its_mac not in placed:
                placed.add(its_mac)
                forwarding.add(Forwarding(device, its_mac, peers[node_id]))
                forwarding.add(Forwarding(device, its_mac))
                neighbours.update(Neighbour(bridge, one, its_mac) for one in its_addresses)
    return Topology(links, frozenset(forwarding), frozenset(neighbours), frozenset(addresses))


def makes_bridge(part: NetworkTable) -> bool:
    """Return whether a network's bridge is made here when no engine made it.

    The host itself is in the ingress network: the routing mesh reaches other hosts through it, as
    soon as anything is published.
    """
    return part.network.ingress and bool(part.network.gateways)


def network_mtu(part: NetworkTable) -> int:
    """Return the largest packet of a network, as its containers have it too.

    Where less gets through below, the tunnel's own packets are split on the way.
    """
    text = part.network.options.get(MTU_OPTION, "")
    return int(text) if text.isdecimal() else DEFAULT_MTU


def reachable_peers(part: NetworkTable, own_addr: str) -> dict[str, str]:
    """Return the addresses of the peers, by node, that this host can send frames to."""
    return {
        peer.node_id: peer.addr
        for peer in part.peers
        if peer.addr and (":" in peer.addr) == (":" in own_addr)
    }


def remote_addresses(part: NetworkTable, node_id: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield node and bare addresses of every interface in the network on other hosts.

    An address is given once; should a table ever say otherwise, a member that is ready comes first.
    """
    for peer in part.peers:
        if peer.gateways:
            yield peer.node_id, tuple(bare(cidr) for cidr in peer.gateways)
    members = [member for service in part.services for member in service.members]
    for member in sorted(members, key=lambda member: not member.ready):
        if member.node_id != node_id and member.addresses and not member.on_host:
            yield member.node_id, member.addresses


def topology_problems(table: EndpointTable, site: Site, found: Topology) -> Iterator[str]:
    """Yield what cannot be done, in words."""
    for part in table.networks:
        reachable = reachable_peers(part, table.own_addr)
        for peer in part.peers:
            if peer.node_id not in reachable:
                yield (
                    f"network {part.network.name}: node {peer.node_id} is at {peer.addr or '?'},"
                    f" which cannot be reached from {table.own_addr or '?'}"
                )
        number = (part.network.vni, table.data_path_port)
        for link in found.links.values():
            has_name = link.name == vxlan_name(part.network.id)
            has_number = link.kind == VXLAN and (link.vni, link.port) == number
            if (has_name or has_number) and link.alias != owner_alias(site.node_id):
                yield f"network {part.network.name}: {_foreign(link, site)}"


def _foreign(link: Link, site: Site) -> str:
    """Say whose interface stands in the way, and what helps."""
    owner = owner_of(link.alias)
    if not owner:
        return f"the interface {link.name} stands in the way, which is not this node's; remove it"
    if owner in site.at_work:
        return (
            f"the interface {link.name} stands in the way, which is node {owner}'s that is at work"
            " on this host, too; one host carries the traffic of one node"
        )
    return (
        f"the interface {link.name} stands in the way, which node {owner} left on this host; it"
        f" goes by itself once the containers with the label swarmctl.node.id={owner} are removed"
    )


def difference(wanted: Topology, found: Topology, site: Site) -> list[Step]:
    """Return what turns ``found`` into ``wanted``, in an order that works.

    Args:
        found: everything that was read, foreign values included.
    """
    steps: list[Step] = []
    remade = set()
    alias = owner_alias(site.node_id)
    for link in found.links.values():
        shall = wanted.links.get(link.name)
        if link.alias == alias and (shall is None or not _can_become(link, shall)):
            steps.append(Step(put=False, value=link))
            remade.add(link.name)
    foreign = {
        name
        for name, link in wanted.links.items()
        if link.kind == VXLAN and name in found.links and found.links[name].alias != alias
    }
    order = sorted(wanted.links.values(), key=lambda link: link.kind != BRIDGE)
    for link in order:
        there = None if link.name in remade else found.links.get(link.name)
        if link.name not in foreign and (there is None or not _is_as(there, link)):
            steps.append(Step(put=True, value=link))
        if there is None:
            remade.add(link.name)
    usable = wanted.links.keys() - foreign
    steps += _addresses(wanted, found, remade)
    steps += _forwarding(wanted, found, usable, remade)
    steps += _neighbours(wanted, found, remade)
    return steps


def _can_become(link: Link, shall: Link) -> bool:
    """A VXLAN device keeps its number and its end for life."""
    same = (link.kind, link.vni, link.local, link.port)
    return same == (shall.kind, shall.vni, shall.local, shall.port)


def _is_as(there: Link, shall: Link) -> bool:
    return (
        (not shall.mac or there.mac == shall.mac)
        and (not shall.mtu or there.mtu == shall.mtu)
        and there.is_up
        and (not shall.master or there.master == shall.master)
        and (not shall.is_static_port or there.is_static_port)
    )


def _addresses(wanted: Topology, found: Topology, remade: set[str]) -> Iterator[Step]:
    """One that is another's by now goes first, which may take later ones of its subnet along."""
    made_here = {name for name, link in wanted.links.items() if link.kind == BRIDGE and link.alias}
    stale = [
        one
        for one in sorted(found.addresses - wanted.addresses)
        if one.device in made_here - remade and not one.cidr.startswith(LINK_LOCAL)
    ]
    yield from (Step(put=False, value=one) for one in stale)
    emptied = remade | {one.device for one in stale}
    for address in sorted(wanted.addresses):
        if address not in found.addresses or address.device in emptied:
            yield Step(put=True, value=address)


def _forwarding(
    wanted: Topology, found: Topology, usable: Collection[str], remade: set[str]
) -> Iterator[Step]:
    """A MAC address that moved is put over its old place; else what is not wanted goes first."""
    there = {entry for entry in found.forwarding if entry.device not in remade}
    put = {(entry.device, entry.mac, bool(entry.peer)) for entry in wanted.forwarding}
    for entry in sorted(there - wanted.forwarding):
        is_replaced = (entry.device, entry.mac, bool(entry.peer)) in put and entry.mac != FLOOD_MAC
        if entry.device in usable and not is_replaced:
            yield Step(put=False, value=entry)
    for entry in sorted(wanted.forwarding - there):
        if entry.device in usable:
            yield Step(put=True, value=entry)


def _neighbours(wanted: Topology, found: Topology, remade: set[str]) -> Iterator[Step]:
    there = {entry for entry in found.neighbours if entry.device not in remade}
    put = {(entry.device, entry.address) for entry in wanted.neighbours}
    for entry in sorted(there - wanted.neighbours):
        if entry.device in wanted.links and (entry.device, entry.address) not in put:
            yield Step(put=False, value=entry)
    for entry in sorted(wanted.neighbours - there):
        yield Step(put=True, value=entry)


def apply_steps(found: Topology, steps: Iterable[Step]) -> Topology:
    """Return what a kernel has after these steps; what the shell does, said plainly."""
    links = dict(found.links)
    forwarding, neighbours = set(found.forwarding), set(found.neighbours)
    addresses = set(found.addresses)
    for step in steps:
        value = step.value
        if isinstance(value, Link):
            links.pop(value.name, None)
            if step.put:
                links[value.name] = value
            else:
                forwarding = {one for one in forwarding if one.device != value.name}
                neighbours = {one for one in neighbours if one.device != value.name}
                addresses = {one for one in addresses if one.device != value.name}
        elif isinstance(value, Forwarding):
            forwarding = {
                one
                for one in forwarding
                if one[:2] != value[:2]
                or bool(one.peer) != bool(value.peer)
                or (value.mac == FLOOD_MAC and one.peer != value.peer)
            }
            if step.put:
                forwarding.add(value)
        elif isinstance(value, Neighbour):
            neighbours = {one for one in neighbours if one[:2] != value[:2]}
            if step.put:
                neighbours.add(value)
        else:
            addresses.discard(value)
            if step.put:
                addresses.add(value)
    return Topology(links, frozenset(forwarding), frozenset(neighbours), frozenset(addresses))
