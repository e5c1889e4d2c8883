"""How long it is from load to more tasks, on a host of the lab: containers, then plain processes.

    .venv/bin/python -m benchmarks.scaling_lab [--rounds 5]

Two tasks that have settled begin to burn five times what their target allows, so five are wanted.
Prints how long it took until that was decided, and until all ran; then `service scaling` as it was
in the last round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import closing
from typing import TYPE_CHECKING

from tests.e2e.burner import MOST, burning
from tests.e2e.lab import Lab, eventually
from tests.e2e.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.burner import Burner

SETTLE_S = 20.0
PATIENCE_S = 120.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for name, boxed in (("containers", True), ("processes", False)):
        with Lab(1) as lab:
            if boxed:
                lab.start_engines()
            lab[0].start_daemon(f"--executor={'docker' if boxed else 'process'}", engine=boxed)
            _measure(lab, name, rounds, boxed=boxed)


def _measure(lab: Lab, name: str, rounds: int, *, boxed: bool) -> None:
    decided: list[float] = []
    running: list[float] = []
    folder = lab[0].state_dir / "load"
    swarm = Swarm(lab.hosts)
    with closing(swarm), burning(swarm, folder, "web") as (burner,):
        swarm.init()
        burner.create(boxed=boxed)
        for _ in range(rounds):
            burner.wait_count(2, PATIENCE_S)
            time.sleep(SETTLE_S)
            burner.busy(on=True)
            began = time.monotonic()
            eventually(lambda: burner.scaling()["Count"] == MOST, PATIENCE_S, every_s=0.05)
            decided.append(time.monotonic() - began)
            burner.wait_count(MOST, PATIENCE_S)
            running.append(time.monotonic() - began)
            told = _told(burner)
            burner.busy(on=False)
    print(f"{name}: decided after {_spread(decided)}, running after {_spread(running)}\n")
    print(told)


def _told(burner: Burner) -> str:
    text: str = burner.swarm.hosts[0].swarmctl(["service", "scaling", burner.name]).stdout
    return text


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
