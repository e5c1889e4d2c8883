"""The check of allocators, and what every check of this surface raises; see :mod:`.testing`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ..core.allocator.policy import AddressSpace, AddressUser, SubnetWish, Taken
from ..core.model.objects import IPAMConfig, Network
from ..core.store.view import Tables

if TYPE_CHECKING:
    from ..core.allocator.policy import Allocator, Subnet


class ConformanceError(AssertionError):
    """A plugin's object breaks a law; the text says which, and what was seen."""


FAMILIES = (("10.9.0.0/22", 24, "10.9.1.0/28"), ("fd00:9::/62", 64, "fd00:9:0:1::/124"))
"""For each family: a pool of four subnets, their size, and a small subnet."""


def check_allocator(allocator: Allocator) -> None:
    """Put an allocator through the laws of :mod:`swarmctl.core.allocator.policy`.

    Chosen subnets are of the size that was asked for, lie in the pools and touch nothing taken;
    chosen addresses are free and in range; nothing is given twice; the end is None, and the same
    question has the same answer.

    Raises:
        ConformanceError: the law that is broken, and what was seen.
    """
    for pool, size, small in FAMILIES:
        _chooses_subnets(allocator, ipaddress.ip_network(pool), size)
        _chooses_addresses(allocator, IPAMConfig(Subnet=small))
        room = next(ipaddress.ip_network(small).subnets(1))
        _chooses_addresses(allocator, IPAMConfig(Subnet=small, IPRange=str(room)))


def require(condition: object, seen: str) -> None:
    """Raise :class:`ConformanceError` unless a law holds."""
    if not condition:
        raise ConformanceError(seen)


def _chooses_subnets(allocator: Allocator, pool: Subnet, size: int) -> None:
    network = Network(Name="checked", Id="checked")
    given: list[Subnet] = []
    for _ in range(1 << (size - pool.prefixlen)):
        taken = Taken([(int(one[0]), int(one[-1])) for one in given])
        wish = SubnetWish(network, (pool,), size, given[-1] if given else None, taken)
        chosen = allocator.subnet(wish)
        require(chosen == allocator.subnet(wish), "one wish for a subnet had two answers")
        if chosen is None:
            break
        inside = chosen.version == pool.version and chosen.subnet_of(pool)  # type: ignore[arg-type] # same family
        require(inside, f"subnet {chosen} is not in the pool {pool}")
        require(chosen.prefixlen == size, f"subnet {chosen} is not of size /{size}")
        free = taken.blocker(int(chosen[0]), int(chosen[-1])) is None
        require(free, f"subnet {chosen} is taken already")
        given.append(chosen)
    require(given, f"nothing was chosen out of {pool}, where all was free")
    everything = Taken([(int(pool[0]), int(pool[-1]))])
    chosen = allocator.subnet(SubnetWish(network, (pool,), size, given[-1], everything))
    require(chosen is None, f"subnet {chosen} was chosen where nothing was left")


def _chooses_addresses(allocator: Allocator, config: IPAMConfig) -> None:
    space = AddressSpace(Tables(), Network(Name="checked", Id="checked"), config, "")
    kinds = ("gateway", "service", "task")
    given: set[int] = set()
    for count in range(space.last - space.first + 2):
        user = AddressUser(kinds[min(count, 2)], f"user{count}", "checked", max(0, count - 1))
        number = allocator.address(space, user)
        require(number == allocator.address(space, user), "one user had two answers")
        if number is None:
            break
        seen = f"{space.bare(number)} out of {config.IPRange or config.Subnet}"
        require(number not in given, f"{seen} was given twice")
        require(space.is_free(number), f"{seen} was given, which is not free")
        space.take(number)
        given.add(number)
    require(given, f"nothing was given out of {config.Subnet}, where all was free")
    require(len(given) <= space.last - space.first + 1, "more was given than there is")
