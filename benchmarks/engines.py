"""Thirty containers on one engine: our controllers against the engine alone, eight at a time.

The engine alone is docker-py for Docker, and ``podman run -d`` for Podman. Both sides run on one
private engine, interleaved in the same run, in alternating order, because a machine's mood changes
by the minute. Prints each round and the ratio of the medians. Needs root, the engine and busybox.

    python benchmarks/engines.py [--engine podman] [--rounds 5] [--containers 30]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import trio

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "plugins/docker_exec"), str(REPO / "plugins/podman_exec")]

import docker  # noqa: E402

from swarmctl.plugins import Executor, ExecutorSettings  # noqa: E402
from tests.e2e.lab.podman import podman_cli  # noqa: E402
from tests.engines.assignments import IMAGE, assign, identity  # noqa: E402
from tests.engines.conftest import EXECUTORS  # noqa: E402
from tests.engines.private import KINDS, PrivateEngine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

AT_A_TIME = 8


def docker_alone(engine: PrivateEngine, containers: int) -> float:
    """Seconds that docker-py needs, a client for each of eight threads."""
    clients: SimpleQueue[docker.APIClient] = SimpleQueue()
    for _ in range(AT_A_TIME):
        clients.put(docker.APIClient(base_url=f"unix://{engine.socket}", version="1.41"))

    def one(number: int) -> None:
        client = clients.get()
        made = client.create_container(IMAGE, ["sleep", "1000"], name=f"raw-{number}")
        client.start(made["Id"])
        clients.put(client)

    return _eight_at_a_time(one, containers)


def podman_alone(engine: PrivateEngine, containers: int) -> float:
    """Seconds that ``podman run -d`` needs, eight at a time, on the same storage."""
    podman = podman_cli(engine.home)

    def one(number: int) -> None:
        name = f"--name=raw-{number}"
        command = [*podman, "run", "--detach", name, "docker.io/library/alpine", "sleep", "1000"]
        run = engine.run_inside(command, output=subprocess.DEVNULL, env=engine.environment())
        if run.wait():
            said = (engine.home / "log").read_text(errors="replace")[-500:]
            raise RuntimeError(f"podman run ended with {run.returncode}: {said}")

    return _eight_at_a_time(one, containers)


def _eight_at_a_time(one: Callable[[int], None], containers: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(one, range(containers)))
    return time.perf_counter() - started


ALONE = {"docker": docker_alone, "podman": podman_alone}


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
    executor = EXECUTORS[engine.kind](settings)
    times: dict[str, list[float]] = {"engine": [], "swarmctl": []}
    async with trio.open_nursery() as nursery:
        await nursery.start(executor.run, identity(state_dir=state_dir))
        for run in range(rounds):
            for name in sorted(times, reverse=bool(run % 2)):
                if name == "swarmctl":
                    taken = await ours(executor, containers, run)
                else:
                    taken = await trio.to_thread.run_sync(ALONE[engine.kind], engine, containers)
                times[name].append(taken)
                await trio.to_thread.run_sync(engine.remove_all)
            print(" ".join(f"{name} {held[-1]:5.2f} s" for name, held in times.items()))
        nursery.cancel_scope.cancel()
    middle = {name: statistics.median(held) for name, held in times.items()}
    print(
        f"{engine.kind}, median of {rounds}: engine {middle['engine']:.2f} s, swarmctl"
        f" {middle['swarmctl']:.2f} s, ratio {middle['swarmctl'] / middle['engine']:.2f}"
    )


def main() -> None:
    """Start an engine, compare, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=sorted(KINDS), default="docker")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--containers", type=int, default=30)
    wanted = parser.parse_args()
    kind = KINDS[wanted.engine]
    reason = kind.missing()
    if reason:
        raise SystemExit(reason)
    logging.disable(logging.WARNING)
    engine = kind()
    try:
        engine.start()
        trio.run(compare, engine, wanted.rounds, wanted.containers)
    finally:
        engine.close()


if __name__ == "__main__":
    main()
