"""Reading a container's output from a Docker engine."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.engine import LogParser, Refused
from swarmctl.plugins.model import NANOSECONDS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from swarmctl.plugins import LogLine, LogOptions
    from swarmctl.plugins.engine import Engine, Inspection


async def read_logs(
    engine: Engine, look: Callable[[], Awaitable[Inspection | None]], options: LogOptions
) -> AsyncIterator[LogLine]:
    """Give a container's output, oldest first; with ``follow`` until it ends.

    Args:
        look: finds the container; one that does not exist has no output.

    Raises:
        ExecutorError: its log driver keeps nothing that could be read.
        EngineUnavailable: the engine went away.
    """
    container = await look()
    if container is None:
        return
    if options.tail > 0 and not (options.stdout and options.stderr):
        # The engine counts lines before it chooses the stream, so the last ones are found here.
        everything = msgspec.structs.replace(options, tail=-1, follow=False)
        async with aclosing(_read(engine, container, everything)) as lines:
            last: deque[LogLine] = deque(maxlen=options.tail)
            async for line in lines:
                last.append(line)
        for line in last:
            yield line
        if not options.follow:
            return
        since = last[-1].at + 1 if last else options.since
        options = msgspec.structs.replace(options, tail=-1, since=since)
    async with aclosing(_read(engine, container, options)) as lines:
        async for line in lines:
            yield line


async def _read(
    engine: Engine, container: Inspection, options: LogOptions
) -> AsyncGenerator[LogLine, None]:
    """Read one log answer."""
    query = {
        "stdout": str(int(options.stdout)),
        "stderr": str(int(options.stderr)),
        "follow": str(int(options.follow)),
        "timestamps": "1",
        "tail": "all" if options.tail < 0 else str(options.tail),
    }
    for key, time in (("since", options.since), ("until", options.until)):
        if time:
            query[key] = f"{time // NANOSECONDS_PER_SECOND}.{time % NANOSECONDS_PER_SECOND:09d}"
    parser = LogParser(has_tty=container.has_tty)
    try:
        path = f"/containers/{container.container_id}/logs"
        with engine.output_place():
            async with engine.stream(path, query, engine.outputs) as stream:
                async for piece in stream:
                    for line in parser.feed(piece):
                        yield line
    except Refused as error:
        if error.status in (404, 409):  # it is gone, or going: the engine is removing it
            return
        raise ExecutorError(f"logs cannot be read: {error}") from error
    for line in parser.end():
        yield line
