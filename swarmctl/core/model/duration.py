"""Times and durations as text, after Go: RFC 3339 with nanoseconds, and ``1h2m3.5s``.

Inside, both are integer nanoseconds; only JSON and the command line see text. Pure: it knows no
clock and no locale.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from functools import lru_cache

from .base import NANOSECONDS_PER_SECOND, NEVER, Time

MAX_INT64 = 2**63 - 1

# --- times ---------------------------------------------------------------------------------------

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time: how :data:`~swarmctl.core.model.base.NEVER` looks in JSON."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


def format_time(time: int) -> str:
    """Return RFC 3339 in UTC with up to nine decimals, trailing zeros cut, as Go prints it.

    Args:
        time: nanoseconds since the Unix epoch, within 64 bits; NEVER gives Go's zero time.

    Raises:
        ValueError: the time does not fit 64 bits, so no Go client could hold it.
    """
    if time == NEVER:
        return ZERO_TIME
    if abs(time) > MAX_INT64:
        raise ValueError(f"time {int(time)} does not fit 64 bits of nanoseconds")
    seconds, nanoseconds = divmod(time, NANOSECONDS_PER_SECOND)
    if not nanoseconds:
        return f"{_format_second(seconds)}Z"
    return f"{_format_second(seconds)}.{f'{nanoseconds:09d}'.rstrip('0')}Z"


@lru_cache(maxsize=4096)
def _format_second(seconds: int) -> str:
    # Objects made by one command share their seconds, so a list of thousands formats a few.
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def parse_time(text: str) -> Time:
    """Return the time that RFC 3339 ``text`` names, in any zone; year 1 is NEVER.

    Decimals past the ninth are cut, as Go does.

    Raises:
        ValueError: not RFC 3339, no such date, or outside 64 bits of nanoseconds.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is no RFC 3339 time such as 2006-01-02T15:04:05.999999999Z')
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
        offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    except ValueError as error:
        raise ValueError(f'"{text}" is no RFC 3339 time: {error}') from None
    if year == 1:
        return NEVER
    elapsed = moment - _EPOCH + (offset if match[8] == "-" else -offset)
    seconds = elapsed.days * 86_400 + elapsed.seconds
    time = seconds * NANOSECONDS_PER_SECOND + int(f"{match[7] or '':0<9.9}")
    if abs(time) > MAX_INT64:
        raise ValueError(f'"{text}" is outside the years 1678 to 2262')
    return Time(time)


# --- durations -----------------------------------------------------------------------------------

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek letter mu
    "ms": 1_000_000,
    "s": NANOSECONDS_PER_SECOND,
    "m": 60 * NANOSECONDS_PER_SECOND,
    "h": 3_600 * NANOSECONDS_PER_SECOND,
}
_TERM = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)
_MAX_DURATION_TEXT = 100


def parse_duration(text: str) -> int:
    """Return the nanoseconds that a Go duration such as ``1h2m3s`` or ``-1.5ms`` names.

    Raises:
        ValueError: in Go's words, such as ``time: unknown unit "d" in duration "1d"``.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    if not rest or len(rest) > _MAX_DURATION_TEXT:
        raise ValueError(f'time: invalid duration "{text}"')
    total = Fraction(0)
    position = 0
    while position < len(rest):
        match = _TERM.match(rest, position)
        if match is None:
            raise ValueError(f'time: invalid duration "{text}"')
        number, unit = match.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += Fraction(f"0{number}0" if "." in number else number) * _UNITS[unit]
        position = match.end()
    if total > MAX_INT64:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * int(total)


def format_duration(duration: int) -> str:
    """Return ``duration`` nanoseconds as Go prints them: ``1h2m3.5s``, ``100ms``, ``0s``."""
    sign = "-" if duration < 0 else ""
    rest = abs(duration)
    if rest < NANOSECONDS_PER_SECOND:
        for unit in ("ms", "µs", "ns"):
            if rest >= _UNITS[unit]:
                return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
        return "0s"
    minutes, seconds = divmod(rest, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, NANOSECONDS_PER_SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(amount: int, unit: int) -> str:
    whole, part = divmod(amount, unit)
    if not part:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{f'{part:0{digits}d}'.rstrip('0')}"
