"""python -m tests.sim: run any seeds of the simulation, and say what they met."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.sim.runs import STEPS, never_seen, run_many, run_some, table
from tests.sim.seeded_bugs import BUGS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many (300)")
    parser.add_argument("--first", type=int, default=0, help="the first one (0)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"events under faults ({STEPS})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--bug", choices=[*BUGS, "all"], help="plant a bug and look for it")
    parser.add_argument("--bugs", action="store_true", help="list the bugs that can be planted")
    options = parser.parse_args()
    if options.bugs:
        for name, bug in BUGS.items():
            print(f"{name:28} {bug.sentence}")
        return 0
    if options.bug:
        names = list(BUGS) if options.bug == "all" else [options.bug]
        return max(_look_for(name, options) for name in names)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    counts: Counter[str] = Counter()
    done = 0
    failures = []
    for outcome in run_many(options.first, options.seeds, options.steps, jobs=options.jobs):
        counts.update(outcome.counts)
        done += outcome.seeds
        if outcome.failure:
            failures.append(outcome.failure)
            print(outcome.failure, flush=True)
    took = time.monotonic() - began
    print(table(counts))
    print(f"{done} seeds of {options.steps} steps in {took:.1f} s, {done / took:.1f} a second")
    if not failures and (missing := never_seen(counts)):
        print(f"never seen: {', '.join(missing)}")
    print(f"{len(failures)} failed" if failures else "no promise was broken")
    return 1 if failures else 0


def _look_for(name: str, options: argparse.Namespace) -> int:
    outcome = run_some(range(options.first, options.first + options.seeds), options.steps, name)
    if outcome.failure:
        print(f"{name}: found by the {outcome.seeds}. seed: {outcome.failure.splitlines()[0]}")
        return 0
    print(f"{name}: NOT FOUND in {outcome.seeds} seeds")
    return 1


if __name__ == "__main__":
    sys.exit(main())
