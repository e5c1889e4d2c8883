"""Questions that go out in batches, answers that come back, and a plugin's standing.

A :class:`Desk` belongs to one stand-in (:mod:`.stand_ins`): while deciders run it collects what
they ask, ``send`` makes a batch of it, the runner fills in the answers. A :class:`Plugin` is what
all its desks share. Plain code: who carries the batches, and what time it is, comes from outside.

Laws:

- One batch of a desk is under way at a time; until it is back nothing is added.
- A question that was not answered, for whatever reason, is answered by the default, once.
- Three failures within an hour switch a plugin off: from then on the default answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from ...core.errors import AnswerAwaited, SwarmError
from .redact import Mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ...core.store.view import View
    from .messages import Answer, Question

FAILURES_MAX = 3
FAILURES_WITHIN_S = 3600.0
BATCHES_KEPT = 8
"""Answers that nobody took are forgotten after so many batches."""

FoundT = TypeVar("FoundT")


class ImpossibleAnswer(SwarmError):
    """A plugin's answer does not fit its question; the text says how."""


@dataclass(frozen=True)
class Asked(Generic[FoundT]):
    """One question of a batch.

    Attributes:
        question: given whether it is the first of its batch.
        found: checks the answer and makes of it what the stand-in wants to know.
    """

    question: Callable[[bool], Question]
    found: Callable[[Answer], FoundT]


class Plugin:
    """How one outside plugin stands with this manager.

    Attributes:
        name: what the configuration calls it.
        mirror: which rows its child lacks.
        off: why it is not asked any more, in a sentence; empty while it is.
        last_failure: what went wrong last, in a sentence; empty for nothing.
        failures: how often it failed since this daemon started.
        post: told that a desk has a batch; the runner's.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.mirror = Mirror()
        self.off = ""
        self.last_failure = ""
        self.failures = 0
        self.post: Callable[[], None] = _nobody
        self.desks: list[Desk[object]] = []
        self._failed_at: list[float] = []

    def failed(self, text: str, now_s: float) -> None:
        """Note a failure, at a time of the monotonic clock."""
        self.last_failure = text
        self.failures += 1
        recent = [at for at in self._failed_at if now_s - at < FAILURES_WITHIN_S]
        self._failed_at = [*recent, now_s]
        if len(self._failed_at) >= FAILURES_MAX:
            self.off = (
                f"plugin {self.name} failed {FAILURES_MAX} times within an hour and is off until "
                f"its settings or its code change; the last time: {text}"
            )

    def forget(self) -> None:
        """This manager leads no more: what was asked and answered is nobody's."""
        self.mirror.forget()
        for desk in self.desks:
            desk.forget()


class Desk(Generic[FoundT]):
    """The questions of one stand-in.

    Attributes:
        wake: called when answers are there; the reconcile loop's.
        open: the batch under way.
    """

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        plugin.desks.append(self)  # type: ignore[arg-type] # it only ever forgets them
        self.wake: Callable[[], None] = _nobody
        self.open: dict[Hashable, Asked[FoundT]] | None = None
        self._wishes: dict[Hashable, Asked[FoundT]] = {}
        self._found: dict[Hashable, FoundT] = {}
        self._batch_of: dict[Hashable, int] = {}
        self._batch = 0
        self._by_default: set[Hashable] = set()

    # --- for the stand-in ---

    @property
    def busy(self) -> bool:
        """Questions are under way."""
        return self.open is not None

    def is_for_default(self, key: Hashable) -> bool:
        """Return whether the default answers a question this time."""
        return bool(self._plugin.off) or key in self._by_default

    def find(self, key: Hashable) -> FoundT | None:
        """Return what is known of a question, None for nothing yet."""
        return self._found.get(key)

    def wish(self, key: Hashable) -> Asked[FoundT] | None:
        """Return what is being asked under a key in the pass that goes on."""
        return self._wishes.get(key)

    def ask(self, key: Hashable, asked: Asked[FoundT]) -> AnswerAwaited:
        """Note a question, unless others are under way; return what to raise."""
        if not self.busy:
            self._wishes[key] = asked
        return AnswerAwaited()

    def send(self, view: View, *, waits: bool = False) -> bool:
        """The pass is over: its questions go out. Return whether any are under way.

        Args:
            waits: somebody comes back for other answers, and then needs the default's again.
        """
        if not waits:
            self._by_default.clear()
        if self._wishes and not self.busy:
            self.open, self._wishes = self._wishes, {}
            self._plugin.mirror.capture(view)
            self._plugin.post()
        return self.busy

    # --- for the runner ---

    def answered(self, key: Hashable, found: FoundT) -> None:
        """Take the answer to one question of the open batch."""
        assert self.open is not None
        del self.open[key]
        self._found[key] = found
        self._batch_of[key] = self._batch

    def close(self) -> None:
        """The batch is over; what was not answered is the default's."""
        self._by_default = set(self.open or ())
        self.open = None
        self._batch += 1
        for key, batch in list(self._batch_of.items()):
            if batch <= self._batch - BATCHES_KEPT:
                self.drop(key)
        self.wake()

    def drop(self, key: Hashable) -> None:
        """Forget an answer: it was used, or fits no more."""
        self._found.pop(key, None)
        self._batch_of.pop(key, None)

    def forget(self) -> None:
        """Forget all that was asked and answered."""
        self.open = None
        self._wishes.clear()
        self._found.clear()
        self._batch_of.clear()
        self._by_default.clear()


def _nobody() -> None:
    """Nobody listens yet."""
