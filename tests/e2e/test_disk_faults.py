"""A manager whose disk fails under it: full, unsyncable, read-only, cut short. Its tasks go on."""

from __future__ import annotations

import socket
import struct
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import ApiError, Lab, eventually
from tests.e2e.swarm import service_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.lab import Daemon, Host

pytestmark = pytest.mark.lab

DISK_MIB = 48
PROCESS = {"Image": "host", "StopSignal": "SIGKILL"}


@pytest.fixture(scope="module")
def _module_lab() -> Iterator[Lab]:
    with Lab(1) as lab:
        yield lab


@pytest.fixture
def host(_module_lab: Lab) -> Iterator[Host]:
    """A host without an engine."""
    yield _module_lab[0]
    _module_lab.clean()


class Node:
    """The only manager of a swarm, with a task of its own to look after.

    Attributes:
        seconds: what the task sleeps, to be found by.
    """

    def __init__(self, host: Host, seconds: int) -> None:
        self.host = host
        self.daemon: Daemon = host.start_daemon("--executor=process", engine=False)
        self.seconds = seconds
        self._tried = 0
        self.daemon.api("POST", "/swarm/init", {"AdvertiseAddr": host.address})
        self.create("kept", ["sleep", str(seconds)])
        eventually(self.task_runs, what="the task")

    @property
    def raft(self) -> Path:
        return self.daemon.state_dir / "raft"

    def create(self, name: str, command: list[str]) -> None:
        spec = service_spec(name, 1, container={**PROCESS, "Command": command})
        self.daemon.api("POST", "/services/create", spec)

    def services(self) -> set[str]:
        return {each["Spec"]["Name"] for each in self.daemon.api("GET", "/services")}

    def swarm(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.api("GET", "/info")["Swarm"]
        return found

    def refused(self) -> str:
        """What a change is answered, or nothing when it is accepted."""
        self._tried += 1
        try:
            self.create(f"try{self._tried}", ["sleep", "1"])
        except ApiError as error:
            return str(error)
        return ""

    def task_runs(self) -> bool:
        listed = self.host.run(["ps", "-eo", "args"]).stdout.splitlines()
        return f"sleep {self.seconds}" in [line.strip() for line in listed]

    def stopped(self) -> str:
        """Wait until it is no manager any more; return why."""

        def why() -> str:
            swarm = self.swarm()
            return str(swarm["Error"]) if swarm["LocalNodeState"] == "error" else ""

        said: str = eventually(why, what="it to stop being a manager")
        assert str(self.raft / "raft.db") in said
        with pytest.raises(ApiError) as refused:
            self.services()
        assert refused.value.status == 503
        assert said in str(refused.value)
        assert said in self.host.swarmctl(["info"]).stdout
        assert self.task_runs()
        return said

    def restart(self) -> None:
        if self.daemon.process is not None and self.daemon.process.running:
            self.daemon.kill()
        self.daemon = self.host.start_daemon("--executor=process", engine=False)

    def leads_again(self) -> None:
        """Wait until it is a manager with everything in it."""

        def leads() -> bool:
            try:
                return "kept" in self.services()
            except ApiError:
                return False

        eventually(leads, 20, what="it to lead again")
        assert self.task_runs()


@contextmanager
def failing(node: Node, *injection: str) -> Iterator[None]:
    """Make system calls of the running daemon on its write-ahead file fail, from now on."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(node.daemon.socket))
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    wal = node.raft / "raft.db-wal"
    command = ["strace", "-f", "-p", str(pid), "-P", str(wal), *injection]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        for line in tracer.stderr:
            if "attached" in line:
                break
        try:
            yield
        finally:
            # Asked to end, strace waits for each thread to stop first, and for ever for one that
            # waits for its vfork's child, which strace keeps stopped. The kernel lets all go on.
            tracer.kill()
            tracer.stderr.read()


def test_a_disk_that_fills_up(host: Host) -> None:
    """Changes are refused before it is full, and accepted again by themselves when there is room;
    filled to the last byte it loses nothing, and the tasks run on."""
    state = host.state_dir / "swarmctl"
    state.mkdir(exist_ok=True)
    host.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=711", "tmpfs", state])
    try:
        node = Node(host, 8801)
        assert node.daemon.state_dir == state
        filler = state / "filler"
        for fill in (["fallocate", "-l", f"{DISK_MIB - 5}M"], ["dd", "if=/dev/zero", "bs=64k"]):
            host.run([*fill, filler] if fill[0] != "dd" else [*fill, f"of={filler}"], check=False)
            # One that was taken in just before waits for room; the client gives up after a minute.
            said = eventually(node.refused, 90, what="changes to be refused")
            assert "MiB left" in said
            assert "Free some space, and it goes on by itself" in said
            warnings = eventually(lambda: node.swarm().get("Warnings"), what="a warning")
            assert any("accepts no changes" in each for each in warnings)
            assert node.swarm()["LocalNodeState"] == "active"
            assert node.task_runs()
            host.run(["rm", filler])
            eventually(lambda: not node.refused(), what="changes to be accepted")
        node.create("after", ["sleep", "8802"])
        node.restart()
        node.leads_again()
        assert node.services() > {"kept", "after"}
    finally:
        host.kill_all()
        host.run(["umount", "--lazy", state], check=False)


def test_a_sync_that_fails(host: Host) -> None:
    """The first EIO ends the manager with a message; nothing is synced after it, and a restart on
    a sound disk has all that was acknowledged."""
    node = Node(host, 8811)
    node.create("before", ["sleep", "8812"])
    with failing(node, "-e", "inject=fdatasync,fsync:error=EIO"):
        node.refused()  # fails, or hangs up with the manager
        said = node.stopped()
    assert "disk I/O error" in said
    assert "does not try again" in said
    node.restart()
    node.leads_again()
    assert "before" in node.services()


def test_a_file_system_that_becomes_read_only(host: Host) -> None:
    """Under the running daemon, and for the next start: it says so, and goes on when it is not."""
    node = Node(host, 8821)
    with failing(node, "-e", "inject=pwrite64:error=EROFS"):
        node.refused()
        assert "cannot be written any more" in node.stopped()
    node.daemon.kill()
    host.run(["mount", "--bind", node.raft, node.raft])
    try:
        host.run(["mount", "-o", "remount,bind,ro", node.raft])
        node.restart()
        said = node.stopped()
        assert "cannot be opened" in said
        node.daemon.kill()
    finally:
        host.run(["umount", "--lazy", node.raft])
    node.restart()
    node.leads_again()


@pytest.mark.parametrize("part", ["raft.db", "kek"])
def test_a_file_that_was_cut_short(host: Host, part: str) -> None:
    """A truncated file is refused by name with what to do; leaving by force still works."""
    node = Node(host, 8831)
    for number in range(20):
        node.create(f"service{number}", ["sleep", "8832"])
    node.daemon.kill()  # with everything still in the write-ahead file
    path = node.raft / part
    size = path.stat().st_size
    assert size > 0
    with path.open("r+b") as file:
        file.truncate(size // 2)
    node.restart()
    said = str(eventually(lambda: node.swarm()["Error"], what="its error"))
    assert str(path) in said
    assert node.task_runs()
    assert "leave the swarm by force here and join anew" in said
    host.swarmctl(["leave", "--force"])
    assert node.swarm()["LocalNodeState"] == "inactive"
    eventually(lambda: not node.task_runs(), what="its task to be gone")
