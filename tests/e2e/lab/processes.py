"""A long-running process inside a lab host, seen from outside.

``nsenter`` stands between us and it: to enter a process namespace it must fork. So our child is
nsenter, and the process that signals should reach is the child's only child.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .waiting import eventually

if TYPE_CHECKING:
    import subprocess


class HostProcess:
    """A started process of a host. Signals go to it alone, not to what it has started.

    Attributes:
        popen: the nsenter that waits for it; its pipes, if any were asked for, are the process's.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """Its id in our process namespace; waits for it to be started.

        Raises:
            ProcessLookupError: it ended before anybody asked.
        """
        if self._pid is None:
            self._pid = eventually(self._find_pid, 10, every_s=0.002, what="process to start")
            if self._pid < 0:
                raise ProcessLookupError(f"process already ended: {self.popen.args!r}")
        return self._pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it has ended. After SIGSTOP it stands still."""
        if self.popen.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            # On a busy machine its other threads go on answering for a while.
            eventually(self._stands_still, 10, every_s=0.002, what="every thread to stop")
        if number == signal.SIGCONT:
            # nsenter stops itself when it sees its child stopped, and nobody else wakes it.
            self.popen.send_signal(number)

    def terminate(self, timeout_s: float = 15.0) -> int:
        """SIGTERM, then wait for the end.

        Returns:
            Its exit code, or minus the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it has not ended within ``timeout_s`` seconds.
        """
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> int:
        """SIGKILL and wait for the end; returns as :meth:`terminate` does."""
        self.signal(signal.SIGKILL)
        return self.wait(10)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end; returns and raises as :meth:`terminate` does."""
        return self.popen.wait(timeout_s)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet. A stopped one runs."""
        return self.popen.poll() is None

    def _stands_still(self) -> bool:
        threads = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] in "TZX" for stat in threads)

    def _find_pid(self) -> int:
        """The child's pid; 0 when not forked yet, -1 when it is over."""
        if self.popen.poll() is not None:
            return -1
        outer = self.popen.pid
        try:
            # Before its exec the child is still a shell or nsenter, but it keeps its id.
            listed = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        except FileNotFoundError:
            return 0
        return int(listed[0]) if listed else 0
