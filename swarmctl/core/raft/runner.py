"""The only owner of the Raft object: feeds it time, messages and proposals, does what Ready says.

Order, in one place (:meth:`Runner._handle`): tell the role, hand appends to the disk, send what may
leave at once, apply what is committed, answer reads. Answers that need the disk come back through
:meth:`Runner._stored` when it is done, and are taken in by the same loop.

Laws:

- Everything that touches the Raft object is synchronous and runs on the trio thread. What could
  end this member (a broken safety rule, an unknown entry) is raised by the loop and nowhere else.
- Waiting proposals learn of lost leadership before anything of the new leader is applied.
- After a stall at most one tick is delivered a turn, and what is queued goes first; otherwise a
  paused follower would campaign before reading the heartbeats it already has.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from ..errors import LostLeadership, NoLeader
from .message import (
    LOCAL_APPEND,
    LOCAL_APPLY,
    Entry,
    EntryKind,
    Message,
    ReadState,
    Ready,
    Role,
    Snapshot,
    SoftState,
    decode_conf_change,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .disk import Disk
    from .raft import Raft, Status

TICK_S = 0.05
SNAPSHOT_INTERVAL = 10_000
ENTRIES_FOR_SLOW_FOLLOWERS = 500

log = logging.getLogger(__name__)


class StateMachine(Protocol):
    """What committed entries are applied to."""

    def apply(self, index: int, data: bytes) -> object:
        """Apply one entry and return what its proposer gets. Raising ends this manager."""
        ...

    def skip(self, index: int) -> None:
        """Note an entry that carries nothing for the state machine."""
        ...

    def dump(self) -> Iterable[bytes]:
        """Return the present state in chunks; encoded later, in another thread."""
        ...


class Proposal:
    """An appended entry whose fate is not known yet. ``wait`` once."""

    def __init__(self, term: int) -> None:
        self._term = term
        self._done = trio.Event()
        self._result: object = None
        self._lost = False

    async def wait(self) -> object:
        """Sleep until the entry was applied; return what the state machine answered.

        Raises:
            LostLeadership: this manager stopped leading first; the entry may still take effect.
        """
        await self._done.wait()
        if self._lost:
            raise LostLeadership("this manager stopped leading before the change was committed")
        return self._result

    def settle(self, entry: Entry, result: object) -> None:
        """Tell the waiter what became of the log's place that the entry was given."""
        self._lost = entry.term != self._term
        self._result = result
        self._done.set()

    def lose(self) -> None:
        """Tell the waiter that nobody here will know."""
        self._lost = True
        self._done.set()


