"""Rounds over both sides with several managers: each side brought up, measured, taken down.

The order of the sides changes from round to round, and only one is up at a time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.lab_vs_swarm import present_sides
from benchmarks.sides import SWARM, SWARMCTL
from tests.e2e.lab import ApiError, Lab, missing_for_engines

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from benchmarks.managers import Managers
    from benchmarks.sides import Side

_SIDES = {"swarm": SWARM, "swarmctl": SWARMCTL}


def run_rounds(
    count: int,
    rounds: int,
    only: str | None,
    measure: Callable[[Side, Managers, int], None],
    *,
    workers: int = 0,
) -> int:
    """Measure every present side in every round.

    Args:
        count: managers, each on a host with an engine.
        only: the name of one side; None for both.
        measure: takes the side, its swarm, and the number of the round from 0 on.
        workers: on further hosts.

    Returns:
        An exit status: 2 when nothing can be measured here, 1 when a side failed on the way.
    """
    missing = missing_for_engines()
    if missing:
        print(f"cannot measure here: {missing}", file=sys.stderr)
        return 2
    status = 0
    with Lab(count + workers) as lab:
        lab.start_engines()
        sides = present_sides(lab, [_SIDES[only]] if only else list(_SIDES.values()))
        if not sides:
            return 2
        for number in range(rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                try:
                    with side.managers(lab, count) as managers:
                        measure(side, managers, number)
                except (ApiError, AssertionError, OSError, RuntimeError) as error:
                    # The other's figures of this run are still good.
                    print(f"FAILED SIDE: {side.name} in round {number + 1}: {error}", flush=True)
                    status = 1
            print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return status


def add_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Add what every such benchmark takes."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    parser.add_argument("--only", choices=sorted(_SIDES), help="one side")
