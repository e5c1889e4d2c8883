"""The keeper: tasks outlive daemons and keepers, one keeper a directory, names that cannot lie."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from swarmctl.core.clock import new_id
from swarmctl.plugins import EngineUnavailable, NodeIdentity
from swarmctl.plugins.model import SecretFile
from swarmctl.plugins.process_exec import bundle as bundling
from swarmctl.plugins.process_exec.bundle import Bundle, bundle, spawn_keeper
from swarmctl.plugins.process_exec.keeper import mounts, procfs, records
from swarmctl.plugins.process_exec.keeper.frames import FrameError, FrameReader, encode
from swarmctl.plugins.process_exec.keeper.loop import Loop
from swarmctl.plugins.process_exec.keeper.private import PrivateFiles
from swarmctl.plugins.process_exec.keeper.probes import Probe
from tests.plugins.process_exec.hosts import (
    Host,
    alive,
    enough_lines,
    eventually,
    first_line,
    started,
    texts,
)

if TYPE_CHECKING:
    from swarmctl.plugins.process_exec.executor import ProcessExecutor

DAEMON = Path(__file__).with_name("daemon.py")
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.002; done"


async def test_killed_daemon(host: Host) -> None:
    """kill -9 of the daemon: the next one learns that a task ended with 7 meanwhile, and the
    others never noticed; their output has no gap."""
    counting, ending = new_id(), new_id()
    tasks = [f"{counting}={COUNT}", f"{ending}=while [ ! -e go ]; do sleep 0.01; done; exit 7"]
    identity = host.identity
    command = [sys.executable, str(DAEMON), str(host.state_dir)]
    command += [identity.cluster_id, identity.node_id, *tasks]
    repo = Path(__file__).parents[3]
    daemon = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(repo)}
    )
    assert daemon.stdout is not None
    async with daemon.stdout:
        assert await daemon.stdout.receive_some() == b"started\n"
        daemon.kill()
        await daemon.wait()
    log = host.root / counting / "output.00000001.log"
    before = log.stat().st_size
    (host.root / ending / "work" / "go").touch()
    record = host.root / ending
    eventually(lambda: "ended" in (records.load(str(record)) or {}), "the exit on disk")
    eventually(lambda: log.stat().st_size > before + 2000, "output while no daemon runs")

    async with trio.open_nursery() as nursery:
        executor = host.executor()
        await nursery.start(executor.run, identity)
        assert await executor.known_tasks() == {counting: True, ending: False}
        ended = host.assignment("")
        ended = msgspec.structs.replace(ended, task=msgspec.structs.replace(ended.task, ID=ending))
        status = await executor.controller(ended).wait()
        assert (status.code, status.error) == (7, "")
        assert status.finished_at > 0
        runs = msgspec.structs.replace(ended, task=msgspec.structs.replace(ended.task, ID=counting))
        control = executor.controller(runs)
        await control.kill()
        assert no_gap(await texts(control))
        nursery.cancel_scope.cancel()


def no_gap(lines: list[str]) -> bool:
    numbers = [int(line) for line in lines]
    return bool(numbers) and numbers == list(range(1, numbers[-1] + 1))


async def test_killed_keeper(host: Host, executor: ProcessExecutor) -> None:
    """kill -9 of the keeper: tasks run on, lose no output, and are adopted; one that is waited
    for is waited for further, and only its exit code is lost."""
    control = await started(executor, host.assignment(COUNT))
    assert await first_line(control) == "1"
    before = (await control.observe()).container
    assert before is not None
    async with trio.open_nursery() as nursery:
        statuses = []

        async def wait() -> None:
            statuses.append(await control.wait())

        nursery.start_soon(wait)
        first = host.keeper_pid()
        await trio.to_thread.run_sync(host.kill_keeper)
        await trio.to_thread.run_sync(
            lambda: eventually(lambda: _new_keeper(host, first), "a new keeper")
        )
        assert (await control.observe()).container == before
        so_far = len(await texts(control))
        await enough_lines(control, so_far + 100)
        await control.shutdown()
    assert (statuses[0].code, statuses[0].error) == (
        255,
        "exit code unknown: its keeper was killed",
    )
    assert statuses[0].finished_at > 0
    assert no_gap(await texts(control))
    assert not alive(before.PID)


def _new_keeper(host: Host, old: int) -> bool:
    try:
        return host.keeper_pid() != old
    except OSError:
        return False


async def test_end_between_two_keepers(host: Host) -> None:
    """A task that ended while there was no keeper has ended, with a text that says what is lost;
    what it left behind is killed."""
    assignment = host.assignment("setsid sleep 1000 & echo $!; exec sleep 1000")
    async with trio.open_nursery() as nursery:
        executor = host.executor()
        await nursery.start(executor.run, host.identity)
        control = await started(executor, assignment)
        child = int(await first_line(control))
        seen = (await control.observe()).container
        assert seen is not None
        nursery.cancel_scope.cancel()
    host.kill_keeper()
    os.kill(seen.PID, signal.SIGKILL)
    eventually(lambda: not alive(seen.PID), "end of the task")
    assert alive(child)
    async with trio.open_nursery() as nursery:
        executor = host.executor()
        await nursery.start(executor.run, host.identity)
        status = await executor.controller(assignment).wait()
        nursery.cancel_scope.cancel()
    assert (status.code, status.finished_at) == (255, 0)
    assert "its keeper was killed" in status.error
    assert not alive(child)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"boot": "another-boot"}, "exit code unknown: the host was restarted"),
        ({"start": 1}, "exit code unknown: its keeper was killed"),
    ],
)
async def test_pid_of_another(host: Host, change: dict[str, object], error: str) -> None:
    """A pid that belongs to another process by now, or to another boot, is not taken for the task,
    and its owner is left alone."""
    assignment = host.assignment("true")
    folder = host.folder(assignment)
    folder.mkdir(parents=True)
    stranger = await trio.lowlevel.open_process(["sleep", "1000"])
    try:
        process = procfs.read(stranger.pid)
        assert process is not None
        made = {"cluster_id": host.identity.cluster_id, "node_id": host.identity.node_id}
        run = {"cwd": "/", "uid": None, "gid": None, "groups": [], "rlimits": []}
        log = {"max_bytes": 1000, "max_files": 2}
        recorded = {
            "pid": stranger.pid,
            "start": process.start,
            "boot": procfs.boot_id(),
            "at": 1,
            "group": {},
            "run": run,
            "log": log,
            "limits": {"memory_bytes": 0, "nano_cpus": 0, "pids": 0},
        }
        records.append(str(folder), "made", made)
        records.append(str(folder), "started", {**recorded, **change})

        async def look(executor: ProcessExecutor) -> None:
            control = executor.controller(assignment)
            status = await control.wait()
            assert (status.code, status.error) == (255, error)
            await control.kill()
            await control.remove()

        await with_executor(host, look)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_one_keeper_for_a_directory(host: Host) -> None:
    """However many daemons start at once, one keeper serves them all."""
    async with trio.open_nursery() as nursery:
        executors = [host.executor() for _ in range(4)]
        for executor in executors:
            await nursery.start(executor.run, host.identity)
        async with trio.open_nursery() as starters:
            for executor in executors:
                starters.start_soon(started, executor, host.assignment("sleep 1000"))
        assert len(host.ask("watch")["ok"]["tasks"]) == 4
        await spawn_keeper(host.root)
        # The one that found the lock held is on its way out.
        eventually(lambda: keepers_of(host) == [host.keeper_pid()], "one keeper")
        nursery.cancel_scope.cancel()


def keepers_of(host: Host) -> list[int]:
    root = str(host.root).encode()
    living = [process.pid for process in procfs.all_processes() if process.alive]
    return [pid for pid in living if root in command_line(pid)]


def command_line(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


async def test_keeper_ends_when_idle(host: Host) -> None:
    """A keeper without tasks and clients ends, and what it made for all tasks is gone with it."""
    host.root.mkdir()
    await spawn_keeper(host.root, idle_s=0.05)
    eventually(lambda: not (host.root / "keeper.sock").exists(), "end of the keeper")
    assert not (host.root / "private").exists()


async def test_keeper_stays_for_tasks(host: Host) -> None:
    """A keeper with a running task does not end for want of a daemon, nor when told to."""
    async with trio.open_nursery() as nursery:
        executor = host.executor()
        executor.link._idle_s = 0.05
        await nursery.start(executor.run, host.identity)
        await started(executor, host.assignment("sleep 1000"))
        nursery.cancel_scope.cancel()
    pid = host.keeper_pid()
    await trio.sleep(0.2)  # four times its patience
    assert "error" in host.ask("quit")
    os.kill(pid, signal.SIGHUP)
    assert host.keeper_pid() == pid


async def test_new_version_replaces_idle_keeper(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon of another version talks to the old keeper while it has tasks, and replaces it
    when it has none."""
    assignment = host.assignment("sleep 1000")
    await with_executor(host, lambda executor: started(executor, assignment))
    old = host.keeper_pid()

    newer = Bundle("newer", bundle().content)
    monkeypatch.setattr(bundling, "bundle", lambda: newer)
    monkeypatch.setattr("swarmctl.plugins.process_exec.link.bundle", lambda: newer)

    async def end(executor: ProcessExecutor) -> None:
        assert await executor.known_tasks() == {assignment.task.ID: True}
        await executor.controller(assignment).kill()

    await with_executor(host, end)
    assert host.keeper_pid() == old

    async def look(executor: ProcessExecutor) -> None:
        assert (await executor.controller(assignment).wait()).code == 137

    await with_executor(host, look)
    assert host.keeper_pid() != old
    eventually(lambda: not alive(old), "end of the old keeper")
    assert host.ask("hello")["ok"]["build"] == "newer"


