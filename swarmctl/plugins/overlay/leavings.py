"""What another node of ours left in this host's kernel, and when it may be taken away.

A host whose state directory was wiped is another node from then on. What the node before made
carries that one's mark, so it is foreign; where it stands in the way of what is wanted it is taken
away if nobody is on it and no daemon of that node is at work here. Then nothing is lost: a daemon
that comes back makes it anew.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from .names import owner_of
from .topology import BRIDGE, VXLAN, Site, Step, Topology, apply_steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swarmctl.plugins.model import EndpointTable

    from .topology import Link


def others(found: Topology, node_id: str) -> set[str]:
    """Return the ids of other nodes of ours that made links on this host."""
    owners = {owner_of(link.alias) for link in found.links.values()}
    return owners - {"", node_id}


def leavings(found: Topology, site: Site) -> list[Link]:
    """Return the links of nodes that are not at work here that nobody is on."""
    gone = others(found, site.node_id) - set(site.at_work)
    left = [link for link in found.links.values() if owner_of(link.alias) in gone]
    names = {link.name for link in left}
    occupied = {link.master for link in found.links.values() if link.name not in names}
    return [link for link in left if _bridge_of(link) not in occupied]


def clear_way(table: EndpointTable, found: Topology, site: Site) -> tuple[list[Step], Topology]:
    """Return what takes leavings out of the way of a table, and what is there then."""
    steps = [
        Step(put=False, value=link)
        for link in leavings(found, site)
        if any(_is_in_way(link, found, table))
    ]
    return steps, apply_steps(found, steps)


def _bridge_of(link: Link) -> str:
    return link.name if link.kind == BRIDGE else link.master or link.name


def _is_in_way(link: Link, found: Topology, table: EndpointTable) -> Iterator[bool]:
    """Yield for each network whether a link has its name, its number or its addresses."""
    own = [
        ipaddress.ip_interface(address.cidr).network
        for address in found.addresses
        if address.device == link.name
    ]
    for part in table.networks:
        network = part.network
        yield link.name.endswith(f"-{network.id[:12]}")
        if link.kind == VXLAN:
            yield (link.vni, link.port) == (network.vni, table.data_path_port)
        for cidr in network.gateways if link.kind == BRIDGE else ():
            subnet = ipaddress.ip_interface(cidr).network
            yield any(one.version == subnet.version and one.overlaps(subnet) for one in own)
