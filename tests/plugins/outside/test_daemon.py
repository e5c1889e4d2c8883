"""A whole daemon with plugins that misbehave: it serves, says so, and its children go with it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon import WITHIN_S, Daemon

from .rig import REPO, SCHEDULER, write_plugin

if TYPE_CHECKING:
    from collections.abc import Iterator


STRATEGIES = """
from swarmctl.plugins import hookimpl

@hookimpl
def swarmctl_strategies():
    return {names}
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.end()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_a_looping_scheduler_and_broken_plugins(daemon: Daemon) -> None:
    """Services run, the node stays ready, and ls and info tell each plugin's troubles."""
    write_plugin(daemon.plugins, SCHEDULER.format(body="while True: pass"))
    write_plugin(daemon.plugins, "raise RuntimeError('no meter')\n", "broken")
    write_plugin(daemon.plugins, STRATEGIES.format(names="('green')"), "text")
    write_plugin(daemon.plugins, STRATEGIES.format(names="('green',)"), "empty")
    write_plugin(daemon.plugins, STRATEGIES.format(names="1 / 0"), "crash")
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
    for name in ("broken", "text", "empty", "crash"):
        found = daemon.plugin(name)
        assert found["State"] == "failed"
        assert found["Why"].startswith(f'plugin "{name}"')
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


def test_explain_tells_what_a_filter_of_a_plugin_refused(daemon: Daemon) -> None:
    """The node is listed with the plugin's name and its sentence."""
    licences = (REPO / "examples" / "licences.py").read_text()
    write_plugin(daemon.plugins, licences, "licences")
    daemon.start()
    daemon.init()
    label = "--label=swarmctl.x.licences.needs=oracle"
    done = daemon.command("service", "create", "--name=db", "--detach", label, "nginx")
    assert done.returncode == 0, done.stderr
    explain = ("service", "explain", "--format=json", "db")
    daemon.until(lambda: "no licence" in daemon.command(*explain).stdout, "nothing is refused")
    (node,) = json.loads(daemon.command(*explain).stdout)["Nodes"]
    assert (node["Fits"], node["Refusals"]) == (
        False,
        [
            {
                "Filter": "licences",
                "Needs": "what the plugin's filters ask for",
                "Has": "no licence left on 1 node",
            }
        ],
    )
    node_id = daemon.command("node", "ls", "-q").stdout.strip()
    daemon.command("node", "update", "--label-add=licences=oracle", node_id)
    daemon.until(lambda: daemon.runs("db"), "it does not run")
