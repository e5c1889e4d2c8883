"""Routes of output: what the tasks of a service, or one task, have written.

Answered by the manager that is asked, whoever leads: its own tables say which tasks there are, and
``merge.py`` reads them. So following goes on when the leader changes, and ends only with the
manager that the client talks to.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..agent.executor import LogOptions
from ..errors import SwarmError
from ..wire.http_server import StreamedResponse
from . import query
from .frames import Form
from .merge import Merge, Source, is_stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..clock import Clock
    from ..manager.manager import Manager
    from ..model.objects import TaskRow
    from ..model.spec import TaskSpec
    from ..wire.http1 import Fields
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

LINES_MAX = 2**31 - 1
FRAMES_NAMED_SINCE = 42  # 1.42: before, frames went by the name of the raw stream

_DIGITS = re.compile(r"[0-9]{1,30}", re.ASCII)


class _Asked(NamedTuple):
    options: LogOptions
    timestamps: bool
    details: bool


async def service(server: ApiServer, call: Call) -> Reply:
    """``GET /services/{id}/logs``"""
    manager = server.manager()
    view = await manager.read_here()
    row = query.resolve_service(view, call.params["id"])
    service_id = row.api.ID
    source = Source(
        tasks=lambda: view.tasks_of(service_id), is_over=lambda: view.service(service_id) is None
    )
    return _stream(manager, server.clock, call, source, row.api.Spec.TaskTemplate)


async def task(server: ApiServer, call: Call) -> Reply:
    """``GET /tasks/{id}/logs``"""
    manager = server.manager()
    view = await manager.read_here()
    row = query.resolve_task(view, call.params["id"])
    task_id = row.api.ID

    def tasks() -> Sequence[TaskRow]:
        found = view.task(task_id)
        return () if found is None else (found,)

    def is_over() -> bool:
        return all(is_stopped(row) for row in tasks())

    return _stream(manager, server.clock, call, Source(tasks, is_over), row.api.Spec)


def _parse(fields: Fields) -> _Asked:
    stdout, stderr = query.flag(fields.get("stdout")), query.flag(fields.get("stderr"))
    if not stdout and not stderr:
        raise SwarmError("Bad parameters: you must choose at least one stream")
    options = LogOptions(
        stdout=stdout,
        stderr=stderr,
        follow=query.flag(fields.get("follow")),
        since=query.moment("since", fields.get("since")),
        tail=_tail(fields.get("tail")),
    )
    return _Asked(options, query.flag(fields.get("timestamps")), query.flag(fields.get("details")))


def _tail(text: str) -> int:
    if text in ("", "all"):
        return -1
    if text.startswith("-"):
        raise SwarmError("negative tail values not supported")
    if not _DIGITS.fullmatch(text):
        raise SwarmError('tail value must be a positive integer or "all"')
    return min(int(text), LINES_MAX)


def _stream(
    manager: Manager, clock: Clock, call: Call, source: Source, spec: TaskSpec
) -> StreamedResponse:
    """Return the answer; a terminal's output goes unframed, since its two streams are one."""
    asked = _parse(call.query)
    has_terminal = spec.ContainerSpec is not None and spec.ContainerSpec.TTY
    content = "application/vnd.docker.multiplexed-stream"
    if has_terminal or call.older_than(FRAMES_NAMED_SINCE):
        content = "application/vnd.docker.raw-stream"
    form = Form(framed=not has_terminal, timestamps=asked.timestamps, details=asked.details)
    merge = Merge(manager, clock, asked.options, source, form)
    return StreamedResponse(200, (("Content-Type", content),), merge.run)


HANDLERS = {"service": service, "task": task}
