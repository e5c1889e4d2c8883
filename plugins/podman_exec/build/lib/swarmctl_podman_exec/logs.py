"""Reading a container's output from Podman, whose time stamps may be whole seconds.

Until version 5 Podman tells the second of a line and no more, and no two lines may have one time:
who breaks off goes on after the last line he has. So lines are numbered: one that is not later than
the line before it counts as a nanosecond later. Since a log only grows, reading it again from the
beginning of any second gives every line the same number. Hence the laws here:

- both streams are always read, from the beginning of a second; what was not asked for is dropped
  after it was counted;
- ``tail`` is counted here.
"""

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
    if options.tail >= 0:
        last: deque[LogLine] = deque(maxlen=options.tail)
        newest = options.since
        everything = msgspec.structs.replace(options, tail=-1, follow=False)
        everything = msgspec.structs.replace(everything, stdout=True, stderr=True)
        async with aclosing(_read(engine, container, everything)) as lines:
            async for line in lines:
                newest = line.at + 1
                if _is_wanted(line, options):
                    last.append(line)
        for line in last:
            yield line
        if not options.follow:
            return
        options = msgspec.structs.replace(options, tail=-1, since=newest)
    async with aclosing(_read(engine, container, options)) as lines:
        async for line in lines:
            yield line


async def _read(
    engine: Engine, container: Inspection, options: LogOptions
) -> AsyncGenerator[LogLine, None]:
    """Read one log answer, and give what is wanted of it."""
    query = {
        "stdout": "1",
        "stderr": "1",
        "follow": str(int(options.follow)),
        "timestamps": "1",
        "tail": "all",
    }
    first_second = options.since // NANOSECONDS_PER_SECOND
    if options.since:
        query["since"] = str(first_second - 1)  # what is of that very time is left out
    parser = LogParser(has_tty=False)  # libpod frames a terminal's output, too
    numbering = Numbering(first_second)
    try:
        path = f"/containers/{container.container_id}/logs"
        with engine.output_place():
            async with engine.stream(path, query, engine.outputs) as stream:
                async for piece in stream:
                    for line in map(numbering.numbered, parser.feed(piece)):
                        if options.until and line.at > options.until:
                            return
                        if _is_wanted(line, options):
                            yield line
    except Refused as error:
        if error.status in (404, 409):  # it is gone, or going
            return
        raise ExecutorError(f"logs cannot be read: {error}") from error
    for line in map(numbering.numbered, parser.end()):
        if _is_wanted(line, options):
            yield line


class Numbering:
    """Gives each line of an answer a time of its own. Pure.

    Args:
        first_second: there may be lines of earlier ones, not all of them; they are left as they
            are.
    """

    def __init__(self, first_second: int) -> None:
        self._start = first_second * NANOSECONDS_PER_SECOND
        self._last = 0

    def numbered(self, line: LogLine) -> LogLine:
        """Return the line with the time that no other has."""
        if not self._last and line.at < self._start:
            return line
        self._last = max(line.at, self._last + 1)
        return msgspec.structs.replace(line, at=self._last)


def _is_wanted(line: LogLine, options: LogOptions) -> bool:
    """Return whether a line is of a stream and a time that were asked for."""
    return line.at >= options.since and (options.stdout if line.stream == 1 else options.stderr)
