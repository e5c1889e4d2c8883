"""When an ended task gets a successor, how long that one waits, and when it may start.

All of it is read off the tables: the policy from the task's spec, budgets from the service's
restart counters, delays from times that leaders stamped. So a new leader goes on in the middle of
a delay, and the time a crash loop has to wait does not shrink by changing leaders.
(Rules: swarm-behaviour.md section 6.5.)

Delays. A delay that the user set always holds, except for leaving a drained node. Where the user
set none, the default of 5 s is there to slow down crash loops only: a task that had run at least
that long is replaced at once, and so is one whose node was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.base import MINUTE, SECOND
from ..model.change import Advance, Update
from ..model.service import RestartRecord
from ..model.spec import RestartPolicy
from ..model.task import TaskFailure, TaskState
from .slots import Fate, new_task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Change
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View
    from .slots import Fates, Slot

DEFAULT_DELAY_NS = 5 * SECOND
STOP_TIMEOUT_NS = MINUTE
"""How long a successor waits for its predecessor to stop before it starts all the same."""
FAILURES_WINDOW_NS = 5 * MINUTE
FAILURES_MAX = 20
"""How many failures a task carries on from its predecessors; older ones are dropped."""
TIMES_MAX = 1_000
"""Restarts remembered for a window; a larger ``MaxAttempts`` with a window does not limit."""

EVICTED = "assigned node no longer meets constraints"
"""The error of a task that the enforcer took from its node."""

_ENDED_BY_ITSELF = (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED)
_NO_POLICY = RestartPolicy()


# --- whether -------------------------------------------------------------------------------------


def may_restart(service: ServiceRow, task: TaskRow, now: int) -> bool:
    """Return whether the restart policy of an ended task allows a successor.

    With a window, the restarts that count are those in the window before the task ended (for one
    that lost its node: before now), so a task that ran long enough has its whole budget again.
    """
    policy = task.api.Spec.RestartPolicy or _NO_POLICY
    if policy.Condition == "none":
        return False
    if policy.Condition == "on-failure" and task.api.Status.State is TaskState.COMPLETE:
        return False
    if not policy.MaxAttempts:
        return True
    record = service.private.restarts.get(task.place)
    if record is None or record.spec_version != task.private.spec_version:
        return True
    if not policy.Window:
        return record.attempts < policy.MaxAttempts
    end = task.private.applied_at if task.api.Status.State > TaskState.RUNNING else now
    recent = sum(1 for at in record.times if end - policy.Window < at <= end)
    return recent < policy.MaxAttempts


def gave_up(service: ServiceRow, task: TaskRow, now: int) -> bool:
    """Return whether a slot's newest task ended by itself and its policy wants no successor.

    One that was stopped, evicted or lost with its node has not had its turn.
    """
    ended = task.api.Status.State in _ENDED_BY_ITSELF and task.api.Status.Err != EVICTED
    return ended and not may_restart(service, task, now)


def recorded(
    service: ServiceRow, tasks: Iterable[TaskRow], slots: Iterable[Slot], now: int
) -> Update:
    """Return the service with one more restart counted for each of ``slots``.

    A counter stays while its slot has a task of the spec version that it counts for: that a slot
    is settled is told by it, and a scale is a new version that no task has to follow. Counters of
    slots that went away go with them.

    Args:
        tasks: all of the service.
    """
    version = service.private.spec_index
    policy = service.api.Spec.TaskTemplate.RestartPolicy or _NO_POLICY
    there = {(task.place, task.private.spec_version) for task in tasks}
    restarts = {
        place: record
        for place, record in service.private.restarts.items()
        if (place, record.spec_version) in there
    }
    for slot in slots:
        place = slot.place
        before = restarts.get(place)
        if before is None or before.spec_version != version:
            before = RestartRecord(spec_version=version)
        times: tuple[int, ...] = ()
        if policy.Window and policy.MaxAttempts:
            since = now - policy.Window
            times = (*(at for at in before.times if at > since), now)[-TIMES_MAX:]
        restarts[place] = RestartRecord(
            spec_version=version, attempts=before.attempts + 1, times=times
        )
    return Update(row=replace(service, private=replace(service.private, restarts=restarts)))


def is_counted(service: ServiceRow) -> bool:
    """Return whether restarts of this service have to be counted."""
    policy = service.api.Spec.TaskTemplate.RestartPolicy or _NO_POLICY
    return bool(policy.MaxAttempts)


# --- how -----------------------------------------------------------------------------------------


def restart_delay(task: TaskRow, fate: Fate) -> int:
    """Return how long the successor of an ended task has to wait, in nanoseconds."""
    if fate is Fate.DRAINED:
        return 0
    policy = task.api.Spec.RestartPolicy or _NO_POLICY
    if policy.Delay is not None:
        return policy.Delay
    if fate is Fate.LOST:
        return 0
    started, ended = task.private.started_at, task.private.applied_at
    return 0 if started and ended - started >= DEFAULT_DELAY_NS else DEFAULT_DELAY_NS


def successor(
    view: View,
    service: ServiceRow,
    slot: Slot,
    fates: Fates,
    *,
    delay_ns: int,
    owed: bool = False,
    stop_first: str = "",
    now: int,
    new_id: NewId,
) -> tuple[Change, ...]:
    """Return the changes that shut down what a slot has and put a task of the present spec there.

    The new task may start at once when nothing of its predecessors can be running and there is no
    delay; otherwise it is prepared and waits at READY until :func:`promotion_time`.
    """
    runnable = slot.runnable
    leaving = {task.api.ID for task in runnable}
    blocker = ""
    for task in slot.tasks:
        unassigned = task.api.ID in leaving and task.api.Status.State < TaskState.ASSIGNED
        if not unassigned and not fates.stopped(task):
            blocker = task.api.ID
    waits = bool(blocker or delay_ns)
    create = new_task(
        service,
        view,
        task_id=new_id(),
        slot=slot.number,
        node_id=slot.node_id,
        now=now,
        waits=waits,
        replaces=blocker,
        owed=owed,
        stop_first=stop_first,
        start_delay_ns=delay_ns,
        failures=carried_failures(service, slot.newest, now),
    )
    shutdowns = (Advance(task_id=task.api.ID, desired=TaskState.SHUTDOWN) for task in runnable)
    return (*shutdowns, create)


def is_owed(task: TaskRow, fate: Fate) -> bool:
    """Return whether the successor of ``task`` makes up for a replica that was taken away.

    Not where the node was lost or is being left: no update took that replica, and there may be no
    other place for it as long as the node is away.
    """
    assigned = task.api.Status.State >= TaskState.ASSIGNED
    return fate is Fate.KEPT and (task.private.owed or assigned)


def carried_failures(service: ServiceRow, task: TaskRow, now: int) -> tuple[TaskFailure, ...]:
    """Return the failures that a successor of ``task`` carries on."""
    if task.private.spec_version != service.private.spec_index:
        return ()
    failures = [*task.private.failures]
    if task.api.Status.State in (TaskState.FAILED, TaskState.REJECTED) and task.api.NodeID:
        failures.append(TaskFailure(node_id=task.api.NodeID, at=task.private.applied_at))
    recent = [failure for failure in failures if failure.at > now - FAILURES_WINDOW_NS]
    return tuple(recent[-FAILURES_MAX:])


# --- when ----------------------------------------------------------------------------------------


def start_time(task: TaskRow) -> int:
    """Return when a task's start delay is over, in nanoseconds of wall time."""
    return delay_from(task) + task.private.start_delay_ns


