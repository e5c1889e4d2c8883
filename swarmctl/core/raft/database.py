"""The Raft database as a file: opened, read back, judged. Blocking, and one caller at a time.

Laws:

- What cannot be read back whole is refused, with the file and what to do about it. A manager never
  starts from a log that has a hole, that does not open, or that ends before what was committed.
- Only :func:`create` makes a database. A file that is there and empty is damage, not a beginning.

``disk.py`` writes to it from its own thread. It must not know trio.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from ..errors import StorageFailed, SwarmError
from .keys import SEALED_META, Keys, Lock, WrongKey, make_keys, read_lock, transaction, unwrap_all
from .message import Entry, EntryKind, HardState, Snapshot
from .rollback import Shown
from .storage import MemoryStorage
from .wal import transactions_past_a_break

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FORMAT = 1
LOCKED_S = 1.0  # another daemon does not go away while we wait longer

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
_decode_state = msgspec.msgpack.Decoder(tuple[HardState, int]).decode
_decode_starts = msgspec.msgpack.Decoder(tuple[int, int]).decode


class Damaged(StorageFailed):
    """What is in the database is not what was written there."""


class Database:
    """The open file.

    Attributes:
        log: the window that the Raft core reads from.
        keys: what seals and opens its records.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, keys: Keys) -> None:
        self.path = path
        self.keys = keys
        self.log = MemoryStorage()
        self._connection = connection
        self._seal = keys.ring
        self._uncheckpointed = 0
        self._hard_state = HardState()
        self._starts = (0, 0)

    def load(self) -> None:
        """Read everything back into ``log``; blocking, once, before it is written to.

        Raises:
            Damaged: a record is missing or does not open.
        """
        with _readable(self.path):
            snapshot = self._read_snapshot_head()
            entries = tuple(self._read_log())
            hard_state, last = _decode_state(self._read_meta("hard_state"))
            self._starts = _decode_starts(self._read_meta("starts"))
            _check_whole(snapshot, entries, hard_state, last)
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
        """Yield the state machine's bytes of the newest snapshot; blocking, before it is written.

        Raises:
            Damaged: a chunk is missing or does not open.
        """
        with _readable(self.path):
            row = self._connection.execute("SELECT id FROM snapshot").fetchone()
        if row is None:
            return
        place = 0
        while True:
            with _readable(self.path):
                found = self._connection.execute(
                    "SELECT record FROM chunk WHERE snapshot = ? AND number = ?", (row[0], place)
                ).fetchone()
                if found is None:
                    break
                chunk = self._seal.open(found[0], table=f"chunk {row[0]}", index=place)
            yield chunk
            place += 1
        with _readable(self.path):
            (count,) = self._connection.execute(
                "SELECT count(*) FROM chunk WHERE snapshot = ?", row
            ).fetchone()
            if count != place:
                raise Damaged(f"it lacks chunk {place} of its snapshot")

    def bootstrap(self, snapshot: Snapshot, chunks: Iterable[bytes] = ()) -> None:
        """Write the first membership and state of a new database; blocking, before :meth:`load`.

        It is all there afterwards or, after a crash, nothing.
        """
        with transaction(self._connection):
            self._put_snapshot(snapshot, 1)
            for place, chunk in enumerate(chunks):
                self._put_chunk(1, place, chunk)
            self._put_hard_state(HardState(term=snapshot.term, commit=snapshot.index))

    def rebuild(self, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
        """Replace log, snapshot and hard state at once; blocking, before it is written to."""
        execute = self._connection.execute
        number = self._next_number()
        with transaction(self._connection):
            execute("DELETE FROM log")
            execute("DELETE FROM chunk")
            for place, chunk in enumerate(chunks):
                self._put_chunk(number, place, chunk)
            self._put_snapshot(snapshot, number)
            self._put_hard_state(HardState(term=snapshot.term, commit=snapshot.index))
        self._checkpoint("TRUNCATE")

    def begin(self) -> None:
        """Note that this manager starts: what it shows its peers, and an empty write-ahead file.

        After :meth:`load`, before anything is written: what SQLite left unread in the write-ahead
        file must not be mistaken for a later write.

        Raises:
            StorageFailed: the disk refuses to be written.
        """
        with _writable(self.path):
            self._checkpoint("TRUNCATE")
            self._starts = (self._starts[0] + 1, secrets.randbits(62))
            with transaction(self._connection):
                self._put_meta("starts", _encode(self._starts))

    def shown(self) -> Shown:
        """Return what this manager's disk shows its peers; see ``rollback.py``."""
        hard_state, _ = self.log.initial_state()
        return Shown(*self._starts, term=hard_state.term, last_index=self.log.last_index())

    def is_new(self) -> bool:
        """True as long as :meth:`bootstrap` was never called."""
        row = self._connection.execute("SELECT count(*) FROM snapshot").fetchone()
        return bool(row[0] == 0)

    def close(self) -> None:
        """Close a database that no thread writes to."""
        self._connection.close()

    # --- records ---

    def _put_hard_state(self, hard_state: HardState) -> None:
        """Write the hard state, and where the log ends: rows that damage takes are missed then."""
        (last,) = self._connection.execute("SELECT max(idx) FROM log").fetchone()
        self._put_meta("hard_state", _encode((hard_state, last or 0)))

    def _next_number(self) -> int:
        """Return a number that no chunk has, not even one that an interrupted write left."""
        row = self._connection.execute(
            "SELECT max((SELECT coalesce(max(id), 0) FROM snapshot),"
            " (SELECT coalesce(max(snapshot), 0) FROM chunk))"
        ).fetchone()
        return int(row[0]) + 1

    def _put_meta(self, name: str, plain: bytes) -> None:
        record = self._seal.seal(plain, table=SEALED_META[name], index=0)
        self._uncheckpointed += len(record)
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, record))

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

    def _read_meta(self, name: str) -> bytes:
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise Damaged(f"it lacks its {name.replace('_', ' ')}")
        return self._seal.open(row[0], table=SEALED_META[name], index=0)

    def _checkpoint(self, mode: str) -> None:
        """Copy the write-ahead file into the database; on a full disk later, nothing is lost."""
        try:
            self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
        else:
            self._uncheckpointed = 0


