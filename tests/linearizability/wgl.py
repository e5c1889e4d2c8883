"""Is there one order of the operations that explains every answer? The search of Wing and Gong.

A history is linearizable when its operations can be put in one order that a single copy of the
object would have answered alike, and that leaves every operation between its call and its end.
The search tries operations in the order of their calls, undoes the last one when it is stuck, and
never visits a configuration (which operations are placed, what state they left) twice; that memo is
Lowe's. An operation of unknown outcome may be placed anywhere after its call, or nowhere.

Laws:

- The answer is a proof or it is none: ``UNKNOWN`` when the budget of steps runs out, never a guess.
- A configuration is small however long the history: operations are placed almost in the order of
  their calls, so "all below ``low``, and these few above" names them.
- Nothing here knows what is being judged: a :class:`Model` says what one copy would do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)
S = TypeVar("S", bound="Hashable")
BUDGET = 10_000_000


@dataclass(frozen=True)
class Operation(Generic[A_co]):
    """What one client asked and was told.

    Attributes:
        client: who.
        call: the time before it was sent.
        end: the time after its answer had come; None when its outcome is unknown.
        action: question and answer, in the model's words.
    """

    client: int
    call: float
    end: float | None
    action: A_co


class Model(Protocol[S, A_contra]):
    """One copy of the object, used by one client at a time."""

    initial: S

    def step(self, state: S, action: A_contra) -> S | None:
        """Return the state after an action, or None when its answer cannot be given here.

        An action of unknown outcome gives the state that its success leaves, and None where it
        would change nothing: then it need not be placed at all.
        """
        ...


class Outcome(Enum):
    """What a check found."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "NOT linearizable"
    UNKNOWN = "unknown: out of steps"


@dataclass(frozen=True)
class Verdict(Generic[A]):
    """What a check found, and what shows it.

    Attributes:
        outcome: of the check.
        steps: how often the model was asked.
        order: an order that explains everything, or as much as any order does.
        stuck: the operation that must come next there and cannot; only after ``VIOLATED``.
    """

    outcome: Outcome
    steps: int
    order: tuple[Operation[A], ...]
    stuck: Operation[A] | None = None

    def __str__(self) -> str:
        if self.stuck is None:
            return self.outcome.value
        last = "\n".join(f"  {operation}" for operation in self.order[-5:])
        return f"{self.outcome.value}: after\n{last}\nnothing leads to\n  {self.stuck}"


def check(
    history: Iterable[Operation[A]], model: Model[S, A], *, budget: int = BUDGET
) -> Verdict[A]:
    """Judge the history of one object.

    Args:
        budget: how often the model may be asked before the answer is ``UNKNOWN``.
    """
    return _Search(history, model).run(budget)


@dataclass(frozen=True)
class _Placed:
    """What the search was before it placed an operation; enough to undo that."""

    number: int
    low: int
    above: int
    opened: int
    depth: int


class _Search(Generic[S, A]):
    """Calls and returns in a doubly linked list; a placed operation's two are taken out of it.

    Operations are numbered by call, those with an outcome first. Node 0 is the list's head; calls
    have the nodes 1, 2, ..., returns the same plus ``_n``.
    """

    def __init__(self, history: Iterable[Operation[A]], model: Model[S, A]) -> None:
        by_call = sorted(history, key=lambda operation: operation.call)
        known = [operation for operation in by_call if operation.end is not None]
        self._operations = known + [one for one in by_call if one.end is None]
        self._known = len(known)
        self._n = len(by_call)
        self._model = model
        self._next = [0] * (2 * self._n + 1)
        self._previous = [0] * (2 * self._n + 1)
        last = 0
        for node in self._nodes_in_time():
            self._next[last], self._previous[node], last = node, last, node
        self._next[last] = 0
        # Which operations are placed: all known below low, those above by bit, the open by bit.
        self._low = self._above = self._opened = 0

    def _nodes_in_time(self) -> list[int]:
        """Equal times overlap: calls go first, so nobody is blamed for a coarse clock."""
        events = [(one.call, 0, node + 1) for node, one in enumerate(self._operations)]
        events += [
            (one.end, 1, node + 1 + self._n)
            for node, one in enumerate(self._operations)
            if one.end is not None
        ]
        return [node for _, _, node in sorted(events)]

    def run(self, budget: int) -> Verdict[A]:
        state = self._model.initial
        seen: set[tuple[S, int, int, int]] = set()
        placed: list[tuple[_Placed, S]] = []
        steps = depth = 0
        best: tuple[int, ...] = ()
        deepest, stuck = -1, 0
        node = self._next[0]
        while depth < self._known:
            if node > self._n:  # a return: its operation must be placed before anything after it
                if depth > deepest:
                    deepest, stuck = depth, node - self._n - 1
                    best = tuple(one.number for one, _ in placed)
                if not placed:
                    return Verdict(
                        Outcome.VIOLATED, steps, self._named(best), self._operations[stuck]
                    )
                undone, state = placed.pop()
                node, depth = self._undo(undone), undone.depth
                continue
            if steps >= budget:
                return Verdict(Outcome.UNKNOWN, steps, self._named(best))
            steps += 1
            number = node - 1
            after = self._model.step(state, self._operations[number].action)
            if after is not None:
                before = _Placed(number, self._low, self._above, self._opened, depth)
                self._mark(number)
                key = (after, self._low, self._above, self._opened)
                if key not in seen:
                    seen.add(key)
                    placed.append((before, state))
                    self._take_out(number)
                    state, depth = after, depth + (number < self._known)
                    node = self._next[0]
                    continue
                self._low, self._above, self._opened = before.low, before.above, before.opened
            node = self._next[node]
        return Verdict(Outcome.LINEARIZABLE, steps, self._named(one.number for one, _ in placed))

    def _named(self, numbers: Iterable[int]) -> tuple[Operation[A], ...]:
        return tuple(self._operations[number] for number in numbers)

    def _mark(self, number: int) -> None:
        if number >= self._known:
            self._opened |= 1 << (number - self._known)
            return
        self._above |= 1 << (number - self._low)
        while self._above & 1:
            self._above >>= 1
            self._low += 1

    def _take_out(self, number: int) -> None:
        for node in self._nodes_of(number):
            before, after = self._previous[node], self._next[node]
            self._next[before], self._previous[after] = after, before

    def _undo(self, undone: _Placed) -> int:
        """Put an operation back, last out first in; returns the node to go on with."""
        self._low, self._above, self._opened = undone.low, undone.above, undone.opened
        for node in reversed(self._nodes_of(undone.number)):
            before, after = self._previous[node], self._next[node]
            self._next[before] = self._previous[after] = node
        return self._next[undone.number + 1]

    def _nodes_of(self, number: int) -> tuple[int, ...]:
        call = number + 1
        return (call, call + self._n) if number < self._known else (call,)
