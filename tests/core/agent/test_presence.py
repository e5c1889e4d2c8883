"""Whether a daemon of a node is at work on this host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from swarmctl.core.agent.presence import at_work, is_at_work

_HOLD = """
import sys
from swarmctl.core.agent.presence import at_work
with at_work("test-presence"):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_node_is_at_work_for_the_length_of_the_block() -> None:
    """No other node is; and a second daemon of the node is not kept from its work."""
    assert not is_at_work("test-a")
    with at_work("test-a"), at_work("test-a"):
        assert is_at_work("test-a")
        assert not is_at_work("test-b")
    assert not is_at_work("test-a")


def test_a_daemon_that_is_killed_is_not_at_work() -> None:
    """Nothing is left that says so."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        assert is_at_work("test-presence")
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(10)
    assert not is_at_work("test-presence")
