"""The real daemon, started by the real command line, as plain processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from swarmctl.cli import launch
from swarmctl.cli.command import Failure
from swarmctl.cli.install import _require_safe
from tests.cli.objects import INFO
from tests.cli.stub import Stub
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Ran


class Host:
    """A node of its own below a directory."""

    def __init__(self, home: Path) -> None:
        self.state = home / "state"
        self.socket = home / "s.sock"
        address = f"127.0.0.1:{free_port()}"
        self.addresses = ("--listen-addr", address, "--advertise-addr", address)
        self.pids: list[int] = []
        foreign = ("SWARMCTL_HOST", "SWARMCTL_TOKEN", "SWARMCTL_EXECUTOR", "SWARMCTL_ENGINE")
        self.environment = {k: v for k, v in os.environ.items() if k not in foreign} | {
            "SWARMCTL_STATE_DIR": str(self.state),
            "SWARMCTL_SOCKET": str(self.socket),
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "swarmctl", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.pids += [int(pid) for pid in re.findall(r"\(pid (\d+)\)", done.stderr)]
        return done

    def end(self) -> None:
        self.run("leave", "--force")
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            wait_gone(pid)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} did not end")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    found = Host(tmp_path)
    yield found
    found.end()


def test_init_starts_a_daemon_that_outlives_it(host: Host) -> None:
    """One command on a bare host: daemon, swarm, and the join command; later ones find it."""
    done = host.run("init", "--executor", "process", *host.addresses)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Swarm initialized: current node (")
    assert f"its log is {host.state}/swarmctl.log" in done.stderr
    assert (host.state / "swarmctl.log").stat().st_mode & 0o777 == 0o600
    assert os.getsid(host.pids[0]) == host.pids[0]  # no terminal can hang up on it
    assert host.run("node", "ls", "--format", "{{.Status}}").stdout == "Ready\n"
    again = host.run("init")
    assert again.returncode == 1
    assert "already part of a swarm" in again.stderr
    assert host.run("info", "-f", "{{.Swarm.LocalNodeState}}").stdout == "active\n"


def test_a_daemon_that_ends_at_once_shows_why(host: Host) -> None:
    """The end of its log is in the error."""
    done = host.run("init", "--executor", "nonsense", *host.addresses)
    assert done.returncode == 1
    assert "the daemon ended at its start (exit code 1)" in done.stderr
    assert "nonsense" in done.stderr
    assert not host.socket.exists()


def test_a_daemon_started_in_vain_is_stopped_again(host: Host) -> None:
    """When the swarm cannot be founded, nothing stays behind, and the next attempt can differ."""
    done = host.run("init", "--executor", "process", "--advertise-addr", "nonsense")
    assert done.returncode == 1
    assert "Error response from daemon: " in done.stderr
    assert "Stopped the swarmctl daemon again" in done.stderr
    (pid,) = host.pids
    wait_gone(pid)
    assert host.run("node", "ls").returncode == 1


def test_a_reader_who_stops_reading_stops_no_daemon(host: Host) -> None:
    """``swarmctl init | true``: the swarm is founded, and goes on."""
    command = [sys.executable, "-m", "swarmctl", "init", "--executor", "process", *host.addresses]
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        command, env=host.environment, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(theirs)
    host.pids += [int(pid) for pid in re.findall(r"\(pid (\d+)\)", done.stderr)]
    assert "Stopped" not in done.stderr
    assert host.run("info", "-f", "{{.Swarm.LocalNodeState}}").stdout == "active\n"


def test_the_foreground_stays_until_a_signal(host: Host) -> None:
    """With --foreground the command is the daemon; run again, it goes on with its swarm."""
    words = ["init", "--foreground", "--executor", "process", *host.addresses]
    told = []
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-m", "swarmctl", *words],
            env=host.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            told.append(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            process.communicate()
            assert process.returncode == 0
    assert told[0].startswith("Swarm initialized: current node (")
    assert told[1].startswith("This node is in a swarm already (")


def test_the_foreground_is_asked_where_it_listens(host: Host, tmp_path: Path) -> None:
    """A socket that only the config file names is where init finds its daemon, too."""
    file = tmp_path / "swarmctl.toml"
    file.write_text(f'socket = "{host.socket}"\n')
    environment = {k: v for k, v in host.environment.items() if k != "SWARMCTL_SOCKET"}
    words = ["init", "--foreground", "--executor", "process", f"--config={file}", *host.addresses]
    with subprocess.Popen(
        [sys.executable, "-m", "swarmctl", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        guard = threading.Timer(20, process.kill)
        guard.start()
        told = process.stdout.readline()
        guard.cancel()
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert told.startswith("Swarm initialized: current node (")


def test_the_foreground_asks_nothing_of_a_daemon_that_is_there(
    stub: Stub, run: Callable[..., Ran]
) -> None:
    """It would be the other one that founds a swarm, and this one that fails."""
    ran = run("init", "--foreground")
    assert (ran.code, ran.err) == (
        1,
        f"a daemon already serves {stub.path}; without --foreground it is used\n",
    )
    assert stub.lines() == ["GET /_ping"]


def test_without_a_daemon_every_command_says_what_to_do(host: Host) -> None:
    """The socket is named, and how to get a daemon behind it."""
    done = host.run("service", "ls")
    assert done.returncode == 1
    assert str(host.socket) in done.stderr
    assert "`swarmctl init` or `swarmctl join` start one" in done.stderr
    named = host.run("--socket", "/nowhere/x.sock", "service", "ls")
    assert "/nowhere/x.sock" in named.stderr
    assert "/nowhere/y.sock" in host.run("service", "ls", "--socket=/nowhere/y.sock").stderr


class Systemd:
    """A systemctl that writes down what it is told, and the daemon it starts: a stub."""

    def __init__(self, home: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = home / "told"
        self.unit = home / "swarmctl.service"
        self._stub = stub
        program = home / "bin" / "systemctl"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$@" >> {self.log}\n! grep -qs "^$1" {home}/broken\n')
        program.chmod(0o755)
        self.broken = home / "broken"  # holds the command that fails
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(launch, "SYSTEMD_RUNS", home)
        monkeypatch.setattr(launch, "UNIT", self.unit)
        monkeypatch.setattr(launch, "DEFAULT_SOCKET", str(stub.path))
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def told(self) -> list[str]:
        return self.log.read_text().splitlines()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The daemon answers once the unit is enabled."""
        over = threading.Event()

        def serve() -> None:
            while not over.wait(0.01):
                if self.log.exists() and any("enable" in line for line in self.told()):
                    with self._stub.serving():
                        over.wait()
                    return

        thread = threading.Thread(target=serve, name="systemd")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    stub = Stub(tmp_path / "s.sock")
    stub.answers["POST /swarm/join"] = None
    stub.answers["GET /info"] = INFO
    monkeypatch.setenv("SWARMCTL_SOCKET", str(stub.path))
    monkeypatch.setenv("SWARMCTL_TOKEN", "SWMTKN-1-secret")
    return Systemd(tmp_path, stub, monkeypatch)


