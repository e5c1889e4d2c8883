"""The one loop that runs every reconciler (DESIGN section 6).

A reconciler is a plain function from (view, key, now) to changes and a wake-up time. This loop owns
everything else: which keys are due, laying one decision over the view before the next, proposing,
backing off, waiting.

Laws:

- Level-driven: on taking leadership every key is asked, and gets the right answer. There is no
  other start-up path.
- Passes of one reconciler follow each other: a key whose proposal is unresolved is not decided
  again.
- A key whose decide raises, or that never comes to rest, is logged and retried later. It does not
  end the loop, so one bad object cannot take leader after leader down.
- No synchronous stretch over 20 ms: the loop checkpoints between keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import trio

from ..errors import InvalidArgument
from ..model.change import Conflict, Decision, Ref, Transaction
from ..raft.errors import ProposalDropped
from ..store.store import lay
from ..store.view import View

if TYPE_CHECKING:
    from ..clock import Clock
    from ..model.change import Result
    from ..store.watch import Mailbox, Watch
    from .propose import Proposer

BUSY_PASSES_MAX = 50
BUSY_DELAY_MAX_S = 1.0
CONTINUED_PASSES_MAX = 10_000
FREE_RETRIES = 2
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 60.0
DOUBLINGS_MAX = 32
STRETCH_S = 0.01

NewId = Callable[[], str]
Keys = Callable[[View, "set[Ref] | None"], Iterable[str]]
Decide = Callable[[View, str, int, NewId], Decision]

log = logging.getLogger(__name__)


class Reconciler(msgspec.Struct, frozen=True, kw_only=True):
    """What makes one reconciler.

    Attributes:
        name: for logs and the task tree.
        keys: which keys touched rows concern; None for the rows means all keys.
        decide: (view, key, now in nanoseconds, new_id) -> Decision; pure.
    """

    name: str
    keys: Keys
    decide: Decide


class _Unrest(msgspec.Struct):
    """Why a key is put off: errors, conflicts or passes in a row that all wanted changes.

    Passes that said that there is more to do at once are counted apart, and many are allowed: a
    bounded decision takes many turns to place thousands of tasks.
    """

    failures: int = 0
    busy: int = 0
    continued: int = 0


class Loop:
    """Runs one reconciler for as long as this manager leads."""

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        view: View,
        watch: Watch,
        proposer: Proposer,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._reconciler = reconciler
        self._view = view
        self._watch = watch
        self._proposer = proposer
        self._clock = clock
        self._new_id = new_id
        self._wake: dict[str, int] = {}
        self._unrest: dict[str, _Unrest] = {}

    async def run(self) -> None:
        """Reconcile until cancelled.

        Raises:
            LostLeadership, NoLeader: this manager no longer leads.
        """
        with self._watch.mailbox() as mailbox:
            while True:
                due = self._due(mailbox.take())
                if due:
                    await self._reconcile(due)
                await self._sleep(mailbox)

    def _due(self, touched: set[Ref] | None) -> list[str]:
        now = self._clock.now()
        due = dict.fromkeys(self._reconciler.keys(self._view, touched))
        for key, unrest in self._unrest.items():
            if unrest.failures or unrest.busy >= BUSY_PASSES_MAX:
                due.pop(key, None)  # its own wake-up brings it back
        due.update(dict.fromkeys(key for key, at in self._wake.items() if at <= now))
        return list(due)

    async def _reconcile(self, due: list[str]) -> None:
        """Decide all due keys over one another, then propose what they want."""
        overlay = self._view.overlay()
        wanted: dict[str, tuple[Transaction, ...]] = {}
        stretch_end = trio.current_time() + STRETCH_S
        for key in due:
            self._wake.pop(key, None)
            transactions = self._decide(overlay, key)
            if transactions:
                wanted[key] = transactions
            for transaction in transactions:
                for change in transaction.changes:
                    lay(overlay, change, overlay.index + 1, self._clock.now())
            if trio.current_time() > stretch_end:
                await trio.lowlevel.checkpoint()
                stretch_end = trio.current_time() + STRETCH_S
        if wanted:
            await self._propose(wanted)

    async def _propose(self, wanted: dict[str, tuple[Transaction, ...]]) -> None:
        """Have what the keys want applied, and put off those that it was not done for."""
        name = self._reconciler.name
        try:
            results = iter(
                await self._proposer.propose([each for key in wanted for each in wanted[key]])
            )
        except ProposalDropped:
            log.info("%s: too much is in flight, so this pass waits", name)
            for key in wanted:
                self._put_off(key)
            return
        except InvalidArgument as error:
            if len(wanted) == 1:
                log.error("%s: what %s needs cannot be written: %s", name, *wanted, error)  # noqa: TRY400
                self._put_off(*wanted)
                return
            for key, transactions in wanted.items():  # nothing was done: find the one it was
                await self._propose({key: transactions})
            return
        for key, transactions in wanted.items():
            lost = [each for each in islice(results, len(transactions)) if _is_lost(each)]
            if lost:
                log.debug("%s: %s lost a race: %s", name, key, lost[0])
                self._put_off(key, free_retries=FREE_RETRIES)
            elif key in self._unrest:
                self._unrest[key].failures = 0

    def _decide(self, view: View, key: str) -> tuple[Transaction, ...]:
        name = self._reconciler.name
        try:
            decision = self._reconciler.decide(view, key, self._clock.now(), self._new_id)
        except Exception:
            log.exception("%s: deciding %s failed; it is tried again later", name, key)
            self._put_off(key)
            return ()
        if decision.wake_at is not None:
            self._wake[key] = decision.wake_at
        if not decision.transactions:
            self._unrest.pop(key, None)
            return ()
        unrest = self._unrest.setdefault(key, _Unrest())
        goes_on = decision.wake_at is not None and decision.wake_at <= self._clock.now()
        if goes_on and unrest.continued < CONTINUED_PASSES_MAX:
            unrest.continued += 1
            return decision.transactions
        unrest.busy += 1
        if unrest.busy >= BUSY_PASSES_MAX:
            self._slow_down(key, unrest)
        return decision.transactions

    def _slow_down(self, key: str, unrest: _Unrest) -> None:
        """Space out the passes of a key that always wants something.

        Under honest load that only makes larger passes; a decision that never comes to rest ends
        at one pass a second.
        """
        doublings = (unrest.busy - BUSY_PASSES_MAX) // BUSY_PASSES_MAX
        delay_s = _doubled(0.02, doublings, BUSY_DELAY_MAX_S)
        if delay_s == BUSY_DELAY_MAX_S and unrest.busy % BUSY_PASSES_MAX == 0:
            log.error("%s: %s does not come to rest", self._reconciler.name, key)
        self._wake[key] = self._clock.now() + int(delay_s * 1e9)

    def _put_off(self, key: str, *, free_retries: int = 0) -> None:
        unrest = self._unrest.setdefault(key, _Unrest())
        doublings = unrest.failures - free_retries
        delay_s = _doubled(RETRY_FIRST_S, doublings, RETRY_MAX_S) if doublings >= 0 else 0.0
        unrest.failures += 1
        self._wake[key] = self._clock.now() + int(delay_s * 1e9)

    async def _sleep(self, mailbox: Mailbox) -> None:
        """Wait for a change, or for the earliest wake-up."""
        if not self._wake:
            await mailbox.wait()
            return
        wait_s = max(0, min(self._wake.values()) - self._clock.now()) / 1e9
        with trio.move_on_after(wait_s):
            await mailbox.wait()


def _is_lost(result: Result) -> bool:
    return isinstance(result, Conflict)


def _doubled(first_s: float, doublings: int, most_s: float) -> float:
    """Return a delay that was doubled so often, up to the longest; for ever is no number."""
    return most_s if doublings > DOUBLINGS_MAX else min(first_s * 2**doublings, most_s)
