"""Is what SQLite left unread of a write-ahead file a torn tail, or damage?

SQLite reads a write-ahead file up to its first broken frame and takes the rest for a write that a
crash cut short. A bit that flipped in the middle so looks like a shorter log, and acknowledged
writes are gone without a word. But we sync every transaction before the next one begins, and empty
the file at each start. So a crash breaks one transaction at most: the end of a second one behind
the break proves damage.

Pure: bytes in, a number out. The format is of sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
PAGE_BYTES = 4096
"""What SQLite gives a new database; only believed when the header cannot be."""

_MAGIC = (0x377F0682, 0x377F0683)
_MASK = 0xFFFFFFFF

Sum = tuple[int, int]


def transactions_past_a_break(read: Callable[[int, int], bytes]) -> int:
    """Return how many transactions end behind the first broken one.

    Args:
        read: gives bytes of the file, by offset and length; fewer at its end.
    """
    header = read(0, HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return 0
    start = _start(header)
    salts = header[16:24] if start is not None else read(HEADER_BYTES + 8, 8)
    order = "<" if header[3] & 1 == 0 else ">"
    page_bytes = PAGE_BYTES if start is None else int.from_bytes(header[8:12], "big")
    found = place = 0
    running = start
    step = FRAME_HEADER_BYTES + page_bytes
    while True:
        frame = read(HEADER_BYTES + place * step, step if running else FRAME_HEADER_BYTES)
        if len(frame) < FRAME_HEADER_BYTES:
            return found
        place += 1
        ours = frame[8:16] == salts
        ends = ours and frame[4:8] != bytes(4)
        if running is not None:
            running = _checked(running, frame, order) if ours and len(frame) == step else None
        if running is None and ends:
            found += 1


def _start(header: bytes) -> Sum | None:
    """Return the sum that the first frame goes on from; None when the header is broken."""
    magic = int.from_bytes(header[:4], "big")
    if magic not in _MAGIC:
        return None
    found = _sum((0, 0), header[:24], ">" if magic & 1 else "<")
    return found if found == struct.unpack(">II", header[24:32]) else None


def _checked(running: Sum, frame: bytes, order: str) -> Sum | None:
    """Return the sum up to and with a frame, None when it is not the one that the frame says."""
    found = _sum(running, frame[:8] + frame[FRAME_HEADER_BYTES:], order)
    return found if found == struct.unpack(">II", frame[16:24]) else None


def _sum(running: Sum, data: bytes, order: str) -> Sum:
    first, second = running
    for one, two in struct.iter_unpack(f"{order}II", data):
        first = (first + one + second) & _MASK
        second = (second + two + first) & _MASK
    return first, second
