"""Task output on its way from a node to a manager: one stream a task, opened by the manager.

A chunk holds as many lines as there were when the one before had left. A manager that takes nothing
makes the node's reading wait, by the stream's credit.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..batching import Batch
from ..errors import FailedPrecondition, NotFound, SwarmError, Unavailable
from ..model.base import PrivateStruct
from ..model.codec import pack, unpack
from ..together import run_until_first
from .executor import EngineUnavailable, ExecutorError, LogLine, LogOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from ..clock import Clock
    from ..wire.link import Link
    from ..wire.stream import LinkStream
    from .worker import Worker

LOGS_METHOD = "logs"
CHUNK_BYTES = 64 * 1024
LINE_COST_BYTES = 64  # of a line beside its text, in memory and on the wire


class LogsRequest(PrivateStruct, frozen=True, kw_only=True):
    """A manager asks for one task's output."""

    task_id: str
    options: LogOptions


class LogChunk(PrivateStruct, frozen=True, kw_only=True):
    """Some of its lines, in order.

    Attributes:
        began: of the first chunk, which has no lines: when the node began to read, by its clock.
    """

    lines: tuple[LogLine, ...] = ()
    began: int = 0


async def serve_logs(worker: Worker, stream: LinkStream, clock: Clock) -> None:
    """Send one task's output until it ends or the manager has enough.

    Raises:
        NotFound: the task is not on this node.
        FailedPrecondition: its output cannot be read, now or later.
        Unavailable: the engine does not answer; asking again later may help.
    """
    request = unpack(stream.body, LogsRequest)
    lines = worker.logs(request.task_id, request.options)
    if lines is None:
        raise NotFound("it has no output on its node")
    await stream.send(pack(LogChunk(began=clock.now())))
    batch: Batch[LogLine] = Batch(CHUNK_BYTES)
    await run_until_first(partial(_fill, batch, lines), partial(_drain, batch, stream))


async def _fill(batch: Batch[LogLine], lines: AsyncIterator[LogLine]) -> None:
    error: SwarmError | None = None
    try:
        async with aclosing(lines) as open_lines:  # type: ignore[type-var] # generators have aclose
            async for line in open_lines:
                await batch.put(line, len(line.text) + LINE_COST_BYTES)
    except EngineUnavailable as away:
        error = Unavailable(str(away))  # as a leaf that crosses the wire
    except ExecutorError as refusal:
        error = FailedPrecondition(str(refusal))
    batch.end(error)
    await trio.sleep_forever()  # the one who drains ends it


async def _drain(batch: Batch[LogLine], stream: LinkStream) -> None:
    while lines := await batch.take():
        await stream.send(pack(LogChunk(lines=tuple(lines))))


async def read_logs(
    link: Link, task_id: str, options: LogOptions
) -> AsyncGenerator[LogChunk, None]:
    """Yield one task's output from the node behind a link; close it (``aclosing``) when done early.

    Raises:
        NotFound, FailedPrecondition, Unavailable: as :func:`serve_logs`.
        LinkClosed: the node went away.
    """
    request = LogsRequest(task_id=task_id, options=options)
    async with link.open_stream(LOGS_METHOD, pack(request)) as stream:
        stream.end()
        async for chunk in stream:
            yield unpack(chunk, LogChunk)