async def with_executor(host: Host, body: object) -> None:
    async with trio.open_nursery() as nursery:
        executor = host.executor()
        await nursery.start(executor.run, host.identity)
        await body(executor)  # type: ignore[operator]
        nursery.cancel_scope.cancel()


async def test_another_protocol(
    host: Host, executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy keeper of another protocol makes the engine unavailable, in words, and harms no
    task."""
    control = await started(executor, host.assignment("sleep 1000"))
    monkeypatch.setattr("swarmctl.plugins.process_exec.link.PROTOCOL", 99)

    async def ask(second: ProcessExecutor) -> None:
        with pytest.raises(EngineUnavailable, match="speaks protocol 1, this daemon 99"):
            await second.known_tasks()

    await with_executor(host, ask)
    seen = (await control.observe()).container
    assert seen is not None
    assert alive(seen.PID)


async def test_keeper_cannot_start(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that cannot start makes the engine unavailable, not tasks failed; later it can."""
    working = sys.executable
    monkeypatch.setattr(sys, "executable", "/bin/false")

    async def ask(executor: ProcessExecutor) -> None:
        with pytest.raises(EngineUnavailable, match="the keeper cannot start"):
            await executor.controller(host.assignment("true")).prepare()
        monkeypatch.setattr(sys, "executable", working)
        with trio.fail_after(30):
            while True:
                try:
                    await executor.controller(host.assignment("true")).prepare()
                except EngineUnavailable:
                    await trio.sleep(0.05)
                else:
                    return

    await with_executor(host, ask)


async def test_long_path(tmp_path: Path) -> None:
    """A state directory whose path is longer than a socket's may be works all the same."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    host = Host(deep)
    try:
        await with_executor(host, lambda executor: executor.known_tasks())
        async with trio.open_nursery() as nursery:
            executor = host.executor()
            await nursery.start(executor.run, host.identity)
            control = await started(executor, host.assignment("exit 2"))
            assert (await control.wait()).code == 2
            await executor.link.call("quit", {})
            nursery.cancel_scope.cancel()
    finally:
        host.clean_up()


async def test_other_clusters_tasks(host: Host, executor: ProcessExecutor) -> None:
    """Tasks that an earlier cluster left in the same directory are not taken for ours."""
    control = await started(executor, host.assignment("sleep 1000"))
    earlier = executor.identity
    executor._identity = NodeIdentity(
        cluster_id=new_id(), node_id=earlier.node_id, hostname="here", state_dir=earlier.state_dir
    )
    assert await executor.known_tasks() == {}
    assert await executor.stats(list(executor.link.tasks)) == {}
    executor._identity = earlier
    await control.kill()


async def test_socket_is_ours_alone(host: Host, executor: ProcessExecutor) -> None:
    """Socket, records, logs and lock can be read by their owner alone."""
    control = await started(executor, host.assignment("echo hello"))
    await control.wait()
    names = ["keeper.sock", "keeper.lock", "keeper.log"]
    paths = [host.root / name for name in names]
    paths += [path for path in host.root.glob("*/*") if path.is_file()]
    assert any(path.name == "record" for path in paths)
    assert any(path.suffix == ".log" and path.name.startswith("output") for path in paths)
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


async def test_garbage_on_the_socket(host: Host, executor: ProcessExecutor) -> None:
    """Bytes that are no frames end one connection; unknown requests get an error; tasks run on."""
    control = await started(executor, host.assignment("sleep 1000"))
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\4nope", b"\0\0\0\2[]"):
        async with await trio.open_unix_socket(host.root / "keeper.sock") as stream:
            await stream.send_all(garbage)
            with trio.fail_after(30):
                assert await stream.receive_some(100) == b""
    assert "does not know 'frob'" in host.ask("frob")["error"]["text"]
    assert host.ask("stop")["error"]["kind"] == "internal"
    assert (
        "no task id"
        in host.ask("prepare", task_id="../x", cluster_id="c", node_id="n", uid=None, gid=None)[
            "error"
        ]["text"]
    )
    await control.observe()
    assert list((await executor.known_tasks()).values()) == [True]


def test_frames() -> None:
    """Messages come out whole however their bytes arrive; anything else is an error."""
    messages = [{"id": 1, "op": "a"}, {"event": "ü", "bytes": "\udcff"}, {}]
    stream = b"".join(encode(message) for message in messages)
    reader = FrameReader()
    assert [m for i in range(len(stream)) for m in reader.feed(stream[i : i + 1])] == messages
    assert FrameReader().feed(stream) == messages
    for bad in (b"\xff\xff\xff\xff", b"\0\0\0\1{", b"\0\0\0\2\xff\xff", b"\0\0\0\1" + b"1"):
        with pytest.raises(FrameError):
            FrameReader().feed(bad)


def test_a_grace_of_years() -> None:
    """A timer may be due later than the kernel can be asked to wait; what happens until then is
    noticed."""
    loop, happened = Loop(), []
    loop.later(300 * 365 * 86_400, lambda: happened.append("timer"))
    read, write = os.pipe()
    loop.watch(read, lambda: happened.append("input"))
    os.close(write)
    loop.turn()
    os.close(read)
    assert happened == ["input"]


def test_a_fork_that_fails_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without room for processes does not cost the keeper its descriptors as well."""

    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    loop = Loop()
    monkeypatch.setattr(os, "fork", no_fork)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(BlockingIOError):
        Probe(loop, {}, {}, (1, 1), 1.0, lambda _: None)
    assert set(Path("/proc/self/fd").iterdir()) <= before  # what others left may go meanwhile


def test_nothing_is_unmounted_behind_a_link(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A symbolic link in the place of a task's directory leads to no mount of the host's."""
    done: list[object] = []
    monkeypatch.setattr(mounts, "call", lambda *words: done.append(words))
    (tmp_path / "task").symlink_to("/proc")
    assert mounts.let_go(str(tmp_path / "task"))
    assert done == []
    assert not mounts.let_go("/proc")  # which only this test keeps from going
    assert done


def test_records_survive_cut_lines(tmp_path: Path) -> None:
    """A record whose last line was cut by a crash keeps the lines before and takes more."""
    folder = str(tmp_path)
    assert records.load(folder) is None
    records.append(folder, "made", {"cluster_id": "c"})
    with (tmp_path / "record").open("a") as file:
        file.write('{"started":{"pi')
    assert records.load(folder) == {"made": {"cluster_id": "c"}}
    records.append(folder, "ended", {"code": 7})
    assert records.load(folder) == {"made": {"cluster_id": "c"}, "ended": {"code": 7}}
    for line in (tmp_path / "record").read_bytes().splitlines()[::2]:
        json.loads(line)


def test_private_files_without_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without root, secrets lie in a directory in memory that must be ours and closed."""
    own = os.geteuid()
    key = f"test-{new_id()}"
    files = PrivateFiles(str(tmp_path), key)
    files._mounts = False
    files.base = f"/dev/shm/swarmctl-{key}"
    entry = {"path": "a/b", "uid": None, "gid": None, "mode": 0o444, "data": "dG9w"}
    files.write("t1", "secrets", [entry], own)
    assert Path(files.folder("t1", "secrets"), "a/b").read_bytes() == b"top"
    assert Path(files.base).stat().st_mode & 0o777 == 0o700
    files.drop("t1")
    files.close()
    assert not Path(files.base).exists()
    Path(files.base).mkdir(mode=0o755)
    try:
        with pytest.raises(PermissionError, match="open to others"):
            files.write("t1", "secrets", [entry], own)
    finally:
        Path(files.base).rmdir()
    Path(files.base).symlink_to(tmp_path)
    try:
        with pytest.raises(PermissionError, match="somebody else"):
            files.write("t1", "secrets", [entry], own)
    finally:
        Path(files.base).unlink()


async def test_secrets_of_ended_tasks_go_with_a_killed_keeper(host: Host) -> None:
    """A keeper that starts anew drops the secrets of tasks that no longer run."""
    secret = SecretFile(id="1", target="key", data=b"top")
    assignment = msgspec.structs.replace(host.assignment("exec sleep 1000"), secrets=(secret,))
    pids = []

    async def begin(executor: ProcessExecutor) -> None:
        control = await started(executor, assignment)
        seen = (await control.observe()).container
        assert seen is not None
        pids.append(seen.PID)

    await with_executor(host, begin)
    host.kill_keeper()
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: not alive(pids[0]), "end of the task")
    await with_executor(host, lambda executor: executor.controller(assignment).wait())
    assert list(_files_below(host.root / "private")) == []


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
