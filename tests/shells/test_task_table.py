"""The table of tasks: there again after any end, and without anything secret."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core.agent.disk import open_task_table
from swarmctl.core.errors import StorageFailed
from swarmctl.core.model.base import Time
from swarmctl.core.model.endpoints import EndpointTable
from swarmctl.core.model.session import AssignedTask
from swarmctl.core.model.spec import ContainerSpec, SecretReference, TaskSpec
from swarmctl.core.model.task import Task, TaskState, TaskStatus

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from swarmctl.core.agent.disk import Remembered, TaskTable


def assigned(task_id: str = "t1", *, auth: str = "") -> AssignedTask:
    uses = (SecretReference(SecretID="s1", SecretName="key"),)
    spec = TaskSpec(ContainerSpec=ContainerSpec(Image="nginx", Secrets=uses))
    return AssignedTask(task=Task(ID=task_id, Spec=spec), service_name="web", registry_auth=auth)


def status(state: TaskState) -> TaskStatus:
    return TaskStatus(Timestamp=Time(5), State=state)


@asynccontextmanager
async def running(state_dir: Path) -> AsyncIterator[TaskTable]:
    table, _ = open_task_table(state_dir)
    async with trio.open_nursery() as nursery:
        await nursery.start(table.run)
        yield table
        nursery.cancel_scope.cancel()


def read(state_dir: Path) -> list[Remembered]:
    table, remembered = open_task_table(state_dir)
    table.close()
    return remembered


async def test_a_task_is_remembered_with_its_newest_status(tmp_path: Path) -> None:
    """Cancelling the table writes first what was put; the next start reads it back."""
    async with running(tmp_path) as table:
        table.put(assigned(), status(TaskState.ACCEPTED))
        table.put_status("t1", status(TaskState.RUNNING))
    (remembered,) = read(tmp_path)
    assert remembered.status == status(TaskState.RUNNING)
    assert remembered.assigned == assigned()


async def test_a_dropped_task_is_forgotten(tmp_path: Path) -> None:
    """A task that was dropped stays so, whatever status comes after."""
    async with running(tmp_path) as table:
        table.put(assigned("t1"), status(TaskState.RUNNING))
        table.put(assigned("t2"), status(TaskState.RUNNING))
        table.drop("t1")
        table.put_status("t1", status(TaskState.COMPLETE))
    assert [each.assigned.task.ID for each in read(tmp_path)] == ["t2"]


async def test_of_tables_of_endpoints_that_wait_only_the_newest_is_kept(tmp_path: Path) -> None:
    """However long the disk takes, they do not pile up."""
    table, _ = open_task_table(tmp_path)
    tracemalloc.start()
    try:
        for version in range(1, 51):
            table.put_endpoints(EndpointTable(version=version, own_addr="x" * 100_000))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 1_000_000
    async with trio.open_nursery() as nursery:
        await nursery.start(table.run)
        nursery.cancel_scope.cancel()
    again, _ = open_task_table(tmp_path)
    again.close()
    assert again.endpoints.version == 50


async def test_credentials_are_never_written(tmp_path: Path) -> None:
    """Registry credentials are in none of the table's files, while it runs or after."""
    async with running(tmp_path) as table:
        table.put(assigned(auth="TOP-SECRET"), status(TaskState.RUNNING))
    for path in (tmp_path / "worker").iterdir():
        assert b"TOP-SECRET" not in path.read_bytes(), path
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "worker").stat().st_mode & 0o077 == 0
    assert read(tmp_path)[0].assigned.registry_auth == ""


def test_a_killed_daemon_leaves_a_whole_table(tmp_path: Path) -> None:
    """After SIGKILL in the middle of writing, the table opens with tasks that are whole."""
    writer = """
        import sys, trio
        from pathlib import Path
        from swarmctl.core.agent.disk import open_task_table
        from swarmctl.core.model.session import AssignedTask
        from swarmctl.core.model.task import Task, TaskState, TaskStatus

        async def main():
            table, _ = open_task_table(Path(sys.argv[1]))
            async with trio.open_nursery() as nursery:
                await nursery.start(table.run)
                number = 0
                while True:
                    number += 1
                    task = AssignedTask(task=Task(ID=f"t{number % 50}"), service_name="w" * 2000)
                    table.put(task, TaskStatus(State=TaskState.RUNNING))
                    if number == 200:
                        print("writing", flush=True)
                    await trio.sleep(0.0005)

        trio.run(main)
    """
    command = [sys.executable, "-c", textwrap.dedent(writer), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        os.kill(process.pid, signal.SIGKILL)
    remembered = read(tmp_path)
    assert len(remembered) > 10
    assert {each.status.State for each in remembered} == {TaskState.RUNNING}
    assert {each.assigned.service_name for each in remembered} == {"w" * 2000}


def test_a_row_that_cannot_be_decoded_costs_itself(tmp_path: Path) -> None:
    """One bad row is dropped, and the others are remembered."""
    table, _ = open_task_table(tmp_path)
    table.close()
    trio.run(_put_two, tmp_path)
    with sqlite3.connect(tmp_path / "worker" / "tasks.db") as connection:
        connection.execute("UPDATE task SET assigned = x'c1' WHERE id = 't1'")
    connection.close()
    assert [each.assigned.task.ID for each in read(tmp_path)] == ["t2"]


async def _put_two(state_dir: Path) -> None:
    async with running(state_dir) as table:
        table.put(assigned("t1"), status(TaskState.RUNNING))
        table.put(assigned("t2"), status(TaskState.RUNNING))


async def test_a_refused_write_ends_the_table(tmp_path: Path) -> None:
    """An I/O error is raised, not swallowed: a node that forgets its tasks must not go on."""
    table, _ = open_task_table(tmp_path)
    with sqlite3.connect(tmp_path / "worker" / "tasks.db") as connection:
        connection.execute("DROP TABLE task")
    connection.close()
    with pytest.raises(BaseExceptionGroup) as caught:
        await _write_to(table)
    assert isinstance(caught.value.exceptions[0], StorageFailed)
    assert "the table of tasks cannot be written" in str(caught.value.exceptions[0])


async def _write_to(table: TaskTable) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(table.run)
        table.put(assigned(), status(TaskState.RUNNING))


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A directory that is a file is an error with the path, not a traceback."""
    (tmp_path / "worker").write_text("in the way")
    with pytest.raises(StorageFailed, match=r"worker/tasks\.db cannot be opened"):
        open_task_table(tmp_path)
