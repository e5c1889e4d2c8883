"""One member of a Raft cluster as a value machine: messages and ticks in, `Ready` out.

    step(message) --+                       +--> Ready: save, send, apply
    tick()        --+--> Raft (this file) --+
    propose(...)  --+                       +--> status()

    loop: while raft.has_ready(): ready = raft.ready(); do what it says; raft.advance()

In the asynchronous form (`RaftConfig.async_storage`) `ready` may be called again at once; what the
storage workers owe is delivered back through `step`, and `advance` has nothing to do.

Laws
- No I/O, no clock, no threads; randomness comes from the generator handed in. The same calls in
  the same order give the same answers.
- Any error but ProposalDropped, ConfChangeRefused and bad arguments means that safety is gone: the
  owner must stop this member and must not send what it has left.

It must not know: disks, networks, what entries mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swarmctl.core.raft import election, following, leading, orders, reads
from swarmctl.core.raft.errors import ConfChangeRefused, SafetyViolation
from swarmctl.core.raft.message import (
    NOBODY,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Ready,
    Role,
    Snapshot,
    SoftState,
    Transition,
    encode_conf_change,
)
from swarmctl.core.raft.progress import ProgressState
from swarmctl.core.raft.state import State

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from swarmctl.core.raft.config import RaftConfig
    from swarmctl.core.raft.storage import Storage


class FollowerProgress(msgspec.Struct, frozen=True):
    """What the leader knows of one member. ``inflight`` counts unanswered appends."""

    match: int
    next: int
    state: ProgressState
    learner: bool
    recently_active: bool
    paused: bool
    inflight: int
    inflight_full: bool
    pending_snapshot: int


class Status(msgspec.Struct, frozen=True):
    """A member at one moment. ``progress`` is empty unless it leads."""

    id: int
    term: int
    vote: int
    role: Role
    leader: int
    commit: int
    applied: int
    last_index: int
    membership: ConfState
    progress: dict[int, FollowerProgress]
    transferee: int


class Raft(State):
    """A member. Its owner calls it from one place, in turn; it never calls back.

    Args:
        id: this member's; positive, and never used by another member before or after.
        storage: its stable log, as it was left.
        config: limits and choices.
        rng: seeded; draws election timeouts.

    Raises:
        SafetyViolation: storage contradicts itself.
    """

    def __init__(
        self,
        id: int,  # noqa: A002
        storage: Storage,
        config: RaftConfig,
        rng: random.Random,
    ) -> None:
        super().__init__(id, storage, config, rng)
        self._told_soft = SoftState(self.leader, self.role)
        self._told_hard = HardState(self.term, self.vote, self.log.committed)
        self._owed: list[Message] = []
        self._unadvanced = False

    # Input

    def tick(self) -> None:
        """Time passes. Ticks drive elections, heartbeats and CheckQuorum, nothing else does."""
        if self.role is Role.LEADER:
            leading.tick(self)
        else:
            election.tick(self)

    def step(self, message: Message) -> None:
        """Take in a message from another member, or an answer of our storage workers.

        Answers of members that are not (any more) in the configuration are ignored.

        Raises:
            ProposalDropped: it was a proposal, and it is refused.
            SafetyViolation: see there.
        """
        kind = message.kind
        if kind in _ANSWERS and message.sender not in self.tracker.progress:
            return
        term = message.term
        if term != self.term and term:
            if term < self.term:
                self._on_lower_term(message)
                return
            if kind in _VOTE_REQUESTS and election.in_lease(self, message):
                return
            self._adopt_term(message)
        handler = _HANDLERS[self.role].get(kind)
        if handler is not None:
            handler(self, message)

    def campaign(self) -> None:
        """Start an election now, if we may: as a voter with nothing in the way."""
        election.campaign(self)

    def propose(self, data: bytes) -> None:
        """Ask for ``data`` to be appended to the log. It may still be lost, or delayed.

        Raises:
            ProposalDropped: it certainly was not appended.
        """
        self.propose_entries((Entry(data=data),))

    def propose_many(self, batch: Iterable[bytes]) -> None:
        """`propose` each of ``batch``, in one message and one answer: all or nothing.

        Raises:
            ProposalDropped: none of them was appended.
        """
        self.propose_entries(tuple([Entry(data=data) for data in batch]))

    def propose_membership(self, change: ConfChange) -> None:
        """Ask for a membership change; it holds when its entry is applied.

        The leader appends an empty entry instead if the change may not be proposed now (see
        `check_membership`). Whoever applies the entry hands it to `apply_conf_change`.

        Raises:
            ProposalDropped: it certainly was not appended.
            ConfChangeRefused: it says what a change of its sort cannot say.
        """
        kind = EntryKind.CONF_CHANGE
        if change.v1:
            kind = EntryKind.CONF_CHANGE_V1
            if len(change.changes) != 1 or change.transition is not Transition.AUTO:
                raise ConfChangeRefused("a v1 change has exactly one step and no transition")
        self.propose_entries((Entry(kind=kind, data=encode_conf_change(change)),))

    def propose_entries(self, entries: tuple[Entry, ...]) -> None:
        """Ask for entries of any kind to be appended; their terms and indexes are ours to give.

        Raises:
            ProposalDropped: none of them was appended.
        """
        self.step(Message(MessageKind.PROPOSE, self.id, self.id, entries=entries))

    def check_membership(self, change: ConfChange) -> None:
        """Ask a leader whether ``change`` could be proposed and applied as things are.

        Raises:
            ConfChangeRefused: why not.
        """
        if self.role is not Role.LEADER:
            raise ConfChangeRefused("only the leader can tell")
        leading.refuse_unfit(self, change)

    def apply_conf_change(self, change: ConfChange, index: int = 0) -> ConfState:
        """The owner applies a CONF_CHANGE entry: its membership holds from now on.

        Args:
            change: as decoded from the entry.
            index: the entry's. Owners that apply entries while they take in messages must give it:
                a snapshot may have brought a later membership meanwhile, which then stays.

        Returns:
            The present membership, which the next snapshot has to carry.

        Raises:
            ConfChangeRefused: it does not fit; nothing has changed, on no member.
        """
        if 0 < index <= self.configured_at:
            return self.tracker.configuration.conf_state()
        return leading.apply_conf_change(self, change)

    def transfer_leadership(self, id: int) -> None:  # noqa: A002
        """Hand leadership to ``id``, a voter. Given up after an election timeout."""
        self.step(Message(MessageKind.TRANSFER_LEADER, self.id, id, self.term))

    def read_index(self, context: bytes) -> None:
        """Ask from when on a read is linearizable; answered by a ReadState with ``context``.

        It may never be answered (no leader, or it changes): ask again after a while.
        """
        self.step(Message(MessageKind.READ_INDEX, self.id, self.id, entries=(Entry(data=context),)))

    def forget_leader(self) -> None:
        """A follower stops believing in its leader, without a campaign of its own."""
        following.forget_leader(self)

    def report_unreachable(self, id: int) -> None:  # noqa: A002
        """The last message to ``id`` could not be sent."""
        if self.role is Role.LEADER:
            leading.report_unreachable(self, id)

    def report_snapshot(self, id: int, ok: bool) -> None:  # noqa: A002
        """The snapshot sent to ``id`` has been delivered, or could not be."""
        if self.role is Role.LEADER:
            leading.report_snapshot(self, id, ok=ok)

    # Output

    def has_ready(self) -> bool:
        """Is there anything for `ready` to say?"""
        log = self.log
        return bool(
            self.outbox
            or self.outbox_when_stable
            or log.has_entries_to_write
            or log.has_entries_to_apply(allow_unstable=not self.config.async_storage)
            or self.read_states
            or self._soft_news() is not None
            or self._hard_news() is not None
            or log.snapshot_to_write() is not None
        )

    def ready(self) -> Ready:
        """What is to be done now; it will not be said again.

        Raises:
            SafetyViolation: the last one still waits for `advance` (synchronous form).
        """
        if self._unadvanced:
            raise SafetyViolation("ready() again before advance()")
        log = self.log
        asynchronous = self.config.async_storage
        soft, hard = self._soft_news(), self._hard_news()
        entries = log.entries_to_write()
        snapshot = log.snapshot_to_write()
        committed = log.entries_to_apply(allow_unstable=not asynchronous)
        must_sync = bool(entries) or (
            hard is not None
            and (hard.term != self._told_hard.term or hard.vote != self._told_hard.vote)
        )
        messages = self.outbox
        if asynchronous:
            if entries or hard is not None or snapshot is not None or self.outbox_when_stable:
                messages.append(orders.append_order(self, entries, hard, snapshot))
            if committed:
                messages.append(orders.apply_order(self, committed))
        else:
            self._settle_on_advance(messages, committed, snapshot)
        ready = Ready(
            soft,
            hard,
            entries,
            snapshot,
            committed,
            tuple(messages),
            tuple(self.read_states),
            must_sync,
        )
        self._accept(ready)
        return ready

    def advance(self) -> None:
        """Everything that the last Ready asked for is done (synchronous form)."""
        self._unadvanced = False
        owed, self._owed = self._owed, []
        for message in owed:
            self.step(message)

    def status(self) -> Status:
        """This member as it is now, for people and for decisions outside consensus."""
        progress: dict[int, FollowerProgress] = {}
        if self.role is Role.LEADER:
            for node, each in self.tracker.progress.items():
                progress[node] = FollowerProgress(
                    match=each.match,
                    next=each.next,
                    state=each.state,
                    learner=each.learner,
                    recently_active=each.recently_active,
                    paused=each.blocked,
                    inflight=len(each.inflights),
                    inflight_full=each.inflights.full,
                    pending_snapshot=each.pending_snapshot,
                )
        return Status(
            id=self.id,
            term=self.term,
            vote=self.vote,
            role=self.role,
            leader=self.leader,
            commit=self.log.committed,
            applied=self.log.applied,
            last_index=self.log.last_index,
            membership=self.tracker.configuration.conf_state(),
            progress=progress,
            transferee=self.transferee,
        )

    # Terms

    def _adopt_term(self, message: Message) -> None:
        """Somebody is in a later term. So are we now, except for what is asked conditionally."""
        kind = message.kind
        if kind is MessageKind.PRE_VOTE:
            return
        if kind is MessageKind.PRE_VOTE_RESPONSE and not message.reject:
            return  # it carries the term we asked about
        leader = message.sender if kind in _FROM_LEADER else NOBODY
        self.become_follower(message.term, leader)

    def _on_lower_term(self, message: Message) -> None:
        """Somebody is behind. Mostly that is their concern, but nobody may be locked out."""
        kind = message.kind
        if kind in (MessageKind.APPEND, MessageKind.HEARTBEAT):
            if self.config.check_quorum or self.config.pre_vote:
                # We may have left its term in vain. It learns of ours, steps down, and an
                # election that both can take part in follows.
                self.send_when_stable(
                    Message(MessageKind.APPEND_RESPONSE, message.sender, self.id, self.term)
                )
        elif kind is MessageKind.PRE_VOTE:
            # Silence could be a deadlock: a candidate with a shorter log and a higher term, and
            # pre-candidates that it never hears out.
            self.send_when_stable(
                Message(
                    MessageKind.PRE_VOTE_RESPONSE,
                    message.sender,
                    self.id,
                    self.term,
                    reject=True,
                )
            )
        elif kind is MessageKind.STORAGE_APPEND_RESPONSE:
            orders.on_append_done_late(self, message)

    # Ready and its answers

    def _soft_news(self) -> SoftState | None:
        told = self._told_soft
        if told.leader == self.leader and told.role is self.role:
            return None
        return SoftState(self.leader, self.role)

    def _hard_news(self) -> HardState | None:
        told = self._told_hard
        commit = self.log.committed
        if told.commit == commit and told.term == self.term and told.vote == self.vote:
            return None
        return HardState(self.term, self.vote, commit)

    def _settle_on_advance(
        self,
        messages: list[Message],
        committed: tuple[Entry, ...],
        snapshot: Snapshot | None,
    ) -> None:
        """Synchronous form: the owner saves before it sends, so only our own answers wait."""
        owed = self._owed
        for message in self.outbox_when_stable:
            if message.to == self.id:
                owed.append(message)
            else:
                messages.append(message)
        if self.log.has_unstable_entries or snapshot is not None:
            owed.append(orders.append_done(self, snapshot))
        if committed:
            owed.append(orders.apply_done(self, committed))
        self._unadvanced = True

    def _accept(self, ready: Ready) -> None:
        """Note what has been said, so that it is said once."""
        if ready.soft_state is not None:
            self._told_soft = ready.soft_state
        if ready.hard_state is not None:
            self._told_hard = ready.hard_state
        self.outbox = []
        self.outbox_when_stable = []
        if ready.read_states:
            self.read_states = []
        self.log.accept_writing()
        if ready.committed_entries:
            self.log.accept_applying(
                ready.committed_entries, allow_unstable=not self.config.async_storage
            )


_ANSWERS = frozenset(
    {
        MessageKind.APPEND_RESPONSE,
        MessageKind.HEARTBEAT_RESPONSE,
        MessageKind.VOTE_RESPONSE,
        MessageKind.PRE_VOTE_RESPONSE,
        MessageKind.READ_INDEX_RESPONSE,
    }
)
_VOTE_REQUESTS = frozenset({MessageKind.VOTE, MessageKind.PRE_VOTE})
_FROM_LEADER = frozenset({MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT})

_ANY_ROLE: dict[MessageKind, Callable[[State, Message], None]] = {
    MessageKind.VOTE: election.on_vote_request,
    MessageKind.PRE_VOTE: election.on_vote_request,
    MessageKind.STORAGE_APPEND_RESPONSE: orders.on_append_done,
    MessageKind.STORAGE_APPLY_RESPONSE: orders.on_apply_done,
}
_FOLLOWER = {
    **_ANY_ROLE,
    MessageKind.APPEND: following.on_append,
    MessageKind.HEARTBEAT: following.on_heartbeat,
    MessageKind.SNAPSHOT: following.on_snapshot,
    MessageKind.PROPOSE: following.forward_proposal,
    MessageKind.READ_INDEX: following.forward,
    MessageKind.READ_INDEX_RESPONSE: reads.on_read_index_response,
    MessageKind.TRANSFER_LEADER: following.forward,
    MessageKind.TIMEOUT_NOW: election.on_timeout_now,
}
_CANDIDATE = {
    **_ANY_ROLE,
    MessageKind.APPEND: following.on_append,
    MessageKind.HEARTBEAT: following.on_heartbeat,
    MessageKind.SNAPSHOT: following.on_snapshot,
    MessageKind.PROPOSE: following.drop_proposal,
    MessageKind.VOTE_RESPONSE: election.on_vote_response,
    MessageKind.PRE_VOTE_RESPONSE: election.on_vote_response,
}
_LEADER = {
    **_ANY_ROLE,
    MessageKind.APPEND_RESPONSE: leading.on_append_response,
    MessageKind.HEARTBEAT_RESPONSE: leading.on_heartbeat_response,
    MessageKind.PROPOSE: leading.on_propose,
    MessageKind.READ_INDEX: reads.on_read_index,
    MessageKind.TRANSFER_LEADER: leading.on_transfer_leader,
}
_HANDLERS = {
    Role.FOLLOWER: _FOLLOWER,
    Role.PRE_CANDIDATE: _CANDIDATE,
    Role.CANDIDATE: _CANDIDATE,
    Role.LEADER: _LEADER,
}
"""What each role understands; anything else is ignored in it."""
