"""What nodes have in a network whatever runs on them: an address, and room for visitors.

Every node that carries traffic is in the ingress network. On an attachable one every node with an
engine is, since users start containers of their own on it: visitors. Such a container gets its
address from the engine, which asks nobody. So each node has a small block of the network for them,
which nobody else is given; the highest that is free, since tasks and services begin at the other
end. All rooms together are half of a network at most.

Laws: a block is written with the requirement that nobody has any of its addresses, as each of them
is held like one that was given; which block it is, is no choice of the allocator plugin's.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ..model.change import Free, Index
from ..model.network import ROOM_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..model.change import Requirement
    from ..model.objects import NetworkRow, NodeRow
    from ..store.view import View
    from .policy import AddressSpace

SMALL_NETWORK = 256
ROOM, SMALL_ROOM = 16, 8
"""How many addresses a room has, in a large network and in one of up to :data:`SMALL_NETWORK`."""
assert max(ROOM, SMALL_ROOM) <= ROOM_MAX
TRIES_MAX = 4096
"""So many blocks are looked at for a free one."""
NODES_MAX = 200
"""So many nodes get their places in one decision: each address of a room is a requirement."""


def keeps_place(node: NodeRow, row: NetworkRow) -> bool:
    """Return whether a node is to be in a network, whatever runs on it.

    Every node that carries traffic offers published ports; where an engine does, its users put
    containers on attachable networks.
    """
    if not node.private.network_driver:
        return False
    return row.api.Ingress or (row.api.Attachable and not node.private.host_network)


def lacks_place(node: NodeRow, row: NetworkRow) -> bool:
    """Return whether a node has not got what it is to have in a network."""
    have = row.private.rooms if row.api.Attachable else row.private.gateways
    return node.api.ID not in have and keeps_place(node, row) and node.api.Status.State != "down"


def without_place(view: View, row: NetworkRow) -> list[str]:
    """Return the nodes that lack what they are to have in a network, whatever runs on them."""
    if not (row.api.Ingress or row.api.Attachable):
        return []
    nodes = map(view.node, sorted(view.carriers()))
    return [node.api.ID for node in nodes if node is not None and lacks_place(node, row)]


class Rooms:
    """The rooms of one network during one decision.

    Args:
        spaces: its subnets by "is it IPv6".

    Attributes:
        given: what nodes got just now, as subnets, one of each family.
    """

    def __init__(self, row: NetworkRow, spaces: Mapping[bool, Sequence[AddressSpace]]) -> None:
        self.given: dict[str, tuple[str, ...]] = {}
        self._row = row
        self._spaces = spaces
        self._blocks: list[tuple[AddressSpace, int]] = []
        self._below: dict[AddressSpace, int] = {}  # all above is given
        self._size: dict[bool, int] = {}

    def size(self, *, is_ipv6: bool) -> int:
        """Return how many addresses of a family are in rooms, those given just now included."""
        if is_ipv6 not in self._size:
            self._size[is_ipv6] = sum(
                ipaddress.ip_network(block).num_addresses
                for blocks in self._row.private.rooms.values()
                for block in blocks
                if (":" in block) == is_ipv6
            )
        return self._size[is_ipv6]

    def give(self, node_id: str, left: Mapping[bool, int]) -> bool:
        """Give a node a room; False when there is none.

        Args:
            left: how many addresses there are for tasks and services, by family.
        """
        found: list[tuple[AddressSpace, int]] = []
        for is_ipv6, spaces in self._spaces.items():
            have = self.size(is_ipv6=is_ipv6)
            block = next(
                (
                    (space, first)
                    for space in spaces
                    if room_size(space) < left[is_ipv6]
                    and have + room_size(space) <= space.size() // 2
                    and (first := _highest_free(space, self._below.get(space))) is not None
                ),
                None,
            )
            if block is None:
                return False
            found.append(block)
        for space, first in found:
            for number in _numbers(space, first):
                space.pin(number, node_id)
            self._below[space] = first
            self._size[space.is_ipv6] += room_size(space)
        self._blocks += found
        self.given[node_id] = tuple(_subnet(space, first) for space, first in found)
        return True

    def requires(self) -> Iterator[Requirement]:
        """Yield what must hold when they are written."""
        for space, first in self._blocks:
            for number in _numbers(space, first):
                yield Free(index=Index.ADDRESS, key=space.key(number), holder=self._row.api.ID)


def room_size(space: AddressSpace) -> int:
    """Return how many addresses a room in a subnet has."""
    return SMALL_ROOM if space.subnet.num_addresses <= SMALL_NETWORK else ROOM


def _highest_free(space: AddressSpace, below: int | None) -> int | None:
    """Return the first number of the highest free block, below another one if given."""
    size = room_size(space)
    end = space.last + 1 if below is None else below
    highest = end // size * size - size
    lowest = max(space.first, highest - TRIES_MAX * size)
    for first in range(highest, lowest - 1, -size):
        if all(map(space.is_free, range(first, first + size))):
            return first
    return None


def _numbers(space: AddressSpace, first: int) -> range:
    return range(first, first + room_size(space))


def _subnet(space: AddressSpace, first: int) -> str:
    width = (128 if space.is_ipv6 else 32) + 1 - room_size(space).bit_length()
    return f"{space.bare(first)}/{width}"
