"""The way back of clients whose address is kept: over the host that they reached.

A task that answers such a client sends to an address beyond all of its networks, which its default
route may lead elsewhere than through the ingress network, or nowhere. So what it sends from its
address in the ingress network has a routing table of its own.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from .names import bare, family_of
from .netlink import (
    CREATE,
    DUMP,
    EXCL,
    REPLACE,
    Request,
    address_bytes,
    address_text,
    attribute,
    attributes,
    number,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swarmctl.plugins.model import EndpointTable

    from .netlink import NetlinkSocket

TABLE_NUMBER = 4789
"""Of the routing table; it is how our rules are known."""
_PRIORITY = 4789

# linux/rtnetlink.h, fib_rules.h
_NEW_ROUTE, _DEL_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_RULE, _DEL_RULE, _GET_RULE = 32, 33, 34
_HEADER = struct.Struct("=BBBBBBBBI")
_FAMILIES = {"ip": 2, "ip6": 10}
_BITS = {"ip": 32, "ip6": 128}
_SOURCE, _GATEWAY, _PRIORITY_OF, _TABLE = 2, 5, 6, 15
_TO_TABLE, _UNICAST, _BOOT = 1, 1, 3


class WayBack(NamedTuple):
    """From an address, over a gateway."""

    address: str
    gateway: str


def ways_back(table: EndpointTable, task_id: str) -> frozenset[WayBack]:
    """Return those that a task needs: its addresses in ingress, and this node's there."""
    gateways = {
        family_of(bare(cidr)): bare(cidr)
        for part in table.networks
        if part.network.ingress
        for cidr in part.network.gateways
    }
    return frozenset(
        WayBack(address, gateways[family_of(address)])
        for port in table.published
        if port.keep_source
        for member in port.members
        if member.task_id == task_id and not member.on_host
        for address in member.addresses
        if family_of(address) in gateways
    )


def ways_there(kernel: NetlinkSocket, wanted: Iterable[WayBack]) -> frozenset[WayBack]:
    """Return those that are there.

    Raises:
        OSError: what the kernel says.
    """
    rules, gateways = set(_rules(kernel)), set(_gateways(kernel))
    return frozenset(way for way in wanted if way.address in rules and way.gateway in gateways)


def ensure_ways_back(kernel: NetlinkSocket, wanted: frozenset[WayBack]) -> list[int]:
    """Have exactly these; return the kernel's error number for each change, 0 for none.

    Raises:
        OSError: what is there cannot be read.
    """
    rules = set(_rules(kernel))
    gateways = set(_gateways(kernel))
    addresses, over = {way.address for way in wanted}, {way.gateway for way in wanted}
    requests = [
        *(Request(_DEL_RULE, 0, _rule(one)) for one in sorted(rules - addresses)),
        *(Request(_DEL_ROUTE, 0, _route(one)) for one in sorted(gateways - over)),
        *(Request(_NEW_ROUTE, CREATE | REPLACE, _route(one)) for one in sorted(over - gateways)),
        *(Request(_NEW_RULE, CREATE | EXCL, _rule(one)) for one in sorted(addresses - rules)),
    ]
    return kernel.tell(requests)


def _rules(kernel: NetlinkSocket) -> Iterator[str]:
    for family in _FAMILIES.values():
        body = _HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for answer in kernel.ask(Request(_GET_RULE, DUMP, body)):
            found = attributes(answer, _HEADER.size)
            if found.get(_TABLE) == struct.pack("=I", TABLE_NUMBER) and _SOURCE in found:
                yield address_text(found[_SOURCE])


def _gateways(kernel: NetlinkSocket) -> Iterator[str]:
    for family in _FAMILIES.values():
        body = _HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for answer in kernel.ask(Request(_GET_ROUTE, DUMP, body)):
            found = attributes(answer, _HEADER.size)
            if found.get(_TABLE) == struct.pack("=I", TABLE_NUMBER) and _GATEWAY in found:
                yield address_text(found[_GATEWAY])


def _rule(address: str) -> bytes:
    family = family_of(address)
    return (
        _HEADER.pack(_FAMILIES[family], 0, _BITS[family], 0, 0, 0, 0, _TO_TABLE, 0)
        + attribute(_SOURCE, address_bytes(address))
        + number(_PRIORITY_OF, _PRIORITY)
        + number(_TABLE, TABLE_NUMBER)
    )


def _route(gateway: str) -> bytes:
    family = _FAMILIES[family_of(gateway)]
    return (
        _HEADER.pack(family, 0, 0, 0, 0, _BOOT, 0, _UNICAST, 0)
        + attribute(_GATEWAY, address_bytes(gateway))
        + number(_TABLE, TABLE_NUMBER)
    )
