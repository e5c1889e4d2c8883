"""A whole daemon with plugins that misbehave: it serves, says so, and its children go with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .rig import SCHEDULER, write_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WITHIN_S = 30.0


class Daemon:
    """One daemon with the null executor and a plugin directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        rows = {"plugin_dir": str(self.plugins), "executor": "null", **settings}
        config = self.folder / "swarmctl.toml"
        config.write_text("".join(f'{name} = "{value}"\n' for name, value in rows.items()))
        command = [
            *(sys.executable, "-m", "swarmctl", "daemon", f"--config={config}"),
            *(f"--socket={self.folder}/sock", f"--state-dir={self.folder}/state"),
        ]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        socket_path = f"--socket={self.folder}/sock"
        return subprocess.run(
            [sys.executable, "-m", "swarmctl", socket_path, *words],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def init(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.until(lambda: self.command("version").returncode == 0, "it does not answer")
        done = self.command("init", f"--listen-addr={address}", f"--advertise-addr={address}")
        assert done.returncode == 0, done.stderr

    def plugin(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.command("plugin", "inspect", name).stdout)
        return found  # type: ignore[no-any-return]

    def runs(self, service: str) -> bool:
        form = "--format={{.CurrentState}}"
        return self.command("service", "ps", form, service).stdout.startswith("Running")

    def children(self) -> list[int]:
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for one in tasks.glob("*/children") for pid in one.read_text().split()]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_a_looping_scheduler_and_a_broken_plugin(daemon: Daemon) -> None:
    """Services run, the node stays ready, and ls and info tell both plugins' troubles."""
    write_plugin(daemon.plugins, SCHEDULER.format(body="while True: pass"))
    write_plugin(daemon.plugins, "raise RuntimeError('no meter')\n", "broken")
    daemon.start(scheduler="mine")
    daemon.init()
    for number in range(3):
        done = daemon.command("service", "create", f"--name=s{number}", "--detach", "nginx")
        assert done.returncode == 0, done.stderr
        daemon.until(lambda: daemon.runs(f"s{number}"), "it does not run")  # noqa: B023
    assert daemon.plugin("mine")["State"] == "off"
    warnings = json.loads(daemon.command("info", "--format=json").stdout)["Warnings"]
    assert any("plugin mine failed 3 times within an hour and is off" in text for text in warnings)
    assert any("broken.py: RuntimeError('no meter')" in text for text in warnings)
    assert daemon.plugin("broken")["State"] == "failed"
    assert "is down" not in daemon.log()
    assert "Ready" in daemon.command("node", "ls").stdout
    assert daemon.children() == []


@pytest.mark.parametrize("busy", [False, True])
def test_a_child_outlives_no_daemon(daemon: Daemon, busy: bool) -> None:
    """Killed without a word, the daemon leaves no process of a plugin behind, idle or busy."""
    body = "time.sleep(0.9)\n        while True: pass" if busy else "return {}"
    write_plugin(daemon.plugins, SCHEDULER.format(body=body))
    daemon.start(scheduler="mine")
    daemon.init()
    daemon.until(daemon.children, "no child")
    (pid,) = daemon.children()
    if busy:
        daemon.command("service", "create", "--name=web", "--detach", "nginx")
        time.sleep(0.5)
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.until(lambda: is_gone(pid), "the child is still there")


def test_a_chosen_plugin_that_is_broken_ends_the_start_in_words(daemon: Daemon) -> None:
    """What was asked for and cannot be had is no surprise later: the daemon says so and ends."""
    write_plugin(daemon.plugins, "raise RuntimeError('no meter')\n", "green")
    daemon.start(scheduler="green")
    assert daemon.process is not None
    assert daemon.process.wait(WITHIN_S) == 1
    last = daemon.log().splitlines()[-1]
    assert last.startswith('swarmctl daemon: no plugin has a scheduler called "green"')
    assert "green.py: RuntimeError('no meter')" in last
