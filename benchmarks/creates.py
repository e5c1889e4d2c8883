"""How many services keep-alive clients create in a second on three managers, for both swarms.

    python -m benchmarks.creates [--rounds 3] [--seconds 5] [--clients 1,8,32]
                                 [--through leader|all] [--only swarm|swarmctl]

Prints services a second and the time of a create for each number of clients, and the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figures, percentile
from benchmarks.lab_vs_swarm import machine_line
from benchmarks.rounds import add_options, run_rounds
from benchmarks.sides import SWARM, SWARMCTL
from benchmarks.writers import writing

if TYPE_CHECKING:
    from benchmarks.managers import ManagerHost, Managers
    from benchmarks.sides import Side

MANAGERS = 3
_WARM_S = 1.0
# A join may go on working after its node is ready.
_QUIET_S = 3.0


def main() -> int:
    """Run the rounds and print the tables; exit statuses are those of ``run_rounds``."""
    options = _parse()
    machine = machine_line(f"{MANAGERS} managers, clients through {options.through}")
    rates, times, costs = Figures(), Figures(), list[float]()

    def measure(side: Side, managers: Managers, _number: int) -> None:
        time.sleep(_QUIET_S)
        for clients in options.clients:
            through = [managers.leader()] if options.through == "leader" else managers.hosts
            costs.append(_measure(side.name, through, clients, options.seconds, rates, times))

    status = run_rounds(MANAGERS, options.rounds, options.only, measure)
    print(machine)
    print(rates.comparison(rival=SWARM.name, ours=SWARMCTL.name, unit="/s"))
    print(times.comparison(rival=SWARM.name, ours=SWARMCTL.name, unit="ms"))
    if costs:
        print(f"the clients' own CPU: {statistics.median(costs) * 1e6:.0f} us for each create")
    if options.json:
        rates.write_json(options.json)
    return status


def _measure(
    who: str,
    through: list[ManagerHost],
    clients: int,
    seconds: float,
    rates: Figures,
    times: Figures,
) -> float:
    """One number of clients on one side; the clients' CPU seconds for each create."""
    with writing(through, clients) as writers:
        time.sleep(_WARM_S)
        before, cpu, started = len(writers.took), time.process_time(), time.perf_counter()
        time.sleep(seconds)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        sample = writers.took[before:]
    if writers.refused:
        raise RuntimeError(f"{len(writers.refused)} creates refused: {writers.refused[-1]}")
    step = f"{clients} clients" if clients > 1 else "serial"
    rates.add(f"{step}: creates", who, len(sample) / took)
    for name, percent in (("half within", 50), ("99 % within", 99)):
        times.add(f"{step}: {name}", who, percentile(sample, percent) * 1e3)
    return cpu / len(sample)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.creates")
    add_options(parser, rounds=3)
    parser.add_argument("--seconds", type=float, default=5, help="for each number; default 5")
    parser.add_argument("--clients", type=_numbers, default=[1, 8, 32], help="default 1,8,32")
    parser.add_argument("--through", choices=("leader", "all"), default="leader")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
