"""Is there room for the log? Said early, while there still is some.

A disk that is full is foreseeable, and a manager that runs into it half way through a write helps
nobody. Below a reserve no change is accepted, so the room that is left stays for what has to be
written anyway: votes, what a leader sends, the snapshot that shortens the log.

It only looks; whose disk it is and what follows is the caller's business.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RESERVE_BYTES = 64 * 1024 * 1024
SMALL_DISK_PART = 10  # of a disk that is itself small, a tenth is reserved
MARGIN = 1.25  # so much more has to be free before changes are accepted again
MIB = 1024 * 1024


def complaint(directory: Path, *, before: str = "") -> str:
    """Return what is wrong in a sentence, or nothing when there is room.

    Args:
        before: what was said last time: a full disk counts as full until some more is free.
    """
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    reserve = min(RESERVE_BYTES, found.f_blocks * found.f_frsize // SMALL_DISK_PART)
    if free >= reserve * (MARGIN if before else 1):
        return ""
    return (
        f"the disk under {directory} has {free / MIB:.1f} MiB left; below {reserve / MIB:.1f} MiB "
        "this manager accepts no changes. Free some space, and it goes on by itself"
    )
