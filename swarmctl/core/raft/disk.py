"""Log, hard state and snapshots in one encrypted SQLite file, owned by one writer thread.

Why SQLite: cutting a suffix, appending, the hard state and installing a snapshot are one atomic
transaction, so no half-done combination can be read back; it is as fast as a hand-written log at
one record per fsync. Laws:

- What was acknowledged is durable: ``done`` is called after COMMIT with synchronous=FULL, never
  before.
- A commit index alone is worth no fsync; it is written along with the next record.
- Any I/O error ends the writer with :class:`StorageFailed`. After a failed fsync the kernel may
  have dropped the data, so trying again proves nothing.
- The thread sees only immutable messages, and everything it has done reaches the trio side in
  order, in one call per group.
"""

from __future__ import annotations

import queue
import threading
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from ..errors import StorageFailed
from .database import open_database
from .message import Entry, EntryKind, HardState, Message, Snapshot
from .storage import MemoryStorage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from .seal import Seal

CHECKPOINT_BYTES = 8 * 1024 * 1024
IDLE_CHECKPOINT_S = 1.0
GROUP_MAX = 256
CHUNK_BYTES_MAX = 8 * 1024 * 1024
READ_BYTES = 256 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode
_decode_hard_state = msgspec.msgpack.Decoder(HardState).decode


class _Append(NamedTuple):
    message: Message
    done: Callable[[Message], None]


class _Save(NamedTuple):
    snapshot: Snapshot
    chunks: Iterable[bytes]
    keep: int
    done: Callable[[], None]


class _Read(NamedTuple):
    snapshot_index: int
    place: int
    done: Callable[[tuple[bytes, ...] | None], None]


class _Stage(NamedTuple):
    place: int
    chunk: bytes
    done: Callable[[], None]


class _Word(Enum):
    NOTHING = 0
    END = 1


_Job = _Append | _Save | _Read | _Stage | _Word


