"""Thirty containers on one engine: our controllers against docker-py alone, eight at a time.

Both run on one private dockerd, interleaved in the same run, in alternating order, because a
machine's mood changes by the minute. Prints each round and the ratio of the medians. Needs root,
dockerd and busybox.

    python benchmarks/docker_exec.py [--rounds 5] [--containers 30]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import trio

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(REPO),
    str(REPO / "plugins/docker_exec"),
    str(REPO / "plugins/docker_exec/tests"),
]

import docker  # noqa: E402
from assignments import IMAGE, assign, identity  # noqa: E402
from private_engine import PrivateEngine, missing  # noqa: E402
from swarmctl_docker_exec.executor import DockerExecutor  # noqa: E402

from swarmctl.plugins import Executor, ExecutorSettings  # noqa: E402

AT_A_TIME = 8


def raw(engine: PrivateEngine, containers: int) -> float:
    """Seconds that docker-py needs, a client for each of eight threads."""
    clients: SimpleQueue[docker.APIClient] = SimpleQueue()
    for _ in range(AT_A_TIME):
        clients.put(docker.APIClient(base_url=f"unix://{engine.socket}", version="1.41"))

    def one(number: int) -> None:
        client = clients.get()
        made = client.create_container(IMAGE, ["sleep", "1000"], name=f"raw-{number}")
        client.start(made["Id"])
        clients.put(client)

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(one, range(containers)))
    return time.perf_counter() - started


async def ours(executor: Executor, containers: int, run: int) -> float:
    """Seconds that our controllers need to prepare, start and observe as many tasks at once."""

    async def one(number: int) -> None:
        command = ("sleep", "1000")
        task = assign(task_id=f"r{run}n{number}", slot=number + 1, Command=command)
        controller = executor.controller(task)
        await controller.prepare()
        await controller.start()
        await controller.observe()

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(containers):
            nursery.start_soon(one, number)
    return time.perf_counter() - started


async def compare(engine: PrivateEngine, rounds: int, containers: int) -> None:
    """Run both in turn and print what came out."""
    state_dir = str(engine.home / "node")
    settings = ExecutorSettings(state_dir=state_dir, engine=f"unix://{engine.socket}")
    executor = DockerExecutor(settings)
    times: dict[str, list[float]] = {"docker-py": [], "swarmctl": []}
    async with trio.open_nursery() as nursery:
        await nursery.start(executor.run, identity(state_dir=state_dir))
        for run in range(rounds):
            for name in sorted(times, reverse=bool(run % 2)):
                if name == "swarmctl":
                    taken = await ours(executor, containers, run)
                else:
                    taken = await trio.to_thread.run_sync(raw, engine, containers)
                times[name].append(taken)
                await trio.to_thread.run_sync(engine.remove_all)
            print(" ".join(f"{name} {held[-1]:5.2f} s" for name, held in times.items()))
        nursery.cancel_scope.cancel()
    middle = {name: statistics.median(held) for name, held in times.items()}
    print(
        f"median of {rounds}: docker-py {middle['docker-py']:.2f} s, swarmctl"
        f" {middle['swarmctl']:.2f} s, ratio {middle['swarmctl'] / middle['docker-py']:.2f}"
    )


def main() -> None:
    """Start an engine, compare, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--containers", type=int, default=30)
    wanted = parser.parse_args()
    reason = missing()
    if reason:
        raise SystemExit(reason)
    logging.disable(logging.WARNING)
    engine = PrivateEngine()
    try:
        engine.start()
        trio.run(compare, engine, wanted.rounds, wanted.containers)
    finally:
        engine.close()


if __name__ == "__main__":
    main()
