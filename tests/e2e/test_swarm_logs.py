"""Output of tasks as users read it: on engines and of plain processes, with both command lines.

Two hosts have an engine, the third runs plain processes; the first one manages.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.e2e.lab import Host, Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]

KINDS = {"docker": {}, "process": {"Image": "host"}}
NO_RESTART = {"RestartPolicy": {"Condition": "none"}}
TICKS = "n=0; while :; do echo tick $n; n=$((n+1)); sleep 0.1; done"


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and a worker with engines, and a worker that runs plain processes."""
    for host in lab3.hosts[:2]:
        host.start_daemon()
    lab3[2].start_daemon("--executor=process", engine=False)
    swarm = Swarm(lab3.hosts)
    try:
        swarm.init()
        swarm.join_all()
        yield swarm
    finally:
        swarm.close()


class Read(NamedTuple):
    """What a command printed."""

    code: int
    out: bytes
    err: bytes


def run_script(kind: str, script: str, **container: Any) -> dict[str, Any]:
    """Return a container that runs a script, as a container or as a process."""
    return {**KINDS[kind], "Command": ["/bin/sh", "-c", script], **container}


def read(host: Host, argv: Sequence[str]) -> Read:
    """Run a command on a host; its output stays bytes."""
    process = host.popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"SWARMCTL_SOCKET": str(host.daemon.socket)} if host.daemon else None,
    )
    out, err = process.popen.communicate(timeout=60)
    return Read(process.popen.returncode, out, err)


def ours(host: Host, *words: str) -> Read:
    return read(host, [*map(str, host.lab.swarmctl_command), *words])


def stock(host: Host, *words: str) -> Read:
    assert host.daemon is not None
    return read(host, ["docker", "-H", f"unix://{host.daemon.socket}", *words])


def wait_ended(swarm: Swarm, service: str, state: str = "complete") -> dict[str, Any]:
    def ended() -> list[dict[str, Any]]:
        return [task for task in swarm.tasks(service) if task["Status"]["State"] == state]

    found: list[dict[str, Any]] = eventually(ended, 30, what=f"a task to be {state}")
    return found[0]


@pytest.mark.parametrize("kind", list(KINDS))
def test_both_command_lines_print_the_same(swarm: Swarm, kind: str) -> None:
    """Every flag of logs gives with swarmctl what it gives with docker, of running tasks and of
    ended ones, by service and by task."""
    script = "echo one; echo two; echo oops >&2; sleep 0.3; echo three; [ $0 = ends ] || sleep 3600"
    for name in ("runs", "ends"):
        container = run_script(kind, script)
        container["Command"].append(name)
        swarm.create_spec(name, 1, container=container, task=NO_RESTART)
    swarm.wait_running("runs", 1)
    wait_ended(swarm, "ends")
    manager = swarm.hosts[0]
    eventually(lambda: b"three" in ours(manager, "service", "logs", "runs").out, what="the output")
    task = swarm.tasks("ends")[0]["ID"]
    for name, flags in (
        ("runs", []),
        ("ends", ["--raw"]),
        (task, ["--timestamps"]),
        ("runs", ["--details"]),
        ("ends", ["--no-trunc", "--no-resolve"]),
        (task, ["--no-task-ids"]),
        ("ends", ["--tail", "2"]),
        ("runs", ["--tail", "0"]),
        ("runs", ["--since", "1h"]),
        ("runs", ["--since", "2100-01-01"]),
        ("ends", ["--raw", "-t", "-n", "3"]),
    ):
        words = ["service", "logs", *flags, name]
        here, there = ours(manager, *words), stock(manager, *words)
        assert (here.code, there.code) == (0, 0), (here, there)
        for mine, theirs in ((here.out, there.out), (here.err, there.err)):
            assert sorted(mine.splitlines()) == sorted(theirs.splitlines()), words
    plain = ours(manager, "task", "logs", "--raw", task)
    assert sorted(plain.out.split()) == [b"one", b"three", b"two"]
    assert plain.err == b"oops\n"
    whole = ours(manager, "service", "logs", "runs").out.decode()
    assert re.match(r"runs\.1\.\w{12}@h\d    \| one\n", whole), whole
    refused = ours(swarm.hosts[1], "service", "logs", "runs")
    assert refused.code == 1
    assert b"This node is not a swarm manager" in refused.err


BYTES = (r"printf 'a\000b\377\n\nno end'", b"a\0b\xff\n\nno end")
LONG = (
    r"head -c 3000000 /dev/zero | tr '\0' x; echo; printf 'no end'",
    b"x" * 3_000_000 + b"\nno end",
)