class Disk:
    """The open database. Make one with :func:`open_disk` (blocking), then :meth:`run` it.

    ``log`` is the window the Raft core reads from; it changes only on the trio side, when the
    writer reports that something is durable.
    """

    def __init__(self, connection: sqlite3.Connection, seal: Seal) -> None:
        self._connection = connection
        self._seal = seal
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._uncheckpointed = 0
        self._staged = 0  # number of the snapshot whose chunks are being received; 0: none
        self._hard_state = HardState()
        self.log = MemoryStorage()

    # --- the trio side ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the writer thread until cancelled; whatever was submitted is written first.

        Raises:
            StorageFailed: the disk refused a write. Nothing after it was acknowledged.
        """
        token = trio.lowlevel.current_trio_token()
        ended = trio.Event()
        failure: list[BaseException] = []

        def end(error: BaseException | None) -> None:
            if error is not None:
                failure.append(error)
            ended.set()

        def work() -> None:
            error: BaseException | None = None
            try:
                self._write_until_told(token)
            except BaseException as caught:  # noqa: ASYNC103 - a thread; carried over to the trio side
                error = caught
            token.run_sync_soon(end, error)

        thread = threading.Thread(target=work, name="raft disk", daemon=True)
        thread.start()
        task_status.started()
        try:
            await ended.wait()
        finally:
            self._jobs.put(_Word.END)
            with trio.CancelScope(shield=True):
                await ended.wait()
            self._connection.close()
        for error in failure:
            raise StorageFailed(f"the Raft database cannot be written: {error}") from error

    def append(self, message: Message, done: Callable[[Message], None]) -> None:
        """Make a STORAGE_APPEND message's content durable, then call ``done`` with it (in trio)."""
        self._jobs.put(_Append(message, done))

    def save_snapshot(
        self, snapshot: Snapshot, chunks: Iterable[bytes], keep: int, done: Callable[[], None]
    ) -> None:
        """Keep a snapshot of our own state and cut the log to the last ``keep`` entries before it.

        Args:
            chunks: the state machine's bytes; read in the writer thread, so it has to be made of
                immutable values.
            done: called in trio once the snapshot is durable.
        """
        self._jobs.put(_Save(snapshot, chunks, keep, done))

    def read_snapshot(
        self, index: int, place: int, done: Callable[[tuple[bytes, ...] | None], None]
    ) -> None:
        """Read some of the newest snapshot's chunks, for a member that is to get it.

        Args:
            index: of the snapshot that is wanted.
            place: number of the first chunk wanted.
            done: called in trio with one chunk or more, with none past the last one, and with
                None when a newer snapshot has replaced it.
        """
        self._jobs.put(_Read(index, place, done))

    def stage(self, place: int, chunk: bytes, done: Callable[[], None]) -> None:
        """Keep a chunk of a snapshot that another member sends; place 0 begins anew.

        They count once a STORAGE_APPEND with that snapshot is appended, and not before.

        Args:
            done: called in trio once the chunk is durable.
        """
        self._jobs.put(_Stage(place, chunk, done))

    def _appended(self, jobs: list[_Append]) -> None:
        for job in jobs:
            message = job.message
            if message.snapshot is not None:
                self.log.install(message.snapshot)
            self.log.append(message.entries)
            hard_state = _hard_state_of(message)
            if hard_state is not None:
                self.log.set_hard_state(hard_state)
            job.done(message)

    def _saved(self, job: _Save) -> None:
        self.log.replace_snapshot(job.snapshot)
        cut = job.snapshot.index - job.keep
        if cut >= self.log.first_index():
            self.log.compact(cut)
        job.done()

    # --- the writer thread ---

    def _write_until_told(self, token: trio.lowlevel.TrioToken) -> None:
        while True:
            try:
                first = self._jobs.get(timeout=IDLE_CHECKPOINT_S if self._uncheckpointed else None)
            except queue.Empty:
                self._checkpoint("PASSIVE")
                continue
            group, other = self._collect(first)
            if group:
                self._write_group(group)
                token.run_sync_soon(self._appended, group)
            if isinstance(other, _Save):
                self._write_snapshot(other)
                token.run_sync_soon(self._saved, other)
            elif isinstance(other, _Read):
                token.run_sync_soon(other.done, self._read_some(other.snapshot_index, other.place))
            elif isinstance(other, _Stage):
                self._write_staged(other)
                token.run_sync_soon(other.done)
            elif other is _Word.END:
                self._checkpoint("TRUNCATE")
                return

    def _collect(self, job: _Job) -> tuple[list[_Append], _Save | _Read | _Stage | _Word]:
        """Gather the appends that wait already; return them and what came after them."""
        group: list[_Append] = []
        while isinstance(job, _Append):
            group.append(job)
            if len(group) >= GROUP_MAX or self._jobs.empty():
                return group, _Word.NOTHING
            job = self._jobs.get()
        return group, job

    def _write_group(self, group: list[_Append]) -> None:
        """Write all of a group in one transaction; a group of mere commit indexes in none."""
        if not any(_must_sync(job.message, self._hard_state) for job in group):
            self._hard_state = _hard_state_of(group[-1].message) or self._hard_state
            return
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for job in group:
            message = job.message
            if message.snapshot is not None:
                self._put_snapshot(message.snapshot, self._staged)
                execute("DELETE FROM chunk WHERE snapshot <> ?", (self._staged,))
                self._staged = 0
                execute("DELETE FROM log")
            if message.entries:
                execute("DELETE FROM log WHERE idx >= ?", (message.entries[0].index,))
                self._connection.executemany(
                    "INSERT INTO log VALUES (?, ?, ?, ?)", self._records(message.entries)
                )
            self._hard_state = _hard_state_of(message) or self._hard_state
        self._put_hard_state(self._hard_state)
        execute("COMMIT")
        if self._uncheckpointed > CHECKPOINT_BYTES:
            self._checkpoint("PASSIVE")

    def _records(self, entries: tuple[Entry, ...]) -> Iterator[tuple[int, int, int, bytes]]:
        seal = self._seal
        for entry in entries:
            plain = bytes((entry.kind,)) + entry.data
            record = seal.seal(plain, table="log", index=entry.index, term=entry.term)
            self._uncheckpointed += len(record)
            yield entry.index, entry.term, seal.key_id, record

    def _put_hard_state(self, hard_state: HardState) -> None:
        record = self._seal.seal(_encode(hard_state), table="meta", index=0)
        self._uncheckpointed += len(record)
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('hard_state', ?)", (record,))

    def _put_snapshot(self, snapshot: Snapshot, number: int) -> None:
        record = self._seal.seal(_encode(snapshot), table="snapshot", index=number)
        self._connection.execute("DELETE FROM snapshot")
        self._connection.execute(
            "INSERT INTO snapshot VALUES (?, ?, ?)", (number, self._seal.key_id, record)
        )

    def _put_chunk(self, snapshot: int, place: int, chunk: bytes) -> None:
        record = self._seal.seal(chunk, table=f"chunk {snapshot}", index=place)
        self._connection.execute(
            "INSERT INTO chunk VALUES (?, ?, ?, ?)", (snapshot, place, self._seal.key_id, record)
        )

    def _write_snapshot(self, job: _Save) -> None:
        """Write chunks under a new number, then switch to it and cut the log in one transaction."""
        execute = self._connection.execute
        number = self._next_number()
        for place, chunk in enumerate(job.chunks):
            self._put_chunk(number, place, chunk)
        execute("BEGIN IMMEDIATE")
        self._put_snapshot(job.snapshot, number)
        execute("DELETE FROM chunk WHERE snapshot NOT IN (?, ?)", (number, self._staged))
        execute("DELETE FROM log WHERE idx <= ?", (job.snapshot.index - job.keep,))
        self._put_hard_state(self._hard_state)
        execute("COMMIT")
        self._checkpoint("TRUNCATE")

    def _next_number(self) -> int:
        """Return a number that no chunk has, not even one that an interrupted write left."""
        row = self._connection.execute(
            "SELECT max((SELECT coalesce(max(id), 0) FROM snapshot),"
            " (SELECT coalesce(max(snapshot), 0) FROM chunk))"
        ).fetchone()
        return int(row[0]) + 1

    def _write_staged(self, job: _Stage) -> None:
        if job.place == 0:
            number = self._next_number()
            self._connection.execute("DELETE FROM chunk WHERE snapshot = ?", (self._staged,))
            self._staged = number
        self._put_chunk(self._staged, job.place, job.chunk)

    def _read_some(self, index: int, place: int) -> tuple[bytes, ...] | None:
        """Return chunks from ``place`` on, some ``READ_BYTES`` of them; see read_snapshot."""
        row = self._connection.execute("SELECT id, record FROM snapshot").fetchone()
        if row is None:
            return None
        head = _decode_snapshot(self._seal.open(row[1], table="snapshot", index=row[0]))
        if head.index != index:
            return None
        found: list[bytes] = []
        size = 0
        cursor = self._connection.execute(
            "SELECT number, record FROM chunk WHERE snapshot = ? AND number >= ? ORDER BY number",
            (row[0], place),
        )
        for number, record in cursor:
            found.append(self._seal.open(record, table=f"chunk {row[0]}", index=number))
            size += len(record)
            if size >= READ_BYTES:
                break
        return tuple(found)

    def _checkpoint(self, mode: str) -> None:
        self._connection.execute(f"PRAGMA wal_checkpoint({mode})")
        self._uncheckpointed = 0

    # --- before the thread runs ---

    def load(self) -> None:
        """Read everything back into ``log``; blocking, once, before :meth:`run`.

        Raises:
            StorageFailed: a record is missing or does not open.
        """
        snapshot = self._read_snapshot_head()
        entries = tuple(self._read_log())
        hard_state = self._read_hard_state()
        self._check_whole(snapshot, entries, hard_state)
        self._hard_state = hard_state
        self.log = MemoryStorage(snapshot, hard_state, entries)
        if entries and entries[0].index <= snapshot.index:
            self._restore_tail(snapshot, hard_state, entries)

    def _restore_tail(
        self, snapshot: Snapshot, hard_state: HardState, entries: tuple[Entry, ...]
    ) -> None:
        """Rebuild the window with the entries kept before the snapshot for slow followers.

        The oldest kept entry stands for the compacted prefix: its term has to stay readable.
        """
        oldest = entries[0]
        before = Snapshot(index=oldest.index, term=oldest.term, conf_state=snapshot.conf_state)
        log = MemoryStorage(before, hard_state, entries[1:])
        log.replace_snapshot(snapshot)
        self.log = log

    def read_chunks(self) -> Iterator[bytes]:
        """Yield the state machine's bytes of the newest snapshot; blocking, before :meth:`run`."""
        row = self._connection.execute("SELECT id FROM snapshot").fetchone()
        if row is None:
            return
        cursor = self._connection.execute(
            "SELECT number, record FROM chunk WHERE snapshot = ? ORDER BY number", row
        )
        for place, (number, record) in enumerate(cursor):
            if number != place:
                raise StorageFailed(f"the Raft database lacks chunk {place} of its snapshot")
            yield self._seal.open(record, table=f"chunk {row[0]}", index=number)

    def bootstrap(self, snapshot: Snapshot, chunks: Iterable[bytes] = ()) -> None:
        """Write the first membership and state of a new database; blocking, before :meth:`load`.

        It is all there afterwards or, after a crash, nothing.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        self._put_snapshot(snapshot, 1)
        for place, chunk in enumerate(chunks):
            self._put_chunk(1, place, chunk)
        self._put_hard_state(HardState(term=snapshot.term, commit=snapshot.index))
        self._connection.execute("COMMIT")

    def rebuild(self, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
        """Replace log, snapshot and hard state at once; blocking, instead of :meth:`run`."""
        execute = self._connection.execute
        number = self._next_number()
        execute("BEGIN IMMEDIATE")
        execute("DELETE FROM log")
        execute("DELETE FROM chunk")
        for place, chunk in enumerate(chunks):
            self._put_chunk(number, place, chunk)
        self._put_snapshot(snapshot, number)
        self._put_hard_state(HardState(term=snapshot.term, commit=snapshot.index))
        execute("COMMIT")
        self._checkpoint("TRUNCATE")

    def is_new(self) -> bool:
        """True as long as :meth:`bootstrap` was never called."""
        row = self._connection.execute("SELECT count(*) FROM snapshot").fetchone()
        return bool(row[0] == 0)

    def close(self) -> None:
        """Close a database that is not being run."""
        self._connection.close()

    def _read_snapshot_head(self) -> Snapshot:
        row = self._connection.execute("SELECT id, record FROM snapshot").fetchone()
        if row is None:
            return Snapshot()
        return _decode_snapshot(self._seal.open(row[1], table="snapshot", index=row[0]))

    def _read_log(self) -> Iterator[Entry]:
        cursor = self._connection.execute("SELECT idx, term, record FROM log ORDER BY idx")
        for index, term, record in cursor:
            plain = self._seal.open(record, table="log", index=index, term=term)
            yield Entry(term=term, index=index, kind=EntryKind(plain[0]), data=plain[1:])

    def _read_hard_state(self) -> HardState:
        row = self._connection.execute("SELECT value FROM meta WHERE name='hard_state'").fetchone()
        if row is None:
            return HardState()
        return _decode_hard_state(self._seal.open(row[0], table="meta", index=0))

    def _check_whole(
        self, snapshot: Snapshot, entries: tuple[Entry, ...], hard_state: HardState
    ) -> None:
        """Refuse a log with holes; a torn tail cannot make one, only damage can."""
        expected = entries[0].index if entries else 0
        for entry in entries:
            if entry.index != expected:
                raise StorageFailed(f"the Raft database lacks log entry {expected}")
            expected += 1
        first = entries[0].index if entries else snapshot.index + 1
        last = entries[-1].index if entries else snapshot.index
        if first > snapshot.index + 1:
            raise StorageFailed(
                f"the Raft database lacks the log entries {snapshot.index + 1} to {first - 1}"
            )
        if hard_state.commit > max(last, snapshot.index):
            raise StorageFailed(
                f"the Raft database ends at {last}, yet {hard_state.commit} was committed"
            )


def _hard_state_of(message: Message) -> HardState | None:
    """Return the hard state a STORAGE_APPEND carries; all zero means unchanged."""
    if message.term == 0 and message.vote == 0 and message.commit == 0:
        return None
    return HardState(term=message.term, vote=message.vote, commit=message.commit)


def _must_sync(message: Message, known: HardState) -> bool:
    if message.entries or message.snapshot is not None:
        return True
    hard_state = _hard_state_of(message)
    return hard_state is not None and (hard_state.term, hard_state.vote) != (
        known.term,
        known.vote,
    )


def open_disk(path: Path, *, owner: str, key_encryption_key: bytes) -> Disk:
    """Open (or make) a manager's Raft database; blocking.

    Args:
        path: the file; its directory exists and is private to the daemon's user.
        owner: cluster and node id; a database of another owner does not open.
        key_encryption_key: 32 bytes that unwrap the data key.

    Raises:
        WrongKey: the key does not fit.
        StorageFailed: the file cannot be used: locked by another daemon, damaged, newer format.
    """
    return Disk(*open_database(path, owner=owner, key_encryption_key=key_encryption_key))
