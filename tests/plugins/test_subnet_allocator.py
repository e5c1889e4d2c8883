"""The built-in allocator keeps the laws of all allocators, and goes on where it was."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.allocator.policy import AddressSpace, AddressUser, SubnetWish, Taken
from swarmctl.core.model.objects import IPAMConfig, Network
from swarmctl.core.store.view import Tables
from swarmctl.plugins import AllocatorSettings
from swarmctl.plugins.loader import NoSuchAllocator, load_plugins
from swarmctl.plugins.subnets import SubnetAllocator
from swarmctl.plugins.testing import ConformanceError, check_allocator

if TYPE_CHECKING:
    from swarmctl.core.allocator.policy import Subnet

NET = Network(Name="net", Id="net")


def test_the_built_in_keeps_the_laws() -> None:
    """As every allocator has to."""
    check_allocator(SubnetAllocator())


class Careless(SubnetAllocator):
    """Forgets what is taken."""

    def address(self, space: AddressSpace, user: AddressUser) -> int | None:
        return space.first


class Stray(SubnetAllocator):
    """Chooses what was not offered."""

    def subnet(self, wish: SubnetWish) -> Subnet | None:
        return ipaddress.ip_network("192.168.0.0/24")


@pytest.mark.parametrize(
    ("allocator", "seen"), [(Careless(), "given twice"), (Stray(), "not in the pool")]
)
def test_a_broken_one_is_found_out(allocator: SubnetAllocator, seen: str) -> None:
    """The check names what it saw."""
    with pytest.raises(ConformanceError, match=seen):
        check_allocator(allocator)


def test_allocators_are_chosen_by_name() -> None:
    """The default is there; another name is answered with what is loaded."""
    plugins = load_plugins(candidates=())
    assert isinstance(plugins.allocator("subnets", AllocatorSettings()), SubnetAllocator)
    with pytest.raises(NoSuchAllocator, match='no plugin has an allocator called "best"'):
        plugins.allocator("best", AllocatorSettings())


BLOCKS = st.lists(st.tuples(st.integers(0, 63), st.integers(1, 8)), max_size=12)


@given(BLOCKS, st.one_of(st.none(), st.integers(0, 15)))
def test_the_next_free_subnet_is_what_a_slow_search_finds(
    blocks: list[tuple[int, int]], after: int | None
) -> None:
    """Sixteen /28s in a /24 with anything taken: the first free one, beginning after the last."""
    pool = ipaddress.ip_network("10.0.0.0/24")
    base = int(pool.network_address)
    stretches = [(base + 4 * first, base + 4 * first + size - 1) for first, size in blocks]
    last = ipaddress.IPv4Network((base + 16 * after, 28)) if after is not None else None
    found = SubnetAllocator().subnet(SubnetWish(NET, (pool,), 28, last, Taken(stretches)))
    start = 0 if after is None else after + 1
    expected = None
    for place in [*range(start, 16), *range(16)]:
        low = base + 16 * place
        if not any(first <= low + 15 and low <= end for first, end in stretches):
            expected = ipaddress.IPv4Network((low, 28))
            break
    assert found == expected


@given(st.sets(st.integers(1, 14)), st.integers(1, 14))
def test_the_next_free_address_is_what_a_slow_search_finds(taken: set[int], cursor: int) -> None:
    """Fourteen addresses: the first free one after the last, going round once."""
    config = IPAMConfig(Subnet="10.0.0.0/28")
    space = AddressSpace(Tables(), NET, config, f"10.0.0.{cursor}")
    base = int(ipaddress.ip_address("10.0.0.0"))
    for number in taken:
        space.take(base + number)
    space.cursor = base + cursor
    found = SubnetAllocator().address(space, AddressUser("task", "t"))
    order = [*range(cursor + 1, 15), *range(1, cursor + 1)]
    free = [number for number in order if number not in taken]
    assert found == (base + free[0] if free else None)
