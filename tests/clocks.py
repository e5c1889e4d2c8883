"""The clocks that marked tests run on, fixtures included.

pytest-trio takes a test's clock from its own arguments; fixtures that need the same clock, and
their tests, would all have to name it. So a mark chooses (tests/conftest.py):

- ``still``: time passes only when the test says so.
- ``hurried``: it passes whenever there is nothing else to do. What a node does every few seconds so
  costs a test as long as it takes, and not the time in between. Time stands still while a client
  waits for an answer, and while anything at all is to be done.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

STEP_S = 0.25
CUSHION_S = 0.02
"""For so long, of the true clock, everybody has to wait; processes may be at work meanwhile."""

THREADS_S = 10.0
"""For so long, of the true clock, threads are waited for: a busy machine, or a slow disk."""

_held: set[object] = set()


async def all_blocked(cushion_s: float = 0.0) -> None:
    """Wait until every task is blocked, and no thread works for one (by the common limiter).

    Time that moved while a file is written would be whatever the machine makes of it.
    """
    await trio.testing.wait_all_tasks_blocked(cushion_s)
    threads = trio.to_thread.current_default_thread_limiter()
    patience = time.monotonic() + THREADS_S
    while threads.borrowed_tokens and time.monotonic() < patience:
        await trio.testing.wait_all_tasks_blocked(0.001)


@contextmanager
def time_held() -> Iterator[None]:
    """Let no time of a hurried test pass, for the length of a ``with`` block."""
    token = object()
    _held.add(token)
    try:
        yield
    finally:
        _held.discard(token)


def run_still(
    function: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument],
) -> None:
    """Run a test on a clock that only it moves."""
    assert clock is None, "a still test has its clock already"
    trio.run(function, clock=trio.testing.MockClock(), instruments=instruments)


def run_hurried(
    function: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument],
) -> None:
    """Run a test on a clock that is moved whenever there is nothing else to do."""
    assert clock is None, "a hurried test has its clock already"
    own = trio.testing.MockClock()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hurry, own)
            await function()
            nursery.cancel_scope.cancel()

    trio.run(run, clock=own, instruments=instruments)


async def _hurry(clock: trio.testing.MockClock) -> None:
    while True:
        await all_blocked(CUSHION_S)
        if not _held:
            clock.jump(STEP_S)


RUNS = {"still": run_still, "hurried": run_hurried}
