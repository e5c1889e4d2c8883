"""How large a packet gets through to each peer, and what tasks are told of it.

A network's interfaces have one MTU everywhere, given when they are made. Where less gets through
below, tunnels would have their packets split, which some networks drop. So each peer is asked with
pings that must not be split, and where a size has no answer that a smaller one has, the routes of
the tasks here into that network get a smaller MTU: their own packets fit, and so do those of TCP
that they are sent.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING

import trio

from .netlink import DUMP, NESTED, REPLACE, Request, address_text, attribute, attributes
from .probe import ping
from .topology import network_mtu, reachable_peers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from swarmctl.plugins.model import EndpointTable, NetworkTable

    from .namespaces import Namespace
    from .netlink import NetlinkSocket

TUNNEL_BYTES = {False: 50, True: 70}
"""What carries a packet to another host, by whether that is IPv6: Ethernet, IP, UDP, VXLAN."""
SMALLER = (1480, 1460, 1440, 1420, 1400, 1380, 1340, 1300, 1280)
TRIES = 2
PEERS_AT_ONCE = 16

_NEW_ROUTE, _GET_ROUTE = 24, 26
_HEADER = struct.Struct("=BBBBBBBBI")
_TARGET, _GATEWAY, _METRICS, _CACHE, _TABLE = 1, 5, 8, 12, 15
_METRIC_MTU = 2
_MAIN = struct.pack("=I", 254)
_FAMILIES = (2, 10)


def wanted_sizes(table: EndpointTable) -> dict[str, int]:
    """Return the size of packet that each peer shall get, by address."""
    overhead = TUNNEL_BYTES[":" in table.own_addr]
    sizes: dict[str, int] = {}
    for part in table.networks:
        for peer in reachable_peers(part, table.own_addr).values():
            sizes[peer] = max(sizes.get(peer, 0), network_mtu(part) + overhead)
    return sizes


async def largest(namespace: Namespace, peer: str, wanted: int) -> int:
    """Return the largest size up to ``wanted`` that a peer answers; 0 when it answers to none."""
    for size in (wanted, *(one for one in SMALLER if one < wanted)):
        for _ in range(TRIES):
            if not await ping(namespace, peer, size=size):
                return size
    return 0


async def measure(namespace: Namespace, table: EndpointTable) -> dict[str, int]:
    """Return what gets through to each peer where that is less than it should be."""
    found: dict[str, int] = {}
    turn = trio.CapacityLimiter(PEERS_AT_ONCE)

    async def one(peer: str, wanted: int) -> None:
        async with turn:
            size = await largest(namespace, peer, wanted)
        if 0 < size < wanted:
            found[peer] = size

    async with trio.open_nursery() as nursery:
        for peer, wanted in wanted_sizes(table).items():
            nursery.start_soon(one, peer, wanted)
    return found


def limit_of(part: NetworkTable, own_addr: str, sizes: Mapping[str, int]) -> int:
    """Return the largest packet of a network that gets to all of its peers; 0 for no limit."""
    limits = [
        sizes[peer] - TUNNEL_BYTES[":" in own_addr]
        for peer in reachable_peers(part, own_addr).values()
        if peer in sizes
    ]
    smallest = min(limits, default=0)
    return smallest if smallest < network_mtu(part) else 0


def set_route_sizes(kernel: NetlinkSocket, limits: Mapping[str, int]) -> bool:
    """Give the routes into these subnets this MTU, 0 for the interface's own.

    Returns:
        Whether any had another.

    Raises:
        OSError: what the kernel says.
    """
    codes = kernel.tell(list(_changes(kernel, limits)))
    if failed := next((code for code in codes if code), 0):
        raise OSError(failed, "the size of packets could not be set")
    return bool(codes)


def route_sizes(kernel: NetlinkSocket, subnets: Iterable[str]) -> dict[str, int]:
    """Return the MTU of the routes into these subnets, 0 for the interface's own.

    Raises:
        OSError: what the kernel says.
    """
    return {subnet: _mtu(route) for _, route, subnet in _routes(kernel, subnets)}


def _changes(kernel: NetlinkSocket, limits: Mapping[str, int]) -> Iterator[Request]:
    for answer, route, subnet in _routes(kernel, limits):
        if _mtu(route) != limits[subnet]:
            yield Request(_NEW_ROUTE, REPLACE, _with_mtu(answer, route, limits[subnet]))


def _routes(
    kernel: NetlinkSocket, subnets: Iterable[str]
) -> Iterator[tuple[bytes, dict[int, bytes], str]]:
    """Yield the direct routes into these subnets: as the kernel lists them, and their parts."""
    names = {ipaddress.ip_network(subnet): subnet for subnet in subnets}
    for family in _FAMILIES:
        body = _HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for answer in kernel.ask(Request(_GET_ROUTE, DUMP, body)):
            found = attributes(answer, _HEADER.size)
            if found.get(_TABLE) != _MAIN or _TARGET not in found or _GATEWAY in found:
                continue
            target = f"{address_text(found[_TARGET])}/{answer[1]}"
            subnet = names.get(ipaddress.ip_network(target))
            if subnet is not None:
                yield answer, found, subnet


def _mtu(route: Mapping[int, bytes]) -> int:
    packed = attributes(route.get(_METRICS, b"")).get(_METRIC_MTU)
    return int(struct.unpack("=I", packed)[0]) if packed else 0


def _with_mtu(answer: bytes, route: Mapping[int, bytes], mtu: int) -> bytes:
    kept = b"".join(
        attribute(kind, value) for kind, value in route.items() if kind not in (_METRICS, _CACHE)
    )
    metric = attribute(_METRIC_MTU, struct.pack("=I", mtu))
    return answer[: _HEADER.size] + kept + (attribute(_METRICS | NESTED, metric) if mtu else b"")


def subnets_of(parts: Iterable[NetworkTable]) -> Iterator[tuple[NetworkTable, str]]:
    """Yield the subnets of networks, by this node's address in them."""
    for part in parts:
        for cidr in part.network.gateways:
            yield part, str(ipaddress.ip_interface(cidr).network)
