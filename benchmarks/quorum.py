"""Five managers: two killed, three killed, one of these back; what becomes of writes then.

    python -m benchmarks.quorum [--rounds 1] [--only swarm|swarmctl]

Prints one line for each step, and in which words a swarm without a quorum refuses.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.figures import Figures
from benchmarks.lab_vs_swarm import machine_line
from benchmarks.managers import NO_ANSWER
from benchmarks.rounds import add_options, run_rounds
from benchmarks.sides import SWARM, SWARMCTL
from benchmarks.writers import create_service, first_accepted
from tests.e2e.lab import ApiError

if TYPE_CHECKING:
    from benchmarks.managers import ManagerHost, Managers
    from benchmarks.sides import Side

MANAGERS = 5
# Longer than any of both lets a call wait for a leader.
_PATIENCE_S = 60.0


def main() -> int:
    """Run the steps and print the table; exit statuses are those of ``run_rounds``."""
    options = _parse()
    machine = machine_line(f"{MANAGERS} managers")
    figures, words = Figures(), list[str]()

    def measure(side: Side, managers: Managers, _number: int) -> None:
        words.extend(f"{side.name}: {said}" for said in _run(side, managers, figures))

    status = run_rounds(MANAGERS, options.rounds, options.only, measure)
    print(machine)
    print(figures.comparison(rival=SWARM.name, ours=SWARMCTL.name))
    print("\n".join(words))
    return status


def _run(side: Side, managers: Managers, figures: Figures) -> list[str]:
    """All steps on one side; what a swarm without a quorum says."""
    leader = managers.leader()
    others = [host for host in managers.hosts if host is not leader]
    dead, alive = [leader, *others[:2]], others[2:]

    started = _kill(dead[:2])
    took = first_accepted([dead[2], *alive]) - started
    figures.add("two of five killed, the leader too -> next write accepted", side.name, took)

    _kill(dead[2:])
    refusals = []
    for host in alive:
        started = time.perf_counter()
        refusals.append(_refusal(host))
        figures.add("three killed -> a write is refused", side.name, time.perf_counter() - started)

    dead[2].restart()
    started = time.perf_counter()
    took = first_accepted(alive) - started
    figures.add("one of them answers again -> next write accepted", side.name, took)
    for host in dead[:2]:
        host.restart()
    managers.wait_whole()
    return sorted(set(refusals))


def _kill(hosts: list[ManagerHost]) -> float:
    started = time.perf_counter()
    for host in hosts:
        host.kill()
    return started


def _refusal(host: ManagerHost) -> str:
    """What a write through a manager without a quorum is answered, status first.

    Raises:
        AssertionError: it was accepted.
    """
    # The leader that has just lost its followers does not know yet, and may hold the call.
    with host.client(timeout_s=_PATIENCE_S) as client:
        try:
            create_service(client)
        except ApiError as error:
            return f"{error.status} {error.text}"
        except NO_ANSWER as error:
            return f"no answer within {_PATIENCE_S:g} s: {error!r}"
    raise AssertionError("a write was accepted by two managers of five")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quorum")
    add_options(parser, rounds=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
