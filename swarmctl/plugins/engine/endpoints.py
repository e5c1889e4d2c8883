"""What any engine is told of networks: the bridge of one, and a container's place on it.

Pure. A swarm network is, on one host, a bridge network of the engine under the same name, with the
network's subnet and this node's own address in it as gateway. The ingress network is one like the
others; who publishes ports has its address there, and reaches the world through it.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins import ExecutorError, mac_address

from .labels import CLUSTER_LABEL, NETWORK_LABEL, NODE_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.model import HostNetwork, TaskAssignment

    from .dialect import SeenNetwork

OVERLAY_OPTION = "com.docker.network.driver.overlay."
MTU = 1450
"""Leaves room for what carries a packet to another host, so that a bridge need not be remade."""

NAMESERVERS_MAX = 3
PREDEFINED_LABEL = "com.docker.swarm.predefined"


def driver_options(network: HostNetwork) -> dict[str, str]:
    """Return a network's options as far as they are the engine's bridge's."""
    return {
        name: value
        for name, value in network.options.items()
        if not name.startswith(OVERLAY_OPTION)
    }


def network_labels(network: HostNetwork, identity: NodeIdentity) -> dict[str, str]:
    """Return the labels that mark a bridge as this node's."""
    return {
        CLUSTER_LABEL: identity.cluster_id,
        NODE_LABEL: identity.node_id,
        NETWORK_LABEL: network.id,
    }


def ipam_configs(network: HostNetwork) -> list[tuple[str, str]]:
    """Return subnet and gateway of each family, as engines write them."""
    gateways = [ipaddress.ip_interface(text) for text in network.gateways]
    return [(str(gateway.network), str(gateway.ip)) for gateway in gateways]


def own_choice(
    network: HostNetwork,
    nobodys: Callable[[ipaddress.IPv4Interface | ipaddress.IPv6Interface], str],
) -> list[tuple[str, str]]:
    """Return first and last address of each family that an engine may choose by itself.

    It chooses for containers that users start: of this node's room in the network. Without one it
    is left with an address that is of no use, so that it refuses instead of giving somebody's.

    Args:
        nobodys: what this engine is left with, in the subnet of a gateway.
    """
    rooms = {":" in room: ipaddress.ip_network(room) for room in network.room}
    found = []
    for text in network.gateways:
        gateway = ipaddress.ip_interface(text)
        room = rooms.get(gateway.version == 6)
        ends = (str(room[0]), str(room[-1])) if room is not None else (nobodys(gateway),) * 2
        found.append(ends)
    return found


def fits(seen: SeenNetwork, network: HostNetwork) -> bool:
    """Return whether a network of the engine is what a swarm network has to be on this host."""
    wanted = ipam_configs(network)
    return seen.name == network.name and all(config in seen.configs for config in wanted)


def joined(assignment: TaskAssignment) -> list[HostNetwork]:
    """Return the networks that a task's container is put on, ingress last.

    An engine names a container after its place on the first.
    """
    return sorted(assignment.networks, key=lambda network: network.ingress)


def predefined(assignment: TaskAssignment) -> str:
    """Return the network of every engine that a task runs in (``host``, ``bridge``), or "".

    Raises:
        ExecutorError: it asks for others beside it.
    """
    names = [
        attachment.Network.Spec.Name
        for attachment in assignment.task.NetworksAttachments
        if attachment.Network.Spec.Labels.get(PREDEFINED_LABEL) == "true"
    ]
    others = [network.name for network in joined(assignment)] + names[1:]
    if names and others:
        raise ExecutorError(
            f"a container on the network {names[0]} can be on no other ({', '.join(others)})"
        )
    return names[0] if names else ""


class Endpoint(NamedTuple):
    """A container's place on one network: fixed addresses, and the MAC address that they give.

    It has no names there: the engine's resolver would answer them itself, with who is on this host.
    """

    addresses: tuple[str, ...]
    mac: str


def endpoints(assignment: TaskAssignment) -> dict[str, Endpoint]:
    """Return a container's place on each of its networks, by the network's name."""
    return {network.name: _endpoint(assignment, network) for network in joined(assignment)}


def _endpoint(assignment: TaskAssignment, network: HostNetwork) -> Endpoint:
    addresses = [
        text.partition("/")[0]
        for attachment in assignment.task.NetworksAttachments
        if network.id == attachment.Network.ID
        for text in attachment.Addresses
    ]
    return Endpoint(tuple(addresses), mac_address(*addresses) if addresses else "")


def nameservers(assignment: TaskAssignment) -> list[str]:
    """Return whom the engine's resolver asks for a container on networks of the swarm.

    This node's addresses in them, where names of the swarm are known and others looked up, with the
    task's own name servers where it has some. Nothing for a container that is on none, or where
    nobody answers. An engine takes three at most.
    """
    if not assignment.names:
        return []
    gateways = [
        gateway.partition("/")[0]
        for network in joined(assignment)
        if not network.ingress
        for gateway in network.gateways
    ]
    return sorted(gateways, key=lambda address: ":" in address)[:NAMESERVERS_MAX]


def overlapping(network: HostNetwork, subnets: Iterable[str]) -> str:
    """Return the first of some subnets that a network's own overlap with, or ""."""
    own = [ipaddress.ip_network(text) for text in network.subnets]
    for text in subnets:
        other = ipaddress.ip_network(text, strict=False)
        if any(other.version == one.version and other.overlaps(one) for one in own):
            return text
    return ""


def subnets_of(seen: SeenNetwork) -> list[str]:
    """Return the subnets of a network of the engine."""
    return [subnet for subnet, _ in seen.configs if subnet]


def connected_routes(table: str) -> list[tuple[str, str]]:
    """Return interface and subnet of each route of ``/proc/net/route`` that has no gateway."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        interface, destination, gateway, mask = fields[0], fields[1], fields[2], fields[7]
        if int(gateway, 16) == 0 and int(mask, 16) != 0:
            address = ipaddress.ip_address(bytes.fromhex(destination)[::-1])
            length = int(mask, 16).bit_count()
            found.append((interface, f"{address}/{length}"))
    return found
