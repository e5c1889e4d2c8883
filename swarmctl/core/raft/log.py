"""One member's log: the stable part in storage, the unstable tail in memory, and three marks.

    storage                     unstable
    |-----------------------------|----------------|-------------|
    first_index                 offset          writing      last_index
                  applied <= applying <= committed

``unstable[:writing - offset]`` has been handed out for writing, the rest not yet. Where storage
and tail overlap (a new leader has overwritten what is being written), the tail is right.

Laws
- ``committed`` never falls, and nothing at or before it is ever replaced.
- An entry leaves the tail only when storage is sure to hold it and no older write can follow.
- Without unstable entries, storage ends at ``offset - 1``. So the log always ends where the tail
  does, and reading its end costs nothing.

It must not know: members, votes, how entries are sent.
"""

from __future__ import annotations

from swarmctl.core.raft.errors import Compacted, LogLost, SafetyViolation
from swarmctl.core.raft.message import Entry, EntryKind, Snapshot
from swarmctl.core.raft.storage import NO_LIMIT, Storage, entry_size, limit_size


class RaftLog:
    def __init__(self, storage: Storage, *, max_applying_size: int = NO_LIMIT) -> None:
        """Take up the log that ``storage`` holds, with nothing committed past its beginning.

        Args:
            max_applying_size: bytes of entries handed out for applying and not yet applied.
        """
        self._storage = storage
        start = storage.first_index() - 1
        self.committed = start
        self.applying = start
        self.applied = start
        self.last_index = storage.last_index()
        self.last_term = storage.term(self.last_index)
        self._unstable: list[Entry] = []
        self._offset = self.last_index + 1
        self._writing = self._offset
        self._snapshot: Snapshot | None = None
        self._snapshot_writing = False
        self._max_applying_size = max_applying_size
        self._applying_size = 0
        self._applying_paused = False

    # Reading

    def first_index(self) -> int:
        if self._snapshot is not None:
            return self._snapshot.index + 1
        return self._storage.first_index()

    def term(self, index: int) -> int | None:
        """Term of the entry at ``index``; None if it is compacted or not there yet."""
        if index > self.last_index:
            return None
        if index >= self._offset:
            return self._unstable[index - self._offset].term
        if self._snapshot is not None:
            return self._snapshot.term if index == self._snapshot.index else None
        try:
            return self._storage.term(index)
        except Compacted:
            return None

    def matches(self, index: int, term: int) -> bool:
        return self.term(index) == term

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Is a log that ends at (term, index) at least as complete as ours?"""
        return (term, index) >= (self.last_term, self.last_index)

    def entries(self, lo: int, max_size: int) -> tuple[Entry, ...]:
        """Entries from ``lo`` on, at most ``max_size`` bytes but at least one if there is any.

        Raises:
            Compacted: ``lo`` is not in the log any more.
        """
        if lo > self.last_index:
            return ()
        return self.slice(lo, self.last_index + 1, max_size)

    def slice(self, lo: int, hi: int, max_size: int) -> tuple[Entry, ...]:
        """Entries ``[lo, hi)`` under the same limit.

        Raises:
            Compacted: ``lo`` is not in the log any more.
        """
        offset = self._offset
        if lo >= offset:
            return limit_size(self._unstable[lo - offset : hi - offset], max_size)
        if self._snapshot is not None:
            raise Compacted(f"entry {lo} is covered by snapshot {self._snapshot.index}")
        stable = self._storage.entries(lo, min(hi, offset), max_size)
        if hi <= offset or len(stable) < offset - lo:
            return stable
        left = max_size - sum(entry_size(entry) for entry in stable)
        if left <= 0:
            return stable
        rest = limit_size(self._unstable[: hi - offset], left)
        if entry_size(rest[0]) > left:  # the one entry that always passes has passed already
            return stable
        return stable + rest

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """Where a log whose entry near ``index`` has ``term`` can at best agree with ours.

        Returns:
            The largest index up to ``index`` whose term here is at most ``term``, and that term;
            0 as term where ours is not known.
        """
        while index > 0:
            ours = self.term(index)
            if ours is None:
                return index, 0
            if ours <= term:
                return index, ours
            index -= 1
        return 0, 0

    def has_unapplied_conf_change(self) -> bool:
        """Is there a membership change that is committed and not applied?"""
        lo, hi = self.applied + 1, self.committed + 1
        while lo < hi:
            page = self.slice(lo, hi, self._max_applying_size)
            if any(entry.kind is not EntryKind.NORMAL for entry in page):
                return True
            lo += len(page)
        return False

    # Growing

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Put ``entries`` at the end, or in the place of what is there from their index on.

        Raises:
            SafetyViolation: committed entries would be replaced, or a hole would be left.
        """
        first = entries[0].index
        if first <= self.committed:
            raise SafetyViolation(f"entry {first} is committed; it cannot be replaced")
        if first > self.last_index + 1:
            raise SafetyViolation(f"entry {first} would leave a hole after {self.last_index}")
        if first > self._offset:
            if first <= self.last_index:
                del self._unstable[first - self._offset :]
                self._writing = min(self._writing, first)
            self._unstable.extend(entries)
        else:
            self._unstable = list(entries)
            self._offset = first
            self._writing = first
        last = entries[-1]
        self.last_index = last.index
        self.last_term = last.term

    def try_append(
        self, prev_index: int, prev_term: int, entries: tuple[Entry, ...], leader_commit: int
    ) -> int | None:
        """A follower's append: add what is new, and learn what is committed.

        Entries that we have are skipped, and the log is cut only at an entry that contradicts
        ours: an old message that arrives late must not cut off what we have acknowledged since.
        Commitment is learnt only as far as this message vouches for our log.

        Returns:
            The last index that now agrees with the leader's log; None if ours has no entry
            (prev_term, prev_index) to go on from.

        Raises:
            SafetyViolation: the leader contradicts a committed entry.
        """
        if self.term(prev_index) != prev_term:
            return None
        last_new = prev_index + len(entries)
        if entries:
            if entries[-1].index != last_new:
                raise SafetyViolation(f"entries after {prev_index} are not dense")
            if prev_index == self.last_index:
                self.append(entries)
            else:
                for position, entry in enumerate(entries):
                    if self.term(entry.index) != entry.term:
                        self.append(entries[position:] if position else entries)
                        break
        self.commit_to(min(leader_commit, last_new))
        return last_new

    def commit_to(self, index: int) -> None:
        """Raise the commit mark; a lower ``index`` is no news.

        Raises:
            LogLost: we do not have that entry; our log was lost or truncated.
        """
        if index <= self.committed:
            return
        if index > self.last_index:
            raise LogLost(
                f"entry {index} is committed but our log ends at {self.last_index}: "
                "has it been damaged, truncated or lost?"
            )
        self.committed = index

    def restore(self, snapshot: Snapshot) -> None:
        """Replace the whole log by a snapshot from the leader."""
        self.committed = snapshot.index
        self.last_index = snapshot.index
        self.last_term = snapshot.term
        self._unstable = []
        self._offset = snapshot.index + 1
        self._writing = self._offset
        self._snapshot = snapshot
        self._snapshot_writing = False

    # Writing: the tail's way into storage

    @property
    def has_unstable_entries(self) -> bool:
        """Are there entries of which we do not know that storage holds them?"""
        return bool(self._unstable)

    @property
    def has_entries_to_write(self) -> bool:
        return self._writing <= self.last_index

    def entries_to_write(self) -> tuple[Entry, ...]:
        return tuple(self._unstable[self._writing - self._offset :])

    @property
    def pending_snapshot(self) -> Snapshot | None:
        """A snapshot that storage does not hold yet."""
        return self._snapshot

    def snapshot_to_write(self) -> Snapshot | None:
        return None if self._snapshot_writing else self._snapshot

    def accept_writing(self) -> None:
        """Everything unstable is on its way to storage now."""
        if self._unstable:
            self._writing = self.last_index + 1
        self._snapshot_writing = self._snapshot is not None

    def stable_to(self, index: int, term: int) -> None:
        """Storage holds the log up to (term, index) for good; forget that much of the tail.

        Ignored if the tail says otherwise: it has been replaced since the write was issued.
        """
        if not self._offset <= index <= self.last_index:
            return
        count = index + 1 - self._offset
        if self._unstable[count - 1].term != term:
            return
        del self._unstable[:count]
        self._offset = index + 1
        self._writing = max(self._writing, self._offset)

    def stable_snapshot(self, index: int) -> None:
        if self._snapshot is not None and self._snapshot.index == index:
            self._snapshot = None
            self._snapshot_writing = False

    def storage_snapshot(self) -> Snapshot | None:
        """The newest snapshot there is to send, or None while it is being made."""
        return self._snapshot or self._storage.snapshot()

    # Applying

    def has_entries_to_apply(self, *, allow_unstable: bool) -> bool:
        return (
            self.applying < self._applicable(allow_unstable=allow_unstable)
            and not self._applying_paused
            and self._snapshot is None
        )

    def entries_to_apply(self, *, allow_unstable: bool) -> tuple[Entry, ...]:
        """Committed entries to apply next; none while a snapshot waits or enough is under way.

        Args:
            allow_unstable: entries may be applied before our own storage holds them.
        """
        if not self.has_entries_to_apply(allow_unstable=allow_unstable):
            return ()
        return self.slice(
            self.applying + 1,
            self._applicable(allow_unstable=allow_unstable) + 1,
            self._max_applying_size - self._applying_size,
        )

    def accept_applying(self, entries: tuple[Entry, ...], *, allow_unstable: bool) -> None:
        """``entries`` have been handed out for applying."""
        self.applying = entries[-1].index
        self._applying_size += sum(entry_size(entry) for entry in entries)
        # Pause when the limit is reached, or was what cut this batch short.
        self._applying_paused = (
            self._applying_size >= self._max_applying_size
            or self.applying < self._applicable(allow_unstable=allow_unstable)
        )

    def applied_to(self, index: int, size: int) -> None:
        """The state machine has applied everything up to ``index``, ``size`` bytes of it now.

        Raises:
            SafetyViolation: ``index`` is not committed, or was applied before.
        """
        if not self.applied <= index <= self.committed:
            raise SafetyViolation(
                f"applied {index} is not between applied {self.applied} "
                f"and committed {self.committed}"
            )
        self.applied = index
        self.applying = max(self.applying, index)
        self._applying_size = max(self._applying_size - size, 0)
        self._applying_paused = self._applying_size >= self._max_applying_size

    def _applicable(self, *, allow_unstable: bool) -> int:
        return self.committed if allow_unstable else min(self.committed, self._offset - 1)
