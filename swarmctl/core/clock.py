"""The one door to wall time and to fresh ids.

Durations use ``trio.current_time()``; stored times come from ``Clock.now()``. Nothing else in core
may read a clock (tests/test_tidy.py holds it).
"""

from __future__ import annotations

import os
import time
from typing import Protocol

import trio

from .ids import ID_ENTROPY_BYTES, id_from_bytes

SET_NS = 1_000_000_000
"""More than clocks are slewed by between two looks."""


class Clock(Protocol):
    """Wall time in integer nanoseconds since the Unix epoch."""

    def now(self) -> int:
        """Return the present wall time in nanoseconds."""
        ...


class SystemClock:
    """The machine's own wall clock."""

    def now(self) -> int:
        return time.time_ns()


class TrioClock:
    """Wall time that follows trio's clock, so a test that jumps one jumps both."""

    def __init__(self, epoch_ns: int = 1_700_000_000_000_000_000) -> None:
        self._epoch_ns = epoch_ns

    def now(self) -> int:
        return self._epoch_ns + int(trio.current_time() * 1e9)


class ClockWatch:
    """Notices when a wall clock was set: it moved otherwise than time passed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ns = self._ahead()

    def was_set(self) -> bool:
        """Return whether the clock was set since this was last asked."""
        before, self._ahead_ns = self._ahead_ns, self._ahead()
        return abs(self._ahead_ns - before) > SET_NS

    def _ahead(self) -> int:
        return self._clock.now() - int(trio.current_time() * 1e9)


def new_id() -> str:
    """Return a fresh random identifier in Swarm's format."""
    return id_from_bytes(os.urandom(ID_ENTROPY_BYTES))
