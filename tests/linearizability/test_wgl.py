"""The linearizability checker: known verdicts, true histories, and the definition itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linearizability.histories import (
    any_histories,
    history,
    is_linearizable_slowly,
    true_histories,
)
from tests.linearizability.register import Action, Read, Register, Swap, Write
from tests.linearizability.wgl import Operation, Outcome, check

KNOWN = {
    "nothing": (history(), True),
    "what was there first": (history((0, 1, Read(""))), True),
    "a read after a write sees it": (history((0, 1, Write("a")), (2, 3, Read("a"))), True),
    "a stale read": (history((0, 1, Write("a")), (2, 3, Read(""))), False),
    "a read beside a write may miss it": (history((0, 3, Write("a")), (1, 2, Read(""))), True),
    "and may see it": (history((0, 3, Write("a")), (1, 2, Read("a"))), True),
    "but nobody may miss it after somebody saw it": (
        history((0, 9, Write("a")), (1, 2, Read("a")), (3, 4, Read(""))),
        False,
    ),
    "two readers agree on the order of two writers": (
        history(
            *((0, 1, Write("a")), (0, 1, Write("b"))),
            *((2, 3, Read("a")), (4, 5, Read("b"))),
        ),
        False,
    ),
    "a value nobody wrote": (history((0, 1, Read("a"))), False),
    "a write whose answer was lost takes effect late": (
        history((0, None, Write("a")), (1, 2, Read("")), (3, 4, Read("a"))),
        True,
    ),
    "and then stays": (
        history((0, None, Write("a")), (1, 2, Read("a")), (3, 4, Read(""))),
        False,
    ),
    "or never takes effect": (history((0, None, Write("a")), (1, 2, Read(""))), True),
    "but not before it was asked for": (
        history((3, None, Swap("", "a", None)), (1, 2, Read("a"))),
        False,
    ),
    "a swap finds what it names": (
        history((0, 1, Swap("", "a", done=True)), (2, 3, Swap("a", "b", done=True))),
        True,
    ),
    "two swaps of one value cannot both win": (
        history((0, 5, Swap("", "a", done=True)), (0, 5, Swap("", "b", done=True))),
        False,
    ),
    "a swap is refused for a reason": (history((0, 1, Swap("", "a", done=False))), False),
    "and one of unknown outcome can be that reason": (
        history((0, None, Swap("", "b", None)), (1, 2, Swap("", "a", done=False))),
        True,
    ),
    "a swap that was acknowledged and lost": (
        history((0, 1, Swap("", "a", done=True)), (2, 3, Swap("", "b", done=True))),
        False,
    ),
    "a value that comes back": (
        history((0, 1, Swap("", "a", done=True)), (2, 3, Read("a")), (4, 5, Read(""))),
        False,
    ),
    "equal times overlap": (history((0, 1, Write("a")), (1, 2, Read(""))), True),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_histories(name: str) -> None:
    """Each history gets the verdict that its name says."""
    operations, expected = KNOWN[name]
    verdict = check(operations, Register())
    assert (verdict.outcome is Outcome.LINEARIZABLE) is expected
    assert is_linearizable_slowly(operations, Register()) is expected


@given(any_histories())
def test_the_search_agrees_with_the_definition(operations: list[Operation[Action]]) -> None:
    """On small histories of any kind the verdict is that of trying every order."""
    found = check(operations, Register()).outcome is Outcome.LINEARIZABLE
    assert found is is_linearizable_slowly(operations, Register())


@given(true_histories())
def test_true_histories_are_accepted(operations: list[Operation[Action]]) -> None:
    """What clients of one real copy saw is linearizable, and the order that is given shows it."""
    verdict = check(operations, Register())
    assert verdict.outcome is Outcome.LINEARIZABLE
    state: str | None = ""
    for place, one in enumerate(verdict.order):
        assert all(other.end is None or other.end >= one.call for other in verdict.order[place:])
        assert state is not None
        state = Register().step(state, one.action)
    assert state is not None


@given(true_histories(size=60), st.data())
def test_one_wrong_answer_is_found(
    operations: list[Operation[Action]], data: st.DataObject
) -> None:
    """A read of a value that nobody can have written yet is refused, wherever it is."""
    place = data.draw(st.integers(0, len(operations) - 1))
    at = operations[place].call
    later = [_new_value(one) for one in operations if one.call > at + 1]
    wrong = data.draw(st.sampled_from([*filter(None, later), "never written"]))
    operations.append(Operation(-1, at, at + 0.5, Read(wrong)))
    assert check(operations, Register()).outcome is Outcome.VIOLATED


@given(true_histories(size=6), st.data())
def test_any_other_answer_is_judged_by_the_definition(
    operations: list[Operation[Action]], data: st.DataObject
) -> None:
    """A true history with one answer turned round is judged as by trying every order."""
    place = data.draw(st.integers(0, len(operations) - 1))
    one = operations[place]
    action = one.action
    if isinstance(action, Swap) and action.done is not None:
        action = replace(action, done=not action.done)
    elif isinstance(action, Read):
        action = Read(data.draw(st.sampled_from(["", "v0", "v1", "v2", "v3"])))
    operations[place] = replace(one, action=action)
    found = check(operations, Register()).outcome is Outcome.LINEARIZABLE
    assert found is is_linearizable_slowly(operations, Register())


def test_a_lost_acknowledged_swap_is_named() -> None:
    """The verdict names the operation that nothing leads to, after the last that has a place."""
    lost = history((0, 1, Swap("", "a", done=True)), (2, 3, Read("a")), (4, 5, Read("")))
    verdict = check(lost, Register())
    assert verdict.stuck is lost[2]
    assert verdict.order == tuple(lost[:2])
    assert "Read(value='')" in str(verdict)


def test_a_budget_ends_in_no_verdict() -> None:
    """Out of steps the answer is neither yes nor no."""
    operations = history((0, 1, Write("a")), (2, 3, Read("a")))
    assert check(operations, Register(), budget=1).outcome is Outcome.UNKNOWN


def test_a_long_history_is_judged_in_few_steps() -> None:
    """Steps grow with the history's length times its width, also with many answers lost."""
    operations: list[Operation[Action]] = []
    state = ""
    for number in range(20_000):
        new = f"v{number}"
        lost = number % 100 == 99
        end = None if lost else number + 6.5
        done = None if lost else True
        operations.append(Operation(number % 8, number - 0.5, end, Swap(state, new, done)))
        state = new
        operations.append(Operation(8, number, number + 0.6, Read(state)))
    verdict = check(operations, Register())
    assert verdict.outcome is Outcome.LINEARIZABLE
    assert verdict.steps < 40 * len(operations)


def _new_value(one: Operation[Action]) -> str:
    return one.action.new if isinstance(one.action, Swap) and one.action.done is not False else ""
