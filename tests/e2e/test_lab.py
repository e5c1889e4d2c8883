"""The lab itself: what the other end-to-end tests and the benchmarks stand on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.lab import (
    IMAGE,
    ApiError,
    HostCommandFailed,
    Lab,
    UnixClient,
    eventually,
    find_traces,
    traces,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Host

pytestmark = pytest.mark.lab

_SLEEP = {"Image": IMAGE, "Cmd": ["sleep", "1000"]}
_REPOSITORY = Path(__file__).resolve().parents[2]


def _reaches(host: Host, other: str) -> bool:
    ping = ["busybox", "ping", "-c", "1", "-W", "1", other]
    return host.run(ping, check=False).returncode == 0


# --- hosts ----------------------------------------------------------------------------------


def test_hosts_reach_each_other(bare_lab3: Lab) -> None:
    """Every host reaches every other by name and is called by its own name."""
    for host in bare_lab3.hosts:
        assert host.run(["hostname"]).stdout == f"{host.name}\n"
        for other in bare_lab3.hosts:
            assert _reaches(host, other.name)


def test_a_host_sees_only_itself(bare_lab3: Lab) -> None:
    """A host has its own processes, interfaces, /run and control groups."""
    h1, h2, _ = bare_lab3.hosts
    sleeper = h1.popen(["sleep", "1000"])
    assert sleeper.running
    eventually(lambda: "sleep" in h1.run(["ps", "-e"]).stdout, what="the program to be seen")
    assert "sleep" not in h2.run(["ps", "-e"]).stdout
    assert sorted(h2.run(["ls", "/sys/class/net"]).stdout.split()) == ["eth0", "lo"]
    h1.run(["touch", "/run/mark"])
    assert (h1.state_dir / "run" / "mark").exists()
    assert "mark" not in h2.run(["ls", "/run"]).stdout
    groups = h2.run(["cat", "/proc/self/cgroup"]).stdout.splitlines()
    assert {line.split(":")[2] for line in groups} == {"/node"}
    sleeper.kill()


def test_cut_and_heal(bare_lab3: Lab) -> None:
    """A host that is cut off reaches nobody, the others still do; healed, it is back."""
    h1, h2, h3 = bare_lab3.hosts
    h1.cut()
    assert not _reaches(h1, "h2")
    assert not _reaches(h2, "h1")
    assert _reaches(h2, h3.name)
    h1.heal()
    eventually(lambda: _reaches(h1, "h2"), what="h1 to reach h2")


def test_slow_delays_both_directions(bare_lab3: Lab) -> None:
    """On a slowed wire a round trip takes twice the delay, and loss loses; heal ends both."""
    h1, h2, _ = bare_lab3.hosts
    assert _reaches(h1, "h2")  # so that no address look-up is in the time below
    h1.slow(0.15)
    started = time.monotonic()
    assert _reaches(h2, "h1")
    assert time.monotonic() - started >= 0.3
    h1.slow(0, loss=1)
    assert not _reaches(h2, "h1")
    h1.heal()

    def is_quick() -> bool:
        started = time.monotonic()
        return _reaches(h2, "h1") and time.monotonic() - started < 0.3

    eventually(is_quick, what="h2 to reach h1 without delay")


def test_slow_wire_carries_bulk_whole(bare_lab3: Lab) -> None:
    """A megabyte over TCP crosses a slow and lossy wire unharmed."""
    h1, h2, _ = bare_lab3.hosts
    h1.slow(0.01, loss=0.01)
    data = h1.state_dir / "data"
    data.write_bytes(os.urandom(1 << 20))
    server = h1.popen(["busybox", "nc", "-ll", "-p", "9000", "-e", "cat", data])
    fetch = ["sh", "-c", f"busybox nc {h1.address} 9000 > {data}.copy"]
    eventually(lambda: h2.run(fetch, check=False).returncode == 0, 20, what="the download")
    assert Path(f"{data}.copy").read_bytes() == data.read_bytes()
    server.kill()


def test_kill_all_is_a_power_loss(bare_lab3: Lab) -> None:
    """It kills detached processes too, spares other hosts, and the host can be used again."""
    h1, h2, _ = bare_lab3.hosts
    seen, spared = h1.popen(["sleep", "1000"]), h2.popen(["sleep", "1000"])
    h1.run(["sh", "-c", "setsid sleep 1001 >/dev/null 2>&1 &"])
    eventually(lambda: len(h1.pids()) == 3, what="both sleeps and an nsenter")
    h1.kill_all()
    assert seen.wait(5) == -signal.SIGKILL
    eventually(lambda: not h1.pids(), what="h1 to be quiet")
    assert spared.running
    assert h1.run(["echo", "back"]).stdout == "back\n"
    spared.kill()


def test_failed_command_says_what_and_why(bare_lab3: Lab) -> None:
    """A command that fails raises with the host, the command, its status and its words."""
    with pytest.raises(HostCommandFailed, match=r"h2: .*ended with 3: out\nerr") as failed:
        bare_lab3[1].run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert failed.value.returncode == 3


def test_signals_reach_the_process_itself(bare_lab3: Lab) -> None:
    """SIGTERM reaches the process inside, and its own exit code comes back."""
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done"
    process = bare_lab3[0].popen(["sh", "-c", script], stdout=subprocess.PIPE)
    with process.popen:
        assert process.popen.stdout is not None
        assert process.popen.stdout.readline() == b"up\n"
        assert process.terminate(5) == 7


def test_swarmctl_commands_find_their_hosts_daemon() -> None:
    """A swarmctl command gets its own host's state directory and socket by variables."""
    show = ["sh", "-c", 'echo "$SWARMCTL_STATE_DIR $SWARMCTL_SOCKET $*"', "swarmctl"]
    with Lab(2, swarmctl_command=show) as lab:
        for host in lab.hosts:
            said = host.swarmctl(["node", "ls"]).stdout
            run = host.state_dir / "run" / "swarmctl" / "swarmctl.sock"
            assert said == f"{host.state_dir / 'swarmctl'} {run} node ls\n"


