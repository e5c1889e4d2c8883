"""How long one task kept a trio loop to itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEDULED = Path("/proc/thread-self/schedstat")


def undisturbed() -> float:
    """Return a time in seconds that stands still while other processes have the CPU."""
    waited_ns = int(SCHEDULED.read_text().split()[1])
    return time.monotonic() - waited_ns / 1e9


class Stalls(trio.abc.Instrument):
    """The longest stretch that one task kept the loop to itself.

    Args:
        clock: `time.thread_time` counts only what is computed, `undisturbed` also what a task
            waits for where it must not. Neither counts what other processes take of this machine.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.longest_s = 0.0
        self._clock = clock
        self._began = clock()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = self._clock()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest_s = max(self.longest_s, self._clock() - self._began)