def promotion_time(slot: Slot, task: TaskRow, fates: Fates) -> int:
    """Return when a task that waits at READY may start if nothing changes, in wall time.

    That is after its delay, and once its predecessors stopped or have had long enough for it.
    """
    due = start_time(task)
    if task.private.replaces and not _predecessors_stopped(slot, task, fates):
        due = max(due, delay_from(task) + STOP_TIMEOUT_NS)
    return due


def corrected_stamps(task: TaskRow, now: int) -> Update | None:
    """Return a runnable task with stamps out of the future brought to now, or None if it has none.

    Another leader's clock may have been ahead. Counting from now *and writing that down* makes a
    delay last no longer than itself from the takeover, and lets all later leaders agree.
    """
    waits = task.api.DesiredState is TaskState.READY
    private = task.private
    if waits and delay_from(task) > now:
        private = replace(private, delay_from=now)
    if private.started_at > now:
        private = replace(private, started_at=now)
    return None if private is task.private else Update(row=replace(task, private=private))


def delay_from(task: TaskRow) -> int:
    """Return when a task's delay began, in nanoseconds of wall time."""
    return task.private.delay_from or task.api.CreatedAt


def _predecessors_stopped(slot: Slot, task: TaskRow, fates: Fates) -> bool:
    """Return whether nothing older in the slot can still be running.

    All older tasks count, not only the one it replaces: that one may itself have been waiting.
    """
    for other in slot.tasks:
        if other is task:
            return True
        if not fates.stopped(other):
            return False
    return True
