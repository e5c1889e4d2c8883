"""What a task waits for, why a slot has none, and how tasks ended badly: in words.

Pure functions of the tables, for ``explain`` and for the error column of task lists. They say what
the deciders of this package will do, by the same rules and numbers; they decide nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.base import NEVER, SECOND, Time
from ..model.explain import LastFailure, Wait
from ..model.startorder import unmet
from ..model.suits import suits
from ..model.task import TaskState
from . import relief
from .global_ import Standing, standing_of
from .jobs import has_had_its_turn
from .restart import STOP_TIMEOUT_NS, delay_from, may_restart, start_time
from .slots import Fates, Slot, creation_order, run_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View

FAILURES_MAX = 5
PATIENCE_NS = 15 * SECOND
"""How long a predecessor may take to stop before lists speak of it."""

_BAD_ENDS = (TaskState.FAILED, TaskState.REJECTED, TaskState.ORPHANED)


def node_name(view: View, node_id: str) -> str:
    """Return a node's name, its hostname, or its id where it is gone."""
    node = view.node(node_id) if node_id else None
    if node is None:
        return node_id
    return node.api.Spec.Name or node.api.Description.Hostname or node_id


# --- a task --------------------------------------------------------------------------------------


def waits_of(view: View, task: TaskRow, now: int) -> tuple[Wait, ...]:
    """Return what a task waits for until it runs; nothing for one that runs, ended or has to."""
    if task.api.DesiredState > TaskState.COMPLETE or task.api.Status.State >= TaskState.RUNNING:
        return ()
    return (*_before_start(view, task), *_at_ready(view, task, now))


def _before_start(view: View, task: TaskRow) -> Iterator[Wait]:
    """What stands between a task and its next state."""
    status = task.api.Status
    name = node_name(view, task.api.NodeID)
    if status.State is TaskState.NEW:
        service = view.service(task.api.ServiceID)
        text = unmet(service.api.Spec, view) if service is not None else ""
        if text:
            yield Wait(For="service", Text=text)
        else:
            yield Wait(For="allocation", Text=status.Err or "waits for its ports and addresses")
    elif status.State is TaskState.PENDING:
        yield Wait(For="node", Text=status.Err or "waits for a node")
    elif status.State < TaskState.PREPARING:
        node = view.node(task.api.NodeID)
        if node is not None and node.api.Status.State == "ready":
            yield Wait(For="agent", Text=f"waits for node {name} to take it")
        else:
            state = node.api.Status.State if node is not None else "gone"
            yield Wait(For="agent", Text=f"waits for node {name}, which is {state}")
    elif status.State is TaskState.PREPARING:
        container = task.api.Spec.ContainerSpec
        image = f" image {container.Image}" if container is not None else " it"
        yield Wait(For="image", Text=f"waits for node {name} to prepare{image}")
    elif status.State is TaskState.STARTING:
        container = task.api.Spec.ContainerSpec
        check = container.Healthcheck if container is not None else None
        if check is not None and check.Test and check.Test[0] != "NONE":
            yield Wait(For="health", Text="waits for its health check to pass")
        else:
            yield Wait(For="start", Text=f"waits for node {name} to start it")


def _at_ready(view: View, task: TaskRow, now: int) -> Iterator[Wait]:
    """What keeps a task that is prepared from being started."""
    if task.api.DesiredState is not TaskState.READY:
        if task.api.Status.State is TaskState.READY:
            name = node_name(view, task.api.NodeID)
            yield Wait(For="start", Text=f"waits for node {name} to start it")
        return
    due = start_time(task)
    if due > now:
        yield Wait(For="delay", Text="waits out its restart delay", Until=Time(due))
    if task.private.replaces:
        fates = Fates(view)
        until = Time(delay_from(task) + STOP_TIMEOUT_NS)
        for other in _slot_of(view, task):
            if other.api.ID == task.api.ID:
                break
            if not fates.stopped(other):
                name = node_name(view, other.api.NodeID)
                text = f"waits for its predecessor {other.api.ID} on node {name} to stop"
                if task.private.stop_first:
                    text += f" (stop-first: {task.private.stop_first})"
                yield Wait(For="predecessor", Text=text, Until=until)


def _slot_of(view: View, task: TaskRow) -> list[TaskRow]:
    return sorted(view.tasks_in(task.api.ServiceID, task.place), key=creation_order)


def sentence(waits: Iterable[Wait]) -> str:
    """Return all that a task waits for in one sentence, which changes only when they do."""
    return "; ".join(
        f"{wait.Text}, until {_clock(wait.Until)} at the latest" if wait.Until else wait.Text
        for wait in waits
    )


def overdue(view: View, task: TaskRow, now: int) -> str:
    """Return what holds up a task so long, or so badly, that a list should tell it, or "".

    A predecessor may take a while to stop; that is every update's way and worth no word, unless its
    service was to have start-first.
    """
    if task.api.Status.State is TaskState.RUNNING:
        return why_it_stays(view, task, now, only_trouble=True)
    if task.api.DesiredState is not TaskState.READY or task.api.Status.State > TaskState.READY:
        return ""
    patient_until = delay_from(task) + (0 if task.private.stop_first else PATIENCE_NS)
    told = [
        wait
        for wait in _at_ready(view, task, now)
        if wait.For != "predecessor" or now >= patient_until
    ]
    return sentence(told)


