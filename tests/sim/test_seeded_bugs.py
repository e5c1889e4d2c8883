"""The simulator finds what is wrong outside consensus: bugs planted one at a time.

All of them, however rare: python -m tests.sim --bug all --seeds 100
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.sim.runs import STEPS, run_some
from tests.sim.seeded_bugs import BUGS, Bug, Patch

QUICK_SEEDS = 12
QUICK = tuple(name for name, bug in BUGS.items() if bug.seeds <= QUICK_SEEDS)


def test_every_quick_bug_is_found() -> None:
    """Each bug that shows in a dozen seeds is found in so many, in whatever way it shows."""
    assert len(QUICK) >= 10
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        outcomes = pool.map(
            run_some, [range(QUICK_SEEDS)] * len(QUICK), [STEPS] * len(QUICK), QUICK
        )
        found = {name: outcome.failure for name, outcome in zip(QUICK, outcomes, strict=True)}
    assert [name for name, failure in found.items() if not failure] == []


@pytest.mark.parametrize("name", BUGS)
def test_every_bug_is_one_of_the_present_source(name: str) -> None:
    """Each bug changes text that is there, and is gone afterwards."""
    with BUGS[name].planted():
        pass
    with BUGS[name].planted():  # as it was, or its text would not be found again
        pass


def test_a_bug_whose_text_is_gone_is_an_error() -> None:
    """A bug that cannot be planted any more does not pass for one that is not found."""
    bug = Bug("nothing", (Patch("core.store.store", "lay", "no such text", ""),))
    with pytest.raises(LookupError, match="does not say"), bug.planted():
        pass
