"""Deleting tasks that nobody needs any more: removed ones, and history beyond its limit.

One key is one slot, ``service id/slot`` (a node id for tasks made for a node, a task id where there
is no service at all), so a task that changes costs a look at its slot and not at its service.

Laws:

- A task that may still be running is never deleted, unless its node is gone from the cluster.
- The newest task of a slot stays while its service does: that a task is done and wants no
  successor is read off it.
- What the present run of a job completed stays: it is the job's progress. What earlier runs
  completed is history like any other.
- A task that another waits for stays until that one may start: nobody is told of a deletion.
- A terminal task of a deleted service goes at once: clients wait for lists without them
  (docker-api.md section 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.change import NOTHING, Decision, Delete, Kind, Ref, Transaction
from ..model.task import TaskState
from .slots import creation_order, is_of_run, run_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..ids import NewId
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View

NAME = "reaper"
DEFAULT_HISTORY = 5


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:
    """Return the slots that touched rows concern (None, or new cluster settings: every slot)."""
    if touched is None or any(ref.kind is Kind.CLUSTER for ref in touched):
        return dict.fromkeys(map(_key, view.tasks()))
    found: dict[str, None] = {}
    for ref in touched:
        if ref.kind is Kind.TASK:
            task = view.task(ref.id)
            if task is not None:
                found[_key(task)] = None
        elif ref.kind is Kind.NODE and view.node(ref.id) is None:
            found.update(dict.fromkeys(map(_key, view.tasks_on(ref.id))))
        elif ref.kind is Kind.SERVICE and _makes_history(view.service(ref.id)):
            found.update(dict.fromkeys(map(_key, view.tasks_of(ref.id))))
    return found


def _makes_history(service: ServiceRow | None) -> bool:
    """A service that went, and a job that begins its next run, leave what was needed before."""
    return service is None or run_of(service) is not None


def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:  # noqa: ARG001
    """Return the deletions that are due in one slot."""
    service_id, _, place = key.partition("/")
    if service_id:
        tasks = sorted(view.tasks_in(service_id, place), key=creation_order)
    else:
        alone = view.task(place)
        tasks = [] if alone is None else [alone]
    service = view.service(service_id) if service_id else None
    if service is not None and any(map(_waits, tasks)):
        return NOTHING
    dead = [task for task in tasks if _is_over(view, task, service)]
    if service is not None:
        left = [task for task in tasks if not _is_over(view, task, service)]
        dead += _surplus(view, left, service)
    if not dead:
        return NOTHING
    return Decision(transactions=tuple(map(_deletion, dead)))


def _is_over(view: View, task: TaskRow, service: ServiceRow | None) -> bool:
    """Return whether a task is to go whatever the history limit says."""
    if not _is_stopped(view, task):
        return False
    return service is None or task.api.DesiredState is TaskState.REMOVE


def _waits(task: TaskRow) -> bool:
    return bool(task.private.replaces) and task.api.DesiredState is TaskState.READY


def _surplus(view: View, tasks: list[TaskRow], service: ServiceRow) -> list[TaskRow]:
    """Return what goes beyond the limit, from the oldest on; live tasks count and stay."""
    limit = _limit(view, tasks)
    if limit < 0:
        return []
    surplus = len(tasks) - max(1, limit)
    run = run_of(service)
    historic = [task for task in tasks[:-1] if _is_history(task, run) and _is_stopped(view, task)]
    return historic[: max(0, surplus)]


def _is_history(task: TaskRow, run: int | None) -> bool:
    if run is None:
        return task.api.DesiredState > TaskState.RUNNING
    if task.api.Status.State is TaskState.COMPLETE and is_of_run(task, run):
        return False
    return task.api.DesiredState > TaskState.COMPLETE or task.api.Status.State > TaskState.RUNNING


def _is_stopped(view: View, task: TaskRow) -> bool:
    state = task.api.Status.State
    if state > TaskState.RUNNING or state < TaskState.ASSIGNED:
        return True
    return view.node(task.api.NodeID) is None


def _limit(view: View, tasks: Sequence[TaskRow]) -> int:
    """Return how many tasks a slot keeps, the live one included; negative for all.

    All attempts of its newest task stay to be seen. What the service asks for meanwhile counts when
    a task of it comes: a change of the service wakes nobody here.
    """
    policy = tasks[-1].api.Spec.RestartPolicy if tasks else None
    if policy is not None and policy.MaxAttempts:
        return policy.MaxAttempts + 1
    cluster = view.cluster()
    limit = cluster.api.Spec.Orchestration.TaskHistoryRetentionLimit if cluster else None
    return DEFAULT_HISTORY if limit is None else limit


def _deletion(task: TaskRow) -> Transaction:
    ref = Ref(Kind.TASK, task.api.ID)
    return Transaction(changes=(Delete(ref=ref, version=task.api.Version.Index),))


def _key(task: TaskRow) -> str:
    if not task.api.ServiceID:
        return f"/{task.api.ID}"
    return f"{task.api.ServiceID}/{task.place}"
