"""The leader's rules: appending, replicating, committing, reconfiguring, handing over.

Laws
- An entry is committed once a quorum has it *and* it is of the leader's own term; what precedes it
  is committed with it (Raft, figure 8).
- The leader counts itself only after its own disk has answered, like everybody else.
- At most one membership change is under way: the next may be proposed once the last is applied.

It must not know: how a leader came to be one (`election`), what the host does with an entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swarmctl.core.raft import reads
from swarmctl.core.raft.confchange import apply_change
from swarmctl.core.raft.errors import Compacted, ConfChangeRefused, ProposalDropped, SafetyViolation
from swarmctl.core.raft.message import (
    NOBODY,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    Message,
    MessageKind,
    Role,
    decode_conf_change,
)
from swarmctl.core.raft.progress import Progress, ProgressState

if TYPE_CHECKING:
    from swarmctl.core.raft.confchange import Configuration
    from swarmctl.core.raft.state import State


def become_leader(state: State) -> None:
    """Lead the term that we have won, and say so by an empty entry that can be committed."""
    if state.role is Role.FOLLOWER:
        raise SafetyViolation("a follower cannot lead without an election")
    state.reset(state.term)
    state.leader = state.id
    state.role = Role.LEADER
    own = state.tracker.progress[state.id]
    own.become_replicate()
    own.recently_active = True
    # There may be a membership change in what we inherit; looking for it could be long, waiting
    # until all of it is applied is safe.
    state.pending_conf_index = state.log.last_index
    _append(state, (Entry(),))
    broadcast_append(state)


def tick(state: State) -> None:
    """One tick of a leader: CheckQuorum, the end of a transfer's patience, heartbeats."""
    state.heartbeat_elapsed += 1
    state.election_elapsed += 1
    if state.election_elapsed >= state.config.election_ticks:
        state.election_elapsed = 0
        if state.config.check_quorum:
            _check_quorum(state)
            if state.role is not Role.LEADER:
                return
        state.transferee = NOBODY
    if state.heartbeat_elapsed >= state.config.heartbeat_ticks:
        state.heartbeat_elapsed = 0
        reads.broadcast_heartbeat(state, state.reads.heartbeat_context())


def _check_quorum(state: State) -> None:
    """Stop leading whom we cannot reach; then everybody has to prove itself again."""
    if not state.tracker.quorum_active():
        state.become_follower(state.term, NOBODY)
        return
    for node, progress in state.tracker.progress.items():
        if node != state.id:
            progress.recently_active = False


# Proposals


def on_propose(state: State, message: Message) -> None:
    """Append proposals and send them on.

    A membership change that may not be proposed now becomes an empty entry: its place in the log
    was asked for together with its neighbours.

    Raises:
        ProposalDropped: nothing has been appended.
    """
    if not message.entries:
        raise SafetyViolation("a proposal without entries")
    if state.id not in state.tracker.progress:
        raise ProposalDropped("this leader has been removed from the cluster")
    if state.transferee != NOBODY:
        raise ProposalDropped("leadership is being handed over")
    entries = message.entries
    if any(entry.kind is not EntryKind.NORMAL for entry in entries):
        entries = _screen_conf_changes(state, entries)
    if not _append(state, entries):
        raise ProposalDropped("too much data is waiting to be committed and applied")
    broadcast_append(state)


