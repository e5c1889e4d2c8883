"""NEW -> PENDING: services get their ports, and then their tasks may be scheduled.

There is one key, since services compete for the same numbers. A service is allocated when its
endpoint is what :class:`~.ports.PortBook` would give it, so an update is just another difference;
one that cannot be allocated keeps its tasks at NEW with the reason in ``Status.Err``, and every
change of a service is a new chance. Addresses of networks will be a second step between the two,
by the same rule: computed from the tables, written with the requirement that they are free.

A service and the tasks that waited for it are one transaction: no task becomes PENDING on the
strength of a port that its service did not get.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.base import Time
from ..model.change import Decision, Exists, Kind, Ref, Transaction, Update
from ..model.task import TaskState
from .ports import PortBook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Requirement
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View

NAME = "allocator"
EVERYTHING = "everything"
TASKS_MAX = 400
"""Tasks moved by one decision; it asks for the next turn at once when there are more."""

PENDING_MESSAGE = "pending task scheduling"


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:
    """Return the one key when services changed or there are tasks to allocate."""
    if touched is None:
        return (EVERYTHING,)
    for ref in touched:
        if ref.kind is Kind.SERVICE:
            return (EVERYTHING,)
        if ref.kind is Kind.TASK:
            task = view.task(ref.id)
            if task is not None and task.api.Status.State is TaskState.NEW:
                return (EVERYTHING,)
    return ()


def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:  # noqa: ARG001
    """Return the endpoints and tasks that can be allocated now."""
    waiting = _waiting(view)
    book = PortBook(view)
    transactions: list[Transaction] = []
    room = TASKS_MAX
    for service in sorted(view.services(), key=_seniority):
        tasks = waiting.pop(service.api.ID, ())[:room]
        changes, requires = _allocate(service, tasks, book, now)
        if changes:
            transactions.append(Transaction(changes=changes, requires=requires))
            room -= sum(1 for change in changes if change.row.api.ID != service.api.ID)
        if room <= 0:
            return Decision(transactions=tuple(transactions), wake_at=now)
    # What is left belongs to no service (plain containers on a network) or to none any more.
    alone = waiting.get("", [])[:room]
    transactions.extend(Transaction(changes=(_pending(task, now),)) for task in alone)
    return Decision(transactions=tuple(transactions))


def _waiting(view: View) -> dict[str, list[TaskRow]]:
    """Return the tasks to allocate by service id, oldest first."""
    waiting: dict[str, list[TaskRow]] = {}
    for task in view.tasks_at(TaskState.NEW):
        if task.api.DesiredState <= TaskState.COMPLETE:
            waiting.setdefault(task.api.ServiceID, []).append(task)
    for tasks in waiting.values():
        tasks.sort(key=lambda task: (task.private.spec_index, task.api.Slot, task.api.ID))
    return waiting


def _seniority(service: ServiceRow) -> tuple[int, str]:
    return service.api.CreatedAt, service.api.ID


def _allocate(
    service: ServiceRow, tasks: Iterable[TaskRow], book: PortBook, now: int
) -> tuple[tuple[Update, ...], tuple[Requirement, ...]]:
    """Return one service's changes and what they require."""
    allocation = book.allocate(service)
    if allocation.refused:
        explained = (_explained(task, allocation.refused) for task in tasks)
        return tuple(update for update in explained if update is not None), ()
    moved = tuple(_pending(task, now) for task in tasks)
    if allocation.endpoint == service.api.Endpoint:
        return moved, (Exists(ref=Ref(Kind.SERVICE, service.api.ID)),)
    endpoint = Update(row=replace(service, api=replace(service.api, Endpoint=allocation.endpoint)))
    return (endpoint, *moved), allocation.requires


def _pending(task: TaskRow, now: int) -> Update:
    status = replace(
        task.api.Status,
        Timestamp=Time(now),
        State=TaskState.PENDING,
        Message=PENDING_MESSAGE,
        Err="",
    )
    return Update(row=replace(task, api=replace(task.api, Status=status)))


def _explained(task: TaskRow, why: str) -> Update | None:
    if task.api.Status.Err == why:
        return None
    status = replace(task.api.Status, Err=why)
    return Update(row=replace(task, api=replace(task.api, Status=status)))
