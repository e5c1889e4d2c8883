"""One reconciler's passes as plain code: which keys are due, what they want, which are put off.

:mod:`.reconcile` runs it for a leader, the simulator (tests/sim) runs the same on its own queue.
It knows no clock and nobody to propose to: times come in, transactions go out, results come back.

Laws:

- Level-driven: with nothing known of what was touched every key is due. There is no other
  start-up path.
- A key whose decide raises, or that never comes to rest, is logged and retried later. It does not
  end the loop, so one bad object cannot take leader after leader down.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from ..ids import NewId
from ..model.change import Conflict, Decision, Ref, Transaction
from ..store.store import lay
from ..store.view import View

if TYPE_CHECKING:
    from ..model.change import Result
    from ..store.view import Overlay

BUSY_PASSES_MAX = 50
BUSY_DELAY_MAX_S = 1.0
CONTINUED_PASSES_MAX = 10_000
FREE_RETRIES = 2
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 60.0
DOUBLINGS_MAX = 32

Keys = Callable[[View, "set[Ref] | None"], Iterable[str]]
Run = Callable[[], Awaitable[None]]
Wake = Callable[[], None]
Decide = Callable[[View, str, int, NewId], Decision]

log = logging.getLogger(__name__)


class Reconciler(msgspec.Struct, frozen=True, kw_only=True):
    """What makes one reconciler.

    Attributes:
        name: for logs and the task tree.
        keys: which keys touched rows concern; None for the rows means all keys.
        decide: (view, key, now in nanoseconds, new_id) -> Decision; pure, also in what plugins
            outside this process have answered by now.
        told_by: whoever gives such answers is handed what to call when there is one.
        beside: what runs beside the loop for it while this manager leads, by name; several
            reconcilers may name the same.
    """

    name: str
    keys: Keys
    decide: Decide
    told_by: tuple[Callable[[Wake], None], ...] = ()
    beside: dict[str, Run] = msgspec.field(default_factory=dict)


class Unrest(msgspec.Struct):
    """Why a key is put off: errors, conflicts or passes in a row that all wanted changes.

    Passes that said that there is more to do at once are counted apart, and many are allowed: a
    bounded decision takes many turns to place thousands of tasks.
    """

    failures: int = 0
    busy: int = 0
    continued: int = 0


class Passes:
    """What one reconciler remembers from pass to pass, for one term of leadership.

    Attributes:
        wake: when keys want to be asked again though nothing changes, in nanoseconds.
        unrest: keys that are not at rest.
    """

    def __init__(self, reconciler: Reconciler, new_id: NewId) -> None:
        self.name = reconciler.name
        self.wake: dict[str, int] = {}
        self.unrest: dict[str, Unrest] = {}
        self._reconciler = reconciler
        self._new_id = new_id

    def ask_again(self) -> None:
        """Ask all keys now that wait for a time.

        The clock was set, so it was a time of the clock as it was; or an answer came that a key may
        wait for.
        """
        self.wake = dict.fromkeys(self.wake, 0)

    def due(self, view: View, touched: set[Ref] | None, now: int) -> list[str]:
        """Return the keys to decide now.

        Args:
            touched: rows that changed since the last call; None for "look at everything".
        """
        due = dict.fromkeys(self._reconciler.keys(view, touched))
        for key, unrest in self.unrest.items():
            if unrest.failures or unrest.busy >= BUSY_PASSES_MAX:
                due.pop(key, None)  # its own wake-up brings it back
        due.update(dict.fromkeys(key for key, at in self.wake.items() if at <= now))
        return list(due)

    def decide(self, overlay: Overlay, key: str, now: int) -> tuple[Transaction, ...]:
        """Return what a key wants, and lay it over the view for the keys after it."""
        self.wake.pop(key, None)
        transactions = self._decide(overlay, key, now)
        for transaction in transactions:
            for change in transaction.changes:
                lay(overlay, change, overlay.index + 1, now)
        return transactions

    def take_results(self, key: str, results: Iterable[Result], now: int) -> None:
        """Note what became of a key's transactions; one that lost a race is decided again."""
        lost = [each for each in results if isinstance(each, Conflict)]
        if lost:
            log.debug("%s: %s lost a race: %s", self.name, key, lost[0])
            self.put_off(key, now, free_retries=FREE_RETRIES)
        elif key in self.unrest:
            self.unrest[key].failures = 0

    def put_off(self, key: str, now: int, *, free_retries: int = 0) -> None:
        """Have a key wait, longer each time in a row."""
        unrest = self.unrest.setdefault(key, Unrest())
        doublings = unrest.failures - free_retries
        delay_s = _doubled(RETRY_FIRST_S, doublings, RETRY_MAX_S) if doublings >= 0 else 0.0
        unrest.failures += 1
        self.wake[key] = now + int(delay_s * 1e9)

    def wake_at(self) -> int | None:
        """Return when the next key wants to be asked again, None for "when something changes"."""
        return min(self.wake.values(), default=None)

    def _decide(self, view: View, key: str, now: int) -> tuple[Transaction, ...]:
        try:
            decision = self._reconciler.decide(view, key, now, self._new_id)
        except Exception:
            log.exception("%s: deciding %s failed; it is tried again later", self.name, key)
            self.put_off(key, now)
            return ()
        if decision.wake_at is not None:
            self.wake[key] = decision.wake_at
        if not decision.transactions:
            self.unrest.pop(key, None)
            return ()
        unrest = self.unrest.setdefault(key, Unrest())
        goes_on = decision.wake_at is not None and decision.wake_at <= now
        if goes_on and unrest.continued < CONTINUED_PASSES_MAX:
            unrest.continued += 1
            return decision.transactions
        unrest.busy += 1
        if unrest.busy >= BUSY_PASSES_MAX:
            self._slow_down(key, unrest, now)
        return decision.transactions

    def _slow_down(self, key: str, unrest: Unrest, now: int) -> None:
        """Space out the passes of a key that always wants something.

        Under honest load that only makes larger passes; a decision that never comes to rest ends
        at one pass a second.
        """
        doublings = (unrest.busy - BUSY_PASSES_MAX) // BUSY_PASSES_MAX
        delay_s = _doubled(0.02, doublings, BUSY_DELAY_MAX_S)
        if delay_s == BUSY_DELAY_MAX_S and unrest.busy % BUSY_PASSES_MAX == 0:
            log.error("%s: %s does not come to rest", self.name, key)
        self.wake[key] = now + int(delay_s * 1e9)


def _doubled(first_s: float, doublings: int, most_s: float) -> float:
    """Return a delay that was doubled so often, up to the longest; for ever is no number."""
    return most_s if doublings > DOUBLINGS_MAX else min(first_s * 2**doublings, most_s)
