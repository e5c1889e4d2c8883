"""What a network gets: its subnets and its number on the wire.

A network is allocated when it has a number; its subnets then stay as they are for its whole life.
Those that the user named are taken if no other network has a part of them, else the network waits,
with the reason in its row, until the other goes. The rest are chosen by the allocator plugin out of
the cluster's address pools. (Rules: swarm-behaviour.md section 8.2.)

Laws: written with the requirement that nobody else has the number or a part of the subnets; where
to go on is remembered apart, in the cluster's row, so that a stale memory costs nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import AnswerAwaited
from ..model.change import Free, Index, Transaction, Update
from ..model.network import (
    FIRST_VNI,
    LAST_VNI,
    OVERLAY,
    VNI_OPTION,
    Subnet,
    is_predefined,
    problem_of,
    subnets_of,
    untaken,
    with_problem,
)
from ..model.objects import IPAM, IPAMConfig
from .policy import SubnetWish, Taken, bounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model.objects import NetworkRow
    from ..store.view import View
    from .policy import Allocator

DEFAULT_POOL = "10.0.0.0/8"
DEFAULT_SIZE = 24
IPV6_SIZE = 64
OVERLAPS = "pool overlaps with other one on this address space"


def is_allocated(row: NetworkRow) -> bool:
    """Return whether a network has all that it will ever get."""
    return bool(row.private.vni) or is_predefined(row.api)


def allocate_networks(view: View, allocator: Allocator) -> tuple[Transaction, ...]:
    """Return what gives every network that waits its subnets and number."""
    waiting = [row for row in view.networks() if not is_allocated(row)]
    if not waiting:
        return ()
    waiting.sort(key=_order)
    return tuple(_Numbering(view, allocator).allocate(waiting))


def _order(row: NetworkRow) -> tuple[bool, bool, int, str]:
    """Sort ingress first, then subnets that must be as they are, then the oldest."""
    asked = row.private.spec.IPAM
    is_free_to_choose = asked is None or not asked.Config
    return not row.api.Ingress, is_free_to_choose, row.api.Created, row.api.ID


class _Numbering:
    """What is taken: by the tables, and by what this decision gave."""

    def __init__(self, view: View, allocator: Allocator) -> None:
        self._view = view
        self._allocator = allocator
        self._cluster = view.cluster()
        self._subnets: list[tuple[Subnet, str]] = [
            (ipaddress.ip_network(text), row.api.Name)
            for row in view.networks()
            for text in subnets_of(row)
        ]
        # No subnet is chosen that a node's own address lies in: its host could not be reached.
        self._avoid = [number for row in view.nodes() for number in _number(row.api.Status.Addr)]
        self._numbers: set[int] = set()
        self._last: dict[str, str] = {}
        self._last_vni = 0
        if self._cluster is not None:
            self._last = dict(self._cluster.private.last_subnets)
            self._last_vni = self._cluster.private.last_vni

    def allocate(self, waiting: Iterable[NetworkRow]) -> Iterator[Transaction]:
        for row in waiting:
            configs = self._configs(row)
            vni = self._vni(row) if isinstance(configs, tuple) else ""
            if isinstance(vni, int) and isinstance(configs, tuple):
                yield _allocated(row, configs, vni)
                continue
            problem = configs if isinstance(configs, str) else str(vni)
            if problem and problem != problem_of(row):
                yield Transaction(changes=(Update(row=with_problem(row, problem)),))
        yield from self._memory()

    def _memory(self) -> Iterator[Transaction]:
        """Remember where the next search goes on."""
        if self._cluster is None:
            return
        private = replace(self._cluster.private, last_subnets=self._last, last_vni=self._last_vni)
        if private != self._cluster.private:
            yield Transaction(changes=(Update(row=replace(self._cluster, private=private)),))

    # --- subnets ---

    def _configs(self, row: NetworkRow) -> tuple[IPAMConfig, ...] | str:
        """Return a network's subnets with their gateways, or why it gets none.

        The reason is empty while the allocator has not answered yet.
        """
        found: list[IPAMConfig] = []
        asked = row.private.spec.IPAM
        for config in (asked.Config or ()) if asked is not None else ():
            subnet: Subnet = ipaddress.ip_network(config.Subnet, strict=False)
            for other, name in self._subnets:
                if other.version == subnet.version and other.overlaps(subnet):
                    return f"{OVERLAPS}: {subnet} and {other} of network {name}"
            found.append(_with_gateway(replace(config, Subnet=str(subnet))))
        versions = {ipaddress.ip_network(config.Subnet).version for config in found}
        for version, enabled in ((4, row.api.EnableIPv4), (6, row.api.EnableIPv6)):
            if enabled and version not in versions:
                chosen = self._choose(row, version)
                if isinstance(chosen, str):
                    return chosen
                found.append(_with_gateway(IPAMConfig(Subnet=str(chosen))))
        self._subnets += [(ipaddress.ip_network(config.Subnet), row.api.Name) for config in found]
        found.sort(key=lambda config: ":" in config.Subnet)
        return tuple(found)

    def _choose(self, row: NetworkRow, version: int) -> Subnet | str:
        pools, size = self._pools(version)
        after = self._last.get(f"ipv{version}")
        wish = SubnetWish(
            network=row.api,
            pools=pools,
            prefixlen=size,
            after=ipaddress.ip_network(after) if after else None,
            taken=self._taken(version),
        )
        try:
            chosen = self._allocator.subnet(wish)
        except AnswerAwaited:
            return ""
        if chosen is None:
            names = ", ".join(map(str, pools))
            return f"no free subnet of size /{size} is left in the address pools ({names})"
        offered = any(
            pool.version == chosen.version and chosen.subnet_of(pool)  # type: ignore[arg-type] # same family
            for pool in pools
        )
        first, last = int(chosen.network_address), int(chosen.broadcast_address)
        if not offered or wish.taken.blocker(first, last) is not None:
            return f"the allocator chose subnet {chosen}, which is not free in its pools"
        self._last[f"ipv{version}"] = str(chosen)
        return chosen

    def _taken(self, version: int) -> Taken:
        stretches = [
            (int(subnet.network_address), int(subnet.broadcast_address))
            for subnet, _ in self._subnets
            if subnet.version == version
        ]
        stretches += [(number, number) for of, number in self._avoid if of == version]
        return Taken(stretches)

    def _pools(self, version: int) -> tuple[tuple[Subnet, ...], int]:
        """Return the pools of one family, and the size of the subnets chosen from them."""
        cluster = self._cluster
        texts = cluster.api.DefaultAddrPool if cluster is not None else (DEFAULT_POOL,)
        all_pools: list[Subnet] = [ipaddress.ip_network(text, strict=False) for text in texts]
        pools = tuple(pool for pool in all_pools if pool.version == version)
        if version == 4:
            size = cluster.api.SubnetSize if cluster is not None else DEFAULT_SIZE
            return pools or (ipaddress.ip_network(DEFAULT_POOL),), size
        pools = pools or (_private_pool(cluster.api.ID if cluster is not None else ""),)
        return pools, max(IPV6_SIZE, *(pool.prefixlen for pool in pools))

    # --- numbers ---

    def _vni(self, row: NetworkRow) -> int | str:
        """Return a network's number: the one asked for if it is free, else the next free one."""
        asked = row.private.spec.Options.get(VNI_OPTION)
        if asked is not None:
            number = int(asked)
            if not self._is_free(number):
                return f"vxlan id {number} is in use by another network"
            self._numbers.add(number)
            return number
        span = LAST_VNI - FIRST_VNI + 1
        start = max(self._last_vni + 1, FIRST_VNI)
        for step in range(span):
            number = FIRST_VNI + (start - FIRST_VNI + step) % span
            if self._is_free(number):
                self._numbers.add(number)
                self._last_vni = number
                return number
        return "no vxlan id is left"

    def _is_free(self, number: int) -> bool:
        return number not in self._numbers and not self._view.is_held(Index.VNI, str(number))


