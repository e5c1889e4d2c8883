"""Lost writes, and what may never go back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linearizability.histories import history, true_histories
from tests.linearizability.monotonic import (
    Sighting,
    first_contradiction,
    first_fall,
    first_repeat,
)
from tests.linearizability.register import Action, Register, Swap, lost_writes
from tests.linearizability.wgl import Operation, check

A_THEN_B = history((0, 1, Swap("", "a", done=True)), (2, None, Swap("a", "b", None)))


def test_a_write_beside_the_chain_is_lost() -> None:
    """An acknowledged swap counts as lost when the final value does not come from it."""
    assert lost_writes(A_THEN_B, initial="", final="b") == []
    assert lost_writes(A_THEN_B, initial="", final="a") == []
    assert lost_writes(A_THEN_B, initial="", final="") == [A_THEN_B[0]]


def test_a_value_out_of_nowhere_is_no_chain() -> None:
    """A final value that nobody wrote is an error of its own."""
    with pytest.raises(ValueError, match="'z' was read"):
        lost_writes(A_THEN_B, initial="", final="z")


@given(true_histories(size=60))
def test_a_true_history_loses_nothing(operations: list[Operation[Action]]) -> None:
    """The last value of a real copy comes from every acknowledged swap."""
    final: str | None = ""
    for one in check(operations, Register()).order:
        assert final is not None
        final = Register().step(final, one.action)
    assert final is not None
    assert lost_writes(operations, initial="", final=final) == []


def test_an_index_that_falls() -> None:
    """A lower index is a fall only where the higher one was over before."""
    high, low = Sighting(0, 1, 7), Sighting(2, 3, 6)
    assert first_fall([low, high]) == (high, low)
    assert first_fall([Sighting(0, 2, 7), low]) is None
    assert first_fall([high, Sighting(2, 3, 7), Sighting(4, 5, 8)]) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_falls_are_found_as_by_comparing_all(drawn: list[tuple[int, int, int]]) -> None:
    """A fall is found exactly when some pair of sightings is one."""
    seen = [Sighting(call, call + length, index) for call, length, index in drawn]
    falls = [(a, b) for a in seen for b in seen if a.end < b.call and a.index > b.index]
    found = first_fall(seen)
    assert (found in falls) if falls else (found is None)


def test_a_stream_tells_everything_once() -> None:
    """The same event at the same index twice is a repeat; two events at one index are none."""
    first, again = Sighting(0, 0, 5, "created"), Sighting(1, 1, 5, "created")
    assert first_repeat([first, again]) == (first, again)
    assert first_repeat([first, Sighting(1, 1, 5, "updated")]) is None


def test_a_version_stands_for_one_content() -> None:
    """Two contents under one version contradict each other."""
    one, other = Sighting(0, 0, 5, "a"), Sighting(1, 1, 5, "b")
    assert first_contradiction([one, other]) == (one, other)
    assert first_contradiction([one, Sighting(1, 1, 6, "b")]) is None
