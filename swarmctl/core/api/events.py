"""``GET /events``: what happens in the swarm, as it happens, one JSON object a line.

Answered by the node that is asked, from its own tables: so it outlasts leaders, and a manager that
does not lead tells the same as the one that does. A node that is no manager has nothing to tell,
and goes on if it becomes one. What its engine does is the engine's own to tell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ..errors import BadRequest, NotManager
from ..manager.eventlog import EventsLost
from ..model.base import SECOND
from ..model.codec import encode_json
from ..model.event import DAEMON, LOCAL, LOST, Event, message_of
from ..wire.http_server import StreamedResponse
from .event_filter import EventFilter
from .query import LAST_MOMENT_NS, moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..manager.eventlog import Reader
    from ..wire.http_server import Reply, SendChunk
    from .call import Call
    from .server import ApiServer


async def stream(server: ApiServer, call: Call) -> Reply:
    """``GET /events``: of the past since a moment, and what comes until another one.

    Raises:
        BadRequest: a wrong filter, or an end before the beginning.
    """
    first, last = call.query.get("since"), call.query.get("until")
    since = moment("since", first)
    until = moment("until", last) if last else LAST_MOMENT_NS
    if until < since:
        raise BadRequest(f"`since` time ({first}) cannot be after `until` time ({last})")
    wanted = EventFilter(call.query.get("filters"))
    left_s = (until - server.clock.now()) / SECOND if last else math.inf
    end = trio.current_time() + left_s
    # Opened before the client reads its head, so that what it does next is not missed.
    reader = server.node.events.open_reader(past=bool(first or last), tasks=wanted.tasks)

    def takes(event: Event) -> bool:
        return since <= event.at <= until and wanted.takes(event)

    async def write(send: SendChunk) -> None:
        failure = await _tell(reader, takes, end, send)
        if failure is not None:
            await send(_line(_broken_off(server, failure.message)))
            raise failure

    async def aclose() -> None:
        reader.close()

    content = (("Content-Type", "application/json"),)
    return StreamedResponse(200, content, write, aclose=aclose)


async def _tell(
    reader: Reader, takes: Callable[[Event], bool], end: float, send: SendChunk
) -> EventsLost | NotManager | None:
    """Send what comes, until a time of trio's clock; return why it ended before that, if so."""
    while True:
        try:
            events = reader.take()
        except (EventsLost, NotManager) as error:
            return error
        lines = [_line(event) for event in events if takes(event)]
        if lines:
            await send(b"".join(lines))
        elif not events:
            if trio.current_time() >= end:
                return None
            with trio.move_on_at(end):
                await reader.wait()
        else:
            await trio.lowlevel.checkpoint()


def _line(event: Event) -> bytes:
    return encode_json(message_of(event)) + b"\n"


def _broken_off(server: ApiServer, why: str) -> Event:
    """Return the last line of a stream that is cut: a client sees why, and asks again."""
    node = server.node
    attributes = {"name": node.hostname, "message": f"{why}; the stream ends here"}
    return Event(server.clock.now(), DAEMON, LOST, node.node_id, attributes, {}, LOCAL)


HANDLERS = {"stream": stream}
