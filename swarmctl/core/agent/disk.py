"""The tasks assigned to this node, kept so that a restarted daemon goes on where it was.

One SQLite file, private to the daemon's user, written by one thread in groups. It holds ids, specs
and statuses; never secret data, config data or registry credentials. Power loss may cost the last
moments (synchronous=NORMAL): the tasks they speak of did not survive it either.
"""

from __future__ import annotations

import os
import queue
import sqlite3
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import trio
from msgspec.structs import replace

from ..errors import StorageFailed, Undecodable
from ..model.codec import pack, unpack
from ..model.session import AssignedTask
from ..model.task import TaskStatus

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY = "worker"
DATABASE = "tasks.db"
GROUP_MAX = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
  id TEXT PRIMARY KEY, assigned BLOB NOT NULL, status BLOB NOT NULL) WITHOUT ROWID;
"""


class Remembered(NamedTuple):
    """One task as it was when the daemon ended."""

    assigned: AssignedTask
    status: TaskStatus


class _Word(Enum):
    END = 1


_Job = tuple[str, "bytes | None", "bytes | None"]


class TaskTable:
    """The open table; :meth:`run` writes, the rest is called from trio and never blocks."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[_Job | _Word] = queue.SimpleQueue()

    def put(self, assigned: AssignedTask, status: TaskStatus) -> None:
        """Remember a task."""
        bare = replace(assigned, registry_auth="")
        self._jobs.put((assigned.task.ID, pack(bare), pack(status)))

    def put_status(self, task_id: str, status: TaskStatus) -> None:
        """Remember a task's newest status; of a task that is not known nothing is kept."""
        self._jobs.put((task_id, None, pack(status)))

    def drop(self, task_id: str) -> None:
        """Forget a task."""
        self._jobs.put((task_id, None, None))

    def load(self) -> list[Remembered]:
        """Read all tasks; blocking, before :meth:`run`. One that cannot be read is left out."""
        found = []
        for task_id, assigned, status in self._connection.execute("SELECT * FROM task"):
            try:
                found.append(Remembered(unpack(assigned, AssignedTask), unpack(status, TaskStatus)))
            except Undecodable:
                self._connection.execute("DELETE FROM task WHERE id = ?", (task_id,))
        return found

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; what was put before that is written first.

        Raises:
            StorageFailed: the disk refused.
        """
        done = trio.Event()
        failure: list[Exception] = []
        token = trio.lowlevel.current_trio_token()

        def work() -> None:
            try:
                self._write_until_told()
            except Exception as error:  # carried over to the trio side
                failure.append(error)
            finally:
                token.run_sync_soon(done.set)

        trio.lowlevel.start_thread_soon(work, _ignore_outcome)
        task_status.started()
        try:
            await done.wait()
        finally:
            self._jobs.put(_Word.END)
            with trio.CancelScope(shield=True):
                await done.wait()
            self._connection.close()
        for error in failure:
            raise StorageFailed(f"the table of tasks cannot be written: {error}") from error

    def _write_until_told(self) -> None:
        while True:
            job = self._jobs.get()
            group: list[_Job] = []
            while not isinstance(job, _Word):
                group.append(job)
                if len(group) >= GROUP_MAX or self._jobs.empty():
                    break
                job = self._jobs.get()
            if group:
                self._write(group)
            if isinstance(job, _Word):
                return

    def _write(self, group: list[_Job]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for task_id, assigned, status in group:
            if status is None:
                execute("DELETE FROM task WHERE id = ?", (task_id,))
            elif assigned is None:
                execute("UPDATE task SET status = ? WHERE id = ?", (status, task_id))
            else:
                execute("INSERT OR REPLACE INTO task VALUES (?, ?, ?)", (task_id, assigned, status))
        execute("COMMIT")


def open_task_table(state_dir: Path) -> TaskTable:
    """Open (or make) the table; blocking.

    Raises:
        StorageFailed: the file cannot be used.
    """
    directory = state_dir / DIRECTORY
    path = directory / DATABASE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        raise StorageFailed(f"the table of tasks {path} cannot be opened: {error}") from error
    return TaskTable(connection)


def _ignore_outcome(_outcome: object) -> None:
    """The writer reports through its own event."""
