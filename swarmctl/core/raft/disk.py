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

import os
import queue
import sqlite3
import threading
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from ..errors import StorageFailed
from .message import Entry, EntryKind, HardState, Message, Snapshot
from .seal import CannotOpen, Seal, new_key, unwrap_key, wrap_key
from .storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

FORMAT = 1
CHECKPOINT_BYTES = 8 * 1024 * 1024
IDLE_CHECKPOINT_S = 1.0
GROUP_MAX = 256
LOCKED_S = 1.0  # another daemon does not go away while we wait longer
CHUNK_BYTES_MAX = 8 * 1024 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (kid INTEGER PRIMARY KEY, wrapped BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS log (
  idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, kid INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (id INTEGER PRIMARY KEY, kid INTEGER, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS chunk (
  snapshot INTEGER, number INTEGER, kid INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (snapshot, number)) WITHOUT ROWID;
"""

_encode = msgspec.msgpack.Encoder().encode
_decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode
_decode_hard_state = msgspec.msgpack.Decoder(HardState).decode


class WrongKey(StorageFailed):
    """The key encryption key does not fit this database."""


class _Append(NamedTuple):
    message: Message
    done: Callable[[Message], None]


class _Save(NamedTuple):
    snapshot: Snapshot
    chunks: Iterable[bytes]
    keep: int
    done: Callable[[], None]


class _Word(Enum):
    NOTHING = 0
    END = 1


class Disk:
    """The open database. Make one with :func:`open_disk` (blocking), then :meth:`run` it.

    ``log`` is the window the Raft core reads from; it changes only on the trio side, when the
    writer reports that something is durable.
    """

    def __init__(self, connection: sqlite3.Connection, seal: Seal) -> None:
        self._connection = connection
        self._seal = seal
        self._jobs: queue.SimpleQueue[_Append | _Save | _Word] = queue.SimpleQueue()
        self._uncheckpointed = 0
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
            elif other is _Word.END:
                self._checkpoint("TRUNCATE")
                return

    def _collect(self, job: _Append | _Save | _Word) -> tuple[list[_Append], _Save | _Word]:
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
                self._put_snapshot(message.snapshot, 0)
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
        row = execute("SELECT max(id) FROM snapshot").fetchone()
        number = (row[0] or 0) + 1
        execute("DELETE FROM chunk WHERE snapshot = ?", (number,))
        for place, chunk in enumerate(job.chunks):
            self._put_chunk(number, place, chunk)
        execute("BEGIN IMMEDIATE")
        self._put_snapshot(job.snapshot, number)
        execute("DELETE FROM chunk WHERE snapshot <> ?", (number,))
        execute("DELETE FROM log WHERE idx <= ?", (job.snapshot.index - job.keep,))
        self._put_hard_state(self._hard_state)
        execute("COMMIT")
        self._checkpoint("TRUNCATE")

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
    new = not path.exists()
    try:
        connection = sqlite3.connect(
            path, timeout=LOCKED_S, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise StorageFailed(f"the Raft database {path} cannot be opened: {error}") from error
    try:
        _configure(connection)
        path.chmod(0o600)
        seal = _load_seal(connection, owner, key_encryption_key)
    except (sqlite3.Error, OSError) as error:
        connection.close()
        text = f"the Raft database {path} cannot be opened: {error}"
        if "locked" in str(error):
            text += "; another daemon uses this state directory"
        raise StorageFailed(text) from error
    except BaseException:
        connection.close()
        raise
    if new:
        _sync_directory(path.parent)
    return Disk(connection, seal)


def _configure(connection: sqlite3.Connection) -> None:
    for setting in (
        "locking_mode=EXCLUSIVE",  # no second daemon, and no shared-memory file
        "journal_mode=WAL",
        "synchronous=FULL",
        "wal_autocheckpoint=0",  # the writer checkpoints when idle, never inside a commit
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()
    connection.executescript(_SCHEMA)
    row = connection.execute("SELECT value FROM meta WHERE name='format'").fetchone()
    if row is None:
        connection.execute("INSERT INTO meta VALUES ('format', ?)", (FORMAT,))
    elif int(row[0]) > FORMAT:
        raise StorageFailed(
            f"the Raft database has format {row[0]}, newer than this release's {FORMAT}"
        )


def _load_seal(connection: sqlite3.Connection, owner: str, key_encryption_key: bytes) -> Seal:
    row = connection.execute("SELECT kid, wrapped FROM keys ORDER BY kid DESC").fetchone()
    if row is None:
        data_key = new_key()
        connection.execute(
            "INSERT INTO keys VALUES (1, ?)", (wrap_key(key_encryption_key, data_key, 1),)
        )
        return Seal(data_key, 1, owner)
    try:
        return Seal(unwrap_key(key_encryption_key, row[1], row[0]), row[0], owner)
    except CannotOpen as error:
        raise WrongKey("the Raft database is locked: this key does not open it") from error


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
