"""Histories for the checker's own tests: short words for operations, and random ones."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.linearizability.register import Action, Read, Register, Swap, Write
from tests.linearizability.wgl import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hypothesis.strategies import DrawFn

VALUES = ("", "a", "b", "c")


def history(*lines: tuple[float, float | None, Action]) -> list[Operation[Action]]:
    """Return operations from (call, end, action); each has a client of its own."""
    return [Operation(client, *line) for client, line in enumerate(lines)]


def is_linearizable_slowly(operations: Sequence[Operation[Action]], model: Register) -> bool:
    """The definition, word by word: some of the unknown ones, in some order, explain all."""
    known = [one for one in operations if one.end is not None]
    unknown = [one for one in operations if one.end is None]
    return any(
        _keeps_time(order) and _explains(order, model)
        for size in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, size)
        for order in itertools.permutations([*known, *chosen])
    )


def _keeps_time(order: Sequence[Operation[Action]]) -> bool:
    return not any(
        later.end is not None and later.end < earlier.call
        for earlier, later in itertools.combinations(order, 2)
    )


def _explains(order: Iterable[Operation[Action]], model: Register) -> bool:
    state: str | None = model.initial
    for one in order:
        assert state is not None
        state = model.step(state, one.action)
        if state is None:
            return False
    return True


@st.composite
def any_histories(draw: DrawFn, size: int = 6) -> list[Operation[Action]]:
    """Up to ``size`` operations with answers out of the air: some possible, most not."""
    actions = st.one_of(
        st.builds(Read, st.sampled_from(VALUES)),
        st.builds(Write, st.sampled_from(VALUES[1:])),
        st.builds(
            Swap,
            st.sampled_from(VALUES),
            st.sampled_from(VALUES[1:]),
            st.sampled_from([True, False, None]),
        ),
    )
    made = []
    for client in range(draw(st.integers(1, size))):
        action = draw(actions)
        call = draw(st.integers(0, 12))
        end: int | None = call + draw(st.integers(0, 8))
        if isinstance(action, Swap) and action.done is None:
            end = None
        made.append(Operation(client, call, end, action))
    return made


@st.composite
def true_histories(draw: DrawFn, size: int = 200) -> list[Operation[Action]]:
    """What clients of one real copy see: the n-th action takes effect at n, within its interval.

    One answer in eight is lost on its way. The values swapped in are unique.
    """
    state, previous = "", ""
    made: list[Operation[Action]] = []
    for moment in range(draw(st.integers(1, size))):
        spread = draw(st.integers(0, 8))
        call, end = moment - draw(st.integers(0, spread)), moment + draw(st.integers(0, spread))
        kind = draw(st.integers(0, 7))
        if kind < 3:
            made.append(Operation(moment, call - 0.3, end + 0.3, Read(state)))
            continue
        old = state if kind < 6 else previous
        done = old == state
        action = Swap(old, f"v{moment}", done)
        if done:
            previous, state = state, action.new
        if draw(st.integers(0, 7)):
            made.append(Operation(moment, call - 0.3, end + 0.3, action))
        else:
            made.append(Operation(moment, call - 0.3, None, Swap(old, action.new, None)))
    return made