def _check_whole(
    snapshot: Snapshot, entries: tuple[Entry, ...], hard_state: HardState, written: int
) -> None:
    """Refuse a log with holes; a torn tail cannot make one, only damage can."""
    expected = entries[0].index if entries else 0
    for entry in entries:
        if entry.index != expected:
            raise Damaged(f"it lacks log entry {expected}")
        expected += 1
    first = entries[0].index if entries else snapshot.index + 1
    last = entries[-1].index if entries else snapshot.index
    if first > snapshot.index + 1:
        raise Damaged(f"it lacks the log entries {snapshot.index + 1} to {first - 1}")
    if written != (entries[-1].index if entries else 0):
        raise Damaged(f"its log ends at {last}, yet {written} was written last")
    if hard_state.commit > max(last, snapshot.index):
        raise Damaged(f"it ends at {last}, yet {hard_state.commit} was committed")


# --- opening -------------------------------------------------------------------------------------


def create(
    path: Path, *, owner: str, key_encryption_key: bytes, lock: Lock, identity_key: bytes
) -> None:
    """Make a database without content where there is none.

    Args:
        owner: cluster and node id.
        identity_key: of the node's TLS key, if it is locked.
    """
    with _writable(path):
        connection = _connect(path)
        try:
            _configure(connection)
            path.chmod(0o600)
            connection.executescript(_SCHEMA)
            with transaction(connection):
                connection.execute("INSERT INTO meta VALUES ('format', ?)", (FORMAT,))
                make_keys(connection, key_encryption_key, lock, identity_key)
                keys = Keys(connection, key_encryption_key, owner)
                database = Database(path, connection, keys)
                database._put_hard_state(HardState())
                database._put_meta("starts", _encode((0, 0)))
        finally:
            connection.close()
        _sync_directory(path.parent)


