"""A node's state directory in tests, and what tests of the process executor do with it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from swarmctl.core.clock import new_id
from swarmctl.plugins import ExecutorSettings, LogOptions, NodeIdentity
from swarmctl.plugins.model import ContainerSpec
from swarmctl.plugins.process_exec.executor import ProcessExecutor
from swarmctl.plugins.process_exec.keeper import procfs, records
from swarmctl.plugins.process_exec.keeper.frames import FrameReader, encode
from swarmctl.plugins.testing import simple_assignment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swarmctl.plugins import LogLine, TaskController
    from swarmctl.plugins.model import TaskAssignment

    T = TypeVar("T")

KEEPER_IDLE_S = 20.0
WAIT_S = 30.0


class Host:
    """One node's state directory and what tests do with it."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.root = state_dir / "process"
        self.identity = NodeIdentity(
            cluster_id=new_id(), node_id=new_id(), hostname="here", state_dir=str(state_dir)
        )

    def executor(self) -> ProcessExecutor:
        """Make an executor, as a daemon does that starts."""
        settings = ExecutorSettings(state_dir=str(self.state_dir))
        return ProcessExecutor(settings, keeper_idle_s=KEEPER_IDLE_S)

    def assignment(self, script: str | ContainerSpec, **fields: Any) -> TaskAssignment:
        """Return an assignment of a task that runs a shell script (or a whole spec)."""
        if isinstance(script, str):
            script = ContainerSpec(Image="host", Command=("sh", "-c", script), **fields)
        return simple_assignment(new_id(), script, self.identity)

    def folder(self, assignment: TaskAssignment) -> Path:
        return self.root / assignment.task.ID

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask the keeper directly; raises OSError when none listens."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(WAIT_S)
            line.connect(str(self.root / "keeper.sock"))
            line.sendall(encode({"id": 1, "op": op, **fields}))
            reader = FrameReader()
            while data := line.recv(65536):
                for message in reader.feed(data):
                    if message.get("id") == 1:
                        return message
        raise ConnectionResetError("the keeper ended")

    def keeper_pid(self) -> int:
        """Return the pid of the keeper that listens."""
        pid = self.ask("hello")["ok"]["pid"]
        assert isinstance(pid, int)
        return pid

    def kill_keeper(self) -> int:
        """Kill the keeper as a crash would, and wait until it is gone."""
        pid = self.keeper_pid()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid), f"end of keeper {pid}")
        return pid

    def clean_up(self) -> None:
        """End what this directory's tasks and keeper still run, each by its recorded identity."""
        for task_id in records.task_ids(str(self.root)):
            started = (records.load(str(self.root / task_id)) or {}).get("started")
            if started:
                marker = f"SWARMCTL_TASK_ID={task_id}".encode()
                for process in procfs.members(started["pid"], started["start"], marker):
                    procfs.send_signal(process.pid, process.start, signal.SIGKILL)
        try:
            pid = self.keeper_pid()
        except OSError:
            pid = 0
        if pid:
            try:
                eventually(lambda: "ok" in self.ask("quit"), "quitting keeper")
            finally:
                if not gone(pid):
                    os.kill(pid, signal.SIGKILL)
        eventually(self._unlocked, "the end of a keeper that is quitting already")
        private = self.root / "private"
        if private.is_mount():
            subprocess.run(["umount", "--lazy", str(private)], check=True)
        shutil.rmtree(self.state_dir)

    def _unlocked(self) -> bool:
        lock = self.root / "keeper.lock"
        if not lock.exists():
            return True
        with lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


def alive(pid: int) -> bool:
    process = procfs.read(pid)
    return process is not None and process.alive


def gone(pid: int) -> bool:
    """Wait a moment for the end of a process that was asked to end."""
    deadline = time.monotonic() + WAIT_S
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def eventually(ask: Callable[[], T], what: str) -> T:
    """Ask until the answer is true: real processes offer no event to wait for."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:g} s"
        time.sleep(0.01)


async def started(executor: ProcessExecutor, assignment: TaskAssignment) -> TaskController:
    """Prepare and start a task."""
    control = executor.controller(assignment)
    await control.prepare()
    await control.start()
    return control


async def output(control: TaskController, **options: Any) -> list[LogLine]:
    """Read a task's output."""
    return [line async for line in control.logs(LogOptions(**options))]


async def texts(control: TaskController, **options: Any) -> list[str]:
    """Read a task's output as text."""
    return [line.text.decode() for line in await output(control, **options)]


async def enough_lines(control: TaskController, count: int) -> list[str]:
    """Wait until a task has printed ``count`` lines, and return all there are."""
    with trio.fail_after(WAIT_S):
        while True:
            lines = await texts(control)
            if len(lines) >= count:
                return lines
            await trio.sleep(0.01)
    raise AssertionError("unreachable")


async def first_line(control: TaskController) -> str:
    """Wait for a task's first line of output."""
    async with aclosing(control.logs(LogOptions(follow=True))) as lines:  # type: ignore[type-var]
        async for line in lines:
            return line.text.decode()
    raise AssertionError("the task ended without output")
