"""The one loop that runs every reconciler (DESIGN section 6).

A reconciler is a plain function from (view, key, now) to changes and a wake-up time. Everything
else about a pass is plain code as well (:mod:`.passes`); this loop brings it the clock, the
changes to look at and somebody to propose to.

Laws:

- Passes of one reconciler follow each other: a key whose proposal is unresolved is not decided
  again.
- No synchronous stretch over 20 ms: the loop checkpoints between keys.
"""

from __future__ import annotations

import logging
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import trio

from ..clock import ClockWatch
from ..errors import InvalidArgument
from ..raft.errors import ProposalDropped
from .passes import Passes, Reconciler

if TYPE_CHECKING:
    from ..clock import Clock
    from ..ids import NewId
    from ..model.change import Transaction
    from ..store.view import View
    from ..store.watch import Mailbox, Watch
    from .propose import Proposer

__all__ = ["Loop", "Reconciler"]

STRETCH_S = 0.01

log = logging.getLogger(__name__)


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
        self.passes = Passes(reconciler, new_id)
        self._told_by = reconciler.told_by
        self._view = view
        self._watch = watch
        self._proposer = proposer
        self._clock = clock

    async def run(self) -> None:
        """Reconcile until cancelled.

        Raises:
            LostLeadership, NoLeader: this manager no longer leads.
        """
        with self._watch.mailbox() as mailbox:
            for listen in self._told_by:
                listen(partial(self._answered, mailbox))
            clock_watch = ClockWatch(self._clock)
            while True:
                if clock_watch.was_set():
                    self.passes.ask_again()
                due = self.passes.due(self._view, mailbox.take(), self._clock.now())
                if due:
                    await self._reconcile(due)
                await self._sleep(mailbox)

    def _answered(self, mailbox: Mailbox) -> None:
        """Look again, though no row changed: a plugin outside this process has answered."""
        self.passes.ask_again()
        mailbox.touch(())

    async def _reconcile(self, due: list[str]) -> None:
        """Decide all due keys over one another, then propose what they want."""
        overlay = self._view.overlay()
        wanted: dict[str, tuple[Transaction, ...]] = {}
        stretch_end = trio.current_time() + STRETCH_S
        for key in due:
            transactions = self.passes.decide(overlay, key, self._clock.now())
            if transactions:
                wanted[key] = transactions
            if trio.current_time() > stretch_end:
                await trio.lowlevel.checkpoint()
                stretch_end = trio.current_time() + STRETCH_S
        if wanted:
            await self._propose(wanted)

    async def _propose(self, wanted: dict[str, tuple[Transaction, ...]]) -> None:
        """Have what the keys want applied, and put off those that it was not done for."""
        passes = self.passes
        try:
            results = iter(
                await self._proposer.propose([each for key in wanted for each in wanted[key]])
            )
        except ProposalDropped:
            log.info("%s: too much is in flight, so this pass waits", passes.name)
            for key in wanted:
                passes.put_off(key, self._clock.now())
            return
        except InvalidArgument as error:
            if len(wanted) == 1:
                (key,) = wanted
                log.error("%s: what %s needs cannot be written: %s", passes.name, key, error)  # noqa: TRY400
                passes.put_off(key, self._clock.now())
                return
            for key, transactions in wanted.items():  # nothing was done: find the one it was
                await self._propose({key: transactions})
            return
        now = self._clock.now()
        for key, transactions in wanted.items():
            passes.take_results(key, islice(results, len(transactions)), now)

    async def _sleep(self, mailbox: Mailbox) -> None:
        """Wait for a change, or for the earliest wake-up."""
        wake_at = self.passes.wake_at()
        if wake_at is None:
            await mailbox.wait()
            return
        wait_s = max(0, wake_at - self._clock.now()) / 1e9
        with trio.move_on_after(wait_s):
            await mailbox.wait()
