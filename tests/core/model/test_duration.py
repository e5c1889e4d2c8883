"""Times and durations as text (core/model/duration.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.model.base import NEVER
from swarmctl.core.model.duration import (
    MAX_INT64,
    format_duration,
    format_time,
    parse_duration,
    parse_time,
)

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1767323045678901230, "2026-01-02T03:04:05.67890123Z"),
        (1767323045 * SECOND, "2026-01-02T03:04:05Z"),
    ],
)
def test_time_both_ways(time: int, text: str) -> None:
    """Times look as Go prints them, trailing zeros cut, and are read back."""
    assert format_time(time) == text
    assert parse_time(text) == time


@given(st.integers(-MAX_INT64, MAX_INT64))
def test_every_time_is_read_back(time: int) -> None:
    """Any nanosecond of 64 bits survives being printed."""
    assert parse_time(format_time(time)) == time


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-02T04:34:05+01:30", "2026-01-02T03:04:05Z"),
        ("2026-01-01T22:04:05-05:00", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.1234567899Z", "2026-01-02T03:04:05.123456789Z"),
        ("2026-01-02t03:04:05z", "2026-01-02T03:04:05Z"),
        ("0001-01-01T00:00:00Z", format_time(NEVER)),
    ],
)
def test_other_spellings_of_a_time(text: str, same: str) -> None:
    """Zones are applied, and decimals past the ninth are cut."""
    assert format_time(parse_time(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "noon",
        "2026-01-02",
        "2026-13-02T03:04:05Z",
        "2026-01-02T03:04:05",
        "9999-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    """What is not RFC 3339, no date, or beyond 64 bits is a ValueError that quotes it."""
    with pytest.raises(ValueError, match='^"' + text):
        parse_time(text)


def test_a_time_beyond_64_bits_is_not_printed() -> None:
    """A time that no Go client could hold is a programmer's error."""
    with pytest.raises(ValueError, match="does not fit 64 bits"):
        format_time(2**63)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("1.5µs", 1500),
        ("100ms", 100_000_000),
        ("1.5s", 1_500_000_000),
        ("1m0s", 60 * SECOND),
        ("1h2m3s", 3723 * SECOND),
        ("2160h0m0s", 7_776_000 * SECOND),
        ("-1m30s", -90 * SECOND),
    ],
)
def test_duration_both_ways(text: str, duration: int) -> None:
    """Durations look as Go prints them and are read back."""
    assert format_duration(duration) == text
    assert parse_duration(text) == duration


@given(st.integers(-MAX_INT64, MAX_INT64))
def test_every_duration_is_read_back(duration: int) -> None:
    """Any duration of 64 bits survives being printed."""
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", 0),
        ("+5s", 5 * SECOND),
        (".5s", SECOND // 2),
        ("5.s", 5 * SECOND),
        ("1h30m", 5400 * SECOND),
        ("1us", 1000),
        ("1μs", 1000),
        ("0.3333333333333333333h", 1_199_999_999_999),
    ],
)
def test_other_spellings_of_a_duration(text: str, duration: int) -> None:
    """Go's other spellings are read too."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        (".", 'time: invalid duration "."'),
        ("abc", 'time: invalid duration "abc"'),
        ("10", 'time: missing unit in duration "10"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1h 2m", 'time: unknown unit "h " in duration "1h 2m"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
        ("1" * 200 + "h", 'time: invalid duration "' + "1" * 200 + 'h"'),
    ],
)
def test_what_is_no_duration(text: str, error: str) -> None:
    """What is no duration is a ValueError in Go's words."""
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == error
