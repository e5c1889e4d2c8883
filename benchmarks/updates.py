"""How long a rolling update and a job take, for swarmctl and for Docker Swarm.

    python -m benchmarks.updates [--rounds N] [--only swarm|swarmctl]

Both sides get the same specs through the same routes. The containers ignore the stop signal and
have a second of grace, so a replica takes at least that long to stop.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figures
from benchmarks.lab_vs_swarm import machine_line, present_sides
from benchmarks.sides import SWARM, SWARMCTL, Side
from tests.e2e.lab import IMAGE, Lab, missing_for_engines

if TYPE_CHECKING:
    from benchmarks.cluster import Cluster

_HOSTS = 3
_REPLICAS = 10
_COMPLETIONS, _AT_ONCE = 20, 5
_SECOND = 1_000_000_000
_QUIET_S = 3.0
_SIDES = {"swarm": SWARM, "swarmctl": SWARMCTL}


def main() -> int:
    """Run the rounds and print the table; the exit status is 2 when nothing can be measured."""
    options = _parse()
    missing = missing_for_engines()
    if missing:
        print(f"cannot measure here: {missing}", file=sys.stderr)
        return 2
    machine = machine_line(f"{options.rounds} rounds on {_HOSTS} hosts")
    figures = Figures()
    with Lab(_HOSTS) as lab:
        lab.start_engines()
        wanted = [_SIDES[options.only]] if options.only else list(_SIDES.values())
        sides = present_sides(lab, wanted)
        if not sides:
            return 2
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                _measure(side, lab, figures)
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(machine)
    print(figures.table(rival=SWARM.name, ours=SWARMCTL.name))
    return 0


def _measure(side: Side, lab: Lab, figures: Figures) -> None:
    with side.open(lab) as cluster:
        cluster.init()
        for index in range(1, _HOSTS):
            cluster.join(index, as_manager=False)
        time.sleep(_QUIET_S)
        for order in ("stop-first", "start-first"):
            took = _update(cluster, order)
            figures.add(f"{order} update of {_REPLICAS}, one at a time", side.name, took)
        figures.add(f"job of {_COMPLETIONS}, {_AT_ONCE} at a time", side.name, _job(cluster))


def _update(cluster: Cluster, order: str) -> float:
    """Seconds from the update until every replica is one of the new spec."""
    template: dict[str, Any] = {
        "ContainerSpec": {
            "Image": IMAGE,
            "Command": ["sleep", "3600"],  # as the first process it ignores SIGTERM
            "StopGracePeriod": _SECOND,
        },
    }
    service = cluster.create_from(
        {
            "Name": f"update-{order}",
            "TaskTemplate": template,
            "Mode": {"Replicated": {"Replicas": _REPLICAS}},
            "UpdateConfig": {"Parallelism": 1, "Order": order},
        }
    )
    cluster.wait_running(service, _REPLICAS)
    started = time.perf_counter()
    cluster.update(service, TaskTemplate={**template, "ForceUpdate": 1})
    cluster.wait_forced(service, _REPLICAS, 1)
    took = time.perf_counter() - started
    cluster.remove(service)
    return took


def _job(cluster: Cluster) -> float:
    """Seconds from the creation of a job until it has completed as often as it should."""
    started = time.perf_counter()
    service = cluster.create_from(
        {
            "Name": "job",
            "TaskTemplate": {
                "ContainerSpec": {"Image": IMAGE, "Command": ["true"]},
                "RestartPolicy": {"Condition": "on-failure"},
            },
            "Mode": {
                "ReplicatedJob": {"MaxConcurrent": _AT_ONCE, "TotalCompletions": _COMPLETIONS}
            },
        }
    )
    cluster.wait_completed(service, _COMPLETIONS)
    # Docker leaves the containers of a removed job where they are; the lab's cleaning takes them.
    return time.perf_counter() - started


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.updates")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--only", choices=sorted(_SIDES), help="one side")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
