"""Gets every task's newest status to the dispatcher.

Keeps one status a task (the newest; states only rise), sends what is new in one report at a time,
and holds it until the dispatcher says it is in the log. A lost session loses nothing: the next one
sends everything anew.

A task passes the states before RUNNING quickly, mostly. They wait a moment for what follows, since
every report is written by the managers; all others go at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..model.session import Report, TaskReport
from ..model.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..model.task import TaskStatus

TASKS_PER_REPORT = 500
PASSING_S = 0.05


class Reporter:
    """Newest statuses, and which of them the dispatcher has not confirmed."""

    def __init__(self) -> None:
        self._newest: dict[str, TaskStatus] = {}
        self._dirty: dict[str, None] = {}
        self._news = trio.Event()
        self._urgent = trio.Event()
        self._taken = trio.Event()
        self._number = 0

    def put(self, task_id: str, status: TaskStatus) -> None:
        """Take a status; an older state than the one held is ignored."""
        held = self._newest.get(task_id)
        if held is not None and (status.State < held.State or status == held):
            return
        self._newest[task_id] = status
        self._dirty[task_id] = None
        self._news.set()
        if status.State >= TaskState.RUNNING:
            self._urgent.set()

    def forget(self, task_id: str) -> None:
        """Drop a task that is gone."""
        self._newest.pop(task_id, None)
        self._dirty.pop(task_id, None)

    def taken(self, number: int) -> None:
        """Note the dispatcher's word that a report is in the log."""
        if number == self._number:
            self._taken.set()

    async def run(self, send: Callable[[Report], Awaitable[None]]) -> None:
        """Report over one session until cancelled; everything held is reported anew first."""
        self._dirty = dict.fromkeys(self._newest)
        self._number = 0
        if self._dirty:
            self._urgent.set()
        while True:
            if not self._dirty:
                self._news = trio.Event()
                await self._news.wait()
            with trio.move_on_after(PASSING_S):
                await self._urgent.wait()
            await trio.lowlevel.checkpoint()  # what changes in the same moment goes along
            await self._send_some(send)

    async def _send_some(self, send: Callable[[Report], Awaitable[None]]) -> None:
        chosen = list(self._dirty)[:TASKS_PER_REPORT]
        for task_id in chosen:
            del self._dirty[task_id]
        if not self._dirty:
            self._urgent = trio.Event()
        tasks = tuple(TaskReport(task_id=each, status=self._newest[each]) for each in chosen)
        self._number += 1
        self._taken = trio.Event()
        await send(Report(number=self._number, tasks=tasks))
        await self._taken.wait()
