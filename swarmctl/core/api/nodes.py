"""Routes of nodes: list, inspect, update, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import FailedPrecondition, OutOfSequence, Unimplemented
from ..model.base import Time
from ..model.change import Advance, AtLeast, Conflict, Delete, Index, Kind, Ref, Transaction, Update
from ..model.objects import ManagerStatus, NodeSpec
from ..model.task import TaskState, TaskStatus
from ..model.validate_cluster import check_node_spec
from . import query
from .call import EMPTY, json_reply
from .present import present_node

if TYPE_CHECKING:
    from ..manager.manager import Manager
    from ..model.objects import NodeRow
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
    return json_reply([present_node(row.api, manager_status(manager, row)) for row in rows])


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /nodes/{id}``; ``self`` is this node."""
    manager = server.manager()
    view = await manager.read()
    row = query.resolve_node(view, _reference(server, call))
    return json_reply(present_node(row.api, manager_status(manager, row)))


async def update(server: ApiServer, call: Call) -> Reply:
    """``POST /nodes/{id}/update``"""
    manager = server.manager()
    version = query.object_version("node", call.query.get("version"))
    spec = call.body(NodeSpec)
    check_node_spec(spec)
    node_id = query.resolve_node(await manager.read(), _reference(server, call)).api.ID
    while True:
        row = query.resolve_node(await manager.read(), node_id)
        if not row.private.spec_index <= version <= row.api.Version.Index:
            raise OutOfSequence
        _require_same_role(manager, row, spec)
        changed = replace(row, api=replace(row.api, Spec=spec))
        result = await manager.propose([Transaction(changes=(Update(row=changed),))])
        if not isinstance(result[0], Conflict):
            return EMPTY


async def remove(server: ApiServer, call: Call) -> Reply:
    """``DELETE /nodes/{id}``: out of the swarm for good; its tasks are orphaned at once."""
    manager = server.manager()
    force = query.flag(call.query.get("force"))
    node_id = query.resolve_node(await manager.read(), _reference(server, call)).api.ID
    while True:
        row = query.resolve_node(await manager.read(), node_id)
        _require_removable(row, force=force)
        result = await manager.propose([_removal(server, manager, row)])
        if not isinstance(result[0], Conflict):
            return EMPTY


def _removal(server: ApiServer, manager: Manager, row: NodeRow) -> Transaction:
    """Delete the node, remember its id as gone for ever, and give its tasks up."""
    view, now_ns = manager.view, server.clock.now()
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
        requires=(AtLeast(index=Index.ROLE, key="manager", count=1),),
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


def _require_same_role(manager: Manager, row: NodeRow, spec: NodeSpec) -> None:
    """Refuse changes of role, which this release does not make."""
    if spec.Role == row.api.Spec.Role:
        return
    if spec.Role == "worker" and len(manager.view.holders(Index.ROLE, "manager")) == 1:
        raise FailedPrecondition("attempting to demote the last manager of the swarm")
    raise Unimplemented("promoting and demoting nodes is not available in this release")


def manager_status(manager: Manager, row: NodeRow) -> ManagerStatus | None:
    """Return how a node stands among the managers; None for a worker."""
    if not row.private.raft_id:
        return None
    status = manager.raft_status()
    return ManagerStatus(
        Leader=status.leader == row.private.raft_id,
        Reachability="reachable",
        Addr=row.private.manager_addr,
    )


def _reference(server: ApiServer, call: Call) -> str:
    reference = call.params["id"]
    return server.node.node_id if reference == "self" else reference


HANDLERS = {"list": list_nodes, "inspect": inspect, "update": update, "remove": remove}