def open_parts(
    path: Path, *, owner: str, key_encryption_key: bytes
) -> tuple[sqlite3.Connection, Keys]:
    """Open a manager's Raft database; blocking.

    Args:
        path: the file; its directory is private to the daemon's user.
        owner: cluster and node id; a database of another owner does not open.
        key_encryption_key: 32 bytes that unwrap the data keys.

    Raises:
        WrongKey: the key does not fit.
        StorageFailed: the file cannot be used: locked by another daemon, damaged, newer format.
    """
    connection = _open(path)
    try:
        with _readable(path):
            return connection, Keys(connection, key_encryption_key, owner)
    except BaseException:
        connection.close()
        raise


def peek_lock(path: Path, key: bytes | None) -> tuple[Lock, bytes]:
    """Return a database's lock and, if the key is given, what seals the node's TLS key.

    Raises:
        WrongKey: the key does not fit.
        StorageFailed: as :func:`open_parts`.
    """
    connection = _open(path)
    try:
        with _readable(path):
            lock = read_lock(connection)
            keys = {} if key is None else unwrap_all(connection, key)
            return lock, keys.get(0, b"")
    finally:
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=LOCKED_S, isolation_level=None, check_same_thread=False)


def _open(path: Path) -> sqlite3.Connection:
    """Open an existing database whose write-ahead file is sound."""
    with _readable(path):
        if path.stat().st_size == 0:
            raise Damaged("it is empty")
        connection = _connect(path)
        try:
            _configure(connection)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the lock
            _check_wal(path)
            _check_format(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _configure(connection: sqlite3.Connection) -> None:
    for setting in (
        "locking_mode=EXCLUSIVE",  # no second daemon, and no shared-memory file
        "journal_mode=WAL",
        "synchronous=FULL",
        "wal_autocheckpoint=0",  # the writer checkpoints when idle, never inside a commit
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    row = connection.execute("SELECT value FROM meta WHERE name='format'").fetchone()
    if row is None:
        raise Damaged("it does not say its format")
    if int(row[0]) > FORMAT:
        raise StorageFailed(
            f"the Raft database {path} has format {row[0]}, newer than this release's {FORMAT}: "
            "upgrade swarmctl on this host"
        )


def _check_wal(path: Path) -> None:
    """Refuse a write-ahead file that is broken before its end; see ``wal.py``."""
    beside = path.with_name(f"{path.name}-wal")
    if not beside.exists():
        return
    handle = os.open(beside, os.O_RDONLY)
    try:
        lost = transactions_past_a_break(lambda offset, length: os.pread(handle, length, offset))
    finally:
        os.close(handle)
    if lost > 1:
        raise Damaged(f"{lost} writes in {beside.name} lie at or behind a broken one")


REMEDY = (
    "This node can no longer be a manager with it. If other managers run, leave the swarm by force "
    "here and join anew; if it was the only one, restore a backup (`swarmctl restore`)"
)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say of what fails while a database is read which file it is, and what would help."""
    try:
        yield
    except WrongKey:
        raise
    except Damaged as error:
        raise Damaged(f"the Raft database {path} is damaged: {error}. {REMEDY}") from error
    except (sqlite3.Error, OSError) as error:
        text = f"the Raft database {path} cannot be opened: {error}"
        if "locked" in str(error):
            text += "; another daemon uses this state directory"
        elif isinstance(error, sqlite3.DatabaseError) and not _is_of_the_system(error):
            raise Damaged(f"the Raft database {path} is damaged: {error}. {REMEDY}") from error
        raise StorageFailed(text) from error
    except (msgspec.MsgspecError, ValueError, TypeError) as error:  # not the type that we wrote
        raise Damaged(f"the Raft database {path} is damaged: {error}. {REMEDY}") from error
    except StorageFailed:
        raise
    except SwarmError as error:  # a record that does not open
        raise Damaged(f"the Raft database {path} is damaged: {error}. {REMEDY}") from error


def _is_of_the_system(error: sqlite3.DatabaseError) -> bool:
    """True for what the file system refuses; else SQLite says what is wrong with the content."""
    return isinstance(error, sqlite3.OperationalError) and "no such" not in str(error)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageFailed(f"the Raft database {path} cannot be written: {error}") from error


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
