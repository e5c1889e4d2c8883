"""What was assigned to this node, kept so that a restarted daemon goes on where it was.

One SQLite file, private to the daemon's user, written by one thread in groups. It holds ids, specs,
statuses, and who is where in the node's networks; never secret data, config data or registry
credentials. Power loss may cost the last moments (synchronous=NORMAL): the tasks they speak of did
not survive it either.
"""

from __future__ import annotations

import logging
import os
import queue
import sqlite3
import threading
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import trio
from msgspec.structs import replace

from ..errors import StorageFailed, Undecodable
from ..model.codec import pack, unpack
from ..model.endpoints import EMPTY_TABLE, EndpointTable
from ..model.session import AssignedTask
from ..model.task import TaskStatus

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY = "worker"
DATABASE = "tasks.db"
DAMAGED = "tasks.db.damaged"
GROUP_MAX = 1_000
FULL_PAUSE_S = 1.0
LOCKED_S = 1.0  # another daemon does not go away while we wait longer

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
  id TEXT PRIMARY KEY, assigned BLOB NOT NULL, status BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endpoints (id INTEGER PRIMARY KEY CHECK (id = 1), content BLOB NOT NULL);
"""


class Remembered(NamedTuple):
    """One task as it was when the daemon ended."""

    assigned: AssignedTask
    status: TaskStatus


class _Job(NamedTuple):
    """One write: without ``assigned`` only the status, without both the task is forgotten."""

    task_id: str
    assigned: bytes | None = None
    status: bytes | None = None


class _Word(Enum):
    END = 1
    ENDPOINTS = 2  # the newest table of endpoints is to be written


class TaskTable:
    """The open table; :meth:`run` writes, the rest is called from trio and never blocks.

    What is put waits in memory for the thread, which takes all of it at once: a status is a few
    hundred bytes, and a task has about eight in its life.

    Attributes:
        endpoints: the table of endpoints as it was when the daemon before this one ended.
    """

    def __init__(
        self, connection: sqlite3.Connection, endpoints: EndpointTable = EMPTY_TABLE
    ) -> None:
        self._connection = connection
        self.endpoints = endpoints
        self._newest_endpoints = b""
        self._jobs: queue.SimpleQueue[_Job | _Word] = queue.SimpleQueue()
        self._ending = threading.Event()

    def put(self, assigned: AssignedTask, status: TaskStatus) -> None:
        """Remember a task."""
        bare = replace(assigned, registry_auth="")
        self._jobs.put(_Job(assigned.task.ID, pack(bare), pack(status)))

    def put_status(self, task_id: str, status: TaskStatus) -> None:
        """Remember a task's newest status; of a task that is not known nothing is kept."""
        self._jobs.put(_Job(task_id, None, pack(status)))

    def drop(self, task_id: str) -> None:
        """Forget a task."""
        self._jobs.put(_Job(task_id))

    def put_endpoints(self, table: EndpointTable) -> None:
        """Remember the table of endpoints; of several that wait only the newest is kept."""
        self._newest_endpoints = pack(table)
        self._jobs.put(_Word.ENDPOINTS)

    def close(self) -> None:
        """Close a table that is not being run."""
        self._connection.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; what was put before that is written first.

        Raises:
            StorageFailed: the disk refused.
        """
        ended = trio.Event()
        token = trio.lowlevel.current_trio_token()
        failure: list[Exception] = []

        def work() -> None:
            try:
                self._write_until_told()
            except Exception as error:  # carried over to the trio side
                failure.append(error)
            token.run_sync_soon(ended.set)

        threading.Thread(target=work, name="task table", daemon=True).start()
        task_status.started()
        try:
            await ended.wait()
        finally:
            self._ending.set()
            self._jobs.put(_Word.END)
            with trio.CancelScope(shield=True):  # the thread ends after what is queued
                await ended.wait()
            self._connection.close()
        for error in failure:
            raise StorageFailed(f"the table of tasks cannot be written: {error}") from error

    def _write_until_told(self) -> None:
        while True:
            job = self._jobs.get()
            group: list[_Job | _Word] = []
            while job is not _Word.END:
                group.append(job)
                if len(group) >= GROUP_MAX or self._jobs.empty():
                    break
                job = self._jobs.get()
            if group:
                self._write_when_there_is_room(group)
            if job is _Word.END:
                return

    def _write_when_there_is_room(self, group: list[_Job | _Word]) -> None:
        """Write a group; on a full disk again and again, for the tasks run on without it.

        At the end it is given up: the manager gives the tasks again, the executor knows them.
        """
        while True:
            try:
                self._write(group)
            except sqlite3.OperationalError as error:
                if "full" not in str(error):
                    raise
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                log.error("the table of tasks is not written: the disk is full")  # noqa: TRY400
                if self._ending.wait(FULL_PAUSE_S):
                    return
            else:
                return

    def _write(self, group: list[_Job | _Word]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        if _Word.ENDPOINTS in group:
            newest = self._newest_endpoints
            execute("INSERT OR REPLACE INTO endpoints VALUES (1, ?)", (newest,))
        for job in group:
            if isinstance(job, _Word):
                continue
            task_id, assigned, status = job
            if status is None:
                execute("DELETE FROM task WHERE id = ?", (task_id,))
            elif assigned is None:
                execute("UPDATE task SET status = ? WHERE id = ?", (status, task_id))
            else:
                execute("INSERT OR REPLACE INTO task VALUES (?, ?, ?)", (task_id, assigned, status))
        execute("COMMIT")


def open_task_table(state_dir: Path) -> tuple[TaskTable, list[Remembered]]:
    """Open (or make) the table and read it; blocking.

    A damaged table is set aside and a new one begun: the manager gives the tasks again and the
    executor knows how they are, so nothing is lost but statuses that were not reported yet.

    Raises:
        StorageFailed: the file cannot be used.
    """
    directory = state_dir / DIRECTORY
    path = directory / DATABASE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            log.warning("the table of tasks is damaged (%s); %s keeps it", error, DAMAGED)
        path.replace(directory / DAMAGED)
        for rest in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
            (directory / rest).unlink(missing_ok=True)
        return _open(path)
    except (OSError, sqlite3.Error) as error:
        raise StorageFailed(f"the table of tasks {path} cannot be opened: {error}") from error


def _open(path: Path) -> tuple[TaskTable, list[Remembered]]:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(
        path, timeout=LOCKED_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        return TaskTable(connection, _load_endpoints(connection)), _load(connection)
    except BaseException:
        connection.close()
        raise


def _load(connection: sqlite3.Connection) -> list[Remembered]:
    """Read all tasks. One that cannot be decoded is dropped: the manager gives it again."""
    found = []
    for task_id, assigned, status in connection.execute("SELECT * FROM task").fetchall():
        try:
            found.append(Remembered(unpack(assigned, AssignedTask), unpack(status, TaskStatus)))
        except Undecodable as error:
            log.warning("task %s cannot be remembered: %s", task_id, error)
            connection.execute("DELETE FROM task WHERE id = ?", (task_id,))
    return found


def _load_endpoints(connection: sqlite3.Connection) -> EndpointTable:
    """Read the table of endpoints; the next manager in session tells it anyway."""
    for (content,) in connection.execute("SELECT content FROM endpoints").fetchall():
        try:
            return unpack(content, EndpointTable)
        except Undecodable as error:
            log.warning("the table of endpoints cannot be remembered: %s", error)
    return EMPTY_TABLE