# The engine's json-file makes text of all bytes; its local driver (20.10) loses long lines' ends.
@pytest.mark.parametrize(
    ("kind", "driver", "output"),
    [
        ("docker", "local", BYTES),
        ("docker", "json-file", LONG),
        ("process", "local", BYTES),
        ("process", "json-file", LONG),
    ],
)
def test_raw_output_is_kept_byte_by_byte(
    swarm: Swarm, engine_kind: str, kind: str, driver: str, output: tuple[str, bytes]
) -> None:
    """Zeros, bytes that are no text, lines longer than any buffer, and a last line without an end
    come out as they went in."""
    script, expected = output
    if engine_kind == "podman":
        driver = "json-file"  # which is its file; it has no driver called local
    task = {**NO_RESTART, "LogDriver": {"Name": driver}}
    swarm.create_spec("bytes", 1, container=run_script(kind, script), task=task)
    wait_ended(swarm, "bytes")
    found = ours(swarm.hosts[0], "service", "logs", "--raw", "bytes")
    assert found.code == 0
    assert found.out == expected


def test_a_terminals_output_is_raw(swarm: Swarm) -> None:
    """With a terminal both streams are one, line ends are the terminal's, and only --raw is had."""
    script = "echo out; echo err >&2; head -c 40000 /dev/zero | tr '\\0' x; echo"
    swarm.create_spec("tty", 1, container=run_script("docker", script, TTY=True), task=NO_RESTART)
    wait_ended(swarm, "tty")
    manager = swarm.hosts[0]
    expected = b"out\r\nerr\r\n" + b"x" * 40_000 + b"\r\n"
    for command in (ours, stock):
        found = command(manager, "service", "logs", "--raw", "tty")
        assert (found.code, found.out, found.err) == (0, expected, b"")
        refused = command(manager, "service", "logs", "tty")
        assert refused.code == 1
        assert b"tty service logs only supported with --raw" in refused.err


# --- following -----------------------------------------------------------------------------------


