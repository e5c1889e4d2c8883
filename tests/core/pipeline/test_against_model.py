"""The whole life of services of all modes, against a model that says in plain rules what must be.

Some hundred random lives in every run, any number by hand:

    python -m tests.core.pipeline.lives --seeds 20000 --first 1000
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.core.pipeline.lives import failure_of, life, shortened, story
from tests.core.pipeline.mistakes import MISTAKES, SEEDS
from tests.core.pipeline.model import Objection
from tests.core.pipeline.stage import MODES, Stage

if TYPE_CHECKING:
    from swarmctl.core.model.objects import TaskRow

FEWEST = 10
"""Whatever happens at all in the lives of one run happens so often."""


def test_what_comes_of_any_life_is_what_the_model_says(pytestconfig: pytest.Config) -> None:
    """Nothing that must never be ever is; in the end there is all that must be, and it rests."""
    first = pytestconfig.getoption("--model-first-seed")
    for seed in range(first, first + pytestconfig.getoption("--model-seeds")):
        told = story(seed)
        assert not told, told


def test_lives_are_full_enough() -> None:
    """In a run's first lives services of every mode run, fail, complete, roll and go back."""
    seen: Counter[str] = Counter()
    for seed in range(200):
        stage = Stage()
        for deed in life(seed):
            stage.do(deed)
        stage.settle_all()
        seen.update(stage.model.met)
    expected = {
        *(f"{mode} task running" for mode in MODES.values()),
        *("restarts", "evictions", "completions", "taken for an update", "ready in its place"),
        *("completed", "paused", "rollback_started", "rollback_completed"),
        *("refused", "gone back by itself"),
    }
    assert {name for name in expected if seen[name] < FEWEST} == set(), seen


def test_a_life_that_goes_wrong_is_told_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a failing life is what it takes: who reads it sees the cause."""

    def objects(self: Stage, task: TaskRow) -> None:
        raise Objection("a task has an agent")

    monkeypatch.setattr(Stage, "_next", objects)
    deeds = life(3)
    assert failure_of(deeds) == "Objection: a task has an agent"
    kinds = [kind for kind, *_ in shortened(deeds)]
    assert kinds[-1] == "set"
    assert len(kinds) <= 2


@pytest.mark.parametrize("name", MISTAKES)
def test_the_model_notices(name: str) -> None:
    """Each mistake that one could make in a decider is objected to within some dozens of lives."""
    with MISTAKES[name].planted():
        assert any(failure_of(life(seed)) for seed in range(SEEDS))
