"""Task output on its way from a node to a manager: one stream a task, opened by the manager."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from ..errors import NotFound
from ..model.base import PrivateStruct
from ..model.codec import pack, unpack
from .executor import LogLine, LogOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..wire.link import Link
    from ..wire.stream import LinkStream
    from .worker import Worker

LOGS_METHOD = "logs"


class LogsRequest(PrivateStruct, frozen=True, kw_only=True):
    """A manager asks for one task's output."""

    task_id: str
    options: LogOptions


async def serve_logs(worker: Worker, stream: LinkStream) -> None:
    """Send one task's output, a line a chunk, until it ends or the manager has enough.

    Raises:
        NotFound: the task is not on this node.
    """
    request = unpack(stream.body, LogsRequest)
    lines = worker.logs(request.task_id, request.options)
    if lines is None:
        raise NotFound(f"task {request.task_id} has no output on this node")
    async with aclosing(lines) as open_lines:  # type: ignore[type-var] # generators have aclose
        async for line in open_lines:
            await stream.send(pack(line))


async def read_logs(link: Link, task_id: str, options: LogOptions) -> AsyncIterator[LogLine]:
    """Yield one task's output from the node behind a link; close it (``aclosing``) when done early.

    Raises:
        NotFound: the node does not have the task.
        LinkClosed: the node went away.
    """
    request = LogsRequest(task_id=task_id, options=options)
    async with link.open_stream(LOGS_METHOD, pack(request)) as stream:
        stream.end()
        async for chunk in stream:
            yield unpack(chunk, LogLine)
