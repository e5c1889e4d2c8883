"""Somebody else's allocator in its own process: subnets and addresses are its choice, if free."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from swarmctl.core.model.network import problem_of
from tests.core.allocator.joined import (
    add_network,
    addresses,
    network_of,
    on_networks,
    subnets,
    vips,
)

from .rig import HEAD, Cluster, deadline_for, leading, write_plugin

if TYPE_CHECKING:
    from pathlib import Path

ALLOCATOR = (
    HEAD
    + """
import ipaddress

class Allocator:
    def subnet(self, wish):
        {subnet}

    def address(self, space, user):
        {address}

@hookimpl
def swarmctl_allocator(name, settings):
    return Allocator() if name == "mine" else None
"""
)
LAST_SUBNET = (
    "for pool in wish.pools:\n"
    "            for one in reversed(list(pool.subnets(new_prefix=wish.prefixlen))):\n"
    "                if wish.taken.blocker(int(one[0]), int(one[-1])) is None:\n"
    "                    return one"
)
LAST_ADDRESS = (
    "free = (n for n in range(space.last, space.first - 1, -1) if space.is_free(n))\n"
    "        return next(free, None)"
)
GOOD = ALLOCATOR.format(subnet=LAST_SUBNET, address=LAST_ADDRESS)


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    for name in "ab":
        made.node(name)
    return made


async def test_it_chooses_subnets_and_addresses(tmp_path: Path, cluster: Cluster) -> None:
    """Networks, services, tasks and nodes get what it chooses, each something else."""
    write_plugin(tmp_path, GOOD)
    async with leading(tmp_path, cluster, allocator="mine") as rig:
        add_network(cluster)
        await rig.until(lambda: subnets(cluster))
        assert subnets(cluster) == ["10.255.255.0/24"]
        cluster.service("web", on_networks("web", "net", replicas=5))
        await rig.placed("web", 5)
        await rig.until(lambda: len(network_of(cluster).private.gateways) == 2)
        given = [text for (text,) in addresses(cluster)] + [vips(cluster)["net"]]
        given += [text for (text,) in network_of(cluster).private.gateways.values()]
        assert len(set(given)) == 8
        numbers = sorted(int(ipaddress.ip_interface(text).ip) & 255 for text in given)
        assert numbers == [1, *range(248, 255)]
        assert rig.plugin.failures == 0


async def test_many_tasks_are_one_question(tmp_path: Path, cluster: Cluster) -> None:
    """Three hundred tasks get their addresses in a few batches, and go on at once."""
    write_plugin(tmp_path, GOOD)
    async with leading(tmp_path, cluster, allocator="mine") as rig:
        add_network(cluster, "net", "10.9.0.0/20")
        cluster.service("web", on_networks("web", "net", replicas=300))
        await rig.placed("web", 300)
        assert len(set(addresses(cluster))) == 300
        assert rig.plugin.failures == 0
        assert rig.stalls.longest_s < 0.5


async def test_a_full_network_is_full_in_the_usual_words(tmp_path: Path, cluster: Cluster) -> None:
    """Where it finds nothing free the tasks say so, and go on when something is given back."""
    write_plugin(tmp_path, GOOD)
    async with leading(tmp_path, cluster, allocator="mine") as rig:
        add_network(cluster, "net", "10.9.0.0/29")
        cluster.service("web", on_networks("web", "net", replicas=6, mode="dnsrr"))
        await rig.until(lambda: any(task.api.Status.Err for task in cluster.tasks("web")))
        (why,) = {task.api.Status.Err for task in cluster.tasks("web")} - {""}
        assert why == "network net has no free address left in 10.9.0.0/29"
        assert rig.plugin.failures == 0


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"subnet": "raise ValueError('no book')"}, "no book"),
        ({"subnet": "return ipaddress.ip_network('192.168.0.0/24')"}, "which is not free in the p"),
        ({"subnet": "return wish.pools[0]"}, "or not of size /24"),
        ({"subnet": "while True: pass"}, "did not answer within 1 s"),
        ({"address": "return space.first - 1"}, "it chose address 10.0.0.0, which is not free in"),
        ({"address": "return space.last"}, "it chose address 10.0.0.254, which is not free in 10"),
        ({"address": "return 'a'"}, "must return a number or None"),
        ({"address": "time.sleep(5)"}, "did not answer within 1 s"),
    ],
)
async def test_the_default_takes_over(
    tmp_path: Path, cluster: Cluster, how: dict[str, str], text: str
) -> None:
    """An allocator that fails delays a service's start by its deadline, and nothing else."""
    usual = {"subnet": "return next(wish.pools[0].subnets(new_prefix=24))", "address": LAST_ADDRESS}
    write_plugin(tmp_path, ALLOCATOR.format(**{**usual, **how}))
    deadline_s = deadline_for(text)
    async with leading(tmp_path, cluster, allocator="mine", deadline_s=deadline_s) as rig:
        add_network(cluster)
        cluster.service("web", on_networks("web", "net", replicas=3))
        await rig.placed("web", 3)
        assert subnets(cluster) == ["10.0.0.0/24"]
        assert len(set(addresses(cluster))) == 3
        assert problem_of(network_of(cluster)) == ""
        assert text in rig.plugin.last_failure
        assert rig.stalls.longest_s < 0.5
