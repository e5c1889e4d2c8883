"""The way into the log: transactions in, their results out.

Callers of the same moment share an entry, hence an fsync. Each transaction is still judged alone,
so sharing costs nobody anything. There is no task and no lock here: the first caller of a moment
lets the others join for one turn of the loop and then sends for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
import trio
from msgspec.structs import replace

from ..errors import InvalidArgument
from ..model.change import FORMAT_LEVEL, Entry, Result, Transaction
from ..model.codec import decode_entry, pack
from ..store.dump import dump

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..clock import Clock
    from ..raft.runner import Proposal, Runner
    from ..store.store import Outcome, Store
    from ..store.watch import Watch

ENTRY_CHANGES_MAX = 1_000
ENTRY_BYTES_MAX = 1_500_000


class Proposer:
    """Proposes transactions on the manager that leads.

    Args:
        runner: appends entries.
        clock: stamps transactions; the leader's wall time is the cluster's.
    """

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock
        self._batch: _Batch | None = None

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        """Have transactions applied; return a result for each, in order.

        Cancelled after the entry was sent, the transactions may still take effect.

        Raises:
            NoLeader: this manager does not lead; nothing was done.
            LostLeadership: it stopped leading; the transactions may or may not take effect.
            ProposalDropped: too much is in flight; what did not fit was not done.
            InvalidArgument: one transaction alone is larger than an entry may be.
        """
        now = self._clock.now()
        tickets = [self._join(transaction, now) for transaction in transactions]
        results: list[Result] = []
        for batch, place in tickets:
            results.append((await self._results(batch))[place])
        return tuple(results)

    def _join(self, transaction: Transaction, now: int) -> tuple[_Batch, int]:
        data = pack(replace(transaction, now=transaction.now or now))
        if len(data) > ENTRY_BYTES_MAX or len(transaction.changes) > ENTRY_CHANGES_MAX:
            raise InvalidArgument(
                f"the change is too large: {len(data)} bytes and {len(transaction.changes)} "
                f"objects; at most {ENTRY_BYTES_MAX} bytes and {ENTRY_CHANGES_MAX} objects fit"
            )
        batch = self._batch
        if batch is None or not batch.has_room(len(data), len(transaction.changes)):
            if batch is not None:
                self._send(batch)
            batch = self._batch = _Batch()
        return batch, batch.add(data, len(transaction.changes))

    async def _results(self, batch: _Batch) -> tuple[Result, ...]:
        if not batch.sent:
            try:
                await trio.lowlevel.checkpoint()  # the others of this moment may join
            finally:
                self._send(batch)
        if batch.failure is not None:
            raise batch.failure
        assert batch.proposal is not None
        if batch.results is None:
            await batch.proposal_done()
        assert batch.results is not None
        return batch.results

    def _send(self, batch: _Batch) -> None:
        if batch.sent:
            return
        batch.sent = True
        if self._batch is batch:
            self._batch = None
        try:
            batch.proposal = self._runner.propose(batch.encode())
        except Exception as error:  # everyone who shared the entry has to hear of it
            batch.failure = error


class _RawEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An Entry whose transactions are encoded already."""

    transactions: tuple[msgspec.Raw, ...]
    level: int


class _Batch:
    """Transactions that share one entry, and what became of them."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._bytes = 0
        self._changes = 0
        self.sent = False
        self.failure: Exception | None = None
        self.proposal: Proposal | None = None
        self.results: tuple[Result, ...] | None = None

    def has_room(self, size: int, changes: int) -> bool:
        return (
            self._bytes + size <= ENTRY_BYTES_MAX and self._changes + changes <= ENTRY_CHANGES_MAX
        )

    def add(self, data: bytes, changes: int) -> int:
        self._data.append(data)
        self._bytes += len(data)
        self._changes += changes
        return len(self._data) - 1

    def encode(self) -> bytes:
        raw = tuple(msgspec.Raw(data) for data in self._data)
        return pack(_RawEntry(transactions=raw, level=FORMAT_LEVEL))

    async def proposal_done(self) -> None:
        """Sleep until the entry was applied; several tasks may."""
        assert self.proposal is not None
        self.results = cast("Outcome", await self.proposal.wait()).results


class TableMachine:
    """The state machine that the log drives: the store, and those who watch it."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    def apply(self, index: int, data: bytes) -> Outcome:
        """Apply one entry and announce what it changed.

        Raises:
            Undecodable: the entry says something this release does not know. This manager has to
                stop being one rather than skip it.
        """
        entry: Entry = decode_entry(data)
        outcome = self._store.apply(index, entry)
        self._watch.publish(index, outcome.changes)
        return outcome

    def skip(self, index: int) -> None:
        self._store.skip(index)
        self._watch.publish(index, ())

    def dump(self) -> Iterable[bytes]:
        return dump(self._store)
