"""What is told in order may never go back: versions of an object, indexes of a stream of events.

Weaker than linearizability and much cheaper, so it can watch streams of any length; and it sees
what a register's values cannot show, a version number that falls or stands for two contents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Sighting:
    """Somebody saw an index between two times. In a stream both are the place in the stream.

    Attributes:
        index: what may not fall: an object's version, an event's log index.
        content: what was seen with it.
    """

    call: float
    end: float
    index: int
    content: str = ""


def first_fall(sightings: Iterable[Sighting]) -> tuple[Sighting, Sighting] | None:
    """Return two sightings, one over before the other, whose indexes fall; None if none do."""
    seen = list(sightings)
    ended = sorted(seen, key=lambda one: one.end)
    highest: Sighting | None = None
    position = 0
    for one in sorted(seen, key=lambda one: one.call):
        while ended[position].end < one.call:
            if highest is None or ended[position].index > highest.index:
                highest = ended[position]
            position += 1
        if highest is not None and one.index < highest.index:
            return highest, one
    return None


def first_repeat(stream: Iterable[Sighting]) -> tuple[Sighting, Sighting] | None:
    """Return two sightings of one stream with the same index and content, or None."""
    seen: dict[tuple[int, str], Sighting] = {}
    for one in stream:
        first = seen.setdefault((one.index, one.content), one)
        if first is not one:
            return first, one
    return None


def first_contradiction(sightings: Iterable[Sighting]) -> tuple[Sighting, Sighting] | None:
    """Return two sightings of one object with the same index and other content, or None."""
    seen: dict[int, Sighting] = {}
    for one in sightings:
        first = seen.setdefault(one.index, one)
        if first.content != one.content:
            return first, one
    return None
