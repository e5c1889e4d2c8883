"""An allocator that gives what is written down: swarmctl plugin ``ledger``.

For networks whose addresses somebody plans by hand, in the configuration of the managers:

    allocator = "ledger"
    plugins = ["ledger"]        # or this file in /etc/swarmctl/plugins/

    [settings.ledger]
    "subnet back" = "10.20.0.0/24"      # of the network called back
    "back web" = "10.20.0.5"            # the service web's own address there
    "back web.1" = "10.20.0.11"         # that of its first task

What is not written down gets the highest free address, and a network the lowest free subnet, so
that plans, which mostly begin at the bottom, stay undisturbed. An allocator is pure and only
chooses: what is free comes from the cluster's tables, and what it chose is checked against them. A
written address that somebody else has is waited for; the task says so.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from swarmctl.plugins import AllocatorSettings, InvalidArgument, PluginInfo, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swarmctl.plugins import AddressSpace, AddressUser, SubnetWish

NAME = "ledger"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class LedgerAllocator:
    """Chooses by the book."""

    def __init__(self, subnets: Mapping[str, Network], addresses: Mapping[str, int]) -> None:
        self._subnets = subnets
        self._addresses = addresses

    def subnet(self, wish: SubnetWish) -> Network | None:
        """Return the written subnet of a network while it is free, else the lowest free one."""
        written = self._subnets.get(wish.network.Name)
        for pool in wish.pools:
            if written is not None and written.version == pool.version:
                return written  # not free, or in no pool? Then nothing is given, and it is said
            for subnet in pool.subnets(new_prefix=wish.prefixlen):
                if wish.taken.blocker(int(subnet[0]), int(subnet[-1])) is None:
                    return subnet
        return None

    def address(self, space: AddressSpace, user: AddressUser) -> int | None:
        """Return the written address of a task or service, else the highest one that is free."""
        place = f".{user.slot}" if user.kind == "task" else ""
        written = self._addresses.get(f"{space.network.Name} {user.service_name}{place}")
        if written is not None and space.first <= written <= space.last:
            return written if space.is_free(written) else None
        taken = set(self._addresses.values())
        for number in range(space.last, space.first - 1, -1):
            if number not in taken and space.is_free(number):
                return number
        return None


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    return PluginInfo(name=NAME, version="1.0")


@hookimpl
def swarmctl_allocator(name: str, settings: AllocatorSettings) -> LedgerAllocator | None:
    if name != NAME:
        return None
    subnets: dict[str, Network] = {}
    addresses: dict[str, int] = {}
    for key, text in settings.options.items():
        try:
            if key.startswith("subnet "):
                subnets[key.removeprefix("subnet ")] = ipaddress.ip_network(text)
            else:
                addresses[key] = int(ipaddress.ip_address(text))
        except ValueError as error:
            raise InvalidArgument(f"ledger: {key} = {text!r}: {error}") from None
    return LedgerAllocator(subnets, addresses)
