"""The tasks of this node: what it was given, and a runner for each.

Applies what the dispatcher sends and owns the runners' nursery. It needs no manager to keep tasks
running; it heals nothing by itself. Secret and config data live here, in memory only, and a task
remembered from before a restart that has not started yet waits until a manager gives them again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..model.base import Time
from ..model.task import TaskState, TaskStatus
from .executor import ExecutorError
from .expand import assignment_of
from .runner import Runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..clock import Clock
    from ..model.session import AssignedTask, Assignments, Dependency
    from .disk import Remembered, TaskTable
    from .executor import Executor, LogLine, LogOptions, NodeIdentity
    from .reporter import Reporter

LEFTOVER_RETRY_S = 5.0

log = logging.getLogger(__name__)


class Worker:
    """Holds this node's tasks.

    Args:
        platform: operating system and architecture, for templates.
    """

    def __init__(
        self,
        executor: Executor,
        identity: NodeIdentity,
        table: TaskTable,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._executor = executor
        self._identity = identity
        self._table = table
        self._reporter = reporter
        self._clock = clock
        self._runners: dict[str, Runner] = {}
        self._waiting: dict[str, Remembered] = {}
        self._secrets: dict[str, Dependency] = {}
        self._configs: dict[str, Dependency] = {}
        self._nursery: trio.Nursery | None = None
        self._idle = trio.Event()
        self._first_set = trio.Event()
        self.platform = ("linux", "")

    async def run(
        self,
        remembered: list[Remembered],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run tasks until cancelled, beginning with those remembered. Ending stops none of them."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for task in remembered:
                self._reporter.put(task.assigned.task.ID, task.status)
                if task.status.State < TaskState.STARTING:
                    self._waiting[task.assigned.task.ID] = task
                else:
                    self._begin(task.assigned, task.status)
            nursery.start_soon(self._remove_leftovers, name="leftovers")
            task_status.started()
            await trio.sleep_forever()

    def apply(self, message: Assignments) -> None:
        """Take on what the dispatcher sent: data, then tasks to put, then tasks to remove."""
        if message.complete:
            self._secrets.clear()
            self._configs.clear()
        self._secrets.update((item.id, item) for item in message.secrets)
        self._configs.update((item.id, item) for item in message.configs)
        for assigned in message.put:
            self._put(assigned)
        for task_id in message.removed:
            self._remove(task_id)
        for item_id in message.dropped:
            self._secrets.pop(item_id, None)
            self._configs.pop(item_id, None)
        if message.complete:
            listed = {assigned.task.ID for assigned in message.put}
            for task_id in [*self._runners, *self._waiting]:
                if task_id not in listed:
                    self._remove(task_id)
            self._first_set.set()

    async def leave(self) -> None:
        """Stop and remove every task; returns when all are gone."""
        for task_id in [*self._runners, *self._waiting]:
            self._remove(task_id)
        while self._runners:
            self._idle = trio.Event()
            await self._idle.wait()

    def logs(self, task_id: str, options: LogOptions) -> AsyncIterator[LogLine] | None:
        """Return a task's output, or None when it is not here."""
        runner = self._runners.get(task_id)
        return runner.controller.logs(options) if runner is not None else None

    # --- one task ---

    def _put(self, assigned: AssignedTask) -> None:
        task_id = assigned.task.ID
        runner = self._runners.get(task_id)
        if runner is not None:
            runner.want(assigned.task.DesiredState)
            return
        before = self._waiting.pop(task_id, None)
        self._begin(assigned, before.status if before is not None else assigned.task.Status)

    def _begin(self, assigned: AssignedTask, status: TaskStatus) -> None:
        """Start a runner. Adds it to the worker's nursery."""
        task_id = assigned.task.ID
        self._table.put(assigned, status)
        try:
            expanded = assignment_of(
                assigned, self._identity, self.platform, self._secrets, self._configs
            )
        except ExecutorError as error:
            if status.State < TaskState.STARTING:
                self._reject(task_id, status, str(error))
                return
            # it runs already, with what it was given then: adopting needs no data
            expanded = assignment_of(
                _without_files(assigned), self._identity, self.platform, {}, {}
            )
        runner = Runner(
            task_id,
            self._executor.controller(expanded),
            status,
            assigned.task.DesiredState,
            self._note,
            self._clock,
        )
        self._runners[task_id] = runner
        assert self._nursery is not None
        self._nursery.start_soon(self._live, runner, name=f"task {task_id}")

    async def _live(self, runner: Runner) -> None:
        await runner.run()
        del self._runners[runner.task_id]
        self._forget(runner.task_id)
        self._idle.set()

    def _remove(self, task_id: str) -> None:
        self._waiting.pop(task_id, None)
        runner = self._runners.get(task_id)
        if runner is not None:
            runner.remove()
        else:
            self._forget(task_id)

    def _forget(self, task_id: str) -> None:
        self._table.drop(task_id)
        self._reporter.forget(task_id)

    def _note(self, task_id: str, status: TaskStatus) -> None:
        self._table.put_status(task_id, status)
        self._reporter.put(task_id, status)

    def _reject(self, task_id: str, status: TaskStatus, text: str) -> None:
        rejected = TaskStatus(
            Timestamp=Time(self._clock.now()),
            State=TaskState.REJECTED,
            Message=status.Message,
            Err=text,
        )
        self._note(task_id, rejected)

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


def _without_files(assigned: AssignedTask) -> AssignedTask:
    container = assigned.task.Spec.ContainerSpec
    if container is None:
        return assigned
    bare = replace(container, Secrets=(), Configs=())
    spec = replace(assigned.task.Spec, ContainerSpec=bare)
    return replace(assigned, task=replace(assigned.task, Spec=spec))
