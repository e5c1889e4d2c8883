"""Cancels a step at its n-th checkpoint; for checks that every step bears it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def cancelled_at(point: int, step: Callable[[], Awaitable[None]]) -> bool:
    """Take a step and cancel it at its ``point``-th checkpoint; True when it completed first."""
    with trio.CancelScope() as scope:
        watcher = _CancelAt(point, scope, trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(watcher)
        try:
            await step()
        finally:
            trio.lowlevel.remove_instrument(watcher)
    return not scope.cancelled_caught


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task has come to rest so many times."""

    def __init__(self, point: int, scope: trio.CancelScope, task: trio.lowlevel.Task) -> None:
        self._left = point
        self._scope = scope
        self._task = task

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()
