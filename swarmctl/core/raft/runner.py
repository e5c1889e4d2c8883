"""The only owner of the Raft object: feeds it time, messages and proposals, does what Ready says.

Order, in one place (:meth:`Runner._handle`): tell the role, hand appends to the disk, send what may
leave at once, apply what is committed, answer reads. Answers that need the disk come back through
:meth:`Runner._stored` when it is done, and are taken in by the same loop.

Laws:

- Everything that touches the Raft object is synchronous and runs on the trio thread. What could
  end this member (a broken safety rule, an unknown entry) is raised by the loop and nowhere else.
- Messages of other members wait in a bounded inbox for the loop; Raft says again what is lost.
- Waiting proposals learn of lost leadership before anything of the new leader is applied.
- After a stall at most one tick is delivered a turn, and what is queued goes first; otherwise a
  paused follower would campaign before reading the heartbeats it already has.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from typing import TYPE_CHECKING

import trio

from ..errors import NoLeader
from .errors import ConfChangeRefused, NoRoom
from .message import (
    FROM_MEMBERS,
    LOCAL_APPEND,
    LOCAL_APPLY,
    NOBODY,
    ChangeKind,
    ConfState,
    EntryKind,
    Message,
    MessageKind,
    ReadState,
    Ready,
    Role,
    Snapshot,
    SoftState,
    decode_conf_change,
)
from .waiting import Proposal, Reception, WaitingRead

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from .disk import Disk
    from .message import ConfChange
    from .raft import Raft, Status
    from .waiting import StateMachine

TICK_S = 0.05
SNAPSHOT_INTERVAL = 10_000
ENTRIES_FOR_SLOW_FOLLOWERS = 500
INBOX_MAX = 4_096

log = logging.getLogger(__name__)


class Runner:
    """Runs one member.

    Args:
        raft: in the asynchronous form, made on ``disk.log``.
        disk: loaded and not yet running.
        machine: holds the state as of the disk's snapshot.
        send: takes messages for other members; never blocks, may drop.

    Attributes:
        leading: this member leads, and its state is as new as anybody's.
        led_term: the term it leads in, else 0.
        leader: whom this member takes for the leader, or nobody.
        leadership_changed: set, and replaced, when either changes.
        membership_changed: set, and replaced, when ``membership`` changes.
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
        self.led_term = 0
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
        self._needed_at = 0  # a snapshot from here on knows all members
        self._ticking = False
        self._inbox: deque[Message] = deque()
        self._incoming: Reception | None = None
        self._installing: Reception | None = None
        self._receiving = trio.Lock()
        self.membership_changed = trio.Event()
        self.leader = NOBODY
        self._read_count = secrets.randbits(62)  # an answer to an earlier run is none to this one
        self._reads: dict[bytes, WaitingRead] = {}
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

    @property
    def commit(self) -> int:
        """The last log index known to be committed."""
        return self._raft.log.committed

    def status(self) -> Status:
        """Return this member as it is now."""
        return self._raft.status()

    def propose(self, data: bytes) -> Proposal:
        """Append an entry to the log.

        Raises:
            NoLeader: this manager does not lead; nothing was appended.
            NoRoom: the disk is nearly full; nothing was appended.
            ProposalDropped: too much is in flight; nothing was appended.
        """
        if not self._running or self._raft.role is not Role.LEADER:
            raise NoLeader
        if self._disk.complaint:
            raise NoRoom(self._disk.complaint)
        self._raft.propose(data)
        return self._await_last()

    def receive(self, message: Message) -> None:
        """Take in a message from another member; dropped when too many wait, or if not for us."""
        if not self._running or message.to != self._raft.id:
            return  # who was at this address before may be a member still
        if message.kind in FROM_MEMBERS and len(self._inbox) < INBOX_MAX:
            self._inbox.append(message)
            self._kick()

    # --- membership ---

    @property
    def membership(self) -> ConfState:
        """Who takes part, as of the last entry applied."""
        return self._conf_state

    @property
    def removed(self) -> tuple[int, ...]:
        """Members that were removed for good."""
        return self._removed

    async def change_membership(self, change: ConfChange) -> None:
        """Have a membership change applied.

        Raises:
            NoLeader: this manager does not lead; nothing was done.
            ConfChangeRefused: it cannot be made now; the text says why.
            LostLeadership: this manager stopped leading; it may still take effect.
            ProposalDropped: too much is in flight; nothing was done.
        """
        if not self._running or self._raft.role is not Role.LEADER:
            raise NoLeader
        self._raft.check_membership(change)
        self._raft.propose_membership(change)
        refusal = await self._await_last().wait()
        if isinstance(refusal, ConfChangeRefused):
            raise refusal

    async def transfer_leadership(self, member: int) -> None:
        """Hand leadership to a voter; returns when this manager does not lead any more.

        A transfer that fails is given up after an election time-out: use a time-out of your own.
        """
        self._raft.transfer_leadership(member)
        self._kick()
        while self._raft.role is Role.LEADER:
            await self.leadership_changed.wait()

    # --- snapshots of other members ---

    def report_snapshot(self, member: int, *, ok: bool) -> None:
        """Tell consensus whether a snapshot reached a member."""
        self._raft.report_snapshot(member, ok)
        self._kick()

    def report_unreachable(self, member: int) -> None:
        """Tell consensus that a message to a member was lost."""
        self._raft.report_unreachable(member)

    async def take_snapshot(
        self,
        message: Message,
        stamp: bytes,
        ask: Callable[[int], Awaitable[AsyncIterable[bytes]]],
    ) -> None:
        """Take in a snapshot that the leader sends; returns when all of it is on our disk.

        Args:
            stamp: the same for two transfers of the very same chunks, so that a broken transfer
                goes on where it ended.
            ask: told how many chunks are here already; gives the rest.

        Raises:
            SwarmError: the chunks are not a whole dump, or the transfer broke.
        """
        async with self._receiving:
            while self._installing is not None:
                await self._installing.over.wait()
            reception = self._incoming
            if reception is None or reception.stamp != stamp:
                reception = self._incoming = Reception(stamp, self._machine.receive())
            async for chunk in await ask(reception.chunks):
                reception.state.add(chunk)
                durable = trio.Event()
                self._disk.stage(reception.chunks, chunk, durable.set)
                reception.chunks += 1
                await durable.wait()
            self._incoming = None
            reception.state.check_whole()
            self._installing = reception
            reception.message = message
            self._inbox.append(message)
            self._kick()

    # --- the loop ---

    def _await_last(self) -> Proposal:
        """Return what tells the fate of the entry that was just appended."""
        proposal = Proposal(self._raft.term)
        self._proposals[self._raft.log.last_index] = proposal
        self._kick()
        return proposal

    def _kick(self) -> None:
        self._work.set()

    async def _tick(self) -> None:
        due = trio.current_time() + TICK_S
        while True:
            await trio.sleep_until(due)
            self._ticking = True
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
            self._take_in()
            while self._raft.has_ready():
                self._handle(self._raft.ready())
                await trio.lowlevel.checkpoint()
                self._take_in()

    def _take_in(self) -> None:
        """Take in what is there: the disk's answers and messages first, then time."""
        self._take_answers()
        while self._inbox:
            message = self._inbox.popleft()
            self._raft.step(message)
            if message.kind is MessageKind.SNAPSHOT:
                self._settle_reception(message)
        if self._ticking:
            self._ticking = False
            if not self._awaits_own_vote():
                self._raft.tick()

    def _settle_reception(self, message: Message) -> None:
        """Forget a received snapshot that consensus had no use for."""
        reception, pending = self._installing, self._raft.log.snapshot_to_write()
        if reception is None or reception.message is not message:
            return
        if pending is None or pending is not message.snapshot:
            self._installing = None
            reception.over.set()

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
        if message.snapshot is not None:
            self._install(message.snapshot)
        self._answers.extend(message.responses)
        self._kick()

    def _install(self, snapshot: Snapshot) -> None:
        """Take over the state of a snapshot that is on our disk now."""
        reception, self._installing = self._installing, None
        if reception is not None:
            reception.state.install()
            reception.over.set()
        self._applied = self._snapshot_index = snapshot.index
        self._conf_state, self._removed = snapshot.conf_state, snapshot.removed
        log.info("took over the leader's snapshot at log index %d", snapshot.index)
        self._tell_membership()

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
                result = self._reconfigure(decode_conf_change(entry.data), entry.index)
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

    def _reconfigure(self, change: ConfChange, index: int) -> ConfChangeRefused | None:
        """Apply a membership change; all members come to the same answer."""
        before = self._members()
        try:
            self._conf_state = self._raft.apply_conf_change(change, index)
        except ConfChangeRefused as refusal:
            return refusal
        gone = [each.node for each in change.changes if each.kind is ChangeKind.REMOVE]
        self._removed += tuple(node for node in gone if node not in self._removed)
        if self._members() - before:
            # Whoever is new gets the log from a snapshot in which it finds itself.
            self._needed_at = index
            self._disk.log.withhold_snapshot(index)
        self._tell_membership()
        return None

    def _members(self) -> set[int]:
        state = self._conf_state
        return {*state.voters, *state.learners, *state.voters_outgoing}

    def _tell_membership(self) -> None:
        changed, self.membership_changed = self.membership_changed, trio.Event()
        changed.set()

    def _save_if_due(self, term: int) -> None:
        new = self._applied - self._snapshot_index
        if self._saving or (
            new < self.snapshot_interval and self._needed_at <= self._snapshot_index
        ):
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
            self._snapshot_index = max(snapshot.index, self._snapshot_index)
            log.info("snapshot saved at log index %d", snapshot.index)

        self._disk.save_snapshot(snapshot, self._machine.dump(), self.keep_entries, saved)

    # --- leadership ---

    def _note(self, soft: SoftState) -> None:
        self.leader = soft.leader
        if soft.role is not Role.LEADER:
            self._follow()
        self._tell_leadership()

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
        self.led_term = self._raft.term if leading else 0
        self._tell_leadership()

    def _tell_leadership(self) -> None:
        changed, self.leadership_changed = self.leadership_changed, trio.Event()
        changed.set()

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
        read = self._reads[context] = WaitingRead()
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
