"""Routes of nodes: list, inspect, update, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import FailedPrecondition
from ..model.base import Time
from ..model.change import Advance, AtLeast, Delete, Index, Kind, Ref, Transaction, Update
from ..model.objects import NodeSpec
from ..model.task import TaskState, TaskStatus
from ..model.validate_cluster import check_node_spec
from . import query
from .call import EMPTY, json_reply, list_reply
from .present import present_node
from .write import write

if TYPE_CHECKING:
    from ..model.objects import NodeRow
    from ..store.view import View
    from ..wire.http1 import Response
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

ORPHANS_MAX = 900


async def list_nodes(server: ApiServer, call: Call) -> Reply:
    """``GET /nodes``"""
    manager = server.manager()
    view = await manager.read()
    filters = query.parse_filters(call.query.get("filters"), query.NODE_FILTERS)
    rows = query.filter_nodes(view.nodes(), filters)
    shown = [(row.api, manager.membership.status_of(row)) for row in rows]
    return list_reply(shown, lambda pair: present_node(*pair))


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /nodes/{id}``; ``self`` is the node that was asked."""
    manager = server.manager()
    view = await manager.read()
    row = query.resolve_node(view, _reference(call))
    return json_reply(present_node(row.api, manager.membership.status_of(row)))


async def update(server: ApiServer, call: Call) -> Reply:
    """``POST /nodes/{id}/update``"""
    manager = server.manager()
    version = query.object_version("node", call.query.get("version"))
    spec = call.body(NodeSpec)
    check_node_spec(spec)
    node_id = query.resolve_node(await manager.read(), _reference(call)).api.ID

    def plan(view: View) -> tuple[Transaction, Response]:
        row = query.resolve_node(view, node_id)
        query.check_sequence(row, version)
        requires: tuple[AtLeast, ...] = ()
        if row.api.Spec.Role == "manager" and spec.Role == "worker":
            manager.membership.require_removable(row)
            requires = (AtLeast(index=Index.WISH, key="manager", count=1),)
        changed = replace(row, api=replace(row.api, Spec=spec))
        return Transaction(changes=(Update(row=changed),), requires=requires), EMPTY

    return await write(manager, call, plan)


async def remove(server: ApiServer, call: Call) -> Reply:
    """``DELETE /nodes/{id}``: out of the swarm for good; its tasks are orphaned at once.

    By force a manager is demoted first, if the others can do without it.
    """
    manager = server.manager()
    force = query.flag(call.query.get("force"))
    row = query.resolve_node(await manager.read(), _reference(call))
    node_id = row.api.ID
    if force and row.private.role == "manager":
        await manager.membership.demote(node_id)

    def plan(view: View) -> tuple[Transaction, Response]:
        row = query.resolve_node(view, node_id)
        _require_removable(row, force=force)
        return _removal(view, row, server.clock.now()), EMPTY

    return await write(manager, call, plan)


def _removal(view: View, row: NodeRow, now_ns: int) -> Transaction:
    """Delete the node, remember its id as gone for ever, and give its tasks up."""
    cluster = view.cluster()
    assert cluster is not None
    removed = {**cluster.private.removed_nodes, row.api.ID: now_ns}
    private = replace(cluster.private, removed_nodes=removed)
    orphaned = TaskStatus(
        Timestamp=Time(now_ns), State=TaskState.ORPHANED, Message="the task's node was removed"
    )
    tasks = [
        Advance(task_id=task.api.ID, status=orphaned)
        for task in view.tasks_on(row.api.ID)
        if task.api.Status.State < TaskState.COMPLETE
    ]
    return Transaction(
        changes=(
            Delete(ref=Ref(Kind.NODE, row.api.ID), version=row.api.Version.Index),
            Update(row=replace(cluster, private=private)),
            *tasks[:ORPHANS_MAX],
        ),
        requires=(AtLeast(index=Index.WISH, key="manager", count=1),),
    )


def _require_removable(row: NodeRow, *, force: bool) -> None:
    node_id = row.api.ID
    if row.private.role == "manager":
        raise FailedPrecondition(
            f"node {node_id} is a cluster manager and is a member of the raft cluster. It must be "
            "demoted to worker before removal"
        )
    if row.api.Status.State == "ready" and not force:
        raise FailedPrecondition(f"node {node_id} is not down and can't be removed")


def _reference(call: Call) -> str:
    reference = call.params["id"]
    return call.origin.node_id if reference == "self" else reference


HANDLERS = {"list": list_nodes, "inspect": inspect, "update": update, "remove": remove}
