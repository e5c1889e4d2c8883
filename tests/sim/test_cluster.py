"""Whole clusters under faults: 300 seeds in every run, any number by hand.

python -m tests.sim --seeds 5000 --first 300
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

from tests.sim.cluster import Cluster
from tests.sim.runs import STEPS, never_seen, run_many, table

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

REPRODUCED = (3, 8, 21)


def test_no_promise_is_broken_whatever_fails(pytestconfig: pytest.Config) -> None:
    """Under every fault all promises hold, and when faults end all comes to what was asked for.

    And every fault and rare state that this is about did occur.
    """
    first = pytestconfig.getoption("--cluster-first-seed")
    seeds = pytestconfig.getoption("--cluster-seeds")
    counts: Counter[str] = Counter()
    for outcome in run_many(first, seeds, jobs=os.cpu_count() or 1):
        assert not outcome.failure, outcome.failure
        counts.update(outcome.counts)
    print(table(counts))  # shown with -s
    assert never_seen(counts) == []


def test_a_seed_reproduces_its_run_in_any_process(pytestconfig: pytest.Config) -> None:
    """One seed gives one history, byte by byte, also where Python hashes differently."""
    program = (
        "from tests.sim.cluster import Cluster\n"
        f"for seed in {REPRODUCED}:\n"
        "    cluster = Cluster(seed)\n"
        f"    cluster.run({STEPS})\n"
        "    print(seed, cluster.checks.fingerprint(), cluster.queue.now, "
        "sorted(cluster.counts.items()))\n"
    )
    runs = [_output(program, hash_seed, pytestconfig.rootpath) for hash_seed in ("1", "2")]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) == len(REPRODUCED)


def test_a_run_is_large_enough() -> None:
    """Every seed's cluster has three managers and three workers or five nodes, or more."""
    for seed in range(30):
        options = Cluster(seed).options
        assert options.managers >= 3
        assert options.workers >= 3 or options.managers + options.workers >= 5


def _output(program: str, hash_seed: str, root: Path) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
