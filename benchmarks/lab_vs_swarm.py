"""swarmctl, Docker Swarm and the bare engines on the same three hosts, interleaved in one run.

    python -m benchmarks.lab_vs_swarm [--rounds N] [--sizes 3,10,30,60] [--only swarm|swarmctl]

Prints one line for each step: medians over the rounds, least to most, and their ratios.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks.figures import LIMIT, Figures
from benchmarks.sides import SWARM, SWARMCTL, Side, engine_replace, engine_start
from tests.e2e.lab import ApiError, Lab, missing_for_engines

_HOSTS = 3
_HEAL_REPLICAS = 3
# A join may go on working after its node is ready: Docker sets its ingress network up, which makes
# a first service at once after it take 2.2 s in place of 0.9. That is no part of the next step.
_QUIET_S = 3.0
# Waiting tasks, averaged over the minute before the run, above which a machine is not quiet.
_QUIET_LOAD = 0.5
_SIDES = {"swarm": SWARM, "swarmctl": SWARMCTL}
_HEAL = "container killed -> replaced"


def main() -> int:
    """Run the rounds and print the table; the exit status is 2 when nothing can be measured.

    It is 1 when a side failed on the way; what it had shown until then is in the table.
    """
    options = _parse()
    missing = missing_for_engines()
    if missing:
        print(f"cannot measure here: {missing}", file=sys.stderr)
        return 2
    machine = machine_line(
        f"{options.rounds} rounds, {options.managers} manager(s) and "
        f"{_HOSTS - options.managers} worker(s) on {_HOSTS} hosts"
    )
    figures = Figures()
    with Lab(_HOSTS) as lab:
        lab.start_engines()
        wanted = [_SIDES[options.only]] if options.only else list(_SIDES.values())
        sides = present_sides(lab, wanted)
        if not sides:
            return 2
        engine_start(lab, _HOSTS)  # the first container of a new engine is slower than any other
        failed = False
        for number in range(options.rounds):
            # Each goes first as often as the other.
            for side in list(sides) if number % 2 == 0 else sides[::-1]:
                try:
                    measure_side(side, lab, figures, options.sizes, managers=options.managers)
                except (ApiError, AssertionError, OSError, RuntimeError) as error:
                    # The other's figures of this run are still good.
                    print(f"FAILED SIDE: {side.name} in round {number + 1}: {error}", flush=True)
                    sides.remove(side)
                    failed = True
            measure_limits(lab, figures, options.sizes)
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(machine)
    print(figures.table(rival=SWARM.name, ours=SWARMCTL.name))
    if options.json:
        figures.write_json(options.json)
    return int(failed)


def present_sides(lab: Lab, wanted: list[Side]) -> list[Side]:
    """Those that can take part; says in words which cannot, and why."""
    present = []
    for side in wanted:
        missing = side.missing(lab)
        if missing is None:
            present.append(side)
        else:
            print(f"MISSING SIDE: {side.name}: {missing}", flush=True)
    return present


def measure_side(
    side: Side, lab: Lab, figures: Figures, sizes: list[int], *, managers: int
) -> None:
    """One round of one side, from no swarm to no swarm."""
    with side.open(lab) as cluster:
        figures.add("init", side.name, cluster.init())
        for index in range(1, _HOSTS):
            as_manager = index < managers
            step = f"join as {'manager' if as_manager else 'worker'}"
            figures.add(step, side.name, cluster.join(index, as_manager=as_manager))
        time.sleep(_QUIET_S)
        for size in sizes:
            service, took = cluster.create_and_wait(f"size{size}", size)
            figures.add(_create_step(size), side.name, took)
            cluster.remove(service)
        service, _ = cluster.create_and_wait("heal", _HEAL_REPLICAS)
        figures.add(_HEAL, side.name, cluster.kill_one_and_wait(service, _HEAL_REPLICAS))
        cluster.remove(service)


def measure_limits(lab: Lab, figures: Figures, sizes: list[int]) -> None:
    """One round of what the engines can do by themselves."""
    for size in sizes:
        figures.add(_create_step(size), LIMIT, engine_start(lab, size))
    figures.add(_HEAL, LIMIT, engine_replace(lab))


def _create_step(size: int) -> str:
    return f"create -> {size} running"


def machine_line(what: str) -> str:
    """What the figures were taken on; asked before the run, whose own load it must not count."""
    load = os.getloadavg()[0]
    busy = " (BUSY: take no figure from this run)" if load > _QUIET_LOAD else ""
    return (
        f"{what}, {os.cpu_count()} CPUs, kernel {os.uname().release}, load before {load:.1f}{busy}"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab_vs_swarm")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--sizes", type=_sizes, default=[3, 10, 30, 60], help="default 3,10,30,60")
    parser.add_argument("--managers", type=int, choices=(1, 2, 3), default=1, help="default 1")
    parser.add_argument("--only", choices=sorted(_SIDES), help="measure one side and the limit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample")
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