def why_it_stays(view: View, task: TaskRow, now: int, *, only_trouble: bool = False) -> str:
    """Return why a task still runs on a drained node, "" where it does not or leaves anyway.

    Args:
        only_trouble: only where there is no place for its replacement, or several failed.
    """
    node = view.node(task.api.NodeID) if task.api.NodeID else None
    if node is None or node.api.Spec.Availability != "drain":
        return ""
    service = view.service(task.api.ServiceID)
    fates = Fates(view)
    if service is None or task.api.DesiredState > TaskState.RUNNING:
        return ""
    if not relief.leaves_start_first(service, task, fates):
        return ""
    head = f"stays on drained node {node_name(view, task.api.NodeID)} until"
    slot = _slot_of(view, task)
    tried = [other for other in slot if other.private.relieves == task.api.ID]
    coming = tried[-1] if tried and tried[-1].api.DesiredState <= TaskState.RUNNING else None
    if coming is None:
        update = service.api.Spec.UpdateConfig
        most = update.Parallelism if update is not None else 0
        turn = f"{head} it is its turn to be replaced (the update parallelism is {most})"
        return "" if only_trouble else turn
    waits = waits_of(view, coming, now)
    has_no_place = coming.api.Status.State <= TaskState.PENDING and coming.api.Status.Err
    if only_trouble and not has_no_place and not coming.private.tries:
        return ""
    text = f"{head} its replacement {coming.api.ID} runs: {sentence(waits) or 'it failed, too'}"
    failed = [other for other in tried[:-1] if other.api.Status.Err]
    if coming.private.tries:
        last = f", the last: {failed[-1].api.Status.Err}" if failed else ""
        text += f"; {coming.private.tries} before it failed{last}"
    return text


def told_message(task: TaskRow) -> str:
    """Return a task's status message, and why its predecessor had to stop first if it should not.

    Every writer of a status has its own message, so this is kept beside it.
    """
    message = task.api.Status.Message
    reason = task.private.stop_first
    return f"{message}, stop-first: {reason}" if reason else message


def _clock(at: int) -> str:
    seconds = at // SECOND % 86_400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02} UTC"


# --- a slot --------------------------------------------------------------------------------------


def ended_for_good(view: View, service: ServiceRow, slot: Slot, now: int) -> str:
    """Return why a slot has no task that should run and gets none.

    It is "" where it gets one, where a job is done, and on a node that wants none.
    """
    newest = slot.newest
    if slot.runnable or slot.done or newest.api.DesiredState is TaskState.REMOVE:
        return ""
    if not _is_settled(view, service, slot, now):
        return ""
    place = f" on node {node_name(view, slot.node_id)}" if slot.node_id else f".{slot.number}"
    policy = newest.api.Spec.RestartPolicy
    state = newest.api.Status.State.value
    head = f"{service.api.Spec.Name}{place} ended ({state}) and is not started again: "
    if policy is not None and policy.Condition in ("none", "on-failure"):
        by_condition = policy.Condition == "none" or newest.api.Status.State is TaskState.COMPLETE
        if by_condition:
            return f"{head}its restart condition is {policy.Condition}"
    attempts = policy.MaxAttempts if policy is not None else 0
    used = "1 restart is" if attempts == 1 else f"{attempts} restarts are"
    return f"{head}its {used} used up"


def _is_settled(view: View, service: ServiceRow, slot: Slot, now: int) -> bool:
    """Return whether a slot without a task stays so, by the rules of the service's mode."""
    is_job = run_of(service) is not None
    if not is_job and not slot.node_id:
        return not may_restart(service, slot.newest, now)
    if not has_had_its_turn(service, slot, now):
        return False
    node = view.node(slot.node_id) if slot.node_id else None
    if node is None:
        return not slot.node_id
    is_suitable = suits(service.api.Spec.TaskTemplate)(node)
    standing = standing_of(node, is_suitable=is_suitable, is_job=is_job)
    return standing is not Standing.UNWANTED


# --- failures ------------------------------------------------------------------------------------


def last_failures(view: View, tasks: Iterable[TaskRow]) -> tuple[LastFailure, ...]:
    """Return how tasks ended badly, the newest first."""
    bad = [task for task in tasks if task.api.Status.State in _BAD_ENDS]
    bad.sort(key=lambda task: (-_ended_at(task), task.api.ID))
    return tuple(_failure(view, task) for task in bad[:FAILURES_MAX])


def failures_in_slot(view: View, task: TaskRow) -> tuple[LastFailure, ...]:
    """Return how a task and its predecessors ended badly, the newest first."""
    return last_failures(view, _slot_of(view, task) if task.api.ServiceID else [task])


def _failure(view: View, task: TaskRow) -> LastFailure:
    status = task.api.Status
    container = status.ContainerStatus
    return LastFailure(
        At=Time(_ended_at(task)),
        TaskID=task.api.ID,
        NodeID=task.api.NodeID,
        Node=node_name(view, task.api.NodeID),
        State=status.State,
        ExitCode=container.ExitCode if container is not None else None,
        Err=status.Err or status.Message,
    )


def _ended_at(task: TaskRow) -> int:
    return task.private.applied_at or task.api.Status.Timestamp or NEVER
