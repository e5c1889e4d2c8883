"""The tasks of this node: what it was given, and a runner for each.

Applies what the dispatcher sends and owns the runners' nursery. It needs no manager to keep tasks
running; it heals nothing by itself. Laws:

- Secret data, config data and registry credentials live here, in memory only. A task remembered
  from before a restart that has not started yet waits until a manager gives them again.
- A task that runs or has ended is adopted as it is: that takes no data and cannot fail.
- What one task's assignment or executor does wrong costs that task and no other.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from ..model.task import TaskState
from . import step as steps
from .executor import ExecutorError
from .expand import adoption_of, assignment_of
from .runner import Runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ..clock import Clock
    from ..model.session import AssignedTask, Assignments, Dependency
    from ..model.task import HostNetwork, TaskAssignment, TaskStatus
    from .disk import Remembered, TaskTable
    from .executor import Executor, LogLine, LogOptions, NodeIdentity
    from .networking import Networking
    from .reporter import Reporter

LEFTOVER_RETRY_S = 5.0

log = logging.getLogger(__name__)


class Worker:
    """Holds this node's tasks.

    Args:
        table: remembers the tasks for the next start.
        reporter: takes every new status.
        networking: makes the tasks' places on the networks.

    Attributes:
        platform: operating system and architecture as the executor names them, for templates;
            the kernel's words until it has been asked.
    """

    def __init__(
        self,
        executor: Executor,
        identity: NodeIdentity,
        table: TaskTable,
        reporter: Reporter,
        clock: Clock,
        networking: Networking,
    ) -> None:
        self._executor = executor
        self._networking = networking
        self._identity = identity
        self._table = table
        self._reporter = reporter
        self._clock = clock
        self._runners: dict[str, Runner] = {}
        self._waiting: dict[str, Remembered] = {}
        self._secrets: dict[str, Dependency] = {}
        self._configs: dict[str, Dependency] = {}
        self._networks: dict[str, HostNetwork] = {}
        self._nursery: trio.Nursery | None = None
        self._leaving = False
        self._emptied = trio.Event()
        self._first_set = trio.Event()
        kernel = os.uname()
        self.platform = (kernel.sysname.lower(), kernel.machine)

    async def run(
        self,
        remembered: Sequence[Remembered],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run tasks until cancelled, beginning with those remembered. Ending stops none of them."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for task in remembered:
                self._resume(task)
            nursery.start_soon(self._remove_leftovers, name="leftovers")
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # the session says farewell after this

    def apply(self, message: Assignments) -> None:
        """Take on what the dispatcher sent: data, then tasks to put, then tasks to remove."""
        if self._leaving or self._nursery is None:
            return  # it is told, but may have sent this before it heard
        if message.complete:
            self._secrets.clear()
            self._configs.clear()
            self._networks.clear()
        self._secrets.update((item.id, item) for item in message.secrets)
        self._configs.update((item.id, item) for item in message.configs)
        self._networks.update((item.id, item) for item in message.networks)
        for assigned in message.put:
            self._put(assigned)
        for task_id in message.removed:
            self._remove(task_id)
        for item_id in message.dropped:
            self._secrets.pop(item_id, None)
            self._configs.pop(item_id, None)
            self._networks.pop(item_id, None)
        if message.complete:
            listed = {assigned.task.ID for assigned in message.put}
            for task_id in self._known():
                if task_id not in listed:
                    self._remove(task_id)
            self._first_set.set()

    async def leave(self) -> None:
        """Take on nothing more, stop and remove every task; returns when all are gone."""
        self._leaving = True
        for task_id in self._known():
            self._remove(task_id)
        while self._runners:
            await self._emptied.wait()

    def logs(self, task_id: str, options: LogOptions) -> AsyncIterator[LogLine] | None:
        """Return a task's output, or None when it is not here."""
        runner = self._runners.get(task_id)
        return runner.controller.logs(options) if runner is not None else None

    def running(self) -> list[str]:
        """Return the ids of the tasks that run."""
        return [
            task_id
            for task_id, runner in self._runners.items()
            if runner.status.State is TaskState.RUNNING
        ]

    # --- one task ---

    def _known(self) -> list[str]:
        return [*self._runners, *self._waiting]

    def _resume(self, task: Remembered) -> None:
        """Take up a task where the daemon before this one left it."""
        if task.status.State is TaskState.RUNNING:
            place = self._networking.place_of(task.assigned.task)
            if place is not None:
                place.expect()
        task_id = task.assigned.task.ID
        self._reporter.put(task_id, task.status)
        if task.status.State >= TaskState.RUNNING:
            self._adopt(task.assigned, task.status)
        else:
            self._waiting[task_id] = task

    def _put(self, assigned: AssignedTask) -> None:
        task_id = assigned.task.ID
        runner = self._runners.get(task_id)
        if runner is not None:
            self._table.put(assigned, runner.status)
            runner.want(assigned.task.DesiredState)
            return
        waiting = self._waiting.pop(task_id, None)
        status = waiting.status if waiting is not None else assigned.task.Status
        if status.State >= TaskState.RUNNING:
            self._adopt(assigned, status)
        else:
            self._begin(assigned, status)

    def _begin(self, assigned: AssignedTask, status: TaskStatus) -> None:
        """Take on a task that has not run yet; what cannot be resolved rejects it."""
        try:
            expanded = assignment_of(
                assigned,
                self._identity,
                self.platform,
                self._secrets,
                self._configs,
                self._networks,
                names=self._networking.answers_names,
            )
        except ExecutorError as error:
            expanded = adoption_of(assigned, self._identity)
            if status.State < TaskState.STARTING:  # else it was given its files then
                status = self._failed(assigned.task.ID, status, str(error))
        self._run(assigned, expanded, status)

    def _adopt(self, assigned: AssignedTask, status: TaskStatus) -> None:
        """Take on a task that runs or has ended."""
        self._run(assigned, adoption_of(assigned, self._identity), status)

    def _run(self, assigned: AssignedTask, expanded: TaskAssignment, status: TaskStatus) -> None:
        """Start a task's runner. Adds it to the worker's nursery."""
        assert self._nursery is not None, "tasks arrive while the worker runs"
        task = assigned.task
        try:
            controller = self._executor.controller(expanded)
        except Exception as error:
            log.exception("task %s: the executor does not take it", task.ID)
            self._failed(task.ID, status, f"the executor does not take it: {error}")
            return
        self._table.put(assigned, status)
        place = self._networking.place_of(task)
        runner = Runner(
            task.ID, controller, status, task.DesiredState, self._note, self._clock, place
        )
        self._runners[task.ID] = runner
        self._nursery.start_soon(self._live, runner, name=f"task {task.ID}")

    async def _live(self, runner: Runner) -> None:
        await runner.run()
        del self._runners[runner.task_id]
        self._forget(runner.task_id)
        if not self._runners:
            self._emptied.set()
            self._emptied = trio.Event()  # the next tasks may be waited for, too

    def _remove(self, task_id: str) -> None:
        waiting = self._waiting.pop(task_id, None)
        if waiting is not None:  # it may have been prepared before the restart
            self._adopt(waiting.assigned, waiting.status)
        runner = self._runners.get(task_id)
        if runner is not None:
            runner.remove()
        else:
            self._forget(task_id)

    def _failed(self, task_id: str, before: TaskStatus, text: str) -> TaskStatus:
        status = steps.failed(text, None, self._clock.now(), before)
        self._reporter.put(task_id, status)
        return status

    def _forget(self, task_id: str) -> None:
        self._table.drop(task_id)
        self._reporter.forget(task_id)

    def _note(self, task_id: str, status: TaskStatus) -> None:
        self._table.put_status(task_id, status)
        self._reporter.put(task_id, status)

    # --- what is left of tasks that are gone ---

    async def _remove_leftovers(self) -> None:
        """Remove what the executor has of us and no assignment knows, once the set is known."""
        await self._first_set.wait()
        while True:
            try:
                known = await self._executor.known_tasks()
                for task_id in known:
                    if task_id not in self._runners:
                        log.info("removing what is left of task %s", task_id)
                        await self._executor.remove_leftover(task_id)
                return
            except Exception as error:  # of the executor: a leftover may not end the tasks
                log.warning("leftovers of old tasks could not be removed yet: %s", error)
            await trio.sleep(LEFTOVER_RETRY_S)
