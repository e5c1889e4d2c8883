"""Raft's promises under random faults: some seeds in every run, any number by hand.

python -m pytest tests/sim --raft-seeds 2000 --raft-first-seed 5000
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.sim.raft_sim import Simulation

if TYPE_CHECKING:
    import pytest

STEPS = 8000

RARE = (
    "elections",
    "figure 8",
    "joint",
    "membership changes",
    "snapshots sent",
    "snapshots lost",
    "snapshots installed",
    "transfers",
    "crashes",
    "writes lost",
    "compactions",
    "reads",
    "messages lost",
    "messages doubled",
    "links broken",
)


def test_no_promise_is_broken_under_faults(pytestconfig: pytest.Config) -> None:
    """Whatever is lost, doubled, delayed, cut or crashed: one history, and agreement at the end.

    And the faults and rare states that this is about did occur.
    """
    first = pytestconfig.getoption("--raft-first-seed")
    counts: Counter[str] = Counter()
    for seed in range(first, first + pytestconfig.getoption("--raft-seeds")):
        simulation = Simulation(seed)
        simulation.run(STEPS)
        counts += simulation.counts
    print(dict(counts))  # shown with -s
    assert [name for name in RARE if not counts[name]] == []


def test_a_seed_reproduces_its_run() -> None:
    """The same seed gives the same history, event by event."""
    runs = []
    for _ in range(2):
        simulation = Simulation(7)
        simulation.run(STEPS)
        runs.append((simulation.counts, simulation.watch.committed))
    assert runs[0] == runs[1]
