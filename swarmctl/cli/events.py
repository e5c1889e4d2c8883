"""``swarmctl events``: what happens in the swarm, line by line, as ``docker events`` tells it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from swarmctl.core.errors import SwarmError
from swarmctl.core.model.codec import decode_json
from swarmctl.core.model.event import DAEMON, LOST, EventMessage

from .api import filters_of
from .command import Failure, command
from .flags import TEXT, Flag
from .logs import moment_of
from .table import FILTER_FLAG, gathered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .command import Invocation

MAX_LINE_BYTES = 16 * 1024 * 1024


@command(
    "events [OPTIONS]",
    "Get real time events from the swarm",
    Flag("filter", FILTER_FLAG.kind, "Filter output based on conditions provided", short="f"),
    Flag("format", TEXT, "json | Go TEMPLATE"),
    Flag("since", TEXT, "Show all events created since timestamp"),
    Flag("until", TEXT, "Stream events until this timestamp"),
)
def events(call: Invocation) -> None:
    """Print events until the daemon ends them, or an interruption."""
    given = call.given
    shown = _form(given.text("format"))
    query = filters_of(gathered(given.each("filter")))
    now = time.time_ns()
    for name in ("since", "until"):
        if name in given:
            query[name] = moment_of(name, given.text(name), now)
    with call.api.stream("/events", query) as (_, chunks):
        for line in _lines(chunks):
            event = decode_json(line, EventMessage)
            sys.stdout.write(f"{shown(event)}\n")
            sys.stdout.flush()
            if (event.Type, event.Action) == (DAEMON, LOST):
                raise Failure(event.Actor.Attributes.get("message", "the stream broke off"))


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    unread = bytearray()
    for chunk in chunks:
        unread += chunk
        *whole, rest = unread.split(b"\n")
        unread = rest
        if len(unread) > MAX_LINE_BYTES:
            raise SwarmError("the daemon sent an event that has no end")
        yield from (bytes(line) for line in whole if line)


def _form(form: str) -> Callable[[EventMessage], str]:
    """Return what makes a line of an event."""
    if not form:
        return _line
    from swarmctl.core.model.gotemplate import Template

    template = Template("{{json .}}" if form == "json" else form)
    return template.render


def _line(event: EventMessage) -> str:
    """Return an event as the docker CLI prints it: time, type, action, id, attributes."""
    from datetime import datetime

    seconds, nanos = divmod(event.TimeNano, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds).astimezone()
    zone = moment.strftime("%z")
    zone = f"{zone[:3]}:{zone[3:5]}" if moment.utcoffset() else "Z"
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09d}{zone} {event.Type} {event.Action} "
    text += event.Actor.ID
    told = ", ".join(f"{key}={value}" for key, value in sorted(event.Actor.Attributes.items()))
    return f"{text} ({told})" if told else text
