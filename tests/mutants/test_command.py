"""The command itself: it finds what is killed, by which test, and says so of what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

JUDGE = """
from tests.mutants.faults import Fault
from tests.mutants.judging import judge_all
majority = "return members // 2 + 1"
faults = [Fault("rule", "breaks", "quorum.py", majority, new) for new in {news!r}]
tests = ["tests/core/raft/test_quorum.py"]
for verdict in judge_all(faults, jobs=1, limit_s={limit_s}, files=tests):
    print(verdict.killer)
"""


def killers(*news: str, limit_s: float) -> list[str]:
    """What kills each of these ways to count a majority, by the tests of counting alone.

    In a process of its own: the core must not have been imported yet.
    """
    code = JUDGE.format(news=news, limit_s=limit_s)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    return run.stdout.splitlines()


def test_the_first_test_that_fails_is_named() -> None:
    """None for what nobody notices; a module that cannot be loaded is noticed."""
    same, fault, no_program = killers(
        "return 1 + members // 2", "return members", "return )", limit_s=300
    )
    assert same == "None"
    assert fault.startswith("tests/core/raft/test_quorum.py::test_a_ballot_is_decided_when")
    assert no_program == "tests/core/raft/test_quorum.py"


def test_a_fault_that_never_ends_is_killed_by_the_clock() -> None:
    """Its child is stopped when its time is up, and that counts."""
    assert killers("while True: pass", limit_s=3) == ["the time limit"]


def test_one_fault_of_a_rule_is_judged_by_everything() -> None:
    """The whole way: all judges, a table, and no survivor."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--rule", "heartbeat", "--each", "--trusting"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "1 rules, 1 faults, 1 killed, 0 survive" in run.stdout