_STAND_IN = """
import signal, socketserver, subprocess, sys
from http.server import BaseHTTPRequestHandler

class Answer(BaseHTTPRequestHandler):
    def address_string(self):
        return "unix"
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

path = next(arg for arg in sys.argv if arg.startswith("--socket=")).partition("=")[2]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
subprocess.Popen(["sleep", "1000"])
with socketserver.UnixStreamServer(path, Answer) as server:
    server.serve_forever()
"""


def test_daemon_is_waited_for_killed_alone_and_started_again() -> None:
    """A daemon answers when start_daemon returns; kill spares its children; it starts again."""
    with Lab(1, swarmctl_command=[sys.executable, "-c", _STAND_IN]) as lab:
        daemon = lab[0].start_daemon()
        with daemon.client() as client:
            assert client.request("GET", "/_ping").status == 200
        with pytest.raises(RuntimeError, match="runs a swarmctl daemon already"):
            lab[0].start_daemon()
        daemon.kill()
        eventually(lambda: len(lab[0].pids()) == 1, what="only the daemon's child to be left")
        assert lab[0].start_daemon() is daemon
        assert daemon.terminate() == 5
        lab.clean()
        assert not lab[0].pids()


def test_daemon_that_ends_at_once_is_quoted() -> None:
    """start_daemon fails with the daemon's own last words when it ends before it answers."""
    words = ["sh", "-c", "echo no such flag; exit 2", "swarmctl"]
    with Lab(1, swarmctl_command=words) as lab:
        with pytest.raises(RuntimeError, match=r"h1 ended at once:\nno such flag"):
            lab[0].start_daemon()
        with pytest.raises(RuntimeError, match="call start_engine first"):
            lab[0].start_daemon(engine=True)


# --- engines --------------------------------------------------------------------------------


@pytest.mark.engine
def test_three_engines_run_a_container_each(lab3: Lab) -> None:
    """Three engines with identities of their own run the same image, unseen by each other."""
    engines = [host.engine for host in lab3.hosts if host.engine]
    assert len({engine.api("GET", "/info")["ID"] for engine in engines}) == 3
    assert len({engine.api("GET", f"/images/{IMAGE}/json")["Id"] for engine in engines}) == 1
    started = [engine.run_container(_SLEEP) for engine in engines]
    for engine, container in zip(engines, started, strict=True):
        assert [listed["Id"] for listed in engine.containers(running=True)] == [container]


@pytest.mark.engine
def test_killed_engine_comes_back_to_its_containers(lab1: Lab) -> None:
    """With live-restore a container outlives kill -9 of dockerd; a power loss ends it."""
    engine = lab1[0].engine
    assert engine is not None
    engine.restart(live_restore=True)
    container = engine.run_container(_SLEEP)
    path = f"/containers/{container}/json"
    pid = engine.api("GET", path)["State"]["Pid"]
    engine.kill()
    with pytest.raises(OSError, match=r"refused|No such file"):
        engine.api("GET", "/_ping")
    engine.start(live_restore=True)
    assert engine.api("GET", path)["State"]["Pid"] == pid
    lab1[0].kill_all()
    engine.start()
    assert engine.api("GET", path)["State"]["Running"] is False


@pytest.mark.engine
def test_paused_engine_hangs_until_resumed(lab1: Lab) -> None:
    """A paused engine takes a connection and does not answer; resumed, it does."""
    engine = lab1[0].engine
    assert engine is not None
    engine.pause()
    with engine.client(timeout_s=0.3) as client, pytest.raises(TimeoutError):
        client.request("GET", "/_ping")
    engine.resume()
    assert engine.api("GET", "/info")["ID"]


@pytest.mark.engine
def test_engines_pull_from_a_host_s_registry(lab3: Lab) -> None:
    """An image pushed to the registry on one host is pulled by another host's engine."""
    name = lab3[0].start_registry().push("team/app:1")
    engine = lab3[2].engine
    assert engine is not None
    with engine.client() as client:
        pulled = client.request("POST", "/images/create", query={"fromImage": name})
    assert b'"error"' not in pulled.body
    engine.run_container({**_SLEEP, "Image": name})


