"""Bounds by the clock on the wall (core/autoscaler/schedule.py)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.autoscaler.schedule import ScheduleError, parse_schedule

ZURICH = ZoneInfo("Europe/Zurich")


def at(text: str, zone: ZoneInfo | timezone = ZURICH) -> int:
    """Nanoseconds of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 10**9


def covers(schedule: str, now: int) -> bool:
    return any(window.covers(now) for window in parse_schedule(schedule))


@pytest.mark.parametrize(
    ("schedule", "time", "inside"),
    [
        ("Mon-Fri 08:00-20:00 Europe/Zurich min=6", "2026-06-01 08:00", True),  # a Monday
        ("Mon-Fri 08:00-20:00 Europe/Zurich min=6", "2026-06-01 07:59", False),
        ("Mon-Fri 08:00-20:00 Europe/Zurich min=6", "2026-06-01 19:59", True),
        ("Mon-Fri 08:00-20:00 Europe/Zurich min=6", "2026-06-01 20:00", False),
        ("Mon-Fri 08:00-20:00 Europe/Zurich min=6", "2026-06-06 12:00", False),
        ("Fri-Mon 08:00-20:00 Europe/Zurich min=6", "2026-06-06 12:00", True),
        ("Fri-Mon 08:00-20:00 Europe/Zurich min=6", "2026-06-03 12:00", False),
        ("Mon,Wed 8:00-9:00 Europe/Zurich min=6", "2026-06-03 08:30", True),
        ("Fri 22:00-06:00 Europe/Zurich min=6", "2026-06-05 23:00", True),  # past midnight
        ("Fri 22:00-06:00 Europe/Zurich min=6", "2026-06-06 05:59", True),
        ("Fri 22:00-06:00 Europe/Zurich min=6", "2026-06-05 05:00", False),
        ("00:00-24:00 min=2", "2026-06-05 23:59", True),
        ("20:00-24:00 Europe/Zurich max=2; 06:00-07:00 min=1", "2026-06-05 23:59", True),
    ],
)
def test_when_a_window_is_open(schedule: str, time: str, inside: bool) -> None:
    """Days, hours and zone say when; a window past midnight is of the day it began on."""
    assert covers(schedule, at(time)) is inside


def test_summer_time_moves_the_window_with_the_clock_on_the_wall() -> None:
    """08:00 in Zurich is 07:00 UTC in winter and 06:00 in summer, from the very night on."""
    schedule = "08:00-20:00 Europe/Zurich min=6"
    utc = timezone.utc
    assert not covers(schedule, at("2026-03-28 06:30", utc))
    assert covers(schedule, at("2026-03-29 06:30", utc))  # clocks were set at 01:00 UTC
    assert covers(schedule, at("2026-10-24 06:30", utc))
    assert not covers(schedule, at("2026-10-25 06:30", utc))


def test_the_night_when_clocks_are_set() -> None:
    """What lies in the hour that is left out is not there; the hour there twice counts twice."""

    def minutes(schedule: str, day: str) -> int:
        start = at(f"{day} 00:00")
        return sum(covers(schedule, start + minute * 60 * 10**9) for minute in range(26 * 60))

    assert minutes("Sun 02:00-03:00 Europe/Zurich min=2", "2026-03-29") == 0
    assert minutes("Sun 01:00-04:00 Europe/Zurich min=2", "2026-03-29") == 120
    assert minutes("Sun 02:00-03:00 Europe/Zurich min=2", "2026-10-25") == 120
    assert minutes("Sun 01:00-04:00 Europe/Zurich min=2", "2026-10-25") == 240


@given(
    st.integers(0, 2 * 366 * 24 * 60),
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.sets(st.integers(0, 6), min_size=1),
    st.sampled_from(["UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe"]),
)
def test_a_slow_obvious_reading_agrees(
    minute: int, begin: int, end: int, days: set[int], zone: str
) -> None:
    """What is inside is what the wall clock says, today or going on from yesterday."""
    names = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    listed = ",".join(names[day] for day in sorted(days))
    text = f"{listed} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02} {zone} min=2"
    moment = datetime(2025, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=minute)
    local = moment.astimezone(ZoneInfo(zone))
    now, today = local.hour * 60 + local.minute, local.weekday()
    expected = any(
        day in days and (begin <= clock < (end if end > begin else end + 1440))
        for day, clock in ((today, now), ((today - 1) % 7, now + 1440))
    )
    assert covers(text, int(moment.timestamp()) * 10**9) is expected


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", 0, "a time is expected"),
        ("Mon-Fri min=3", 13, "a time is expected"),
        ("Mon-Fri", 7, "a time is expected"),
        ("Mom 08:00-20:00 min=3", 0, "'Mom' is no day"),
        ("Mon-Fr 08:00-20:00 min=3", 4, "'Fr' is no day"),
        ("08:00-25:00 min=3", 0, "is no time such as"),
        ("08:00-24:30 min=3", 0, "a day has 24 hours"),
        ("08:00-20:00", 11, "min=N or max=N is expected"),
        ("08:00-20:00 Europe/Zurch min=3", 12, "'Europe/Zurch' is no time zone"),
        ("08:00-20:00 ../etc/passwd min=3", 12, "is no time zone"),
        ("08:00-20:00 min=3 min=4", 18, "min is there twice"),
        ("08:00-20:00 min=5 max=4", 12, "min=5 is more than max=4"),
        ("08:00-20:00 UTC min=5; 9-10 max=4", 23, "is no time such as"),
        ("08:00-20:00 min=5 UTC", 18, "'UTC' is not expected here"),
    ],
)
def test_a_refusal_names_the_place(text: str, place: int, words: str) -> None:
    """What is no schedule is refused where it goes wrong."""
    with pytest.raises(ScheduleError) as caught:
        parse_schedule(text)
    assert (caught.value.at, words in str(caught.value)) == (place, True), str(caught.value)