class Following:
    """A ``service logs --follow`` that runs, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self.process = process
        pipes = ((process.stdout, self.out), (process.stderr, self.err))
        self._threads = [threading.Thread(target=self._keep, args=pair) for pair in pipes]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _keep(pipe: IO[bytes], lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                lines.append(line.decode())  # noqa: PERF401 - they are read while they come

    def close(self) -> None:
        """Wait for the end of its output, once it has ended."""
        for thread in self._threads:
            thread.join()

    def ticks(self, task: str) -> list[int]:
        """Return the numbers that a task has told."""
        mine = [line for line in self.out if f".{task}@" in line]
        return [int(line.rpartition(" ")[2]) for line in mine]


@contextmanager
def following(host: Host, *words: str) -> Iterator[Following]:
    process = host.popen(
        [*map(str, host.lab.swarmctl_command), "service", "logs", "--follow", "--no-trunc", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"SWARMCTL_SOCKET": str(host.daemon.socket)} if host.daemon else None,
    )
    follow = Following(process.popen)
    try:
        yield follow
    finally:
        process.kill()
        follow.close()


@pytest.mark.parametrize("kind", list(KINDS))
def test_following_goes_on_over_a_restart_and_a_replacement(swarm: Swarm, kind: str) -> None:
    """A node's daemon is killed and started again: of its task no line is lost and none comes
    twice. Its task is killed: the successor is read from its first line."""
    service = swarm.create_spec("ticks", 1, container=run_script(kind, TICKS))
    swarm.wait_running(service, 1)
    (first,) = swarm.running(service)
    (index,) = swarm.nodes_of([first])
    if index == 0:  # the manager's own daemon is who we follow at
        swarm.update_node(0, Availability="drain")
        eventually(lambda: swarm.nodes_of(swarm.running(service)) == [1], 30, what="h2 to run it")
        (first,), index = swarm.running(service), 1
    with following(swarm.hosts[0], "ticks") as follow:
        eventually(lambda: len(follow.ticks(first["ID"])) > 10, 20, what="ticks")
        swarm.daemons[index].kill()
        time.sleep(1)  # output that is written while nobody can read it
        args = ("--executor=process",) if kind == "process" else ()
        swarm.hosts[index].start_daemon(*args, engine=kind == "docker")
        before = len(follow.ticks(first["ID"]))
        eventually(lambda: len(follow.ticks(first["ID"])) > before + 30, 30, what="more ticks")
        found = follow.ticks(first["ID"])
        assert found == list(range(len(found)))
        pid = swarm.task(first["ID"])["Status"]["ContainerStatus"]["PID"]
        if kind == "docker":
            swarm.kill_container(first["ID"])
        else:
            swarm.hosts[index].run(["kill", "-KILL", str(pid)])
        swarm.wait_running(service, 1, not_tasks=first["ID"])
        (second,) = swarm.running(service)
        eventually(lambda: len(follow.ticks(second["ID"])) > 5, 20, what="the successor's ticks")
        found = follow.ticks(second["ID"])
        assert found == list(range(len(found)))
        swarm.api("DELETE", f"/services/{service}")
        assert follow.process.wait(30) == 0
        assert follow.err == []


def test_a_node_that_cannot_be_reached_is_named_in_one_line(swarm: Swarm) -> None:
    """While a worker is cut off the others' output streams on, and the lost node is named once on
    stderr, by both command lines; when it is back its output goes on where it was."""
    service = swarm.create_spec(
        "ticks",
        2,
        container=run_script("docker", TICKS),
        task={"Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.id"}}]}},
    )
    swarm.wait_running(service, 2)
    by_node = {swarm.nodes_of([task])[0]: task["ID"] for task in swarm.running(service)}
    assert set(by_node) == {0, 1}
    lost = swarm.node(1)["ID"]
    with following(swarm.hosts[0], "ticks") as follow:
        eventually(lambda: follow.ticks(by_node[1]), 20, what="ticks")
        swarm.hosts[1].cut()
        eventually(lambda: follow.err, 30, what="the node to be named")
        said = follow.err[0].partition(" | ")[2]
        assert said == (
            f"[swarmctl: node h2 ({lost}) cannot be reached: the output of its tasks is missing "
            "until it is back]\n"
        )
        here = len(follow.ticks(by_node[0]))
        eventually(lambda: len(follow.ticks(by_node[0])) > here + 10, 20, what="ticks of h1")
        for command in (ours, stock):
            once = command(swarm.hosts[0], "service", "logs", "ticks")
            assert once.code == 1
            assert once.out.count(b" tick ") > 10
            (line,) = [line for line in once.err.decode().splitlines() if "incomplete" in line]
            assert line.count(f"node h2 ({lost}) is not available") == 1
        swarm.hosts[1].heal()
        there = len(follow.ticks(by_node[1]))
        eventually(lambda: len(follow.ticks(by_node[1])) > there, 30, what="ticks of h2")
        found = follow.ticks(by_node[1])
        assert found == list(range(len(found)))
        assert len(follow.err) == 1


# --- much of it ----------------------------------------------------------------------------------


def test_much_output_takes_little_memory(
    swarm: Swarm, record_property: Callable[[str, object], None]
) -> None:
    """40 MB of a container go through a slow client's hands, and neither the manager nor the node
    holds more than a few of them; meanwhile another client gets its answers."""
    line = "x" * 999
    script = f"yes {line} | head -n 40000; echo written; sleep 3600"
    constraint = {"Placement": {"Constraints": ["node.hostname==h2"]}}
    service = swarm.create_spec("much", 1, container=run_script("docker", script), task=constraint)
    swarm.wait_running(service, 1)
    swarm.create_spec("little", 1, container=run_script("docker", "echo hello; sleep 3600"))
    swarm.wait_running("little", 1)
    last = ("service", "logs", "--raw", "--tail", "1", "much")
    eventually(lambda: ours(swarm.hosts[0], *last).out == b"written\n", 60, what="all of it")
    before = [_resident_mb(daemon) for daemon in swarm.daemons]
    most = list(before)
    started = time.monotonic()
    read_bytes = 0
    reader = swarm.hosts[0].popen(
        [*map(str, swarm.hosts[0].lab.swarmctl_command), "service", "logs", "--raw", "much"],
        stdout=subprocess.PIPE,
        env={"SWARMCTL_SOCKET": str(swarm.daemons[0].socket)},
    )
    assert reader.popen.stdout is not None
    with reader.popen.stdout as pipe:
        time.sleep(1)  # a client that does not read at first
        assert b"hello" in ours(swarm.hosts[0], "service", "logs", "little").out
        while chunk := pipe.read(1 << 20):
            read_bytes += len(chunk)
            if read_bytes % (8 << 20) < len(chunk):
                now = map(_resident_mb, swarm.daemons)
                most = [max(*pair) for pair in zip(most, now, strict=True)]
    assert reader.wait(60) == 0
    record_property("seconds", time.monotonic() - started)
    assert read_bytes == 40_000 * 1000 + len("written\n")
    grown = [most[at] - before[at] for at in range(3)]
    record_property("grown_mb", grown)
    assert max(grown) < 32, grown


def _resident_mb(daemon: Any) -> float:
    with open(f"/proc/{daemon.process.pid}/status") as status:  # noqa: PTH123
        (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024
