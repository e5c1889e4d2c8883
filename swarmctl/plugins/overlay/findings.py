"""What ``network doctor`` shows of a node: the table's and the kernel's words side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins import Finding, bridge_name

from .names import vxlan_name
from .rules import FAMILIES, Found, Ruleset, as_found
from .topology import FLOOD_MAC, VXLAN, Topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from swarmctl.plugins.model import EndpointTable

    from .topology import Link


def topology_findings(table: EndpointTable, wanted: Topology, found: Topology) -> Iterator[Finding]:
    """Yield bridges, tunnels, peers and neighbours, wanted or there."""
    for part in table.networks:
        name = part.network.name
        bridge, device = bridge_name(part.network.id), vxlan_name(part.network.id)
        nodes = {peer.addr: peer.node_id for peer in part.peers}
        for kind, link_name in (("bridge", bridge), ("tunnel", device)):
            shall, there = wanted.links.get(link_name), found.links.get(link_name)
            if shall is not None or there is not None:
                yield Finding(
                    network=name,
                    kind=kind,
                    subject=link_name,
                    table=_words(shall, shall) if shall else "",
                    kernel=_words(there, shall or there) if there else "",
                )
        rows = {
            "peer": (_peers(wanted, device, nodes), _peers(found, device, nodes)),
            "neighbour": (_neighbours(wanted, bridge), _neighbours(found, bridge)),
            "forwarding": (_places(wanted, device), _places(found, device)),
        }
        for kind, (shall_be, there_is) in rows.items():
            yield from _pairs(name, kind, shall_be, there_is)


def rule_findings(network: str, wanted: Ruleset, found: Found, where: str) -> Iterator[Finding]:
    """Yield each chain of rules, told by what its rules are known by.

    Args:
        where: whose namespace it is, for the subject; "" for the host's.
    """
    shall = as_found(wanted)
    for family in FAMILIES:
        here = {name: ", ".join(chain.comments) for name, chain in shall.get(family, {}).items()}
        there = {name: ", ".join(chain.comments) for name, chain in found.get(family, {}).items()}
        prefix = f"{where} {family}".lstrip()
        for name in sorted(here.keys() | there.keys()):
            yield Finding(
                network=network,
                kind="port" if name.startswith("port-") else "vip" if "vip" in name else "rules",
                subject=f"{prefix} {name}",
                table=here.get(name, ""),
                kernel=there.get(name, ""),
            )


def _pairs(
    network: str, kind: str, wanted: Mapping[str, str], found: Mapping[str, str]
) -> Iterator[Finding]:
    for subject in sorted(wanted.keys() | found.keys()):
        yield Finding(
            network=network,
            kind=kind,
            subject=subject,
            table=wanted.get(subject, ""),
            kernel=found.get(subject, ""),
        )


def _words(link: Link, shall: Link) -> str:
    """Describe a link in what is asked of it."""
    words = ["up" if link.is_up else "down"]
    if shall.kind == VXLAN:
        words.append(f"number {link.vni} from {link.local} port {link.port} in {link.master}")
        words.append("static" if link.is_static_port else "learning")
    if shall.mac:
        words.append(link.mac)
    if shall.mtu:
        words.append(f"mtu {link.mtu}")
    return ", ".join(words)


def _peers(topology: Topology, device: str, nodes: Mapping[str, str]) -> dict[str, str]:
    return {
        nodes.get(entry.peer, entry.peer): f"at {entry.peer}"
        for entry in topology.forwarding
        if entry.device == device and entry.mac == FLOOD_MAC
    }


def _neighbours(topology: Topology, bridge: str) -> dict[str, str]:
    return {one.address: one.mac for one in topology.neighbours if one.device == bridge}


def _places(topology: Topology, device: str) -> dict[str, str]:
    places: dict[str, list[str]] = {}
    for entry in sorted(topology.forwarding):
        if entry.device == device and entry.mac != FLOOD_MAC:
            places.setdefault(entry.mac, []).append(f"at {entry.peer}" if entry.peer else "beyond")
    return {mac: ", ".join(words) for mac, words in places.items()}
