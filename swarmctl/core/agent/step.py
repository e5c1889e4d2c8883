"""The agent's next step with one task, and what a step's end means for its status.

Pure; a table of the task model (swarm-behaviour section 10.4). The runner does what is said here.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from ..model.base import Time
from ..model.task import ContainerStatus, PortStatus, TaskState, TaskStatus

if TYPE_CHECKING:
    from .executor import ExitStatus, TaskObservation


ERR_CHARS_MAX = 2_000
"""Of one task's error: hundreds of them have to fit in one report, and in one entry of the log."""


class Step(Enum):
    """What to do next with a task."""

    ACCEPT = "accept"
    PREPARE = "prepare"
    START = "start"
    WAIT = "wait"
    SHUTDOWN = "shutdown"
    NOTHING = "nothing"


MESSAGES = {
    TaskState.ACCEPTED: "accepted",
    TaskState.PREPARING: "preparing",
    TaskState.READY: "prepared",
    TaskState.STARTING: "starting",
    TaskState.RUNNING: "started",
    TaskState.COMPLETE: "finished",
    TaskState.SHUTDOWN: "shutdown",
}


def next_step(state: TaskState, desired: TaskState) -> Step:
    """Return what to do with a task observed in ``state`` whose desired state is ``desired``."""
    if desired >= TaskState.SHUTDOWN:
        return Step.NOTHING if state >= TaskState.COMPLETE else Step.SHUTDOWN
    if state > desired:
        return Step.NOTHING
    if state <= TaskState.ASSIGNED:
        return Step.ACCEPT
    if state < TaskState.READY:
        return Step.PREPARE
    if state == TaskState.RUNNING:
        return Step.WAIT
    if state == desired:
        return Step.NOTHING
    return Step.START


def reached(state: TaskState, now_ns: int, before: TaskStatus) -> TaskStatus:
    """Return the status of a task that came to ``state`` without trouble."""
    return TaskStatus(
        Timestamp=Time(now_ns),
        State=state,
        Message=MESSAGES[state],
        ContainerStatus=before.ContainerStatus,
        PortStatus=before.PortStatus,
    )


def observed(status: TaskStatus, seen: TaskObservation) -> TaskStatus:
    """Return a status with what the executor sees of the container put in."""
    return TaskStatus(
        Timestamp=status.Timestamp,
        State=status.State,
        Message=status.Message,
        Err=status.Err,
        ContainerStatus=seen.container or status.ContainerStatus,
        PortStatus=seen.ports or status.PortStatus,
    )


def ended(exit_status: ExitStatus, now_ns: int, before: TaskStatus) -> TaskStatus:
    """Return the status of a task that ended by itself."""
    good = exit_status.code == 0 and not exit_status.error
    error = "" if good else f"task: non-zero exit ({exit_status.code})"
    if exit_status.error:
        error += f": {_short(exit_status.error)}"
    return TaskStatus(
        Timestamp=Time(exit_status.finished_at or now_ns),
        State=TaskState.COMPLETE if good else TaskState.FAILED,
        Message=MESSAGES[TaskState.COMPLETE] if good else MESSAGES[TaskState.RUNNING],
        Err=error,
        ContainerStatus=_with_exit_code(before.ContainerStatus, exit_status.code),
        PortStatus=PortStatus(),
    )


def stopped(code: int | None, now_ns: int, before: TaskStatus) -> TaskStatus:
    """Return the status of a task that was stopped on request."""
    return TaskStatus(
        Timestamp=Time(now_ns),
        State=TaskState.SHUTDOWN,
        Message=MESSAGES[TaskState.SHUTDOWN],
        ContainerStatus=_with_exit_code(before.ContainerStatus, code),
        PortStatus=PortStatus(),
    )


def failed(text: str, code: int | None, now_ns: int, before: TaskStatus) -> TaskStatus:
    """Return the status of a task whose step failed for good: rejected before it started."""
    state = TaskState.REJECTED if before.State < TaskState.STARTING else TaskState.FAILED
    return TaskStatus(
        Timestamp=Time(now_ns),
        State=state,
        Message=before.Message,
        Err=_short(text),
        ContainerStatus=_with_exit_code(before.ContainerStatus, code),
        PortStatus=PortStatus(),
    )


def _with_exit_code(container: ContainerStatus | None, code: int | None) -> ContainerStatus | None:
    if code is None:
        return container
    container_id = container.ContainerID if container is not None else ""
    return ContainerStatus(ContainerID=container_id, PID=0, ExitCode=code)


def _short(text: str) -> str:
    return text if len(text) <= ERR_CHARS_MAX else f"{text[: ERR_CHARS_MAX - 3]}..."
