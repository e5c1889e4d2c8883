"""What a leader knows about one member's log, and how much it may send there now.

    PROBE      one message with entries at a time, until the member answers
    REPLICATE  a pipeline: ``next`` runs ahead of the answers, within the in-flight window
    SNAPSHOT   nothing, until an answer or a report says that the snapshot arrived or failed

Laws
- ``match < next``, always: everything up to ``match`` is known to be in the member's log.
- In PROBE and SNAPSHOT the window is empty.

It must not know: the log's content, quorums, who else is a member.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from swarmctl.core.raft.errors import SafetyViolation


class ProgressState(IntEnum):
    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Inflights:
    """The window of appends sent and not answered: at most so many messages, so many bytes.

    ``max_bytes`` 0 means no limit on bytes. One message may overshoot it: the window is full once
    the bytes in it reach the limit, whatever the last message weighed.
    """

    __slots__ = ("_bytes", "_max_bytes", "_max_messages", "_sent")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._sent: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        return len(self._sent) >= self._max_messages or 0 < self._max_bytes <= self._bytes

    def add(self, index: int, size: int) -> None:
        """Note a message whose last entry is ``index``.

        Raises:
            SafetyViolation: the window is full; the sender has not looked.
        """
        if self.full:
            raise SafetyViolation("an append was sent past a full window")
        self._sent.append((index, size))
        self._bytes += size

    def free_to(self, index: int) -> None:
        """Everything up to ``index`` has been answered."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self._bytes -= sent.popleft()[1]

    def clear(self) -> None:
        self._sent.clear()
        self._bytes = 0


class Progress:
    """One member, as its leader sees it.

    ``recently_active``: it has answered since the last CheckQuorum.
    ``paused``: send no more appends until an answer or a heartbeat's answer comes.
    ``pending_snapshot``: index of the snapshot under way, in SNAPSHOT.
    """

    __slots__ = (
        "_sent_commit",
        "inflights",
        "learner",
        "match",
        "next",
        "paused",
        "pending_snapshot",
        "recently_active",
        "state",
    )

    def __init__(
        self, *, match: int, next_index: int, inflights: Inflights, learner: bool, active: bool
    ) -> None:
        self.match = match
        self.next = next_index
        self.state = ProgressState.PROBE
        self.paused = False
        self.pending_snapshot = 0
        self.recently_active = active
        self.learner = learner
        self.inflights = inflights
        self._sent_commit = 0

    @property
    def blocked(self) -> bool:
        """True while no append may be sent, not even an empty one."""
        return self.paused or self.state is ProgressState.SNAPSHOT

    def become_probe(self) -> None:
        after_snapshot = self.pending_snapshot if self.state is ProgressState.SNAPSHOT else 0
        self._enter(ProgressState.PROBE)
        self.next = max(self.match, after_snapshot) + 1
        self._sent_commit = min(self._sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """A snapshot as of ``index`` is on its way; the member will continue after it."""
        self._enter(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self._sent_commit = index

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.paused = False
        self.pending_snapshot = 0
        self.inflights.clear()

    def sent_entries(self, count: int, size: int) -> None:
        """An append with ``count`` entries of ``size`` bytes of data has been sent."""
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            # A full window lets one empty append through after each heartbeat answer, so that a
            # window of which every message was lost empties again.
            self.paused = self.inflights.full
        elif count:
            self.paused = True

    def sent_commit(self, commit: int) -> None:
        self._sent_commit = commit

    def can_bump_commit(self, commit: int) -> bool:
        """Would an empty append raise the member's commit index?"""
        return commit > self._sent_commit and self._sent_commit < self.next - 1

    def acknowledge(self, index: int) -> bool:
        """The member has the log up to ``index``. True if that is news."""
        if index <= self.match:
            return False
        self.match = index
        if self.next <= index:
            self.next = index + 1
        self.paused = False
        return True

    def step_back(self, rejected: int, hint: int) -> bool:
        """The member refused an append that followed ``rejected``; it may agree at ``hint``.

        Returns:
            False if the refusal is stale: a later answer, or our own state, contradicts it.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
        else:
            if rejected != self.next - 1:
                return False
            self.next = max(min(rejected, hint + 1), self.match + 1)
            self.paused = False
        self._sent_commit = min(self._sent_commit, self.next - 1)
        return True
