"""NEW -> PENDING: services get their ports, and then their tasks may be scheduled.

A service without ports is a key of its own; all others are one key, since they compete for the
same numbers. A service is allocated when its
endpoint is what :class:`~.ports.PortBook` would give it, so an update is just another difference;
one that cannot be allocated keeps its tasks at NEW with the reason in ``Status.Err``, and every
change of a service is a new chance. Addresses of networks will be a second step between the two,
by the same rule: computed from the tables, written with the requirement that they are free.

A service's new tasks also wait here for the services that its start order names
(model/startorder.py): a NEW task holds nothing that others could want. A service that names none
pays for one look at its labels.

A service and the tasks that waited for it are one transaction: no task becomes PENDING on the
strength of a port that its service did not get.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.base import Time
from ..model.change import NOTHING, Decision, Exists, Kind, Ref, Transaction, Update
from ..model.labels import DEPENDS_ON
from ..model.objects import ServiceRow
from ..model.startorder import unmet
from ..model.task import TaskState
from .ports import PortBook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Requirement
    from ..model.objects import TaskRow
    from ..store.view import View

NAME = "allocator"
EVERYTHING = "everything"
TASKS_MAX = 400
"""Tasks moved by one decision; it asks for the next turn at once when there are more."""

PENDING_MESSAGE = "pending task scheduling"


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:
    """Return what to allocate: one service, or all when some compete for ports (None: all)."""
    if touched is None:
        return (EVERYTHING,)
    found: dict[str, None] = {}
    moved: dict[str, None] = {}
    for ref in touched:
        if ref.kind is Kind.SERVICE:
            moved[ref.id] = None
            found[_key(view.service(ref.id))] = None
        elif ref.kind is Kind.TASK:
            task = view.task(ref.id)
            if task is None:
                continue
            moved[task.api.ServiceID] = None
            if task.api.Status.State is TaskState.NEW:
                found[_key(view.service(task.api.ServiceID))] = None
    for service_id in _awaiting(view, moved):
        found[_key(view.service(service_id))] = None
    return (EVERYTHING,) if EVERYTHING in found else found


def _awaiting(view: View, moved: Iterable[str]) -> Iterable[str]:
    """Return the services that may have waited for one of those that changed."""
    waiting = view.labelled(DEPENDS_ON)
    found: dict[str, None] = {}
    for service_id in moved if waiting else ():
        service = view.service(service_id)
        if service is None:
            return waiting  # it is gone, and its name with it
        found.update(dict.fromkeys(view.awaiting(service.api.Spec.Name)))
    return found


def _key(service: ServiceRow | None) -> str:
    """Return the key of a service; one that went may have left a port to the others."""
    if service is None:
        return EVERYTHING
    asked = service.api.Spec.EndpointSpec
    has_ports = (asked is not None and asked.Ports) or service.api.Endpoint.Ports
    return EVERYTHING if has_ports else service.api.ID


def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:  # noqa: ARG001
    """Return the endpoints and tasks that can be allocated now."""
    if key != EVERYTHING:
        service = view.service(key)
        return NOTHING if service is None else _decide_alone(view, service, now)
    waiting = _waiting(view.tasks_at(TaskState.NEW))
    book = PortBook(view)
    transactions: list[Transaction] = []
    room = TASKS_MAX
    wake_at: int | None = None
    for service in sorted(view.services(), key=_seniority):
        tasks = _batch(waiting.pop(service.api.ID, []), room)
        changes, requires = _allocate(view, service, tasks, book, now)
        if changes:
            transactions.append(Transaction(changes=changes, requires=requires))
            room -= sum(1 for change in changes if change.row.api.ID != service.api.ID)
            if _gives_ports_back(service, changes):
                wake_at = now  # older services may wait for them
        if room <= 0:
            return Decision(transactions=tuple(transactions), wake_at=now)
    # What is left belongs to no service (plain containers on a network) or to none any more.
    alone = waiting.get("", [])[:room]
    transactions.extend(Transaction(changes=(_pending(task, now),)) for task in alone)
    return Decision(transactions=tuple(transactions), wake_at=wake_at)


def _decide_alone(view: View, service: ServiceRow, now: int) -> Decision:
    """Allocate a service that competes with nobody."""
    new = [task for task in view.tasks_of(service.api.ID) if task.api.Status.State is TaskState.NEW]
    tasks = _waiting(new).get(service.api.ID, [])
    batch = _batch(tasks, TASKS_MAX)
    changes, requires = _allocate(view, service, batch, PortBook(view), now)
    if not changes:
        return NOTHING
    return Decision(
        transactions=(Transaction(changes=changes, requires=requires),),
        wake_at=now if len(tasks) > len(batch) else None,
    )


def _batch(tasks: list[TaskRow], most: int) -> list[TaskRow]:
    """Return the tasks of this turn: first those that were not told yet why they wait."""
    untold = [task for task in tasks if not task.api.Status.Err]
    return (untold or tasks)[:most]


def _gives_ports_back(service: ServiceRow, changes: tuple[Update, ...]) -> bool:
    """Return whether a service has fewer ports after its changes than before."""
    row = changes[0].row
    if not isinstance(row, ServiceRow):
        return False
    return not set(service.api.Endpoint.Ports) <= set(row.api.Endpoint.Ports)


def _waiting(new: Iterable[TaskRow]) -> dict[str, list[TaskRow]]:
    """Return the tasks to allocate by service id, oldest first."""
    waiting: dict[str, list[TaskRow]] = {}
    for task in new:
        if task.api.DesiredState <= TaskState.COMPLETE:
            waiting.setdefault(task.api.ServiceID, []).append(task)
    for tasks in waiting.values():
        tasks.sort(key=lambda task: (task.private.spec_index, task.api.Slot, task.api.ID))
    return waiting


def _seniority(service: ServiceRow) -> tuple[int, str]:
    return service.api.CreatedAt, service.api.ID


def _allocate(
    view: View, service: ServiceRow, tasks: list[TaskRow], book: PortBook, now: int
) -> tuple[tuple[Update, ...], tuple[Requirement, ...]]:
    """Return one service's changes and what they require."""
    allocation = book.allocate(service)
    if allocation.refused:
        return _explained(tasks, allocation.refused), ()
    waits = unmet(service.api.Spec, view) if tasks else ""
    moved = _explained(tasks, waits) if waits else tuple(_pending(task, now) for task in tasks)
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


def _explained(tasks: Iterable[TaskRow], why: str) -> tuple[Update, ...]:
    """Return the tasks that do not know yet why they wait, told."""
    return tuple(
        Update(row=replace(task, api=replace(task.api, Status=replace(task.api.Status, Err=why))))
        for task in tasks
        if task.api.Status.Err != why
    )
