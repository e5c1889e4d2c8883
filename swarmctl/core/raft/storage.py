"""Where the stable part of the log is read from, and the storage that keeps it in memory.

Laws
- The core only reads. The host writes, when `Ready` or STORAGE_APPEND says so, and never changes
  what it has once handed out.
- Entries are dense: ``first_index() .. last_index()``, in rising index order, terms never falling.
- The term at ``first_index() - 1`` stays readable: the entry there is the snapshot's last one.

It must not know: roles, elections, who else is a member.
"""

from __future__ import annotations

from typing import Protocol

from swarmctl.core.raft.errors import Compacted, EntryUnavailable, SafetyViolation
from swarmctl.core.raft.message import ConfState, Entry, HardState, Snapshot

ENTRY_OVERHEAD = 8
"""Bytes an entry is taken to cost besides its data, so that empty entries are not free."""

NO_LIMIT = 2**63


class Storage(Protocol):
    """The stable log as the core reads it. Reads must be cheap: they happen inside `step`."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Hard state and the membership as of the snapshot; asked once, at construction."""

    def entries(self, lo: int, hi: int, max_size: int) -> tuple[Entry, ...]:
        """Entries ``[lo, hi)``, cut so that together they cost at most ``max_size`` bytes.

        The first one comes whatever it costs.

        Raises:
            Compacted: ``lo`` is before `first_index`.
            EntryUnavailable: ``hi`` is past ``last_index() + 1``.
        """

    def term(self, index: int) -> int:
        """Term of the entry at ``index``, ``first_index() - 1`` included.

        Raises:
            Compacted: before that.
            EntryUnavailable: after `last_index`.
        """

    def first_index(self) -> int:
        """Index of the oldest entry that `entries` can give; last_index() + 1 if there is none."""

    def last_index(self) -> int:
        """Index of the newest entry, or the snapshot's if there is none after it."""

    def snapshot(self) -> Snapshot | None:
        """The newest snapshot to send to a follower; None while one is still being made."""


class MemoryStorage:
    """A `Storage` in a list. Product-grade: a disk keeps one as the window it reads from.

    ``_entries[i]`` has index ``_start + 1 + i``; ``_start`` is the last compacted index. Appending
    and reading cost the entries involved, compaction the entries kept.
    """

    def __init__(
        self,
        snapshot: Snapshot | None = None,
        hard_state: HardState | None = None,
        entries: tuple[Entry, ...] = (),
    ) -> None:
        """Begin with what a disk has; entries that the snapshot covers are left out."""
        self._snapshot = snapshot or Snapshot()
        self._hard_state = hard_state or HardState()
        self._start = self._snapshot.index
        self._start_term = self._snapshot.term
        self._entries: list[Entry] = []
        self._withheld_below = 0
        self.append(entries)

    def initial_state(self) -> tuple[HardState, ConfState]:
        return self._hard_state, self._snapshot.conf_state

    def set_hard_state(self, hard_state: HardState) -> None:
        self._hard_state = hard_state

    def first_index(self) -> int:
        return self._start + 1

    def last_index(self) -> int:
        return self._start + len(self._entries)

    def term(self, index: int) -> int:
        offset = index - self._start - 1
        if offset < 0:
            if offset == -1:
                return self._start_term
            raise Compacted(f"entry {index} is compacted; the log begins at {self._start + 1}")
        if offset >= len(self._entries):
            raise EntryUnavailable(f"entry {index} is past the last one, {self.last_index()}")
        return self._entries[offset].term

    def entries(self, lo: int, hi: int, max_size: int) -> tuple[Entry, ...]:
        first = self._start + 1
        if lo < first:
            raise Compacted(f"entry {lo} is compacted; the log begins at {first}")
        if hi > first + len(self._entries):
            raise EntryUnavailable(f"entry {hi - 1} is past the last one, {self.last_index()}")
        return limit_size(self._entries[lo - first : hi - first], max_size)

    def snapshot(self) -> Snapshot | None:
        if self._snapshot.index < self._withheld_below:
            return None
        return self._snapshot

    def withhold_snapshot(self, below: int) -> None:
        """Send no snapshot older than index ``below``: it would not know a new member."""
        self._withheld_below = max(self._withheld_below, below)

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Add ``entries``; where they overlap the log, they replace it and all that followed.

        Raises:
            SafetyViolation: a hole would be left between the log and ``entries``.
        """
        if not entries:
            return
        offset = entries[0].index - self._start - 1
        if offset < 0:  # all or partly compacted by now: only the rest is news
            entries = entries[-offset:]
            offset = 0
            if not entries:
                return
        if offset > len(self._entries):
            raise SafetyViolation(
                f"entries from {entries[0].index} on would leave a hole after {self.last_index()}"
            )
        self._entries[offset:] = entries

    def install(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot that the leader sent.

        Raises:
            SafetyViolation: it is not newer than the one we have.
        """
        if snapshot.index < self._snapshot.index:
            raise SafetyViolation(
                f"snapshot {snapshot.index} is older than ours, {self._snapshot.index}"
            )
        self._snapshot = snapshot
        self._start = snapshot.index
        self._start_term = snapshot.term
        self._entries = []

    def replace_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of our own state, taken at an applied index; the log stays whole."""
        if snapshot.index < self._snapshot.index:
            raise SafetyViolation(
                f"snapshot {snapshot.index} is older than ours, {self._snapshot.index}"
            )
        self._snapshot = snapshot

    def compact(self, index: int) -> None:
        """Forget the entries up to and including ``index``.

        Raises:
            Compacted: they are gone already.
            EntryUnavailable: ``index`` is past the end.
        """
        if index <= self._start:
            raise Compacted(f"entry {index} is compacted; the log begins at {self._start + 1}")
        self._start_term = self.term(index)
        del self._entries[: index - self._start]
        self._start = index


def entry_size(entry: Entry) -> int:
    """Bytes that ``entry`` is taken to cost in a message."""
    return len(entry.data) + ENTRY_OVERHEAD


def limit_size(entries: list[Entry] | tuple[Entry, ...], max_size: int) -> tuple[Entry, ...]:
    """The longest prefix of at most ``max_size`` bytes, but at least one entry if there is any."""
    if max_size < NO_LIMIT and len(entries) > 1:
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.data) + ENTRY_OVERHEAD
            if size > max_size and count:
                return tuple(entries[:count])
    return tuple(entries)
