"""The way into the log: transactions in, their results out.

Callers of the same moment share an entry, hence an fsync. Each transaction is still judged alone,
so sharing costs nobody anything. There is no task and no lock here: callers of one turn of the loop
join an entry, and the first to come back sends it for all of them, even when it is cancelled. What
does not fit in one entry goes in several, all sent before the first is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio
from msgspec.structs import replace

from ..errors import InvalidArgument, SwarmError, Undecodable
from ..model.change import FORMAT_LEVEL, Entry, Result, Transaction, level_of
from ..model.codec import decode_entry, pack
from ..store.dump import Loading, dump
from ..store.store import Outcome
from ..wire.stream import again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..clock import Clock
    from ..raft.runner import Runner
    from ..raft.waiting import Proposal
    from ..store.store import Store
    from ..store.watch import Watch

ENTRY_CHANGES_MAX = 1_000
ENTRY_BYTES_MAX = 1_500_000


class Proposer:
    """Proposes transactions on the manager that leads.

    Args:
        runner: appends entries.
        clock: stamps transactions; the leader's wall time is the cluster's.
        level: returns the format level that all managers know.
    """

    def __init__(
        self, runner: Runner, clock: Clock, level: Callable[[], int] = lambda: FORMAT_LEVEL
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._level = level
        self._batch: _Batch | None = None

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        """Have transactions applied; return a result for each, in order.

        Cancelled after the entry was sent, the transactions may still take effect.

        Raises:
            NoLeader: this manager does not lead; nothing was done.
            LostLeadership: it stopped leading; the transactions may or may not take effect.
            ProposalDropped: too much is in flight; what did not fit was not done.
            InvalidArgument: one transaction alone is larger than an entry may be, or needs a
                release that not all managers have.
        """
        now, level = self._clock.now(), self._level()
        encoded = [_encode(transaction, now, level) for transaction in transactions]
        tickets = [self._join(each) for each in encoded]
        mine = list(dict.fromkeys(batch for batch, _ in tickets))
        try:
            await trio.lowlevel.checkpoint()  # the others of this moment may join
        finally:
            for batch in mine:
                self._send(batch)
        for batch in mine:
            await batch.wait()
        return tuple(batch.results[place] for batch, place in tickets)

    def _join(self, transaction: _Encoded) -> tuple[_Batch, int]:
        """Add a transaction to the entry that is being gathered; begin another when it is full."""
        batch = self._batch
        if batch is None or not batch.has_room(transaction):
            if batch is not None:
                self._send(batch)
            batch = self._batch = _Batch(self._level())
        return batch, batch.add(transaction)

    def _send(self, batch: _Batch) -> None:
        if batch.sent:
            return
        batch.sent = True
        if self._batch is batch:
            self._batch = None
        try:
            batch.proposal = self._runner.propose(batch.encode())
        except SwarmError as error:  # everyone who shared the entry has to hear of it
            batch.failure = error


class _RawEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An Entry whose transactions are encoded already."""

    transactions: tuple[msgspec.Raw, ...]
    level: int


class _Encoded(NamedTuple):
    """A transaction as bytes, and how many changes it has."""

    data: bytes
    changes: int


def _encode(transaction: Transaction, now: int, level: int = FORMAT_LEVEL) -> _Encoded:
    needed = level_of(transaction.changes)
    if needed > level:
        raise InvalidArgument(
            f"this needs format level {needed}, and the managers agree on {level}: upgrade "
            "swarmctl on all of them first"
        )
    data = pack(replace(transaction, now=transaction.now or now))
    changes = len(transaction.changes)
    if len(data) > ENTRY_BYTES_MAX or changes > ENTRY_CHANGES_MAX:
        raise InvalidArgument(
            f"the change is too large: {len(data)} bytes and {changes} objects; at most "
            f"{ENTRY_BYTES_MAX} bytes and {ENTRY_CHANGES_MAX} objects fit"
        )
    return _Encoded(data, changes)


class _Batch:
    """Transactions that share one entry, and what became of them.

    Attributes:
        results: in the order of :meth:`add`; there once :meth:`wait` has returned.
    """

    def __init__(self, level: int) -> None:
        self._level = level
        self._data: list[bytes] = []
        self._bytes = 0
        self._changes = 0
        self.sent = False
        self.failure: SwarmError | None = None
        self.proposal: Proposal | None = None
        self.results: tuple[Result, ...] = ()

    def has_room(self, transaction: _Encoded) -> bool:
        return (
            self._bytes + len(transaction.data) <= ENTRY_BYTES_MAX
            and self._changes + transaction.changes <= ENTRY_CHANGES_MAX
        )

    def add(self, transaction: _Encoded) -> int:
        """Add a transaction and return its place."""
        self._data.append(transaction.data)
        self._bytes += len(transaction.data)
        self._changes += transaction.changes
        return len(self._data) - 1

    def encode(self) -> bytes:
        raw = tuple(msgspec.Raw(data) for data in self._data)
        return pack(_RawEntry(transactions=raw, level=self._level))

    async def wait(self) -> None:
        """Sleep until the entry was applied; all who share it do.

        Raises:
            SwarmError: it was not taken, or its fate is unknown here.
        """
        if self.failure is not None:
            raise again(self.failure)
        assert self.proposal is not None, "a batch is waited for after it was sent"
        outcome = await self.proposal.wait()
        assert isinstance(outcome, Outcome)
        self.results = outcome.results


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
        if entry.level > FORMAT_LEVEL:
            raise Undecodable(
                f"log entry {index} has format level {entry.level}, newer than this release's "
                f"{FORMAT_LEVEL}: upgrade swarmctl on this host"
            )
        outcome = self._store.apply(index, entry)
        self._watch.publish(index, outcome.changes)
        return outcome

    def skip(self, index: int) -> None:
        self._store.skip(index)
        self._watch.publish(index, ())

    def dump(self) -> Iterable[bytes]:
        return dump(self._store)

    def receive(self) -> TableSnapshot:
        return TableSnapshot(self._store, self._watch)


class TableSnapshot(Loading):
    """Another manager's tables on their way in; whoever watches ours then looks at everything."""

    def __init__(self, store: Store, watch: Watch) -> None:
        super().__init__(store)
        self._watch = watch

    def install(self) -> None:
        super().install()
        self._watch.publish_everything(self._store.index, self.changes)