def test_where_systemd_runs_the_daemon_is_its_unit(
    systemd: Systemd, run: Callable[..., Ran]
) -> None:
    """The unit is written, enabled and started; the token is in no file."""
    with systemd.running():
        ran = run("join", "--executor", "process", "10.0.0.1:2377")
    assert (ran.code, ran.out) == (0, "This node joined a swarm as a manager.\n")
    assert systemd.told() == ["daemon-reload", "enable --now swarmctl.service"]
    text = systemd.unit.read_text()
    assert "--executor=process" in text
    assert "secret" not in text


def test_a_unit_of_the_users_own_is_started_as_it_is(
    systemd: Systemd, run: Callable[..., Ran]
) -> None:
    """What somebody wrote themselves is not written over."""
    systemd.unit.write_text("[Service]\nExecStart=/my/own\n")
    with systemd.running():
        assert run("join", "10.0.0.1:2377").code == 0
    assert systemd.unit.read_text() == "[Service]\nExecStart=/my/own\n"
    assert systemd.told() == ["enable --now swarmctl.service"]


def test_a_systemctl_that_fails_is_named(systemd: Systemd, run: Callable[..., Ran]) -> None:
    """The command ends with what systemctl was asked to do."""
    systemd.broken.write_text("daemon-reload")
    ran = run("join", "10.0.0.1:2377")
    assert ran.code == 1
    assert ran.err.startswith("systemctl daemon-reload failed")


