"""Where a task's output goes: numbered files of records, the oldest dropped.

A record is one line, ``<nanoseconds> <stream> <F|P> <text>``: ``F`` ends a line of the task,
``P`` is a piece of one that has not ended yet. Pieces are written as they come, so the keeper
holds no output in memory and a killed keeper loses none. No two records have the same time, so a
reader can go on after the last one it has. Files are never renamed: a reader that
follows moves on to the next number.
"""

from __future__ import annotations

import contextlib
import os

DEFAULT_MAX_BYTES = 10 * 1024 * 1024
DEFAULT_MAX_FILES = 3
PREFIX, SUFFIX = "output.", ".log"


def segments(folder: str) -> list[int]:
    """Return the numbers of the files in ``folder``, oldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    numbers = (n[len(PREFIX) : -len(SUFFIX)] for n in names if n.startswith(PREFIX))
    return sorted(int(number) for number in numbers if number.isdigit())


def segment_path(folder: str, number: int) -> str:
    """Return the path of file ``number``."""
    return f"{folder}/{PREFIX}{number:08d}{SUFFIX}"


class OutputFiles:
    """Writes one task's records.

    Attributes:
        written: bytes written since this object was made; tells a follower that there is more.
    """

    def __init__(self, folder: str, *, max_bytes: int, max_files: int) -> None:
        self.written = 0
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_files = max_files
        numbers = segments(folder)
        self._number = numbers[-1] if numbers else 1
        self._last_at = 0
        self._lost = 0
        self._lost_why = ""
        self._descriptor = -1
        self._size = 0

    def write(self, stream: int, data: bytes, at: int) -> None:
        """Append a chunk of output. A full disk loses output, never the task; it is told later."""
        *lines, rest = data.split(b"\n")
        at = max(at, self._last_at + 1)
        if self._lost:
            text = f"[swarmctl: {self._lost} bytes of output were lost: {self._lost_why}]"
            if self._append(b"%d 2 F %s\n" % (at, text.encode())):
                self._lost = 0
                at += 1
        for line in lines:
            if not self._append(b"%d %d F %s\n" % (at, stream, line)):
                self._lost += len(line) + 1
            at += 1
        if rest:
            if not self._append(b"%d %d P %s\n" % (at, stream, rest)):
                self._lost += len(rest)
            at += 1
        self._last_at = at - 1

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, record: bytes) -> bool:
        try:
            if self._descriptor < 0:
                self._open()
            if self._size and self._size + len(record) > self._max_bytes:
                self._next_file()
            view = memoryview(record)
            while view:
                count = os.write(self._descriptor, view)
                self._size += count
                view = view[count:]
        except OSError as error:
            self._lost_why = error.strerror or str(error)
            self.close()  # opening again ends a record that was cut short
            return False
        self.written += len(record)
        return True

    def _open(self) -> None:
        path = segment_path(self._folder, self._number)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        # A keeper that was killed, or a full disk, can leave half a record.
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size += os.write(self._descriptor, b"\n")

    def _next_file(self) -> None:
        self.close()
        self._number += 1
        self._open()
        for number in segments(self._folder)[: -self._max_files]:
            with contextlib.suppress(OSError):
                os.unlink(segment_path(self._folder, number))
