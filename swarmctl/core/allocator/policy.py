"""The Protocol of an allocator: which of the free subnets and addresses to give next.

An :class:`Allocator` chooses and no more. What is free comes from the tables, what it chose is
checked, written and accounted for by :mod:`.networks` and :mod:`.addresses`; so no choice of its
can give anything twice. It is pure: the same question always gets the same answer, on whichever
leader, and it keeps nothing from one question to the next.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from ..model.base import SECOND
from ..model.change import Index
from ..model.network import Subnet, room_addresses
from ..model.objects import IPAMConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ..model.objects import Network
    from ..store.view import View

__all__ = ["AddressSpace", "AddressUser", "Allocator", "Subnet", "SubnetWish", "Taken"]

AWAIT_NS = 2 * SECOND
"""A decision that waits for an answer looks again after so long, should nobody wake it."""


class Taken:
    """Stretches of addresses, of one family, that a new subnet must not touch."""

    def __init__(self, stretches: Iterable[tuple[int, int]]) -> None:
        """``stretches``: first and last address of each; they may overlap."""
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(stretches):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def stretches(self) -> tuple[tuple[int, int], ...]:
        """Return what is taken, in order, without overlaps."""
        return tuple(zip(self._firsts, self._lasts, strict=True))

    def blocker(self, first: int, last: int) -> int | None:
        """Return the last address of what keeps ``first`` to ``last`` from being free, or None."""
        at = bisect_right(self._firsts, last) - 1
        if at >= 0 and self._lasts[at] >= first:
            return self._lasts[at]
        return None


class SubnetWish(NamedTuple):
    """A subnet to choose.

    Attributes:
        network: the network that it is for.
        pools: what to choose from, in order of preference; all of one family.
        prefixlen: the size of the subnet.
        after: the subnet that was chosen last out of these pools, so that one that was given back
            is not chosen again at once; None for none.
        taken: what others have.
    """

    network: Network
    pools: tuple[Subnet, ...]
    prefixlen: int
    after: Subnet | None
    taken: Taken


class AddressUser(NamedTuple):
    """Who gets an address.

    Attributes:
        kind: ``task``, ``service`` (its virtual IP) or ``gateway`` (of a node's bridge).
        id: the task's, service's or node's.
        service_name: of tasks and services, else "".
        slot: a task's, else 0.
    """

    kind: str
    id: str
    service_name: str = ""
    slot: int = 0


class AddressSpace:
    """One subnet of a network: what can be given out of it, and what is free.

    Addresses are numbers, as ``int(ipaddress.ip_address(...))`` gives them.

    Attributes:
        network: whose subnet it is.
        subnet: the subnet.
        first, last: the ends of what may be given; an ``--ip-range`` narrows them.
        cursor: the number that was given last; outside of first to last when none was.
    """

    def __init__(
        self,
        view: View,
        network: Network,
        config: IPAMConfig,
        cursor: str,
        pinned: Collection[str] = (),
    ) -> None:
        """``pinned``: addresses that somebody asked for, which nobody else is given."""
        self._view = view
        self._key = f"{network.ID}/"
        self._given: dict[int, int] = {}  # to where the cursor was before
        self.network = network
        self.subnet: Subnet = ipaddress.ip_network(config.Subnet)
        self._pinned = {int(one) for one in map(ipaddress.ip_address, pinned) if one in self.subnet}
        self._pinned_by: dict[int, str] = {}
        self._suffix = f"/{self.subnet.prefixlen}"
        self.first, self.last = bounds(config)
        self._reserved = {
            int(ipaddress.ip_address(text))
            for text in (config.Gateway, *config.AuxiliaryAddresses.values())
            if text
        }
        self._gateway = int(ipaddress.ip_address(config.Gateway)) if config.Gateway else 0
        self.cursor = int(ipaddress.ip_address(cursor)) if cursor else self.first - 1

    @property
    def is_ipv6(self) -> bool:
        return self.subnet.version == 6

    def text(self, number: int) -> str:
        """Return an address in CIDR form."""
        return self.bare(number) + self._suffix

    def bare(self, number: int) -> str:
        """Return an address as text."""
        if self.is_ipv6:
            return str(ipaddress.IPv6Address(number))
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def is_free(self, number: int) -> bool:
        """Return whether nobody has an address and it may be given."""
        if not self.first <= number <= self.last:
            return False
        if number in self._given or number in self._reserved or number in self._pinned:
            return False
        return not self._view.is_held(Index.ADDRESS, self._key + self.text(number))

    def held(self) -> list[int]:
        """Return all numbers of the space that may not be given, in order.

        For those who cannot ask :meth:`is_free`; it reads every holder in the tables.
        """
        network_id, found = self.network.ID, {*self._given, *self._reserved, *self._pinned}
        texts = [
            text
            for task in self._view.tasks_attached(network_id)
            for attachment in task.api.NetworksAttachments
            if attachment.Network.ID == network_id  # noqa: SIM300 - neither is a constant
            for text in attachment.Addresses
        ]
        texts += [
            vip.Addr
            for service in self._view.services()
            for vip in service.api.Endpoint.VirtualIPs
            if vip.NetworkID == network_id
        ]
        row = self._view.network(network_id)
        gateways = row.private.gateways.values() if row is not None else ()
        texts += [text for addresses in gateways for text in addresses]
        texts += room_addresses(row) if row is not None else ()
        found.update(int(ipaddress.ip_interface(text).ip) for text in texts)
        return sorted(number for number in found if self.first <= number <= self.last)

    def why_not(self, number: int, user_id: str) -> str:
        """Return why nobody else's address cannot be a certain user's, "" if it can.

        An ``--ip-range`` does not count: it is for addresses that nobody asked for.
        """
        first, last = bounds(IPAMConfig(Subnet=str(self.subnet)))
        if not first <= number <= last:
            return "it is the network's own"
        if number in self._reserved:
            return "it is reserved"
        holders = {*self._view.holders(Index.ADDRESS, self.key(number))} - {user_id}
        if self.network.ID in holders:
            return self._which_node(number)
        if number in self._given:
            holders.add(self._pinned_by.get(number, "another"))
        return f"it is in use by {', '.join(sorted(holders))}" if holders else ""

    def _which_node(self, number: int) -> str:
        """Return whose an address is that the network itself holds, for one of its nodes."""
        row = self._view.network(self.network.ID)
        if row is None:
            return "it is reserved"
        for node_id, texts in row.private.gateways.items():
            if self.text(number) in texts:
                return f"it is node {node_id}'s own"
        address = ipaddress.ip_address(self.bare(number))
        for node_id, blocks in row.private.rooms.items():
            if any(address in ipaddress.ip_network(block) for block in blocks):
                return f"it is for containers that users start on node {node_id}"
        return "it is reserved"

    def size(self) -> int:
        """Return how many addresses may be given when all are free."""
        reserved = sum(self.first <= number <= self.last for number in self._reserved)
        return max(0, self.last - self.first + 1 - reserved)

    def withheld(self) -> int:
        """Return by how many addresses fewer can be given because somebody asked for them."""
        count = 0
        for number in self._pinned - self._reserved:
            is_held = self._view.is_held(Index.ADDRESS, self.key(number))
            if self.first <= number <= self.last:
                count += not is_held
            else:
                count -= is_held  # its user counts, and takes nothing away
        return count

    def own_gateway(self) -> int | None:
        """Return the address that the network calls its gateway, if no node has it."""
        if not self._gateway or self._gateway in self._given:
            return None
        is_held = self._view.is_held(Index.ADDRESS, self._key + self.text(self._gateway))
        return None if is_held else self._gateway

    def key(self, number: int) -> str:
        """Return the key that its user holds under the ADDRESS index."""
        return self._key + self.text(number)

    # --- for who hands out what was chosen ---

    def take(self, number: int) -> None:
        """Note that an address was given; the next is looked for beyond it."""
        self._given[number] = self.cursor
        if number != self._gateway:
            self.cursor = number

    def pin(self, number: int, user_id: str) -> None:
        """Note that an address was given that had to be this one; the cursor stays."""
        self._given[number] = self.cursor
        self._pinned_by[number] = user_id

    def give_back(self, number: int) -> None:
        """Note that an address was not needed after all: it was as if never given."""
        before = self._given.pop(number, self.cursor)
        if self.cursor == number:
            self.cursor = before


def bounds(config: IPAMConfig) -> tuple[int, int]:
    """Return the first and last number that may be given out of a subnet."""
    subnet: Subnet = ipaddress.ip_network(config.Subnet)
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.version == 6:
        first += subnet.prefixlen < subnet.max_prefixlen  # the address of every router
    elif subnet.prefixlen <= 30:
        first, last = first + 1, last - 1
    if config.IPRange:
        room: Subnet = ipaddress.ip_network(config.IPRange, strict=False)
        first = max(first, int(room.network_address))
        last = min(last, int(room.broadcast_address))
    return first, last


class Allocator(Protocol):
    """Chooses subnets and addresses; what ``swarmctl_allocator`` returns.

    Its answers are checked: one that is not free or not among what was offered counts as none, and
    the tasks that waited for it say so.
    """

    def subnet(self, wish: SubnetWish, /) -> Subnet | None:
        """Return a free subnet out of the pools, or None when there is none."""
        ...

    def address(self, space: AddressSpace, user: AddressUser, /) -> int | None:
        """Return a free address of the space, or None when there is none.

        Asked some hundred times in one decision, so it should look at few addresses: what was given
        back long ago lies ahead of the cursor.
        """
        ...


@runtime_checkable
class Outsider(Protocol):
    """A stand-in for an allocator that runs outside this process and answers later.

    Where it has no answer yet it raises :class:`~swarmctl.core.errors.AnswerAwaited` and remembers
    the question. What was asked goes out when the decision is over, and the loop looks again when
    the answers are there; they count while they are still free.
    """

    def listen(self, wake: Callable[[], None], /) -> None:
        """Have a function called whenever answers have come."""
        ...

    def send(self, view: View, /) -> bool:
        """The decision is over: have its questions answered; return whether there are any."""
        ...
