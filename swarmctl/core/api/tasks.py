"""Routes of tasks: list and inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.task import TaskState
from ..orchestrator.waiting import overdue, told_message
from . import query
from .call import json_reply, list_reply
from .present import present_task

if TYPE_CHECKING:
    from ..model.objects import TaskRow
    from ..model.task import Task
    from ..store.view import View
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer


async def list_tasks(server: ApiServer, call: Call) -> Reply:
    """``GET /tasks``"""
    view = await server.manager().read()
    filters = query.parse_filters(call.query.get("filters"), query.TASK_FILTERS)
    rows = query.filter_tasks(view, filters)
    now = server.clock.now()
    return list_reply([_told(view, row, now) for row in rows if is_listed(view, row)], present_task)


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /tasks/{id}``"""
    view = await server.manager().read()
    row = query.resolve_task(view, call.params["id"])
    return json_reply(present_task(_told(view, row, server.clock.now())))


def _told(view: View, row: TaskRow, now: int) -> Task:
    """Return a task with what holds it at READY in its error column, where Docker says nothing.

    What holds it before that stands in its status already. Its message also says why start-first
    could not be.
    """
    status = row.api.Status
    err = status.Err or overdue(view, row, now)
    message = told_message(row)
    if (err, message) == (status.Err, status.Message):
        return row.api
    return replace(row.api, Status=replace(status, Err=err, Message=message))


def is_listed(view: View, row: TaskRow) -> bool:
    """False for an ended task of a deleted service.

    Such a task only waits for its container to be removed; ``docker stack rm`` would count it and
    never end (docker-api.md section 5).
    """
    return row.api.Status.State <= TaskState.RUNNING or view.service(row.api.ServiceID) is not None


HANDLERS = {"list": list_tasks, "inspect": inspect}
