"""Shows that the tests kill every seeded fault in the consensus core.

    python -m tests.mutants                    all faults, one after the other
    python -m tests.mutants --rule lease       the rules whose name contains a word
    python -m tests.mutants --each             the first fault of every rule
    python -m tests.mutants --jobs 4 --why

Exit status 1 if any fault survives, 2 if the tests fail without one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from tests.mutants.faults import load  # noqa: E402
from tests.mutants.judging import judge_all  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.mutants.judging import Verdict

BASELINE_LIMIT_S = 300.0
SLACK = 4.0
"""How much longer than the faultless core a faulty one may take."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rule", default="", help="only rules whose name contains this")
    parser.add_argument("--each", action="store_true", help="only the first fault of each rule")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--trusting", action="store_true", help="the tests pass without a fault")
    parser.add_argument("--why", action="store_true", help="also say how the test failed")
    options = parser.parse_args()
    rules = [rule for rule in load() if options.rule in rule.name]
    faults = [fault for rule in rules for fault in rule.faults[: 1 if options.each else None]]
    started = time.monotonic()
    limit_s = BASELINE_LIMIT_S
    if not options.trusting:
        (baseline,) = judge_all([None], jobs=1, limit_s=BASELINE_LIMIT_S)
        if baseline.killer is not None:
            print(f"without any fault fails {baseline.killer}: {baseline.why}", file=sys.stderr)
            return 2
        print(f"without a fault: everything passes in {baseline.seconds:.1f} s", flush=True)
        limit_s = baseline.seconds * SLACK * options.jobs + 60
    survivors = _show(judge_all(faults, jobs=options.jobs, limit_s=limit_s), why=options.why)
    print(
        f"\n{len(rules)} rules, {len(faults)} faults, {len(faults) - len(survivors)} killed, "
        f"{len(survivors)} survive; {time.monotonic() - started:.0f} s"
    )
    for verdict in survivors:
        assert verdict.fault is not None
        print(f"  survives: {verdict.fault.name}")
    return 1 if survivors else 0


def _show(verdicts: Iterable[Verdict], *, why: bool) -> list[Verdict]:
    """Print verdicts as they come; return those of survivors."""
    survivors: list[Verdict] = []
    rule = ""
    for verdict in verdicts:
        fault = verdict.fault
        assert fault is not None
        if fault.rule != rule:
            rule = fault.rule
            print(f"\n{rule}")
        if verdict.killer is None:
            survivors.append(verdict)
        killer = _short(verdict.killer) if verdict.killer else "SURVIVES"
        print(f"  {verdict.seconds:5.1f} s  {fault.breaks}\n           {killer}", flush=True)
        if why and verdict.why:
            print(f"           {verdict.why}", flush=True)
    return survivors


def _short(test: str) -> str:
    """``core/raft/test_log.py test_x`` of ``tests/core/raft/test_log.py::test_x``."""
    return test.removeprefix("tests/").replace("::", " ")


if __name__ == "__main__":
    sys.exit(main())