def test_a_unit_that_does_not_start_is_stopped_again(
    systemd: Systemd, run: Callable[..., Ran]
) -> None:
    """Else systemd would go on trying, and at every boot."""
    systemd.broken.write_text("enable")
    ran = run("join", "10.0.0.1:2377")
    assert ran.code == 1
    assert "systemctl enable --now swarmctl.service failed" in ran.err
    assert systemd.told()[1:] == [
        "enable --now swarmctl.service",
        "disable --now swarmctl.service",
    ]


def test_install_service_writes_the_unit_and_starts_it(
    systemd: Systemd, run: Callable[..., Ran]
) -> None:
    """Confined where an engine runs the tasks; --print shows it and changes nothing."""
    shown = run("install-service", "--executor", "docker", "--print")
    assert not systemd.unit.exists()
    with systemd.running():
        ran = run("install-service", "--executor", "docker")
    assert (ran.code, ran.out) == (0, "Installed and started swarmctl.service\n")
    assert systemd.told() == ["daemon-reload", "enable --now swarmctl.service"]
    text = systemd.unit.read_text()
    assert text == shown.out
    for line in ("KillMode=process", "NoNewPrivileges=yes", "LimitCORE=0", "Type=notify"):
        assert f"\n{line}\n" in text
    assert "SWMTKN" not in text


@pytest.mark.parametrize("words", [(), ("--executor", "process")])
def test_plain_processes_are_not_confined(run: Callable[..., Ran], words: tuple[str, ...]) -> None:
    """They would inherit it: no option of the unit takes anything from tasks that are children."""
    text = run("install-service", "--print", *words).out
    options = {line.partition("=")[0] for line in text.splitlines() if "=" in line}
    assert options & {"NoNewPrivileges", "CapabilityBoundingSet", "LimitCORE"} == set()
    assert "# It is not confined" in text


def test_no_unit_gives_the_daemon_a_mount_namespace(run: Callable[..., Ran]) -> None:
    """An engine must see what the daemon mounts, so nothing in the unit may hide it."""
    text = run("install-service", "--print", "--executor", "podman").out
    for option in ("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "ReadOnlyPaths"):
        assert f"\n{option}=" not in text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files these are to be")
def test_root_runs_nothing_that_others_can_change(tmp_path: Path) -> None:
    """Neither the file nor a directory above it may be anybody else's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "swarmctl.pyz"
    program.touch(0o755)
    _require_safe(program)
    (tmp_path / "link").symlink_to(folder)
    for place, mode in ((program, 0o775), (folder, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        for path in (program, tmp_path / "link" / program.name):
            with pytest.raises(Failure, match="can be changed by others than root"):
                _require_safe(path)
        place.chmod(before)
    os.chown(folder, 1000, -1)
    with pytest.raises(Failure, match="can be changed by others than root"):
        _require_safe(program)


def test_install_service_says_why_it_cannot(
    systemd: Systemd, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit of the user's own, another user, a machine without systemd."""
    systemd.unit.write_text("[Service]\nExecStart=/my/own\n")
    assert "is somebody's own" in run("install-service").err
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root may write" in run("install-service").err
    monkeypatch.setattr(launch, "SYSTEMD_RUNS", Path("/nowhere"))
    assert "systemd does not run this machine" in run("install-service").err
    assert systemd.unit.read_text() == "[Service]\nExecStart=/my/own\n"
