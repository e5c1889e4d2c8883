"""Routes that say why something does not run: ours, beside Docker's, of one task or one service.

Everything is read off the tables at the moment of asking, by the rules that the deciders go by
(scheduler/explain.py, orchestrator/waiting.py). A large cluster is judged node by node, so that
asking holds nobody up; the answer may then be of two moments, a little apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..model.explain import Refusal, ServiceExplanation, TaskExplanation
from ..model.scaling import as_scaled
from ..model.task import TaskState
from ..orchestrator.slots import slots_of
from ..orchestrator.waiting import (
    ended_for_good,
    failures_in_slot,
    last_failures,
    node_name,
    sentence,
    waits_of,
    why_it_stays,
)
from ..scheduler.explain import judge_node
from . import query
from .call import json_reply
from .present import service_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..model.explain import NodeVerdict
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

TASKS_MAX = 20
NODES_AT_ONCE = 20
ENDED_MAX = 20
"""Places that ended for good that are told one by one."""
STAYING_MAX = 5
"""Tasks that cannot leave a drained node that are told one by one."""


async def task(server: ApiServer, call: Call) -> Reply:
    """``GET /tasks/{id}/explain``"""
    view = await server.manager().read()
    row = query.resolve_task(view, call.params["id"])
    explained = explain_task(view, row, server.clock.now())
    return json_reply(replace(explained, Nodes=await _verdicts(server, view, row)))


async def service(server: ApiServer, call: Call) -> Reply:
    """``GET /services/{id}/explain``"""
    view = await server.manager().read()
    row = query.resolve_service(view, call.params["id"])
    explained = explain_service(view, row, server.clock.now())
    looking = _looks_for_node(view, row)
    if looking is not None:
        explained = replace(explained, Nodes=await _verdicts(server, view, looking))
    return json_reply(explained)


async def _verdicts(server: ApiServer, view: View, row: TaskRow) -> tuple[NodeVerdict, ...]:
    """Return what every node says to a task that looks for one, those that refuse least first."""
    if row.api.Status.State is not TaskState.PENDING or row.api.DesiredState > TaskState.COMPLETE:
        return ()
    node_ids = [node.api.ID for node in view.nodes()]
    if row.api.NodeID:  # it has to run there
        node_ids = [row.api.NodeID]
    told = {judge.name: judge.told(row) for judge in server.judges}
    found: list[NodeVerdict] = []
    for at, node_id in enumerate(node_ids, 1):
        node = view.node(node_id)
        if node is not None:
            found.append(_with_plugins(judge_node(view, row, node), told))
        if at % NODES_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    found.sort(key=lambda one: (len(one.Refusals), one.Name, one.ID))
    return tuple(found)


def _with_plugins(verdict: NodeVerdict, told: Mapping[str, Mapping[str, str]]) -> NodeVerdict:
    """Add what filters of plugins said of a node when the scheduler last asked them."""
    more = tuple(
        Refusal(Filter=name, Needs="what the plugin's filters ask for", Has=nodes[verdict.ID])
        for name, nodes in told.items()
        if verdict.ID in nodes
    )
    if not more:
        return verdict
    return replace(verdict, Fits=False, Refusals=(*verdict.Refusals, *more))


def _looks_for_node(view: View, row: ServiceRow) -> TaskRow | None:
    """Return the newest task of a service that has no node yet; the others are like it."""
    waiting = [
        one
        for one in view.tasks_of(row.api.ID)
        if one.api.Status.State is TaskState.PENDING and one.api.DesiredState <= TaskState.COMPLETE
    ]
    return max(waiting, key=lambda one: (one.private.spec_index, one.api.ID), default=None)


# --- in words ------------------------------------------------------------------------------------


def explain_task(view: View, row: TaskRow, now: int) -> TaskExplanation:
    """Return where a task stands and what it waits for; what nodes say is for the caller to add."""
    waits = waits_of(view, row, now)
    status = row.api.Status
    service = view.service(row.api.ServiceID)
    name = service.api.Spec.Name if service is not None else row.api.ServiceID or row.api.Name
    place = row.place if row.api.ServiceID else ""
    return TaskExplanation(
        ID=row.api.ID,
        Name=f"{name}.{place}" if place else name,
        ServiceID=row.api.ServiceID,
        State=status.State,
        DesiredState=row.api.DesiredState,
        Since=status.Timestamp,
        NodeID=row.api.NodeID,
        Node=node_name(view, row.api.NodeID),
        Text=sentence(waits) or _standing(view, row, now),
        Waits=waits,
        Failures=failures_in_slot(view, row),
    )


def _standing(view: View, row: TaskRow, now: int) -> str:
    """Return where a task stands that waits for nothing."""
    state, wanted = row.api.Status.State, row.api.DesiredState
    where = f" on node {node_name(view, row.api.NodeID)}" if row.api.NodeID else ""
    if state is TaskState.RUNNING and wanted <= TaskState.COMPLETE:
        reason = row.private.stop_first
        stays = why_it_stays(view, row, now)
        started = f"it was started stop-first: {reason}" if reason else ""
        return "; ".join(part for part in (f"runs{where}", started, stays) if part)
    if state > TaskState.RUNNING:
        err = row.api.Status.Err
        return f"ended ({state.value}){where}{f': {err}' if err else ''}"
    return f"is to stop{where}"


def explain_service(view: View, row: ServiceRow, now: int) -> ServiceExplanation:
    """Return how many tasks of a service run and what keeps the others."""
    tasks = view.tasks_of(row.api.ID)
    status = service_status(as_scaled(row), (one.api for one in tasks))
    wanted = [
        one
        for one in tasks
        if one.api.DesiredState <= TaskState.COMPLETE and one.api.Status.State < TaskState.RUNNING
    ]
    wanted.sort(key=lambda one: (one.api.Slot, one.private.spec_index, one.api.ID))
    explained = tuple(
        replace(explain_task(view, one, now), Failures=()) for one in wanted[:TASKS_MAX]
    )
    notes = tuple(_notes(view, row, now))
    reasons = dict.fromkeys([*notes, *(one.Text for one in explained)])
    head = f"{status.RunningTasks} of {status.DesiredTasks} tasks run"
    return ServiceExplanation(
        ID=row.api.ID,
        Name=row.api.Spec.Name,
        Running=status.RunningTasks,
        Wanted=status.DesiredTasks,
        Text="; ".join((head, *reasons)),
        Notes=notes,
        Tasks=explained,
        More=max(0, len(wanted) - TASKS_MAX),
        Failures=last_failures(view, tasks),
    )


def _notes(view: View, row: ServiceRow, now: int) -> Iterator[str]:
    """What holds for a service as a whole."""
    if row.api.Stopped is not None:
        yield "the service is stopped; service start brings it back"
        return
    update = row.api.UpdateStatus
    if update is not None and update.State in ("paused", "rollback_paused"):
        yield f"its update is paused: {update.Message}"
    mode = row.api.Spec.Mode.Replicated
    if mode is not None and mode.Replicas == 0:
        yield "it asks for 0 replicas"
    yield from _ended(view, row, now)
    yield from _staying(view, row, now)


def _ended(view: View, row: ServiceRow, now: int) -> Iterator[str]:
    """Which places of a service have no task and get none."""
    every = (ended_for_good(view, row, slot, now) for slot in slots_of(view, row))
    ended = [why for why in every if why]
    yield from ended[:ENDED_MAX]
    if len(ended) > ENDED_MAX:
        yield f"and {len(ended) - ENDED_MAX} more that are not started again"


def _staying(view: View, row: ServiceRow, now: int) -> Iterator[str]:
    """What a start-first drain waits for, those in trouble by name."""
    told = 0
    staying = [one for one in view.tasks_of(row.api.ID) if why_it_stays(view, one, now)]
    staying.sort(key=lambda one: (one.api.Slot, one.private.spec_index))
    for one in staying:
        why = why_it_stays(view, one, now, only_trouble=True)
        if why and told < STAYING_MAX:
            told += 1
            yield f"{row.api.Spec.Name}.{one.api.Slot} {why}"
    if len(staying) > told:
        yield f"tasks on drained nodes that are not replaced yet: {len(staying) - told} more"


HANDLERS = {"task": task, "service": service}
