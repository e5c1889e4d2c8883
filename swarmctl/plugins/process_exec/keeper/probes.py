"""Commands run beside a task for its health check, as the task's user and in its cgroup."""

from __future__ import annotations

import contextlib
import os
import signal

from . import cgroups, launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .frames import Message
    from .loop import Loop

    Reply = Callable[[Message], None]

MAX_OUTPUT_BYTES = 4096  # Docker keeps as much of a probe's output


class Probe:
    """One run of a command, ended by itself or by its timeout.

    Args:
        spec: what to run, as :func:`launch.fork` takes it.
        group: cgroup to run in.
        reply: called once with ``code``, ``timed_out`` and ``output``.

    Raises:
        OSError: it could not even be forked.
    """

    def __init__(
        self,
        loop: Loop,
        spec: Message,
        group: cgroups.Group,
        limits: tuple[int, int],
        timeout_s: float,
        reply: Reply,
    ) -> None:
        self._loop = loop
        self._reply = reply
        self._timed_out = False
        self._output = b""
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            self._child = launch.fork(spec, (null, theirs, theirs), limits)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(null)
            os.close(theirs)
        self.pid = self._child.pid
        with contextlib.suppress(OSError):
            cgroups.join(group, self.pid)
        self._child.release()
        loop.watch(self._pipe, self._read)
        self._timer = loop.later(timeout_s, self._give_up)

    def exited(self, code: int) -> None:
        """Answer: the command's process has ended."""
        self._timer.cancel()
        self._kill()  # what it left behind has nothing more to say
        self._read()
        failure = os.read(self._child.report, 4096)
        text = self._output or failure
        self._loop.forget(self._pipe)
        os.close(self._pipe)
        os.close(self._child.report)
        answer = {"code": code, "timed_out": self._timed_out}
        self._reply({**answer, "output": text.decode(errors="replace")})

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._pipe, 65536)
            self._output = (self._output + data)[:MAX_OUTPUT_BYTES]
            if not data:
                self._loop.forget(self._pipe)

    def _give_up(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
