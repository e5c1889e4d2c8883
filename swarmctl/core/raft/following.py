"""The follower's rules: take what the leader sends, pass on what only the leader can do.

Laws
- An answer says only what holds once our disk has everything that is unstable now.
- Nothing committed is ever cut off, and a snapshot never takes us back.

It must not know: how members are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.raft.confchange import restore
from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.raft.leading import switch_to
from swarmctl.core.raft.message import NOBODY, Message, MessageKind, Role, Snapshot

if TYPE_CHECKING:
    from swarmctl.core.raft.state import State


def _follow(state: State, message: Message) -> None:
    """We hear the leader of our term."""
    if state.role is not Role.FOLLOWER:
        state.become_follower(message.term, message.sender)
        return
    state.election_elapsed = 0
    state.leader = message.sender


def on_append(state: State, message: Message) -> None:
    _follow(state, message)
    log = state.log
    if message.index < log.committed:
        _answer(state, message.sender, log.committed)
        return
    last_new = log.try_append(message.index, message.log_term, message.entries, message.commit)
    if last_new is not None:
        _answer(state, message.sender, last_new)
        return
    hint, hint_term = log.find_conflict_by_term(
        min(message.index, log.last_index), message.log_term
    )
    state.send_when_stable(
        Message(
            MessageKind.APPEND_RESPONSE,
            message.sender,
            state.id,
            state.term,
            hint_term,
            message.index,
            reject=True,
            reject_hint=hint,
        )
    )


def _answer(state: State, to: int, index: int) -> None:
    state.send_when_stable(Message(MessageKind.APPEND_RESPONSE, to, state.id, state.term, 0, index))


def on_heartbeat(state: State, message: Message) -> None:
    _follow(state, message)
    state.log.commit_to(message.commit)
    state.send(
        Message(
            MessageKind.HEARTBEAT_RESPONSE,
            message.sender,
            state.id,
            state.term,
            context=message.context,
        )
    )


def on_snapshot(state: State, message: Message) -> None:
    _follow(state, message)
    if message.snapshot is not None and _restore(state, message.snapshot):
        _answer(state, message.sender, state.log.last_index)
    else:
        _answer(state, message.sender, state.log.committed)


def _restore(state: State, snapshot: Snapshot) -> bool:
    """Replace log and membership by a snapshot; False if there is no need or no right to."""
    log = state.log
    if snapshot.index <= log.committed:
        return False
    configuration = restore(snapshot.conf_state)
    if state.id not in configuration.members:
        return False  # it was not meant for us: we would not find ourselves in it
    if log.matches(snapshot.index, snapshot.term):
        log.commit_to(snapshot.index)
        return False
    log.restore(snapshot)
    state.configured_at = snapshot.index
    switch_to(state, configuration, configuration.members)
    return True


def stable_snapshot(state: State, snapshot: Snapshot) -> None:
    """Our storage (and the state machine in it) has taken over ``snapshot``."""
    state.log.stable_snapshot(snapshot.index)
    if snapshot.index > state.log.applied:
        state.log.applied_to(snapshot.index, 0)


def forward(state: State, message: Message) -> None:
    """Pass a request on to the leader, as from whom it came; without a leader it is lost."""
    if state.leader != NOBODY:
        # A transfer belongs to our term, the rest is as good as asked at the leader.
        term = state.term if message.kind is MessageKind.TRANSFER_LEADER else 0
        state.send(
            Message(message.kind, state.leader, message.sender, term, entries=message.entries)
        )


def forward_proposal(state: State, message: Message) -> None:
    """Pass a proposal on.

    Raises:
        ProposalDropped: there is no leader to pass it to, or that is not wanted.
    """
    if state.leader == NOBODY:
        raise ProposalDropped("there is no leader")
    if not state.config.forward_proposals:
        raise ProposalDropped("this member does not lead")
    forward(state, message)


def drop_proposal(_state: State, _message: Message) -> None:
    """A candidate has no leader to pass proposals to."""
    raise ProposalDropped("there is no leader")


def forget_leader(state: State) -> None:
    """Give up the leader, so that a vote can be given at once. Lease reads rest on not doing so."""
    if state.role is Role.FOLLOWER and not state.config.lease_reads:
        state.leader = NOBODY