class _Read:
    """A read that waits until it is linearizable, or until that cannot be said here any more."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.lost = False


class Runner:
    """Runs one member.

    Args:
        raft: in the asynchronous form, made on ``disk.log``.
        disk: loaded and not yet running.
        machine: holds the state as of the disk's snapshot.
        send: takes messages for other members; never blocks, may drop.
    """

    def __init__(
        self,
        raft: Raft,
        disk: Disk,
        machine: StateMachine,
        send: Callable[[Message], None],
        *,
        snapshot_interval: int = SNAPSHOT_INTERVAL,
        keep_entries: int = ENTRIES_FOR_SLOW_FOLLOWERS,
    ) -> None:
        self._raft = raft
        self._disk = disk
        self._machine = machine
        self._send = send
        self.snapshot_interval = snapshot_interval
        self.keep_entries = keep_entries
        self.leading = False
        self.leadership_changed = trio.Event()
        self._work = trio.Event()
        self._running = False
        self._appends = 0  # handed to the disk and not answered
        self._answers: deque[Message] = deque()  # of the disk; a few for each append
        self._proposals: dict[int, Proposal] = {}
        snapshot = disk.log.snapshot() or Snapshot()
        self._applied = snapshot.index
        self._snapshot_index = snapshot.index
        self._conf_state = snapshot.conf_state
        self._removed = snapshot.removed
        self._saving = False
        self._read_count = 0
        self._reads: dict[bytes, _Read] = {}
        self._confirmed: list[ReadState] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part in consensus until cancelled.

        Raises:
            StorageFailed: the disk refused a write.
            Undecodable: an entry says something this release does not know.
            SafetyViolation: consensus itself is broken; nothing more was sent.
        """
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._disk.run)
                nursery.start_soon(self._tick, name="raft ticks")
                if self._conf_state.voters == (self._raft.id,):
                    self._raft.campaign()  # nobody to wait for
                self._kick()
                task_status.started()
                await self._loop()
        finally:
            self._running = False
            self._follow()

    def status(self) -> Status:
        """Return this member as it is now."""
        return self._raft.status()

    def propose(self, data: bytes) -> Proposal:
        """Append an entry to the log.

        Raises:
            NoLeader: this manager does not lead; nothing was appended.
            ProposalDropped: too much is in flight; nothing was appended.
        """
        if not self._running or self._raft.role is not Role.LEADER:
            raise NoLeader
        self._raft.propose(data)
        proposal = Proposal(self._raft.term)
        self._proposals[self._raft.log.last_index] = proposal
        self._kick()
        return proposal

    def receive(self, message: Message) -> None:
        """Take in a message from another member."""
        self._raft.step(message)
        self._kick()

    # --- the loop ---

    def _kick(self) -> None:
        self._work.set()

    async def _tick(self) -> None:
        due = trio.current_time() + TICK_S
        while True:
            await trio.sleep_until(due)
            if not self._awaits_own_vote():
                self._raft.tick()
                self._kick()
            due += TICK_S
            if due <= trio.current_time():
                due = trio.current_time() + TICK_S  # missed ticks are not made up for

    def _awaits_own_vote(self) -> bool:
        """True for a candidate whose own vote is not on its disk yet.

        It cannot win before, and campaigning anew would only make the vote worthless: with a disk
        slower than an election time-out nobody would ever lead.
        """
        return self._raft.role is Role.CANDIDATE and self._appends > 0

    async def _loop(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            self._take_answers()
            while self._raft.has_ready():
                self._handle(self._raft.ready())
                await trio.lowlevel.checkpoint()
                self._take_answers()

    def _handle(self, ready: Ready) -> None:
        if ready.soft_state is not None:
            self._note(ready.soft_state)
        for message in ready.messages:
            if message.to == LOCAL_APPEND:
                self._appends += 1
                self._disk.append(message, self._stored)
            elif message.to == LOCAL_APPLY:
                self._apply(message)
            else:
                self._send(message)
        for read in ready.read_states:
            self._answer_read(read)

    def _stored(self, message: Message) -> None:
        """The disk is done with a STORAGE_APPEND: what waited for it may be said now."""
        self._appends -= 1
        self._answers.extend(message.responses)
        self._kick()

    def _take_answers(self) -> None:
        while self._answers:
            self._deliver(self._answers.popleft())

    def _deliver(self, message: Message) -> None:
        if message.to == self._raft.id:
            self._raft.step(message)
        else:
            self._send(message)

    # --- applying ---

    def _apply(self, message: Message) -> None:
        for entry in message.entries:
            result: object = None
            if entry.kind is not EntryKind.NORMAL:
                change = decode_conf_change(entry.data)
                self._conf_state = self._raft.apply_conf_change(change, entry.index)
                self._machine.skip(entry.index)
            elif entry.data:
                result = self._machine.apply(entry.index, entry.data)
            else:
                self._machine.skip(entry.index)
            self._applied = entry.index
            proposal = self._proposals.pop(entry.index, None)
            if proposal is not None:
                proposal.settle(entry, result)
            if entry.term == self._raft.term and self._raft.role is Role.LEADER:
                self._lead()
        for response in message.responses:
            self._deliver(response)
        self._release_reads()
        self._save_if_due(message.entries[-1].term)

    def _save_if_due(self, term: int) -> None:
        if self._saving or self._applied - self._snapshot_index < self.snapshot_interval:
            return
        self._saving = True
        snapshot = Snapshot(
            index=self._applied,
            term=term,
            conf_state=self._conf_state,
            removed=self._removed,
        )

        def saved() -> None:
            self._saving = False
            self._snapshot_index = snapshot.index
            log.info("snapshot saved at log index %d", snapshot.index)

        self._disk.save_snapshot(snapshot, self._machine.dump(), self.keep_entries, saved)

    # --- leadership ---

    def _note(self, soft: SoftState) -> None:
        if soft.role is not Role.LEADER:
            self._follow()

    def _lead(self) -> None:
        """An entry of our own term is applied, so our tables are as new as anybody's."""
        if not self.leading:
            self._set_leading(leading=True)

    def _follow(self) -> None:
        proposals, self._proposals = self._proposals, {}
        for proposal in proposals.values():
            proposal.lose()
        reads, self._reads = self._reads, {}
        for read in reads.values():
            read.lost = True
            read.done.set()
        if self.leading:
            self._set_leading(leading=False)

    def _set_leading(self, *, leading: bool) -> None:
        self.leading = leading
        self.leadership_changed.set()
        self.leadership_changed = trio.Event()

    # --- reads ---

    async def wait_readable(self) -> None:
        """Sleep until a read of the tables is linearizable: it sees all that was acknowledged.

        Raises:
            NoLeader: this manager stopped leading meanwhile.
        """
        if not self._running:
            raise NoLeader
        self._read_count += 1
        context = self._read_count.to_bytes(8, "big")
        read = self._reads[context] = _Read()
        try:
            self._raft.read_index(context)
            self._kick()
            await read.done.wait()
        finally:
            self._reads.pop(context, None)
        if read.lost:
            raise NoLeader

    def _answer_read(self, read: ReadState) -> None:
        self._confirmed.append(read)
        self._release_reads()

    def _release_reads(self) -> None:
        waiting = []
        for read in self._confirmed:
            if read.index > self._applied:
                waiting.append(read)
            elif read.context in self._reads:
                self._reads[read.context].done.set()
        self._confirmed = waiting
