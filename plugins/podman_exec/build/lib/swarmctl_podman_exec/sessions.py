"""Ends what a health check has started, when it takes too long. Blocking: used in threads.

Podman tells neither that a check's session runs nor its process id, but each session has a conmon
of its own, whose command line names it; what descends from that is the check.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def kill_session(session: str) -> None:
    """Kill all processes that descend from the conmon of a session of ``exec``."""
    parents: dict[int, int] = {}
    conmons: set[int] = set()
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # it has just ended
            parents[int(entry.name)] = _parent(entry)
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"-u" in words and session.encode() in words:
                conmons.add(int(entry.name))
    for pid in parents:
        if pid not in conmons and _descends(pid, conmons, parents):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _parent(entry: Path) -> int:
    return int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])


def _descends(pid: int, ancestors: set[int], parents: dict[int, int]) -> bool:
    seen = {pid}
    while (pid := parents.get(pid, 0)) and pid not in seen:
        if pid in ancestors:
            return True
        seen.add(pid)
    return False
