"""Charts of replicas over time: in a terminal, as SVG, as PNG. Pure; written by hand on purpose.

A chart has a step line (the number of tasks) and, behind it, the load. A library for it would weigh
more than everything else that the command line imports.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SPARKS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▁▂▃▄▅▆▇█"
HEIGHT = 12


class Series(NamedTuple):
    """One line: its name, and a value for each moment; None where there is none."""

    name: str
    values: Sequence[float | None]


class Chart(NamedTuple):
    """What is drawn.

    Attributes:
        seconds: from the first moment to the last.
        tasks: the number of tasks.
        loads: what led to it, each on a scale of its own.
    """

    title: str
    seconds: float
    tasks: Series
    loads: tuple[Series, ...] = ()


def sparkline(values: Iterable[float | None], width: int = 30) -> str:
    """Return values as one line of blocks, the newest on the right; a gap where there is none."""
    kept = [*values][-width:] if width else [*values]
    known = [value for value in kept if value is not None]
    if not known:
        return ""
    low, high = min(0.0, *known), max(known)
    span = (high - low) or 1.0
    return "".join(
        " " if value is None else SPARKS[min(7, int((value - low) / span * 7.999))]
        for value in kept
    )


def resampled(values: Sequence[float | None], width: int) -> list[float | None]:
    """Return so many values: of each stretch the largest, so that no peak is lost."""
    found: list[float | None] = []
    for column in range(min(width, len(values)) or 1):
        start = column * len(values) // width if len(values) > width else column
        end = max(start + 1, (column + 1) * len(values) // width)
        if len(values) <= width:
            end = start + 1
        known = [value for value in values[start:end] if value is not None]
        found.append(max(known) if known else None)
    return found


# --- in a terminal -------------------------------------------------------------------------------


def in_terminal(chart: Chart, width: int = 72) -> Iterator[str]:
    """Yield the lines of a chart."""
    counts = [value or 0.0 for value in resampled(chart.tasks.values, width)]
    top = max(1, round(max(counts, default=1)))
    yield chart.title
    for row in range(HEIGHT, 0, -1):
        label = f"{top * row / HEIGHT:g}" if row in (HEIGHT, HEIGHT // 2) else ""
        yield f"{label:>5} │{''.join(_cell(count, row, top) for count in counts)}".rstrip()
    yield f"    0 └{'─' * len(counts)}"
    end = clock_text(chart.seconds)
    yield f"       0{end:>{max(1, len(counts) - 1)}}"
    for load in chart.loads:
        line = sparkline(resampled(load.values, width), 0)
        most = max((value for value in load.values if value is not None), default=0.0)
        yield f"{load.name[:5]:>5}  {line}  up to {most:.4g}"


def _cell(count: float, row: int, top: int) -> str:
    filled = count / top * HEIGHT - (row - 1)
    return EIGHTHS[max(0, min(8, round(filled * 8)))]


def clock_text(seconds: float) -> str:
    """Return a length of time in two parts: ``1h05m``, ``12m30s``."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 60}m{whole % 60:02}s"


# --- as SVG --------------------------------------------------------------------------------------

WIDE, HIGH, LEFT, ABOVE, BELOW = 960, 360, 60, 40, 40
COLOURS = ("#9aa5b1", "#c9b37e", "#8fb39a", "#b08fb3")


def as_svg(chart: Chart) -> str:
    """Return a chart as an SVG document."""
    top = max(1.0, *(value or 0.0 for value in chart.tasks.values))
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{HIGH}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDE}" height="{HIGH}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="14">{escape(chart.title)}</text>',
    ]
    for part in range(5):
        y = HIGH - BELOW - part * (HIGH - ABOVE - BELOW) / 4
        lines.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDE - 20}" y2="{y:.1f}" stroke="#e3e3e3"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * part / 4:.3g}</text>'
        )
    for part in range(5):
        x = LEFT + part * (WIDE - LEFT - 20) / 4
        lines.append(
            f'<text x="{x:.1f}" y="{HIGH - 16}" text-anchor="middle">'
            f"{clock_text(chart.seconds * part / 4)}</text>"
        )
    for at, load in enumerate(chart.loads):
        most = max((value for value in load.values if value is not None), default=0.0) or 1.0
        colour = COLOURS[at % len(COLOURS)]
        lines.append(_polyline(_places(load.values, most), colour, 1))
        lines.append(
            f'<text x="{WIDE - 20}" y="{24 + 16 * at}" text-anchor="end" fill="{colour}">'
            f"{escape(load.name)} up to {most:.4g}</text>"
        )
    lines.append(_polyline(_steps(_places(chart.tasks.values, top)), "#1f5fa8", 2))
    return "\n".join([*lines, "</svg>\n"])


