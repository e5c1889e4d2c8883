"""Other bounds at certain times: ``Mon-Fri 08:00-20:00 Europe/Zurich min=6``.

Several are separated by ``;``. Days and zone may be left out: every day, and UTC. A time that ends
before it begins goes on past midnight and belongs to the day it began on; 24:00 is the day's end.

What counts is what a clock on the wall shows in that zone. So a window is an hour shorter or longer
on the night when clocks are set, and what lies in the hour that is left out is not there that day.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_WORD = re.compile(r"\S+")
_CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)-([01]?\d|2[0-4]):([0-5]\d)", re.ASCII)
_BOUND = re.compile(r"(min|max)=(\d{1,6})", re.ASCII)


class ScheduleError(ValueError):
    """The text is no schedule; ``at`` is the place, counted in characters."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.at = at


class TimeWindow(NamedTuple):
    """Bounds for some hours of some days; None leaves a bound as it is.

    Attributes:
        days: 0 for Monday to 6.
        begin, end: minutes of the day; an end that is not after the begin is on the next day.
        text: as it was written, and at which place.
    """

    days: frozenset[int]
    begin: int
    end: int
    zone: str
    least: int | None
    most: int | None
    text: str
    at: int

    def covers(self, now: int) -> bool:
        """Return whether a wall time in nanoseconds lies within."""
        local = local_time(now, self.zone)
        minute = local.hour * 60 + local.minute
        today = local.weekday()
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and minute >= self.begin) or (
            yesterday in self.days and minute < self.end
        )


def local_time(now: int, zone: str) -> datetime:
    """Return what a clock on the wall of a zone shows."""
    return (_EPOCH + timedelta(microseconds=now // 1000)).astimezone(_zone(zone))


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def parse_schedule(text: str) -> tuple[TimeWindow, ...]:
    """Return the windows of a schedule.

    Raises:
        ScheduleError: it is none, and where.
    """
    windows: list[TimeWindow] = []
    start = 0
    for part in text.split(";"):
        if part.strip():
            windows.append(_window(part, start))
        start += len(part) + 1
    if not windows:
        raise ScheduleError("a time is expected, such as 08:00-20:00", 0)
    return tuple(windows)


def _window(part: str, start: int) -> TimeWindow:
    days: frozenset[int] | None = None
    hours: tuple[int, int] | None = None
    zone = ""
    bounds: dict[str, int] = {}
    for match in _WORD.finditer(part):
        word, at = match[0], start + match.start()
        bound = _BOUND.fullmatch(word)
        if bound:
            if bound[1] in bounds:
                raise ScheduleError(f"{bound[1]} is there twice", at)
            bounds[bound[1]] = int(bound[2])
        elif hours is None and word[0].isdigit():
            hours = _hours(word, at)
        elif hours is None and days is None:
            days = _days(word, at)
        elif hours is not None and not zone and not bounds:
            zone = _checked_zone(word, at)
        else:
            raise ScheduleError(f"{word!r} is not expected here", at)
    end = start + len(part.rstrip())
    if hours is None:
        raise ScheduleError("a time is expected, such as 08:00-20:00", end)
    if not bounds:
        raise ScheduleError("min=N or max=N is expected", end)
    least, most = bounds.get("min"), bounds.get("max")
    if least is not None and most is not None and least > most:
        raise ScheduleError(f"min={least} is more than max={most}", start + part.index("min="))
    everyday = frozenset(range(7))
    at = start + len(part) - len(part.lstrip())
    return TimeWindow(days or everyday, *hours, zone or "UTC", least, most, part.strip(), at)


def _days(word: str, at: int) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        first, dash, last = part.partition("-")
        names = [first, last] if dash else [first]
        for name in names:
            if name not in DAYS:
                raise ScheduleError(f"{name!r} is no day; there are {' '.join(DAYS)}", at)
            at += len(name) + 1
        begin, end = DAYS.index(names[0]), DAYS.index(names[-1])
        found.update(day % 7 for day in range(begin, end + 1 if begin <= end else end + 8))
    return frozenset(found)


def _hours(word: str, at: int) -> tuple[int, int]:
    match = _CLOCK.fullmatch(word)
    if match is None:
        raise ScheduleError(f"{word!r} is no time such as 08:00-20:00", at)
    begin, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if begin >= DAY_MINUTES or end > DAY_MINUTES:
        raise ScheduleError(f"{word!r}: a day has 24 hours, from 00:00 to 24:00", at)
    return begin, end


def _checked_zone(word: str, at: int) -> str:
    try:
        _zone(word)
    except Exception as error:  # of many kinds: no such file, no such package, a bad name
        raise ScheduleError(f"{word!r} is no time zone such as Europe/Zurich", at) from error
    return word
