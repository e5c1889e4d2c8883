"""Processes as /proc shows them: who they are, whose they are, and signals that reach only them.

A pid alone names nothing: it is used again. A process is named by pid, start time (in clock ticks
since boot) and boot id; ``pidfd`` keeps a signal from hitting a successor.
"""

from __future__ import annotations

import contextlib
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def boot_id() -> str:
    """Return the identity of this boot of this machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


class Process:
    """One line of /proc/<pid>/stat, as far as it is of use here."""

    __slots__ = ("cpu_ticks", "parent", "pid", "rss_bytes", "session", "start", "state")

    def __init__(self, text: str) -> None:
        # The name stands in parentheses and may hold anything, also blanks and parentheses.
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        self.pid = int(head.partition(" ")[0])
        self.state = fields[0]
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.cpu_ticks = int(fields[11]) + int(fields[12])
        self.start = int(fields[19])
        self.rss_bytes = int(fields[21]) * PAGE_BYTES

    @property
    def alive(self) -> bool:
        """False for a zombie: it runs no more and only waits for its parent to ask."""
        return self.state not in "ZX"


def read(pid: int) -> Process | None:
    """Return what /proc says of ``pid`` now, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return Process(file.read())
    except (OSError, IndexError, ValueError):
        return None


def all_processes() -> list[Process]:
    """Return every process that this one may see."""
    found = (read(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def is_same(pid: int, start: int) -> bool:
    """Is ``pid`` still the process that started then, and not a zombie?"""
    process = read(pid)
    return process is not None and process.start == start and process.alive


def open_pidfd(pid: int, start: int) -> int | None:
    """Return a descriptor of exactly that process, or None when it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if is_same(pid, start):  # the descriptor was open already, so the answer is about it
        return descriptor
    os.close(descriptor)
    return None


def send_signal(pid: int, start: int, number: int) -> bool:
    """Signal exactly that process; False when it is gone or may not be signalled."""
    descriptor = open_pidfd(pid, start)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def members(pid: int, start: int, marker: bytes) -> list[Process]:
    """Return the living processes of one task, found without a cgroup.

    Those of the session that ``pid`` opened, its descendants, and whatever carries ``marker`` in
    its environment (which finds those who left the session and lost their parent).
    """
    everyone = all_processes()
    leader = next((process for process in everyone if process.pid == pid), None)
    # A stranger that got the pid later: its session and children are not ours.
    reused = leader is not None and leader.start != start
    ours: dict[int, Process] = {}
    for process in everyone:
        in_session = process.session == pid and not reused
        if in_session or has_marker(process.pid, marker):
            ours[process.pid] = process
    for process in _descendants(everyone, [] if reused else [pid, *ours]):
        ours[process.pid] = process
    own = os.getpid()
    return [
        process
        for process in ours.values()
        if process.alive and process.pid != own and process.start >= start
    ]


def _descendants(everyone: Iterable[Process], roots: Iterable[int]) -> Iterator[Process]:
    children: dict[int, list[Process]] = {}
    for process in everyone:
        children.setdefault(process.parent, []).append(process)
    waiting = list(roots)
    seen = set(waiting)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.pid not in seen:
                seen.add(child.pid)
                waiting.append(child.pid)
                yield child


def environment(pid: int) -> dict[str, str]:
    """Return the environment a process was started with; empty when it cannot be read."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        return {
            name.decode(errors="surrogateescape"): value.decode(errors="surrogateescape")
            for name, _, value in pairs
        }
    return {}


def has_marker(pid: int, marker: bytes) -> bool:
    """Was this process started with ``marker`` (``NAME=value``) in its environment?"""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return marker in file.read().split(b"\0")
    except OSError:
        return False
