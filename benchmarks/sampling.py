"""What it costs a node that its tasks are measured: CPU time, and the share of a core that is.

Starts so many sleeping processes with the process executor, measures them round after round as the
agent does, and packs what goes to the leader. The figure that counts is the last one: rounds are
five seconds apart. Run it as root: ``python -m benchmarks.sampling [tasks] [rounds]``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from swarmctl.core.agent.sampler import PERIOD_S, Sampler
from swarmctl.core.model.codec import pack
from tests.plugins.process_exec.hosts import Host

if TYPE_CHECKING:
    from swarmctl.core.model.session import Samples
    from swarmctl.plugins.process_exec.executor import ProcessExecutor

STARTS_AT_ONCE = 10
SLEEP = "exec sleep 3600"


async def measure(host: Host, tasks: int, rounds: int) -> tuple[float, int]:
    """Return the CPU seconds of one round, and how many bytes the leader is sent by it."""
    async with trio.open_nursery() as nursery:
        executor = host.executor()
        await nursery.start(executor.run, host.identity)
        ids = await _started(host, executor, tasks)
        sampler = Sampler(executor, lambda: ids)
        sent: list[Samples] = []

        async def keep(samples: Samples) -> None:
            sent.append(samples)

        nursery.start_soon(sampler.feed, keep)
        await sampler.measure(ids)  # a rate takes two
        began = time.process_time()
        for _ in range(rounds):
            await sampler.measure(ids)
        took = (time.process_time() - began) / rounds
        assert len(sent[-1].rows) == tasks
        nursery.cancel_scope.cancel()
    return took, len(pack(sent[-1]))


async def _started(host: Host, executor: ProcessExecutor, tasks: int) -> list[str]:
    ids: list[str] = []
    limiter = trio.CapacityLimiter(STARTS_AT_ONCE)

    async def start() -> None:
        async with limiter:
            assignment = host.assignment(SLEEP)
            control = executor.controller(assignment)
            await control.prepare()
            await control.start()
            ids.append(assignment.task.ID)

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(start)
    return ids


def main(tasks: int, rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="swarmctl-sampling-") as folder:
        host = Host(Path(folder) / "node")
        host.state_dir.mkdir()
        try:
            took, size = trio.run(measure, host, tasks, rounds)
        finally:
            host.clean_up()
    print(f"{tasks} tasks, {rounds} rounds")
    print(f"CPU of one round      {took * 1e3:8.2f} ms")
    print(f"bytes to the leader   {size:8,}")
    print(f"share of a core       {took / PERIOD_S:8.3%}")


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    main(*numbers, *(100, 100)[len(numbers) :])