def _places(values: Sequence[float | None], top: float) -> list[tuple[float, float]]:
    """Return where values lie in the picture."""
    across, up = WIDE - LEFT - 20, HIGH - ABOVE - BELOW
    last = max(1, len(values) - 1)
    return [
        (LEFT + across * at / last, HIGH - BELOW - up * value / top)
        for at, value in enumerate(values)
        if value is not None
    ]


def _steps(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a line that goes across first and then up or down: a number has no in-between."""
    found: list[tuple[float, float]] = []
    for x, y in places:
        if found and found[-1][1] != y:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return found


def _polyline(places: Iterable[tuple[float, float]], colour: str, width: int) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


# --- as PNG --------------------------------------------------------------------------------------

_PALETTE = ((255, 255, 255), (31, 95, 168), (154, 165, 177), (227, 227, 227), (70, 70, 70))
_WHITE, _BLUE, _GREY, _LIGHT, _DARK = range(5)
_GLYPHS = {
    "0": (7, 5, 5, 5, 7),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 7, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (7, 4, 7, 5, 7),
    "7": (7, 1, 2, 2, 2),
    "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
    ".": (0, 0, 0, 0, 2),
    "h": (4, 4, 7, 5, 5),
    "m": (0, 7, 7, 5, 5),
    "s": (3, 4, 2, 1, 6),
}
"""Three by five dots each: what axes need."""


def as_png(chart: Chart) -> bytes:
    """Return a chart as a PNG; its axes have numbers, its title is the file's name."""
    top = max(1.0, *(value or 0.0 for value in chart.tasks.values))
    picture = _Picture()
    for part in range(5):
        y = HIGH - BELOW - part * (HIGH - ABOVE - BELOW) / 4
        picture.line((LEFT, y), (WIDE - 20, y), _LIGHT)
        text = f"{top * part / 4:.3g}"
        picture.write(LEFT - 10 - 8 * len(text), y - 5, text)
        x = LEFT + part * (WIDE - LEFT - 20) / 4
        moment = clock_text(chart.seconds * part / 4)
        picture.write(min(WIDE - 8 * len(moment), x - 4 * len(moment)), HIGH - 28, moment)
    for load in chart.loads:
        most = max((value for value in load.values if value is not None), default=0.0) or 1.0
        picture.lines(_places(load.values, most), _GREY)
    steps = _steps(_places(chart.tasks.values, top))
    picture.lines(steps, _BLUE)
    picture.lines([(x, y + 1) for x, y in steps], _BLUE)
    return picture.png()


class _Picture:
    """Dots with a palette, and lines of them."""

    def __init__(self) -> None:
        self._rows = [bytearray(WIDE) for _ in range(HIGH)]

    def dot(self, x: float, y: float, colour: int) -> None:
        if 0 <= x < WIDE and 0 <= y < HIGH:
            self._rows[int(y)][int(x)] = colour

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: int) -> None:
        across, up = end[0] - start[0], end[1] - start[1]
        dots = int(max(abs(across), abs(up))) + 1
        for at in range(dots + 1):
            self.dot(start[0] + across * at / dots, start[1] + up * at / dots, colour)

    def lines(self, places: Sequence[tuple[float, float]], colour: int) -> None:
        for start, end in pairwise(places):
            self.line(start, end, colour)

    def write(self, x: float, y: float, text: str) -> None:
        """Write in letters of twice the size of their dots."""
        for letter in text:
            for row, bits in enumerate(_GLYPHS.get(letter, (0,) * 5)):
                for column in range(3):
                    if bits & (4 >> column):
                        for part in range(4):
                            self.dot(x + 2 * column + part % 2, y + 2 * row + part // 2, _DARK)
            x += 8

    def png(self) -> bytes:
        """Return the picture (PNG, 8 bits a dot, with a palette)."""
        head = struct.pack(">IIBBBBB", WIDE, HIGH, 8, 3, 0, 0, 0)
        palette = bytes(part for colour in _PALETTE for part in colour)
        data = zlib.compress(b"".join(b"\0" + bytes(row) for row in self._rows), 9)
        chunks = ((b"IHDR", head), (b"PLTE", palette), (b"IDAT", data), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checked)
