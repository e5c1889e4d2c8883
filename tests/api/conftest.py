"""Tests marked ``hurried`` run on a clock that is moved whenever there is nothing else to do.

What a node does every few seconds so costs a test as long as it takes, and not the time in between.
Time stands still while a client waits for an answer, and while anything at all is to be done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from .running import answers_awaited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

STEP_S = 0.25
CUSHION_S = 0.02
"""For so long, of the true clock, everybody has to wait; threads may be at work meanwhile."""


async def _hurry(clock: trio.testing.MockClock) -> None:
    while True:
        await trio.testing.wait_all_tasks_blocked(cushion=CUSHION_S)
        if not answers_awaited():
            clock.jump(STEP_S)


def _run_hurried(
    function: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument],
) -> None:
    assert clock is None, "a hurried test has its clock already"
    own = trio.testing.MockClock()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hurry, own)
            await function()
            nursery.cancel_scope.cancel()

    trio.run(run, clock=own, instruments=instruments)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "hurried: time passes when there is nothing else to do")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("hurried") is not None:
            item.add_marker(pytest.mark.trio(run=_run_hurried), append=False)
