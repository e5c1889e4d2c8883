"""The built-in allocator: the next free subnet, the next free address, beyond the one given last.

So what was given back is not given again before everything else was (next-fit, as Docker does it):
a container that is slow to go, an entry in somebody's cache and a connection that was left open do
not meet a newcomer under an old address.

It uses what any allocator plugin may use and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import __version__
from .hookspecs import PluginInfo, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..core.allocator.policy import AddressSpace, AddressUser, Subnet, SubnetWish
    from .hookspecs import AllocatorSettings

NAME = "subnets"


class SubnetAllocator:
    """Next-fit, for subnets and for addresses."""

    def subnet(self, wish: SubnetWish) -> Subnet | None:
        """Return the first free subnet after the one that was chosen last, going round once."""
        for first, last in _stretches(wish):
            found = _first_free(wish, first, last)
            if found is not None:
                return type(wish.pools[0])((found, wish.prefixlen))
        return None

    def address(self, space: AddressSpace, user: AddressUser) -> int | None:
        """Return the first free address after the one that was given last, going round once."""
        start = space.cursor + 1
        if not space.first <= start <= space.last:
            start = space.first
        for number in _round(space.first, start, space.last):
            if space.is_free(number):
                return number
        return None


def _round(first: int, start: int, last: int) -> Iterator[int]:
    # no ranges joined by itertools: a range of IPv6 addresses is longer than C counts
    number = start
    while number <= last:
        yield number
        number += 1
    number = first
    while number < start:
        yield number
        number += 1


def _stretches(wish: SubnetWish) -> Iterator[tuple[int, int]]:
    """Yield where to look, as first and last address: behind the last choice, then from the top."""
    pools = [(int(pool.network_address), int(pool.broadcast_address)) for pool in wish.pools]
    if wish.after is not None:
        last_one = int(wish.after.broadcast_address)
        for at, (first, last) in enumerate(pools):
            if first <= last_one <= last:
                yield last_one + 1, last
                yield from pools[at + 1 :]
                break
    yield from pools


def _first_free(wish: SubnetWish, first: int, last: int) -> int | None:
    bits = wish.pools[0].max_prefixlen - wish.prefixlen
    start = (first + (1 << bits) - 1) >> bits << bits
    while True:
        end = start + (1 << bits) - 1
        if end > last:
            return None
        blocker = wish.taken.blocker(start, end)
        if blocker is None:
            return start
        start = (blocker >> bits) + 1 << bits


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    return PluginInfo(name=NAME, version=__version__)


@hookimpl
def swarmctl_allocator(name: str, settings: AllocatorSettings) -> SubnetAllocator | None:  # noqa: ARG001
    return SubnetAllocator() if name == NAME else None
