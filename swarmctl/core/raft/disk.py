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

import logging
import queue
import sqlite3
import sys
import threading
import time
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from ..errors import StorageFailed
from . import space
from .database import REMEDY, Database, create, open_parts
from .keys import KeyChange, Lock, WrongKey, transaction
from .message import Entry, HardState, Message, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from .keys import Keys

__all__ = ["Disk", "WrongKey", "open_disk"]

CHECKPOINT_BYTES = 8 * 1024 * 1024
IDLE_S = 1.0
GROUP_MAX = 256
READ_BYTES = 256 * 1024

log = logging.getLogger(__name__)


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


class _Call(NamedTuple):
    work: Callable[[], None]
    done: Callable[[], None]


class _Word(Enum):
    NOTHING = 0
    END = 1


_Job = _Append | _Save | _Read | _Stage | _Call | _Word


class Disk(Database):
    """The open database. Make one with :func:`open_disk` (blocking), then :meth:`run` it.

    ``log`` is the window the Raft core reads from; it changes only on the trio side, when the
    writer reports that something is durable.

    Attributes:
        complaint: why no change should be accepted now, in a sentence; empty while there is room.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, keys: Keys) -> None:
        super().__init__(path, connection, keys)
        self.complaint = space.complaint(path.parent)
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._staged = 0  # number of the snapshot whose chunks are being received; 0: none
        self._ending = threading.Event()
        self._looked = 0.0

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
            self._ending.set()
            self._jobs.put(_Word.END)
            with trio.CancelScope(shield=True):
                await ended.wait()
            self._close(failed=bool(failure))
        for error in failure:
            raise StorageFailed(
                f"the Raft database {self.path} cannot be written any more: {error}. Nothing after "
                "it was acknowledged, and this manager does not try again, since a disk that lost "
                "a write may say that all is well. See the kernel's log, repair the disk, restart "
                f"the daemon. {REMEDY}"
            ) from error

    def _close(self, *, failed: bool) -> None:
        """Close the file; after a failure without touching it further, where SQLite can do that."""
        try:
            if failed and sys.version_info >= (3, 12):
                self._connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
            self._connection.close()
        except sqlite3.Error as error:
            log.warning("closing %s: %s", self.path, error)

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

    def change_key(self, change: KeyChange, done: Callable[[], None]) -> None:
        """Wrap the keys anew; ``done`` is called in trio once only the new key opens them.

        A rotation that this asks for goes on afterwards, beside the other work.
        """
        self._jobs.put(_Call(lambda: self.keys.change(change), done))

    def rotate(self, done: Callable[[], None]) -> None:
        """Begin to replace the data key; ``done`` is called in trio once the new one seals."""
        self._jobs.put(_Call(self.keys.rotate, done))

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
                first = self._jobs.get(timeout=0 if self._may_rotate() else IDLE_S)
            except queue.Empty:
                self._rest()
                continue
            self._look_for_room()
            group, other = self._collect(first)
            if group:
                self._when_there_is_room(lambda: self._write_group(group))  # noqa: B023 - at once
                token.run_sync_soon(self._appended, group)
            if isinstance(other, _Save):
                self._write_snapshot(other)
                token.run_sync_soon(self._saved, other)
            elif isinstance(other, _Read):
                token.run_sync_soon(other.done, self._read_some(other.snapshot_index, other.place))
            elif isinstance(other, _Stage):
                self._when_there_is_room(partial(self._write_staged, other))
                token.run_sync_soon(other.done)
            elif isinstance(other, _Call):
                self._when_there_is_room(other.work)
                token.run_sync_soon(other.done)
            elif other is _Word.END:
                self._checkpoint("TRUNCATE")
                return
            if self._may_rotate():
                self._when_there_is_room(self._rotate_some)

    def _rest(self) -> None:
        """Nobody waits: go on with a rotation, or empty the write-ahead file."""
        self._look_for_room()
        if self._may_rotate():
            self._when_there_is_room(self._rotate_some)
        elif self._uncheckpointed:
            # Emptied, not only copied: a bit that flips in it later can then do no harm.
            self._checkpoint("TRUNCATE")

    def _may_rotate(self) -> bool:
        """True while a rotation has something to do; without room it waits."""
        return self._seal.rotating and not self.complaint

    def _rotate_some(self) -> None:
        """One step of a rotation: seal some records anew, or drop the old key after the last."""
        if self.keys.reseal_some():
            self._uncheckpointed += 1
            return
        self._checkpoint("TRUNCATE")  # its frames still hold what the old key sealed
        self.keys.finish()
        self._checkpoint("TRUNCATE")
        log.info("the data key of %s was replaced", self.path)

    # --- room ---

    def _look_for_room(self) -> None:
        """Keep ``complaint`` true; looks once a second at most."""
        now = time.monotonic()
        if now < self._looked + IDLE_S:
            return
        self._looked = now
        found = space.complaint(self.path.parent, before=self.complaint)
        if bool(found) != bool(self.complaint):
            log.warning("%s", found or f"the disk under {self.path.parent} has room again")
        self.complaint = found

    def _when_there_is_room(self, write: Callable[[], None]) -> None:
        """Do a write; on a full disk wait for room and do it again.

        A full disk refuses a transaction before anything of it counts, unlike a failed sync. So
        nothing is lost, and nothing was acknowledged.
        """
        while True:
            try:
                write()
            except sqlite3.OperationalError as error:
                if not _is_full(error) or self._ending.is_set():
                    raise
            else:
                return
            self._looked = 0.0
            self._look_for_room()
            if not self.complaint:
                self.complaint = f"the disk under {self.path.parent} is full. Free some space"
            log.error("%s is not written: the disk is full", self.path)
            self._ending.wait(IDLE_S)

    def _collect(self, job: _Job) -> tuple[list[_Append], _Job]:
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
        if self.keys.count_uses() and not self._seal.rotating:
            self.keys.rotate()
        hard_state, staged = self._hard_state, self._staged
        execute = self._connection.execute
        with transaction(self._connection):
            for job in group:
                message = job.message
                if message.snapshot is not None:
                    self._put_snapshot(message.snapshot, staged)
                    execute("DELETE FROM chunk WHERE snapshot <> ?", (staged,))
                    staged = 0
                    execute("DELETE FROM log")
                if message.entries:
                    execute("DELETE FROM log WHERE idx >= ?", (message.entries[0].index,))
                    self._connection.executemany(
                        "INSERT INTO log VALUES (?, ?, ?, ?)", self._records(message.entries)
                    )
                hard_state = _hard_state_of(message) or hard_state
            self._put_hard_state(hard_state)
        self._hard_state, self._staged = hard_state, staged
        if self._uncheckpointed > CHECKPOINT_BYTES:
            self._checkpoint("PASSIVE")

    def _records(self, entries: tuple[Entry, ...]) -> Iterator[tuple[int, int, int, bytes]]:
        seal = self._seal
        for entry in entries:
            plain = bytes((entry.kind,)) + entry.data
            record = seal.seal(plain, table="log", index=entry.index, term=entry.term)
            self._uncheckpointed += len(record)
            yield entry.index, entry.term, seal.key_id, record

    def _write_snapshot(self, job: _Save) -> None:
        """Write chunks under a new number, then switch to it and cut the log in one transaction."""
        execute = self._connection.execute
        number = self._next_number()

        def switch() -> None:
            with transaction(self._connection):
                self._put_snapshot(job.snapshot, number)
                execute("DELETE FROM chunk WHERE snapshot NOT IN (?, ?)", (number, self._staged))
                execute("DELETE FROM log WHERE idx <= ?", (job.snapshot.index - job.keep,))
                self._put_hard_state(self._hard_state)

        for place, chunk in enumerate(job.chunks):
            self._when_there_is_room(partial(self._put_chunk, number, place, chunk))
        self._when_there_is_room(switch)
        self._checkpoint("TRUNCATE")

    def _write_staged(self, job: _Stage) -> None:
        number = self._next_number() if job.place == 0 else self._staged
        with transaction(self._connection):
            if job.place == 0:
                self._connection.execute("DELETE FROM chunk WHERE snapshot = ?", (self._staged,))
            self._put_chunk(number, job.place, job.chunk)
        self._staged = number

    def _read_some(self, index: int, place: int) -> tuple[bytes, ...] | None:
        """Return chunks from ``place`` on, some ``READ_BYTES`` of them; see read_snapshot."""
        row = self._connection.execute("SELECT id FROM snapshot").fetchone()
        if row is None or self._read_snapshot_head().index != index:
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


def open_disk(path: Path, *, owner: str, key_encryption_key: bytes) -> Disk:
    """Open (or make) a manager's Raft database; blocking. See ``database.open_parts``."""
    if not path.exists():
        create(
            path,
            owner=owner,
            key_encryption_key=key_encryption_key,
            lock=Lock(),
            identity_key=b"",
        )
    return Disk(path, *open_parts(path, owner=owner, key_encryption_key=key_encryption_key))


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


def _is_full(error: sqlite3.Error) -> bool:
    return "full" in str(error)  # its code is there from CPython 3.11 on
