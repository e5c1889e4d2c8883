"""Services -> tasks: which tasks should exist, and what is wished of them.

One key is one service id, also of a service that is gone while its tasks remain. What a service
needs is its mode's business (:mod:`.replicated`, :mod:`.global_`, :mod:`.jobs`). This package
writes new tasks and ``DesiredState``, and meets the others in the tables only.

Services that run on every node are asked about every change of any node, so none is missed: what a
node is now says everything, whatever it was before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.change import At, Decision, Kind, Ref, Transaction, Update
from ..model.task import TaskState
from . import global_, jobs, replicated
from .slots import wishes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Requirement
    from ..model.objects import ServiceRow
    from ..store.view import View

NAME = "orchestrator"


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:
    """Return the services that touched rows concern (None: every service, present or gone)."""
    if touched is None:
        found = dict.fromkeys(service.api.ID for service in view.services())
        found.update(dict.fromkeys(task.api.ServiceID for task in view.tasks()))
        found.pop("", None)
        return found
    found = {}
    if any(ref.kind is Kind.NODE for ref in touched):
        found.update(dict.fromkeys(row.api.ID for row in view.services_everywhere()))
    for ref in touched:
        if ref.kind is Kind.SERVICE:
            found[ref.id] = None
        elif ref.kind is Kind.TASK:
            task = view.task(ref.id)
            if task is not None and task.api.ServiceID:
                found[task.api.ServiceID] = None
        elif ref.kind is Kind.NODE:
            for task in view.tasks_on(ref.id):
                if task.api.ServiceID and task.api.DesiredState <= TaskState.SHUTDOWN:
                    found[task.api.ServiceID] = None
    return found


def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
    """Return what the service with id ``key`` needs."""
    service = view.service(key)
    if service is None:
        return _remove_all(view, key)
    if service.api.Stopped is not None:
        return _stop(view, service)
    mode = service.api.Spec.Mode
    if mode.Global is not None or mode.GlobalJob is not None:
        return global_.decide(view, service, now, new_id)
    if mode.ReplicatedJob is not None:
        return jobs.decide(view, service, now, new_id)
    return replicated.decide(view, service, now, new_id)


def _stop(view: View, service: ServiceRow) -> Decision:
    """Have every task of a stopped service removed, and forget how often they were restarted."""
    # It may be started again meanwhile; then its tasks are not to go any more.
    still = At(ref=Ref(Kind.SERVICE, service.api.ID), version=service.api.Version.Index)
    decision = _remove_all(view, service.api.ID, still)
    if not service.private.restarts:
        return decision
    forgotten = replace(service, private=replace(service.private, restarts={}))
    last = Transaction(changes=(Update(row=forgotten),))  # the others require the row as it is
    return replace(decision, transactions=(*decision.transactions, last))


def _remove_all(view: View, service_id: str, *requires: Requirement) -> Decision:
    """Have every task of a service removed.

    One that was deleted requires nothing: its id never comes back, so nothing races.
    """
    going = wishes(view.tasks_of(service_id), TaskState.REMOVE, requires)
    return Decision(transactions=tuple(going))
