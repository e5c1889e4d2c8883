"""Reading what the keeper wrote of a task's output (``keeper/output.py`` has the format).

:class:`LogReader` is synchronous and keeps its place, so its calls run in a thread one by one.
"""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from swarmctl.plugins import LogLine

from .keeper.output import segment_path, segments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swarmctl.plugins import LogOptions

CHUNK_BYTES = 256 * 1024
MAX_LINE_BYTES = 1024 * 1024  # a longer line is given in pieces
_RECORD = re.compile(rb"(\d+) ([12]) ([FP]) (.*)", re.DOTALL)
_FULL_LINE = re.compile(rb"^\d+ ([12]) F ", re.MULTILINE)


class LogReader:
    """Reads one task's output from the oldest line that is asked for to the present end.

    Args:
        folder: the task's directory.
        options: which lines; ``follow`` is the caller's.
    """

    def __init__(self, folder: str, options: LogOptions) -> None:
        self._folder = folder
        self._options = options
        self._streams = {1: options.stdout, 2: options.stderr}
        self._descriptor = -1
        self._number = 0
        self._rest = b""  # of a record that is not whole yet
        self._pieces: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self._last_at = {1: 0, 2: 0}
        # With a tail, lines are held back until the present end is reached.
        self._held: deque[LogLine] | None = (
            deque(maxlen=options.tail) if options.tail >= 0 else None
        )

    def read(self) -> list[LogLine] | None:
        """Return the next lines, perhaps none; None at the present end.

        After None more can come once the task has written more.
        """
        chunk = self._read_chunk()
        if chunk:
            lines = list(self._lines(chunk))
            if self._held is None:
                return lines
            self._held.extend(lines)
            return []
        if self._held is not None:
            held, self._held = list(self._held), None
            return held
        return None

    def finish(self) -> list[LogLine]:
        """Return lines that were begun and have no end."""
        return [line for stream in self._pieces for line in self._complete(stream, partial=True)]

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read_chunk(self) -> bytes:
        while True:
            numbers = segments(self._folder)  # looked up first: a finished file grows no more
            if self._descriptor < 0 and not self._open(numbers):
                return b""
            chunk = os.read(self._descriptor, CHUNK_BYTES)
            later = [number for number in numbers if number > self._number]
            if chunk or not later:
                return chunk
            self.close()

    def _open(self, numbers: list[int]) -> bool:
        """Open the next file, at first the oldest that matters."""
        if not self._number:
            numbers = self._skip_old(numbers)
        for number in numbers:
            if number <= self._number:
                continue
            try:
                path = segment_path(self._folder, number)
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # the oldest was dropped meanwhile
            self._number = number
            return True
        return False

    def _skip_old(self, numbers: list[int]) -> list[int]:
        """Leave out the oldest files when the newer ones hold all that is asked for."""
        needed = self._options.tail + 1  # one more, so that the first line is whole
        for index in range(len(numbers) - 1, 0, -1):
            path = segment_path(self._folder, numbers[index])
            try:
                if Path(path).stat().st_mtime_ns < self._options.since:
                    return numbers[index:]
                if self._options.tail >= 0:
                    needed -= self._count(path)
                    if needed <= 0:
                        return numbers[index:]
            except FileNotFoundError:
                continue
        return numbers

    def _count(self, path: str) -> int:
        if self._options.until:
            return 0  # lines that are too new do not fill a tail
        streams = _FULL_LINE.findall(Path(path).read_bytes())
        return sum(self._streams[int(stream)] for stream in streams)

    def _lines(self, chunk: bytes) -> Iterator[LogLine]:
        *records, self._rest = (self._rest + chunk).split(b"\n")
        for record in records:
            match = _RECORD.fullmatch(record)
            if match is None:
                continue  # cut short by a crash
            stream = int(match[2])
            if not self._streams[stream]:
                continue
            self._last_at[stream] = int(match[1])
            pieces = self._pieces[stream]
            pieces += match[4]
            if match[3] == b"F" or len(pieces) >= MAX_LINE_BYTES:
                yield from self._complete(stream, partial=match[3] == b"P")

    def _complete(self, stream: int, *, partial: bool) -> Iterator[LogLine]:
        at, text = self._last_at[stream], bytes(self._pieces[stream])
        self._pieces[stream] = bytearray()
        if partial and not text:
            return
        if at >= self._options.since and (not self._options.until or at <= self._options.until):
            yield LogLine(at=at, stream=stream, text=text, partial=partial)