def _screen_conf_changes(state: State, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    screened: list[Entry] = []
    for position, entry in enumerate(entries):
        if entry.kind is not EntryKind.NORMAL:
            if _may_propose(state, entry):
                state.pending_conf_index = state.log.last_index + position + 1
            else:
                entry = Entry()
        screened.append(entry)
    return tuple(screened)


def _may_propose(state: State, entry: Entry) -> bool:
    try:
        change = decode_conf_change(entry.data)
    except msgspec.DecodeError:
        return False
    return not state.config.validate_conf_changes or why_not_now(state, change) is None


def why_not_now(state: State, change: ConfChange) -> str | None:
    """Why ``change`` cannot be proposed at this moment; None if it can."""
    if state.pending_conf_index > state.log.applied:
        return "another membership change may be under way"
    joint = state.tracker.configuration.joint
    if joint and change.changes:
        return "the configuration is joint; it must be left first"
    if not joint and not change.changes:
        return "the configuration is not joint; there is nothing to leave"
    return None


def _append(state: State, entries: tuple[Entry, ...]) -> bool:
    """Append at the end of our own log, as of our term; False if that would be too much.

    A lone proposal of any size passes, and empty ones always do: a new leader's first entry and
    the one that leaves a joint configuration cannot be refused.
    """
    size = sum(len(entry.data) for entry in entries)
    uncommitted = state.uncommitted_size
    if uncommitted and size and uncommitted + size > state.config.max_uncommitted_size:
        return False
    state.uncommitted_size = uncommitted + size
    term = state.term
    last = state.log.last_index
    state.log.append(
        tuple(
            [
                Entry(term, index, entry.kind, entry.data)
                for index, entry in enumerate(entries, last + 1)
            ]
        )
    )
    state.send_when_stable(
        Message(MessageKind.APPEND_RESPONSE, state.id, state.id, term, 0, last + len(entries))
    )
    return True


def applied_to(state: State, index: int, size: int) -> None:
    """The host has applied up to ``index``; a joint configuration that is due is left now."""
    log = state.log
    log.applied_to(max(index, log.applied), size)
    if (
        state.tracker.configuration.auto_leave
        and state.role is Role.LEADER
        and log.applied >= state.pending_conf_index
    ):
        leave = Message(
            MessageKind.PROPOSE,
            state.id,
            state.id,
            entries=(Entry(kind=EntryKind.CONF_CHANGE),),
        )
        try:
            on_propose(state, leave)
        except ProposalDropped:
            return  # a transfer is under way: the next leader leaves it, or we do, later


# Replication


def broadcast_append(state: State) -> None:
    """Bring every member up to date, as far as its window allows."""
    for node, progress in state.tracker.progress.items():
        if node != state.id:
            send_append(state, node, progress)


def send_append(state: State, to: int, progress: Progress, *, even_empty: bool = True) -> bool:
    """Send the next entries, or the snapshot that replaces them, if the member may have any.

    Args:
        even_empty: send an append without entries, for the commit index it carries.

    Returns:
        True if a message went out.
    """
    if progress.paused or progress.state is ProgressState.SNAPSHOT:
        return False
    log = state.log
    prev_index = progress.next - 1
    prev_term = log.term(prev_index)
    if prev_term is None:
        return _send_snapshot(state, to, progress)
    entries: tuple[Entry, ...] = ()
    if progress.state is not ProgressState.REPLICATE or not progress.inflights.full:
        try:
            entries = log.entries(progress.next, state.config.max_message_size)
        except Compacted:
            return _send_snapshot(state, to, progress)
    if not entries and not even_empty:
        return False
    commit = log.committed
    state.send(
        Message(
            MessageKind.APPEND, to, state.id, state.term, prev_term, prev_index, commit, entries
        )
    )
    progress.sent_entries(len(entries), sum([len(entry.data) for entry in entries]))
    progress.sent_commit(commit)
    return True


def _send_snapshot(state: State, to: int, progress: Progress) -> bool:
    """The entries that the member needs are gone. Only one that answers gets a snapshot."""
    if not progress.recently_active:
        return False
    snapshot = state.log.storage_snapshot()
    if snapshot is None:
        return False
    if not snapshot.index:
        raise SafetyViolation(f"entry {progress.next - 1} is compacted and there is no snapshot")
    progress.become_snapshot(snapshot.index)
    state.send(Message(MessageKind.SNAPSHOT, to, state.id, state.term, snapshot=snapshot))
    return True


def on_append_response(state: State, message: Message) -> None:
    """A member (we ourselves, once our disk has answered) has appended, or refused to."""
    progress = state.tracker.progress.get(message.sender)
    if progress is None:
        return
    progress.recently_active = True
    if message.reject:
        _on_rejection(state, message, progress)
        return
    probing = progress.state is ProgressState.PROBE
    if progress.acknowledge(message.index) or (probing and progress.match == message.index):
        _on_acknowledgement(state, message, progress)


def _on_rejection(state: State, message: Message, progress: Progress) -> None:
    """Go back to where the logs can agree, at most one probe a term.

    The hint is the follower's last entry that could be ours. Where our term at that index is
    larger than the follower's, the logs differ there for certain: a log's terms never fall.
    """
    hint = message.reject_hint
    if message.log_term:
        hint, _ = state.log.find_conflict_by_term(hint, message.log_term)
    if progress.step_back(message.index, hint):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        send_append(state, message.sender, progress)


def _on_acknowledgement(state: State, message: Message, progress: Progress) -> None:
    log = state.log
    if progress.state is ProgressState.REPLICATE:
        progress.inflights.free_to(message.index)
    elif progress.state is ProgressState.PROBE:
        progress.become_replicate()
    elif progress.match + 1 >= log.first_index():
        # Whatever brought it here, our snapshot or somebody else's: the log can go on from it.
        progress.become_replicate()
    own = message.sender == state.id
    if _try_commit(state):
        broadcast_append(state)
    elif not own and progress.can_bump_commit(log.committed):
        send_append(state, message.sender, progress)
    if own:
        return
    # The window may have room for more than one message now.
    while progress.next <= log.last_index and send_append(
        state, message.sender, progress, even_empty=False
    ):
        pass
    if message.sender == state.transferee and progress.match == log.last_index:
        _send_timeout_now(state, message.sender)


def _try_commit(state: State) -> bool:
    """Commit what a quorum has, if it is of our own term."""
    log = state.log
    index = state.tracker.committed()
    if index <= log.committed or log.term(index) != state.term:
        return False
    log.commit_to(index)
    reads.on_commit(state)
    return True


def on_heartbeat_response(state: State, message: Message) -> None:
    """A member is alive: let it have one more append, and count it for the reads that wait."""
    progress = state.tracker.progress.get(message.sender)
    if progress is None:
        return
    progress.recently_active = True
    progress.paused = False
    if progress.match < state.log.last_index or progress.state is ProgressState.PROBE:
        send_append(state, message.sender, progress)
    if message.context and not state.config.lease_reads:
        state.reads.acknowledge(message.sender, message.context)
        reads.answer_confirmed(state)


def report_unreachable(state: State, node: int) -> None:
    """The last message to ``node`` was probably lost: stop pipelining."""
    progress = state.tracker.progress.get(node)
    if progress is not None and progress.state is ProgressState.REPLICATE:
        progress.become_probe()


def report_snapshot(state: State, node: int, *, ok: bool) -> None:
    """The snapshot to ``node`` has been delivered or lost; go on with its next answer."""
    progress = state.tracker.progress.get(node)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    if not ok:
        progress.pending_snapshot = 0  # or we would probe after a snapshot that never arrived
    progress.become_probe()
    progress.paused = True


# Handing over


def on_transfer_leader(state: State, message: Message) -> None:
    """Hand leadership to ``message.sender``, within an election timeout or not at all."""
    target = message.sender
    progress = state.tracker.progress.get(target)
    if progress is None or progress.learner or target == state.transferee:
        return
    state.transferee = NOBODY
    if target == state.id:
        return
    state.election_elapsed = 0
    state.transferee = target
    if progress.match == state.log.last_index:
        _send_timeout_now(state, target)
    else:
        send_append(state, target, progress)


def _send_timeout_now(state: State, to: int) -> None:
    state.send(Message(MessageKind.TIMEOUT_NOW, to, state.id, state.term))


# Membership


def apply_conf_change(state: State, change: ConfChange) -> ConfState:
    """A membership change has been committed: it holds from here on.

    Raises:
        ConfChangeRefused: it does not fit the configuration; nothing has changed. Every member
            comes to the same answer.
    """
    configuration, fresh = apply_change(state.tracker.configuration, change)
    switch_to(state, configuration, fresh)
    return configuration.conf_state()


def switch_to(state: State, configuration: Configuration, fresh: frozenset[int]) -> None:
    """Take over a configuration, and draw the conclusions if we lead."""
    state.tracker.switch_to(configuration, fresh, state.log.last_index)
    if state.role is not Role.LEADER:
        return
    own = state.tracker.progress.get(state.id)
    if own is None or own.learner:
        if state.config.step_down_on_removal:
            state.become_follower(state.term, NOBODY)
        return
    if _try_commit(state):
        broadcast_append(state)
    else:
        for node, progress in state.tracker.progress.items():
            if node != state.id:
                send_append(state, node, progress, even_empty=False)
    if state.transferee not in configuration.all_voters:
        state.transferee = NOBODY
    reads.answer_confirmed(state)


def refuse_unfit(state: State, change: ConfChange) -> None:
    """Say before proposing what would become of ``change``.

    Raises:
        ConfChangeRefused: it cannot be proposed now, or could not be applied.
    """
    if reason := why_not_now(state, change):
        raise ConfChangeRefused(reason)
    if not state.committed_in_term:
        raise ConfChangeRefused("this leader has not committed anything in its term yet")
    apply_change(state.tracker.configuration, change)
