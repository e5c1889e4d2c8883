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


def new_id() -> str:
    """Return a fresh random identifier in Swarm's format."""
    return id_from_bytes(os.urandom(ID_ENTROPY_BYTES))
