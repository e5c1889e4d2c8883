"""A container's output as lines: an engine's frames taken apart, its cut lines put together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from swarmctl.plugins import ExecutorError, LogLine
from swarmctl.plugins.model import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swarmctl.plugins.model import Time

HEADER_BYTES = 8
STDOUT = 1
MAX_LINE_BYTES = 1 << 20
"""A longer line is given in pieces, so that output without line ends takes no memory."""
STAMP_BYTES = len(b"2006-01-02T15:04:05.000000000Z ")
ENGINE_PIECE_BYTES = 16 * 1024
"""Where the engine cuts a line; to a terminal's output it then adds another time stamp."""

_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")


class LogParser:
    """Turns the bytes of a log answer into lines. Pure.

    Without a terminal the answer is frames, ``[stream, 0, 0, 0, length (4)] + message``; with one
    it is plain text, whose carriage returns are kept. Either way each message starts with a time
    stamp, and the engine cuts messages at 16 KiB, so one line may be several messages, of which
    only the last has a line end.
    """

    def __init__(self, *, has_tty: bool) -> None:
        self._has_tty = has_tty
        self._buffer = b""
        self._open: dict[int, LogLine] = {}

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """Take the next bytes, in whatever pieces they come; give the lines they complete.

        Raises:
            ExecutorError: the engine says that it cannot read on.
        """
        self._buffer += data
        messages = self._lines_of_terminal() if self._has_tty else self._frames()
        for stream, message in messages:
            yield from self._message(stream, message)

    def end(self) -> Iterator[LogLine]:
        """Give what is left when the output has ended without a line end."""
        if self._has_tty and self._buffer:
            yield from self._message(STDOUT, self._buffer)
        for line in self._open.values():
            yield msgspec.structs.replace(line, partial=True)
        self._open.clear()

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        at, data = 0, self._buffer
        while len(data) - at >= HEADER_BYTES:
            begin = at + HEADER_BYTES
            end = begin + int.from_bytes(data[at + 4 : begin], "big")
            if len(data) < end:
                break
            yield data[at], data[begin:end]
            at = end
        self._buffer = data[at:]

    def _lines_of_terminal(self) -> Iterator[tuple[int, bytes]]:
        at, data = 0, self._buffer
        while True:
            piece_end = at + STAMP_BYTES + ENGINE_PIECE_BYTES
            found = data.find(b"\n", at, piece_end)
            if found >= 0:
                end = found + 1
            elif len(data) >= piece_end + STAMP_BYTES:
                end = _end_of_piece(data, piece_end)
            else:
                break
            yield STDOUT, data[at:end]
            at = end
        self._buffer = data[at:]

    def _message(self, stream: int, message: bytes) -> Iterator[LogLine]:
        stamp, _, text = message.partition(b" ")
        before = self._open.pop(stream, None)
        if before is None:
            line = LogLine(at=_time(stamp, message), stream=stream, text=text)
        else:
            line = LogLine(at=before.at, stream=stream, text=before.text + text)
        if message.endswith(b"\n"):
            yield msgspec.structs.replace(line, text=line.text[:-1])
        elif len(line.text) >= MAX_LINE_BYTES:
            yield msgspec.structs.replace(line, partial=True)
        else:
            self._open[stream] = line


def _time(stamp: bytes, message: bytes) -> Time:
    """Return the time that a message begins with; the engine's own words have none."""
    try:
        return parse_time(stamp.decode(errors="replace"))
    except ValueError:
        said = message.decode(errors="replace").strip()
        raise ExecutorError(f"logs cannot be read: {said}") from None


def _end_of_piece(data: bytes, piece_end: int) -> int:
    """Return where a message of a terminal ends that has no line end within the engine's piece.

    The next one's stamp follows at once. A log driver that cuts elsewhere is not understood: then
    the stamps inside are part of the text, as they are for every client of the engine.
    """
    if _STAMP.match(data, piece_end):
        return piece_end
    end = data.find(b"\n", piece_end)
    return end + 1 if end >= 0 else len(data)
