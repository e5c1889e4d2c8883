"""What it costs that a scheduler runs in a child process: the built-in one, here and over there.

    python -m benchmarks.outside_scheduler [--nodes 1000] [--services 100] [--tasks 100]

The same scheduler (spread) places the same tasks, by the same loop on the same in-memory store:
once in the loop, once in a child process behind its stand-in. Printed are both times, their ratio,
and how long the loop was held up at the most (heartbeats wait no longer than that).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import spec
from tests.plugins.outside.rig import Cluster, leading, write_plugin

PLUGIN = """
from swarmctl.plugins import hookimpl
from swarmctl.plugins.spread import SpreadScheduler

@hookimpl
def swarmctl_scheduler(name, settings):
    return SpreadScheduler() if name == "there" else None
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_plugin(Path(folder), PLUGIN, "there")
        here = trio.run(measure, Path(folder), asked, "spread")
        there = trio.run(measure, Path(folder), asked, "there")
    print(f"{asked.services} services of {asked.tasks} tasks on {asked.nodes} nodes")
    print(f"in the loop:  {here[0]:6.2f} s, longest stall {here[1] * 1000:.0f} ms")
    print(f"in the child: {there[0]:6.2f} s, longest stall {there[1] * 1000:.0f} ms")
    print(f"ratio {there[0] / here[0]:.2f}")


async def measure(folder: Path, asked: argparse.Namespace, scheduler: str) -> tuple[float, float]:
    """Return how long placing took, and the longest stall."""
    cluster = Cluster()
    for number in range(asked.nodes):
        cluster.node(f"n{number:04}", cpus=64)
    wanted = asked.services * asked.tasks
    async with leading(folder, cluster, scheduler=scheduler) as rig:
        await trio.sleep(1)  # the child has started
        rig.longest_stall_s = 0.0
        started = trio.current_time()
        for number in range(asked.services):
            cluster.service(f"s{number:05}", spec(f"s{number:05}", asked.tasks))
        key = ("task.state", TaskState.ASSIGNED.name)
        await rig.until(lambda: sum(1 for _ in cluster.view.ids(key)) == wanted, within_s=300)
        took = trio.current_time() - started
        failures = sum(one.failures for one in rig.choice.outside.values())
        assert failures == 0, rig.plugin.last_failure
        return took, rig.longest_stall_s


if __name__ == "__main__":
    sys.exit(main())
