"""What happened in the swarm, as ``GET /events`` tells it (docker-api.md section 2.6)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from .base import NANOSECONDS_PER_SECOND, ApiStruct, printed

SWARM, LOCAL = "swarm", "local"
CREATE, UPDATE, REMOVE = "create", "update", "remove"
SCALE, RECOMMEND = "scale", "recommend"
DAEMON, LOST = "daemon", "lost"
TASK = "task"


class Event(NamedTuple):
    """One thing that happened.

    Attributes:
        at: wall time in nanoseconds, the same on every manager where it is the log's.
        type: of the object: ``service``, ``node``...
        action: what happened to it.
        attributes: its name, and what changed.
        labels: of the object; asked about by filters, never shown.
        scope: ``swarm``, or ``local`` for what concerns this daemon alone.
    """

    at: int
    type: str
    action: str
    id: str
    attributes: dict[str, str]
    labels: dict[str, str]
    scope: str = SWARM


class Actor(ApiStruct, frozen=True, kw_only=True):
    """The object that something happened to."""

    ID: str = printed("")
    Attributes: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())


class EventMessage(ApiStruct, frozen=True, kw_only=True):
    """An event as the API shows it. ``Status``, ``ID`` and ``From`` are for containers only."""

    Status: str = msgspec.field(default="", name="status")
    ID: str = msgspec.field(default="", name="id")
    From: str = msgspec.field(default="", name="from")
    Type: str = printed("")
    Action: str = printed("")
    Actor: Actor = msgspec.field(default_factory=lambda: Actor())
    Scope: str = msgspec.field(default="", name="scope")
    Time: int = msgspec.field(default=0, name="time")
    TimeNano: int = msgspec.field(default=0, name="timeNano")


def message_of(event: Event) -> EventMessage:
    """Return an event as it is shown."""
    return EventMessage(
        Type=event.type,
        Action=event.action,
        Actor=Actor(ID=event.id, Attributes=event.attributes),
        Scope=event.scope,
        Time=event.at // NANOSECONDS_PER_SECOND,
        TimeNano=event.at,
    )
