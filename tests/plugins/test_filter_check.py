"""The check of filters finds what would make tasks wait for ever, or without a reason."""

# ruff: noqa: ARG005 - the broken ones ignore what they are asked

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from swarmctl.core.scheduler.filters import BUILT_IN
from swarmctl.plugins.testing import ConformanceError, check_filter


@pytest.mark.parametrize("one", BUILT_IN, ids=lambda one: one.name)
def test_our_own_filters_keep_the_laws(one: Any) -> None:
    """Every built-in filter passes what is asked of everybody's."""
    check_filter(lambda: one)


class Good:
    """Refuses odd nodes."""

    name = "odd"
    static = True

    def check(self, task: Any) -> Any:
        return lambda node, load: int(node.api.ID[-1]) % 2

    def explain(self, nodes: int) -> str:
        return f"{nodes} odd"

    def why(self, task: Any, place: Any, others: Any) -> Any:
        return "an even number", "an odd one"


def test_a_good_one_passes() -> None:
    """The one that the broken ones below are made of."""
    check_filter(Good)


numbers = count()
BROKEN = {
    "not one word": {"name": "two words"},
    "neither True nor False": {"static": "yes"},
    "instead of a number": {"check": lambda self, task: lambda node, load: True},
    "for the same question": {"check": lambda self, task: lambda node, load: next(numbers)},
    "looked at the load": {"check": lambda self, task: lambda node, load: load.tasks},
    "no sentence": {"explain": lambda self, nodes: ""},
    "words for a user": {"why": lambda self, task, place, others: ("", "")},
}


@pytest.mark.parametrize("seen", BROKEN)
def test_a_broken_one_is_found_out(seen: str) -> None:
    """The error names what was seen."""
    with pytest.raises(ConformanceError, match=seen):
        check_filter(type("Broken", (Good,), BROKEN[seen]))
