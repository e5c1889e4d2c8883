"""Runs one task on this node, step by step, until the task is removed.

One trio task for each assigned task. ``step.py`` says what comes next; the executor's controller
does it. A desired state that rises cancels the step under way, since stopping must not wait for a
pull. Laws:

- An engine that does not answer fails no task: the step is tried again.
- A step's failure becomes the task's status; a bug in an executor fails its task and no other.
- States only go forward.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..model.task import TaskState
from ..together import run_until_first
from . import step as steps
from .executor import EngineUnavailable, ExecutorError
from .step import Step, next_step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..clock import Clock
    from ..model.task import TaskStatus
    from .executor import TaskController, TaskObservation
    from .networking import Place

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0
DOUBLINGS_MAX = 16  # beyond the longest delay; an engine may be away for days
REMOVALS_MAX = 5

log = logging.getLogger(__name__)


class Runner:
    """One task's life here.

    Args:
        controller: the executor's handle.
        status: as last known; the life goes on from there.
        on_status: told of every new status; must not block.
        place: where it is on the networks; None when it is on none.
    """

    def __init__(
        self,
        task_id: str,
        controller: TaskController,
        status: TaskStatus,
        desired: TaskState,
        on_status: Callable[[str, TaskStatus], None],
        clock: Clock,
        place: Place | None = None,
    ) -> None:
        self._place = place
        self._entered = False
        self.task_id = task_id
        self.controller = controller
        self.status = status
        self.desired = desired
        self._on_status = on_status
        self._clock = clock
        self._removing = False
        self._changed = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._retries = 0
        self._removals = 0

    def want(self, desired: TaskState) -> None:
        """Set the desired state; a lower one than before is ignored.

        A wish to stop does not wait for the step under way. A stop under way goes on: begun anew,
        it would grant the task a second grace period.
        """
        if desired <= self.desired:
            return
        stopping = self.desired >= TaskState.SHUTDOWN or self._removing
        self.desired = desired
        self._changed.set()
        if desired >= TaskState.SHUTDOWN and not stopping:
            self._interrupt()

    def remove(self) -> None:
        """Have the task stopped and removed; :meth:`run` then returns."""
        if self._removing:
            return
        self._removing = True
        self._changed.set()
        if self.desired < TaskState.SHUTDOWN:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """Live the task's life; returns once it was removed."""
        while True:
            self._changed = trio.Event()
            desired = TaskState.REMOVE if self._removing else self.desired
            step = next_step(self.status.State, desired)
            if step is not Step.NOTHING:
                await self._attempt(_STEPS[step])
            elif not self._removing:
                await self._changed.wait()
            elif await self._removed():
                return

    async def _attempt(self, step: Callable[[Runner], Awaitable[None]]) -> None:
        """Do one step; turn its failure into a status. An interrupted one is decided anew."""
        with trio.CancelScope() as self._scope:
            try:
                await step(self)
            except EngineUnavailable as error:
                log.info("task %s: the engine does not answer: %s", self.task_id, error)
                await self._back_off()
            except ExecutorError as error:
                self._fail(str(error), error.exit_code)
            except Exception as error:
                log.exception("task %s: the executor has a bug", self.task_id)
                self._fail(f"internal error of the executor: {error!r}", None)
            else:
                self._retries = 0
        self._scope = None

    async def _removed(self) -> bool:
        """Remove every trace; True when that is over.

        What cannot be removed is given up after some tries: the task has ended, and the next start
        of the daemon finds it among the leftovers.
        """
        try:
            await self.controller.remove()
            return True
        except EngineUnavailable as error:
            log.info("task %s: the engine does not answer: %s", self.task_id, error)
        except Exception as error:
            self._removals += 1
            log.warning("task %s cannot be removed yet: %s", self.task_id, error)
            if self._removals >= REMOVALS_MAX:
                return True
        await self._back_off()
        return False

    async def _back_off(self) -> None:
        delay_s = min(RETRY_FIRST_S * 2 ** min(self._retries, DOUBLINGS_MAX), RETRY_MAX_S)
        self._retries += 1
        await trio.sleep(delay_s)

    def _fail(self, text: str, code: int | None) -> None:
        if self.status.State < TaskState.COMPLETE:
            self._set(steps.failed(text, code, self._clock.now(), self.status))

    def _set(self, status: TaskStatus) -> None:
        self.status = status
        if self._place is not None and status.State > TaskState.RUNNING:
            self._place.leave()
        self._on_status(self.task_id, status)

    def _reach(self, state: TaskState) -> None:
        if self.status.State < state:
            self._set(steps.reached(state, self._clock.now(), self.status))

    # --- steps ---

    async def _accept(self) -> None:
        self._reach(TaskState.ACCEPTED)
        await trio.lowlevel.checkpoint()

    async def _prepare(self) -> None:
        self._reach(TaskState.PREPARING)
        await self.controller.prepare()
        self._reach(TaskState.READY)

    async def _start(self) -> None:
        self._reach(TaskState.STARTING)
        await self._start_in_place()
        seen = await self.controller.observe()
        if seen.container is not None and not seen.container.PID:
            await self._wait()  # it ended before it was ready: RUNNING means healthy, so not that
            return
        self._enter(seen)
        if self._place is not None:
            await self._place.wait_ready()
        running = steps.reached(TaskState.RUNNING, self._clock.now(), self.status)
        self._set(steps.observed(running, seen))

    async def _start_in_place(self) -> None:
        """Start the task, and have its place on the networks made as soon as there is a process."""
        place = self._place
        if place is None:
            await self.controller.start()
        else:
            await run_until_first(self.controller.start, partial(place.find, self.controller))

    def _enter(self, seen: TaskObservation) -> None:
        """Have a task's place on the networks made."""
        if self._place is not None and seen.container is not None:
            self._place.enter(seen.container.PID)
            self._entered = True

    async def _wait(self) -> None:
        if self._place is not None and not self._entered and self.status.State is TaskState.RUNNING:
            self._enter(await self.controller.observe())  # it is of a daemon before this one
        exit_status = await self.controller.wait()
        self._set(steps.ended(exit_status, self._clock.now(), self.status))

    async def _shutdown(self) -> None:
        started = self.status.State >= TaskState.STARTING
        await self.controller.shutdown()
        code: int | None = None
        if started:
            seen = await self.controller.observe()
            code = seen.container.ExitCode if seen.container is not None else None
        self._set(steps.stopped(code, self._clock.now(), self.status))


_STEPS = {
    Step.ACCEPT: Runner._accept,
    Step.PREPARE: Runner._prepare,
    Step.START: Runner._start,
    Step.WAIT: Runner._wait,
    Step.SHUTDOWN: Runner._shutdown,
}
