"""Replicas on Podman hosts beside ``podman run`` eight at a time, interleaved in one run.

    python -m benchmarks.podman_swarm [--rounds N] [--replicas 30] [--hosts 3]

Prints each round, and the ratio of the medians. Standard library only.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks.lab_vs_swarm import machine_line
from tests.e2e.lab import Lab, PodmanEngine, missing_for_engines
from tests.e2e.swarm import Swarm, swarm_on

if TYPE_CHECKING:
    from tests.e2e.lab import Engine

AT_A_TIME = 8


def main() -> int:
    """Run the rounds; the exit status is 2 when nothing can be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=30)
    parser.add_argument("--hosts", type=int, default=3)
    options = parser.parse_args()
    if missing := missing_for_engines("podman"):
        print(f"cannot measure here: {missing}", file=sys.stderr)
        return 2
    print(machine_line(f"{options.rounds} rounds on {options.hosts} Podman hosts"))
    times: dict[str, list[float]] = {"podman run": [], "swarmctl": []}
    with Lab(options.hosts) as lab:
        lab.start_engines("podman")
        with swarm_on(lab.hosts) as swarm:
            podman_run(lab, options.hosts)  # the first container of a new engine is slower
            for number in range(options.rounds):
                for side in sorted(times, reverse=bool(number % 2)):
                    if side == "swarmctl":
                        taken = replicas(swarm, options.replicas)
                    else:
                        taken = podman_run(lab, options.replicas)
                    times[side].append(taken)
                print(", ".join(f"{side} {held[-1]:.2f} s" for side, held in times.items()))
    middle = {side: statistics.median(held) for side, held in times.items()}
    ratio = middle["swarmctl"] / middle["podman run"]
    print(f"medians: {middle}; swarmctl / podman run = {ratio:.2f}")
    return 0


def replicas(swarm: Swarm, count: int) -> float:
    """Seconds from the create until as many tasks run."""
    service, taken = swarm.create_and_wait("web", count)
    swarm.remove(service)
    return taken


def podman_run(lab: Lab, count: int) -> float:
    """Seconds that ``podman run -d`` needs for as many containers, eight at a time over all."""
    engines = [host.engine for host in lab.hosts if isinstance(host.engine, PodmanEngine)]
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for done in [pool.submit(_run_one, engines[n % len(engines)], n) for n in range(count)]:
            done.result()
    taken = time.perf_counter() - started
    for engine in engines:
        for container in engine.containers():
            engine.remove_container(container["Id"])
    return taken


def _run_one(engine: Engine, number: int) -> None:
    assert isinstance(engine, PodmanEngine)
    # As the first process sleep ignores SIGTERM: each removal would wait ten seconds.
    options = ["--detach", f"--name=alone-{number}", "--stop-signal=KILL"]
    command = engine.cli("run", *options, engine.images[0], "sleep", "3600")
    run = engine.host.popen(command, env=engine.cli_environment(), stderr=subprocess.DEVNULL)
    if run.wait(60):
        raise RuntimeError(f"podman run on {engine.host.name} ended with {run.popen.returncode}")


if __name__ == "__main__":
    sys.exit(main())
