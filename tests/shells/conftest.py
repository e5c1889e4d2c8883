"""Tests marked ``still`` run on a clock that only they move, fixtures included.

pytest-trio takes a test's clock from its own arguments; fixtures that need the same clock, and
their tests, would all have to name it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


def _run_in_still_time(
    function: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument],
) -> None:
    assert clock is None, "a still test has its clock already"
    trio.run(function, clock=trio.testing.MockClock(), instruments=instruments)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "still: time passes only when the test says so")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("still") is not None:
            item.add_marker(pytest.mark.trio(run=_run_in_still_time), append=False)
