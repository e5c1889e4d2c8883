"""Which events a client asks for: the ``filters`` of ``GET /events``. Pure.

Values of one key are alternatives (labels all have to be there), different keys have to agree
(moby daemon/events/filter.go). An object's key takes the beginning of its name or id, and only
events of such objects; of ours, a task's events are also its service's and its node's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.event import TASK
from .query import labelled, parse_filters

if TYPE_CHECKING:
    from ..model.event import Event
    from .query import Filters

_ENGINE_KINDS = ("container", "daemon", "image", "plugin", "volume")
_SWARM_KINDS = ("config", "network", "node", "secret", "service", TASK)
_OBJECTS = frozenset({*_ENGINE_KINDS, *_SWARM_KINDS})
FILTERS = _OBJECTS | {"type", "event", "scope", "label"}


class EventFilter:
    """What of all events one client wants.

    Args:
        text: the query's ``filters``, in either of the shapes that clients send.

    Raises:
        BadRequest: no JSON of these shapes, or an unknown key.
    """

    def __init__(self, text: str) -> None:
        filters = parse_filters(text, FILTERS)
        self._asked: Filters = {key: values for key, values in filters.items() if values}

    @property
    def tasks(self) -> bool:
        """Whether events of tasks are asked for; by nobody who does not name them."""
        return TASK in self._asked.get("type", ()) or TASK in self._asked

    def takes(self, event: Event) -> bool:
        """Return whether the client wants an event."""
        if event.type == TASK and not self.tasks:
            return False  # another client asks for those
        return all(_matches(event, key, wanted) for key, wanted in self._asked.items())


def _matches(event: Event, key: str, wanted: tuple[str, ...]) -> bool:
    if key == "type":
        return event.type in wanted
    if key == "event":
        return event.action in wanted
    if key == "scope":
        return event.scope in wanted
    if key == "label":
        return labelled(wanted, {**event.labels, **event.attributes})
    names = [event.id, event.attributes.get("name", "")] if event.type == key else []
    if event.type == TASK and key != TASK:
        names = [event.attributes.get(name, "") for name in (key, f"{key}.id")]
    return any(name.startswith(wanted) for name in names if name)
