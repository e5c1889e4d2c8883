"""How the tables say it: ages, sizes, shortened ids and errors, in the docker CLI's words.

Pure: the present comes in as an argument.
"""

from __future__ import annotations

SHORT_ID = 12
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


def human_duration(seconds: float) -> str:
    """Return a length of time to one part: ``About a minute``, ``3 hours``, ``2 weeks``."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 2:
        return "1 second"
    if seconds < _MINUTE:
        return f"{int(seconds)} seconds"
    if seconds < 2 * _MINUTE:
        return "About a minute"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for most, days, unit in ((24 * 7 * 2, 1, "days"), (24 * 30 * 2, 7, "weeks")):
        if hours < most:
            return f"{hours // 24 // days} {unit}"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / _DAY) // 365} years"


def age_of(then_ns: int, now_ns: int) -> str:
    """Return how long ago something was: ``3 minutes ago``."""
    return f"{human_duration((now_ns - then_ns) / 1e9).lower()} ago"


def bytes_size(size: float) -> str:
    """Return a size to four digits in powers of 1024: ``1.944GiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    at = 0
    while size >= 1024 and at < len(units) - 1:
        size /= 1024
        at += 1
    return f"{size:.4g}{units[at]}"


def short_id(text: str) -> str:
    """Return the first twelve letters of an id."""
    return text[:SHORT_ID]


def ellipsis(text: str, width: int) -> str:
    """Return at most ``width`` letters of ``text``, the last one a mark where some are missing."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def capitalized(text: str) -> str:
    """Return ``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]


def plain_image(image: str) -> str:
    """Return an image as tables show it: without the digest beside its tag."""
    named, _, digest = image.partition("@")
    return named if digest and ":" in named.rpartition("/")[2] else image
