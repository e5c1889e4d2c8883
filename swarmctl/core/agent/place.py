"""How far one task's output has been read, so that reading can go on where it broke off.

A line has no number. Its place is its time and, should several have the same one, how many of that
time were read before it: reading on asks for the lines since that time and leaves those out. (Only
a tail that begins among lines of one time cannot be told from them; executors give lines times of
their own.) Who has read nothing yet goes on from when the node began to read. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .executor import LogLine, LogOptions


class Place:
    """A reader's place in one task's output.

    Args:
        options: which lines are asked for, the first time.
    """

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._began = 0
        self._at = 0
        self._read = 0  # lines of that time
        self._again = 0  # of these, how many will come again

    def options(self) -> LogOptions:
        """Return what to ask for now; what then comes goes through :meth:`fresh`."""
        self._again = self._read
        if not self._read and not self._began:
            return self._options
        since = self._at if self._read else max(self._began, self._options.since)
        return replace(self._options, since=since, tail=-1)

    def began(self, at: int) -> None:
        """Note when, by its own clock, the node first began to read: it gave all until then."""
        self._began = self._began or at

    def fresh(self, lines: Iterable[LogLine]) -> Iterator[LogLine]:
        """Give those of the next lines that were not read before, and note that they were."""
        for line in lines:
            if self._again and line.at == self._at:
                self._again -= 1
                continue
            self._again = 0
            if line.at > self._at or not self._read:
                self._at, self._read = line.at, 1
            elif line.at == self._at:
                self._read += 1
            yield line