@pytest.mark.engine
@pytest.mark.docker_only("Podman has no swarm of its own to clean away")
def test_clean_leaves_nothing_of_the_test_before(lab1: Lab) -> None:
    """After clean() the engine runs and is empty, in no swarm, and no stray process lives."""
    host, engine = lab1[0], lab1[0].engine
    assert engine is not None
    engine.run_container(_SLEEP)
    where = f"{host.address}:2377"
    engine.api("POST", "/swarm/init", {"ListenAddr": where, "AdvertiseAddr": where})
    host.popen(["sleep", "1000"])
    engine.kill()
    lab1.clean()
    assert engine.containers() == []
    assert engine.api("GET", "/info")["Swarm"]["LocalNodeState"] == "inactive"
    # dockerd, the nsenter that waits for it, and its containerd
    assert len(host.pids()) == 3


@pytest.mark.engine
def test_api_errors_carry_status_and_text(lab1: Lab) -> None:
    """An error answer raises with the status and the engine's words; the connection lives on."""
    assert lab1[0].engine is not None
    with lab1[0].engine.client() as client:
        with pytest.raises(ApiError, match=r"[Nn]o such container") as refused:
            client.call("GET", "/containers/absent/json")
        assert refused.value.status == 404
        assert client.call("GET", "/version")["ApiVersion"]


# --- nothing is left ------------------------------------------------------------------------


@pytest.mark.engine
def test_nothing_is_left_after_a_failure() -> None:
    """A lab with a running engine and container, left by an exception, leaves no trace."""
    with pytest.raises(ZeroDivisionError), Lab(2) as lab:  # noqa: PT012 - the block is the test
        engine = lab[0].start_dockerd()
        engine.run_container(_SLEEP)
        lab[1].popen(["sleep", "1000"])
        assert find_traces(lab.names)
        raise ZeroDivisionError
    assert find_traces(lab.names) == []


def test_two_labs_do_not_touch_each_other() -> None:
    """Two labs have different names and subnets, and closing one leaves the other whole."""
    with Lab(2) as outer:
        before = find_traces(outer.names)
        with Lab(1) as inner:
            assert inner.names.subnet != outer.names.subnet
            assert not _reaches(inner[0], outer[0].address)
        assert find_traces(inner.names) == []
        assert find_traces(outer.names) == before
        assert _reaches(outer[0], "h2")


_OWNER = """
import signal, sys, time
from tests.e2e.lab import Lab
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may ignore it
with Lab(1) as lab:
    sleeper = lab[0].popen(["sleep", "1000"])
    print(lab.names.pid, lab.names.octet, sleeper.pid, flush=True)
    time.sleep(1000)
"""


@contextmanager
def _owner() -> Iterator[tuple[subprocess.Popen[str], traces.Names, int]]:
    """A process of its own that holds a lab; its names and the pid of what runs in it."""
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=_REPOSITORY,
    ) as owner:
        try:
            assert owner.stdout is not None
            pid, octet, sleeper = map(int, owner.stdout.readline().split())
            yield owner, traces.Names(pid, octet), sleeper
        finally:
            owner.kill()


def test_lab_of_a_killed_owner_dies_and_is_swept() -> None:
    """kill -9 of the owner ends its hosts' processes; the next lab removes the rest."""
    with _owner() as (owner, names, sleeper):
        assert traces.sweep() == []
        owner.kill()
    eventually(lambda: not Path(f"/proc/{sleeper}").exists(), what="the host to die")
    assert f"link {names.bridge}" in find_traces(names)
    with Lab(1):
        assert find_traces(names) == []


def test_ctrl_c_leaves_nothing() -> None:
    """An owner interrupted by Ctrl-C removes its lab itself."""
    with _owner() as (owner, names, _):
        owner.send_signal(signal.SIGINT)
        owner.wait(20)
    assert find_traces(names) == []


# --- skipping -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_a_machine_that_cannot_skips_and_ci_fails(ci: str, outcome: str, tmp_path: Path) -> None:
    """Without its programs an engine test is skipped with the reason; with CI=true it fails."""
    only = f"{Path(__file__).relative_to(_REPOSITORY)}::test_api_errors_carry_status_and_text"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", only],
        env={**os.environ, "PATH": str(tmp_path), "CI": ci, "SWARMCTL_LAB_ENGINES": "docker"},
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout
    assert "not on PATH: busybox, ip, iptables" in done.stdout
    assert (done.returncode == 0) is (not ci)


# --- waiting --------------------------------------------------------------------------------


def test_eventually_gives_the_answer_or_says_what_was_missing(tmp_path: Path) -> None:
    """It retries failed assertions and missing sockets, and at the end names the last failure."""
    answers = iter([False, 0, "", "yes"])
    assert eventually(lambda: next(answers), 5, every_s=0) == "yes"
    with (
        UnixClient(tmp_path / "absent.sock") as client,
        pytest.raises(AssertionError, match=r"the socket: not within 0\.1 s.*No such file"),
    ):
        eventually(lambda: client.request("GET", "/"), 0.1, what="the socket")
