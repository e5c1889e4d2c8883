"""How leaders are made: campaigns, votes, and who may ask for one.

    FOLLOWER --timeout--> PRE_CANDIDATE --quorum would vote--> CANDIDATE --quorum votes--> LEADER
        ^                     |  (term unchanged)                 |  (term + 1, own vote)
        +---------------------+-- quorum refuses, or a leader is heard --+

Laws
- One vote a term, given only to a log at least as complete as ours, durable before it is told.
- PreVote changes nothing at those who are asked.
- Nobody campaigns who is no voter, whose log is not whole, or who has a committed membership
  change still to apply: two quorums that do not meet would become possible.

It must not know: what the leader does next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.raft.errors import SafetyViolation
from swarmctl.core.raft.leading import become_leader
from swarmctl.core.raft.message import NOBODY, Message, MessageKind, Role
from swarmctl.core.raft.quorum import Vote

if TYPE_CHECKING:
    from swarmctl.core.raft.state import State

TRANSFER = b"transfer"
"""Context of a vote request that the old leader has asked for: leases do not stop it."""

_ANSWER = {
    MessageKind.VOTE: MessageKind.VOTE_RESPONSE,
    MessageKind.PRE_VOTE: MessageKind.PRE_VOTE_RESPONSE,
}


def tick(state: State) -> None:
    """One tick of whoever does not lead."""
    state.election_elapsed += 1
    if state.election_elapsed >= state.randomized_election_timeout and state.promotable:
        state.election_elapsed = 0
        campaign(state)


def campaign(state: State) -> None:
    """Try to become leader, if we may."""
    if may_campaign(state):
        if state.config.pre_vote:
            _ask_pre_votes(state)
        else:
            _ask_votes(state)


def on_timeout_now(state: State, _message: Message) -> None:
    """The leader hands over to us. No PreVote: we are not back from behind a partition."""
    if may_campaign(state):
        _ask_votes(state, TRANSFER)


def may_campaign(state: State) -> bool:
    return (
        state.role is not Role.LEADER
        and state.promotable
        and not state.log.has_unapplied_conf_change()
    )


def _ask_pre_votes(state: State) -> None:
    # Role and ballot change, nothing else: no term, no vote, no timeout is touched.
    if state.role is Role.LEADER:
        raise SafetyViolation("a leader cannot campaign")
    state.tracker.clear_votes()
    state.leader = NOBODY
    state.role = Role.PRE_CANDIDATE
    _ask_all(state, MessageKind.PRE_VOTE, state.term + 1, b"")


def _ask_votes(state: State, context: bytes = b"") -> None:
    if state.role is Role.LEADER:
        raise SafetyViolation("a leader cannot campaign")
    state.reset(state.term + 1)
    state.vote = state.id
    state.role = Role.CANDIDATE
    _ask_all(state, MessageKind.VOTE, state.term, context)


def _ask_all(state: State, kind: MessageKind, term: int, context: bytes) -> None:
    """Ask every voter of both halves; we answer ourselves, once our vote is durable."""
    log = state.log
    for voter in sorted(state.tracker.configuration.all_voters):
        if voter == state.id:
            state.send_when_stable(Message(_ANSWER[kind], voter, state.id, term))
        else:
            state.send(
                Message(kind, voter, state.id, term, log.last_term, log.last_index, context=context)
            )


def in_lease(state: State, message: Message) -> bool:
    """Must this vote request be ignored, because we hear a leader?"""
    return (
        state.config.check_quorum
        and message.context != TRANSFER
        and state.leader != NOBODY
        and state.election_elapsed < state.config.election_ticks
    )


def on_vote_request(state: State, message: Message) -> None:
    """Give our (pre-)vote, or say no. Learners answer too: they may be voters unawares."""
    real = message.kind is MessageKind.VOTE
    can_vote = (
        state.vote == message.sender
        or (state.vote == NOBODY and state.leader == NOBODY)
        or (not real and message.term > state.term)
    )
    answer = _ANSWER[message.kind]
    if not can_vote or not state.log.is_up_to_date(message.index, message.log_term):
        state.send_when_stable(Message(answer, message.sender, state.id, state.term, reject=True))
        return
    # The request's term, not ours: a pre-candidate is in a term of the future.
    state.send_when_stable(Message(answer, message.sender, state.id, message.term))
    if real:
        state.election_elapsed = 0
        state.vote = message.sender


def on_vote_response(state: State, message: Message) -> None:
    """Count an answer to the ballot we hold; stale ones of our pre-candidacy do not belong."""
    expected = (
        MessageKind.PRE_VOTE_RESPONSE
        if state.role is Role.PRE_CANDIDATE
        else MessageKind.VOTE_RESPONSE
    )
    if message.kind is not expected:
        return
    state.tracker.record_vote(message.sender, granted=not message.reject)
    result = state.tracker.tally()
    if result is Vote.WON:
        if state.role is Role.PRE_CANDIDATE:
            _ask_votes(state)
        else:
            become_leader(state)
    elif result is Vote.LOST:
        state.become_follower(state.term, NOBODY)
