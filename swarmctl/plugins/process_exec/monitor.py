"""Runs one task's health check for as long as the task runs, and stops the task when it fails.

The commands run in the keeper, as the task's user and in its cgroup; here is only the rhythm. A
daemon that was away begins anew with what is known of health, as an engine does after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarmctl.core.clock import SystemClock
from swarmctl.plugins import EngineUnavailable, ExecutorError

from .health import UNHEALTHY, Health

if TYPE_CHECKING:
    from .health import HealthCheck
    from .link import KeeperLink, TaskView
    from .request import Stop


class HealthMonitor:
    """The health of one task.

    Attributes:
        health: what is known now.
    """

    def __init__(self, link: KeeperLink, task_id: str, check: HealthCheck, stop: Stop) -> None:
        self.health = Health()
        self._link = link
        self._task_id = task_id
        self._check = check
        self._stop = stop
        self._changed = trio.Event()

    async def wait_verdict(self) -> None:
        """Wait until the task is healthy, or unhealthy, or has ended."""
        while self.health.healthy is None:
            await self._changed.wait()

    async def run(self) -> None:
        """Check until the task has ended."""
        try:
            while True:
                if await self._run_while_connected():
                    return
                await trio.sleep(self._check.interval_s)  # no keeper: that says nothing of health
        finally:
            if self.health.healthy is None:
                self._note(self.health._replace(healthy=False))

    async def _run_while_connected(self) -> bool:
        """Check again and again; True once the task has ended, False when the keeper is lost."""
        try:
            view = await self._link.wait_task(self._task_id, _runs_or_ended)
            while view is not None and not view.ended:
                pause_s = self._check.pause_s(self.health, _age_s(view))
                with trio.move_on_after(pause_s):
                    await self._link.wait_task(self._task_id, _has_ended)
                    return True
                await self._check_once(view)
                if self.health.healthy is False:
                    await self._stop_task()
                view = self._link.tasks.get(self._task_id)
        except EngineUnavailable:
            return False
        return True

    async def _check_once(self, view: TaskView) -> None:
        argv, timeout_s = list(self._check.argv), self._check.timeout_s
        try:
            answer = await self._link.call(
                "probe", {"task_id": self._task_id, "argv": argv, "timeout_s": timeout_s}
            )
            passed = answer["code"] == 0 and not answer["timed_out"]
        except ExecutorError:
            return  # it has just ended, which is told elsewhere
        self._note(self._check.judge(self.health, _age_s(view), passed=passed))

    async def _stop_task(self) -> None:
        stop = {"signal": self._stop.signal, "grace_s": self._stop.grace_s, "reason": UNHEALTHY}
        await self._link.call("stop", {"task_id": self._task_id, **stop})
        await self._link.wait_task(self._task_id, _has_ended)

    def _note(self, health: Health) -> None:
        self.health = health
        self._changed.set()
        self._changed = trio.Event()


def _age_s(view: TaskView) -> float:
    return max(0.0, (SystemClock().now() - view.started_at) / 1e9)


def _runs_or_ended(view: TaskView | None) -> bool:
    return view is None or view.phase in ("running", "ending", "ended")


def _has_ended(view: TaskView | None) -> bool:
    return view is None or view.ended
