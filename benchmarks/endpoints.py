"""What it costs the leader that every node knows who is where, in one process.

Prints for services x tasks on one network of so many nodes: looking at everything as a new leader
does, a whole table for every node, and what one task's end costs. Run it as
``python -m benchmarks.endpoints [services] [tasks of each] [nodes]``. Garbage collection is off, so
that the figures are the code's own.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING

from swarmctl.core.dispatcher.endpoints import NOTHING_SENT, Endpoints, Sent
from swarmctl.core.model.codec import pack
from swarmctl.core.model.task import TaskState
from tests.core.allocator.joined import add_network, network_of, on_networks
from tests.core.dispatcher.networked import joined_up

if TYPE_CHECKING:
    from swarmctl.core.model.change import Ref
    from tests.core.pipeline.world import World

ROUNDS_MAX = 1_000


def running(services: int, tasks: int, nodes: int) -> World:
    """Return a cluster in which all of them run."""
    world = joined_up(nodes, networks=())
    add_network(world, "net", "10.32.0.0/14")
    world.settle()
    for number in range(services):
        world.service(f"s{number}", on_networks(f"s{number}", "net", replicas=tasks))
    world.run(ROUNDS_MAX)
    return world


def main(services: int, tasks: int, nodes: int) -> None:
    """Measure and print."""
    world = running(services, tasks, nodes)
    joined = list(network_of(world).private.gateways)
    print(f"{services} services of {tasks} tasks, {len(joined)} nodes on their network")
    gc.collect()
    gc.disable()
    endpoints = Endpoints(world.view)
    longest, began = 0.0, time.perf_counter()
    before = began
    for _ in endpoints.rebuild():
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    line("everything looked at", time.perf_counter() - began, longest)
    sent: dict[str, Sent] = dict.fromkeys(joined, NOTHING_SENT)
    size = _tell_all("a whole table for every node", endpoints, sent)
    print(f"  {size:,} bytes each")
    touched: set[Ref] = set()
    world.watchers.append(touched.update)
    world.end(world.running("s0")[0], TaskState.FAILED)
    began = time.perf_counter()
    endpoints.refresh(touched)
    took = time.perf_counter() - began
    line("one task ends: looked at", took, took)
    size = _tell_all("one task ends: every node told", endpoints, sent)
    print(f"  {size:,} bytes each")


def _tell_all(what: str, endpoints: Endpoints, sent: dict[str, Sent]) -> int:
    """Make the messages of all nodes; return the size of one's."""
    longest, size = 0.0, 0
    began = time.perf_counter()
    for node_id in sent:
        start = time.perf_counter()
        parts, sent[node_id] = endpoints.changes(node_id, sent[node_id])
        size = sum(len(pack(part)) for part in parts)
        longest = max(longest, time.perf_counter() - start)
    line(what, time.perf_counter() - began, longest)
    return size


def line(what: str, took_s: float, longest_s: float) -> None:
    """Print one figure, and the longest time for which nothing else ran."""
    print(f"{what:<32}{took_s * 1e3:9.2f} ms, longest stretch {longest_s * 1e3:6.2f} ms")


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    main(*numbers, *(100, 10, 100)[len(numbers) :])
