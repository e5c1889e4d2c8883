"""Linearizable reads: at which index may a read be answered, and is that certain?

A leader notes its commit index when a read arrives. Once a quorum has answered a heartbeat sent
after that, nobody else can have led then, so the read may be answered when that index is applied.

Laws
- Reads are confirmed by their *position* in this leadership's queue, which heartbeats carry and
  answers return. A context chosen by a caller could repeat, and an old answer confirm a new read.
- Before the first commit of its own term a leader's commit index may be behind: reads wait.
- Nobody is asked only where nobody needs to be: when the one voter is this very leader.

It must not know: what is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swarmctl.core.raft.message import Entry, Message, MessageKind, ReadState
from swarmctl.core.raft.quorum import joint_index

if TYPE_CHECKING:
    from swarmctl.core.raft.confchange import Configuration
    from swarmctl.core.raft.state import State

_POSITION_BYTES = 8


class _Read(NamedTuple):
    commit: int
    request: Message


class ReadQueue:
    """The reads of one leadership, in order of arrival.

    ``early``: those that wait for the first commit of the term.
    """

    def __init__(self) -> None:
        self.early: list[Message] = []
        self._unconfirmed: list[_Read] = []
        self._confirmed = 0
        self._acked: dict[int, int] = {}

    def add(self, commit: int, request: Message) -> None:
        self._unconfirmed.append(_Read(commit, request))

    def heartbeat_context(self) -> bytes:
        """What a heartbeat must carry so that its answers confirm every read so far."""
        if not self._unconfirmed:
            return b""
        position = self._confirmed + len(self._unconfirmed)
        return position.to_bytes(_POSITION_BYTES, "little")

    def acknowledge(self, node: int, context: bytes) -> None:
        """``node`` has answered a heartbeat that carried ``context``."""
        if len(context) == _POSITION_BYTES:
            position = int.from_bytes(context, "little")
            self._acked[node] = max(self._acked.get(node, 0), position)

    def take_confirmed(self, configuration: Configuration) -> list[_Read]:
        """Remove and return the reads that a quorum has confirmed by now."""
        if not self._unconfirmed:
            return []
        asked = self._confirmed + len(self._unconfirmed)
        acked = joint_index(configuration.voters, configuration.outgoing, self._acked)
        count = min(acked, asked) - self._confirmed
        if count <= 0:
            return []
        confirmed = self._unconfirmed[:count]
        del self._unconfirmed[:count]
        self._confirmed += count
        return confirmed


def on_read_index(state: State, message: Message) -> None:
    """A leader is asked for a read index, by its host or by a follower."""
    if not state.committed_in_term:
        state.reads.early.append(message)
        return
    configuration = state.tracker.configuration
    alone = configuration.voters == {state.id} and not configuration.outgoing
    if alone or state.config.lease_reads:
        _answer(state, message, state.log.committed)
        return
    state.reads.add(state.log.committed, message)
    context = state.reads.heartbeat_context()
    state.reads.acknowledge(state.id, context)
    broadcast_heartbeat(state, context)


def on_commit(state: State) -> None:
    """The commit index of a leader has moved: reads that waited for that can go on."""
    if state.reads.early and state.committed_in_term:
        waiting, state.reads.early = state.reads.early, []
        for message in waiting:
            on_read_index(state, message)


def answer_confirmed(state: State) -> None:
    """Answer what a quorum of the present configuration has confirmed."""
    for commit, request in state.reads.take_confirmed(state.tracker.configuration):
        _answer(state, request, commit)


def _answer(state: State, request: Message, index: int) -> None:
    context = request.entries[0].data
    if request.sender == state.id:
        state.read_states.append(ReadState(index, context))
        return
    state.send(
        Message(
            MessageKind.READ_INDEX_RESPONSE,
            request.sender,
            state.id,
            state.term,
            index=index,
            entries=(Entry(data=context),),
        )
    )


def on_read_index_response(state: State, message: Message) -> None:
    """A follower's read has been confirmed by the leader."""
    if len(message.entries) == 1:
        state.read_states.append(ReadState(message.index, message.entries[0].data))


def broadcast_heartbeat(state: State, context: bytes) -> None:
    """Tell every member that we lead. It may commit only what it is known to have."""
    commit = state.log.committed
    for node, progress in state.tracker.progress.items():
        if node == state.id:
            continue
        known = min(progress.match, commit)
        state.send(
            Message(
                MessageKind.HEARTBEAT,
                node,
                state.id,
                state.term,
                commit=known,
                context=context,
            )
        )
        progress.sent_commit(known)
