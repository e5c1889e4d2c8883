"""Routes of tasks: list and inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.task import TaskState
from . import query
from .call import json_reply, list_reply
from .present import present_task

if TYPE_CHECKING:
    from ..model.objects import TaskRow
    from ..store.view import View
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer


async def list_tasks(server: ApiServer, call: Call) -> Reply:
    """``GET /tasks``"""
    view = await server.manager().read()
    filters = query.parse_filters(call.query.get("filters"), query.TASK_FILTERS)
    rows = query.filter_tasks(view, filters)
    return list_reply([row.api for row in rows if is_listed(view, row)], present_task)


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /tasks/{id}``"""
    view = await server.manager().read()
    return json_reply(present_task(query.resolve_task(view, call.params["id"]).api))


def is_listed(view: View, row: TaskRow) -> bool:
    """False for an ended task of a deleted service.

    Such a task only waits for its container to be removed; ``docker stack rm`` would count it and
    never end (docker-api.md section 5).
    """
    return row.api.Status.State <= TaskState.RUNNING or view.service(row.api.ServiceID) is not None


HANDLERS = {"list": list_tasks, "inspect": inspect}
