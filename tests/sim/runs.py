"""Many seeds in a row, on as many processes as there are processors."""

from __future__ import annotations

import gc
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple

from tests.sim.checks import Broken
from tests.sim.cluster import Cluster
from tests.sim.seeded_bugs import BUGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STEPS = 5_000
SEEDS_PER_JOB = 5

FAULTS = (
    "clocks jumped",
    "containers ended",
    "daemon killed",
    "daemon stopped",
    "disks full",
    "disks slow",
    "hosts cut off",
    "leaders killed",
    "links cut one way",
    "messages cut off",
    "messages delayed",
    "messages doubled",
    "messages lost",
    "messages reordered",
    "partitions",
    "power lost",
    "restarts",
    "storms",
    "streams broken",
    "tasks rejected",
    "writes lost",
)
RARE = (
    "crashes in a joint membership",
    "crashes in a transfer",
    "figure 8",
    "global jobs on newcomers",
    "global on newcomers",
    "joint memberships",
    "learners added",
    "learners promoted",
    "leaders cut off",
    "mass silence",
    "nodes declared down",
    "nodes that joined",
    "overlapping containers",
    "proposals dropped",
    "ready tasks taken",
    "removals",
    "removed members told",
    "retries answered",
    "retries in the log",
    "snapshots broken off",
    "snapshots installed",
    "snapshots resumed",
    "snapshots under loss",
    "steps: give vote",
    "steps: hand over",
    "steps: remove",
    "tasks evicted",
    "transfer in flight",
    "transfers",
    "writes lost with leadership",
)
WORK = (
    "answers lost",
    "calls forwarded",
    "containers started",
    "elections",
    "reads",
    "seconds to settle",
    "sessions",
    "snapshots sent",
    "writes applied",
    "writes in conflict",
    "writes refused",
    "writes retried",
)


class Outcome(NamedTuple):
    """What became of some seeds: how often what happened, and the failure that ended them."""

    seeds: int
    counts: Counter[str]
    failure: str = ""


def run_seed(seed: int, steps: int = STEPS) -> Counter[str]:
    """Run one seed; return how often what happened.

    Raises:
        Broken: with the seed and the last events.
    """
    enabled = gc.isenabled()
    gc.disable()  # a run is short, and most of what it makes lives to its end
    try:
        cluster = Cluster(seed)
        cluster.run(steps)
    finally:
        if enabled:
            gc.enable()
    return cluster.counts


def run_some(seeds: Iterable[int], steps: int, bug: str = "") -> Outcome:
    """Run seeds up to the first failure, with a bug planted if one is named.

    Raises:
        Broken: the seed fails without the bug as well, so it proves nothing about it.
    """
    counts: Counter[str] = Counter()
    done = 0
    for seed in seeds:
        done += 1
        try:
            with BUGS[bug].planted() if bug else nullcontext():
                counts.update(run_seed(seed, steps))
        except Broken as error:
            if bug:
                run_seed(seed, steps)
            return Outcome(done, counts, str(error))
    return Outcome(done, counts)


def run_many(first: int, count: int, steps: int = STEPS, *, jobs: int = 1) -> Iterator[Outcome]:
    """Run ``count`` seeds from ``first`` on, and give what becomes of each few of them."""
    last = first + count
    ranges = [range(at, min(at + SEEDS_PER_JOB, last)) for at in range(first, last, SEEDS_PER_JOB)]
    if jobs == 1:
        for seeds in ranges:
            yield run_some(seeds, steps)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run_some, ranges, [steps] * len(ranges))


def table(counts: Counter[str]) -> str:
    """Return how often what happened, in columns."""
    lines = []
    for title, names in (("faults", FAULTS), ("rare states", RARE), ("work", WORK)):
        lines.append(title)
        lines += [f"  {name:32} {counts[name]:9}" for name in names]
    known = {*FAULTS, *RARE, *WORK}
    lines += [f"  {name:32} {counts[name]:9}" for name in sorted(counts) if name not in known]
    return "\n".join(lines)


def never_seen(counts: Counter[str]) -> list[str]:
    """Return the faults and rare states that did not occur."""
    return [name for name in (*FAULTS, *RARE) if not counts[name]]