def _allocated(row: NetworkRow, configs: tuple[IPAMConfig, ...], vni: int) -> Transaction:
    """Return what writes a network's subnets and number."""
    network = row.api
    options = {**network.Options, VNI_OPTION: str(vni)} if network.Driver == OVERLAY else {}
    ipam = replace(network.IPAM, Config=configs) if network.IPAM else IPAM(Config=configs)
    requires = [Free(index=Index.VNI, key=str(vni), holder=network.ID)]
    api = replace(network, IPAM=ipam, Options=options or network.Options)
    allocated = replace(row, api=api, private=replace(row.private, vni=vni))
    return Transaction(
        changes=(Update(row=with_problem(allocated, "")),),
        requires=(
            *requires,
            *(need for config in configs for need in untaken(config.Subnet, network.ID)),
        ),
    )


def _with_gateway(config: IPAMConfig) -> IPAMConfig:
    """Return a subnet with its gateway: the first address of its range unless the user named it."""
    if config.Gateway:
        return config
    first, last = bounds(config)
    version = ipaddress.ip_network(config.Subnet).version
    address = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    reserved = {int(ipaddress.ip_address(one)) for one in config.AuxiliaryAddresses.values()}
    number = first
    while number < last and number in reserved:
        number += 1
    return replace(config, Gateway=str(address(number)))


def _private_pool(cluster_id: str) -> Subnet:
    """Return the IPv6 prefix of a cluster that was given none: a private one of its own (RFC 4193).

    It is made from the cluster's id, so every leader comes to the same.
    """
    digest = hashlib.sha256(cluster_id.encode()).digest()
    return ipaddress.IPv6Network((b"\xfd" + digest[:5] + bytes(10), 48))


def _number(text: str) -> Iterator[tuple[int, int]]:
    """Yield family and number of an address, or nothing for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return
    yield address.version, int(address)
