"""Orders to the host's storage workers, and what their answers mean.

Laws
- The log writer takes its orders one after the other; what an order releases (``responses``) may
  rest on everything in that order and all before it.
- Entries are applied in order, each once, and only when our own storage holds them.

It must not know: when orders are given (`raft.Raft.ready`), how they are carried out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.raft import following, leading
from swarmctl.core.raft.message import (
    LOCAL_APPEND,
    LOCAL_APPLY,
    Entry,
    HardState,
    Message,
    MessageKind,
    Snapshot,
)
from swarmctl.core.raft.storage import entry_size

if TYPE_CHECKING:
    from swarmctl.core.raft.state import State

_NOTHING_NEW = HardState()


def append_order(
    state: State, entries: tuple[Entry, ...], hard: HardState | None, snapshot: Snapshot | None
) -> Message:
    """The log writer's next order, with everything that may be said once it is durable.

    A term of 0 says that there is no new hard state. Our own answers come before the news that
    the tail is stable: counting an entry is cheaper while it is still in memory.
    """
    responses = state.outbox_when_stable
    if state.log.has_unstable_entries or snapshot is not None:
        responses.append(append_done(state, snapshot))
    if hard is None:
        hard = _NOTHING_NEW
    return Message(
        MessageKind.STORAGE_APPEND,
        LOCAL_APPEND,
        state.id,
        hard.term,
        commit=hard.commit,
        vote=hard.vote,
        entries=entries,
        snapshot=snapshot,
        responses=tuple(responses),
    )


def append_done(state: State, snapshot: Snapshot | None) -> Message:
    """The answer that lets us forget the unstable tail.

    It names the whole tail, not only what is being written now, and our term. If entries X are
    overwritten by Y and then by X again, the first X's late answer would match the tail while Y is
    still on its way to the disk: so an answer counts only in the term it was issued in, within
    which nothing is overwritten twice. Since answers get lost that way, each one speaks for
    everything before it.
    """
    log = state.log
    unstable = log.has_unstable_entries
    return Message(
        MessageKind.STORAGE_APPEND_RESPONSE,
        state.id,
        LOCAL_APPEND,
        state.term,
        log.last_term if unstable else 0,
        log.last_index if unstable else 0,
        snapshot=snapshot,
    )


def on_append_done(state: State, message: Message) -> None:
    if message.index:
        state.log.stable_to(message.index, message.log_term)
    if message.snapshot is not None:
        following.stable_snapshot(state, message.snapshot)


def on_append_done_late(state: State, message: Message) -> None:
    """The answer of an earlier term: it says nothing about entries, see `append_done`.

    A snapshot it carried is committed state, in any term.
    """
    if message.snapshot is not None:
        following.stable_snapshot(state, message.snapshot)


def apply_order(state: State, entries: tuple[Entry, ...]) -> Message:
    """The state machine's next order. Terms do not matter to what is committed."""
    return Message(
        MessageKind.STORAGE_APPLY,
        LOCAL_APPLY,
        state.id,
        entries=entries,
        responses=(apply_done(state, entries),),
    )


def apply_done(state: State, entries: tuple[Entry, ...]) -> Message:
    return Message(MessageKind.STORAGE_APPLY_RESPONSE, state.id, LOCAL_APPLY, entries=entries)


def on_apply_done(state: State, message: Message) -> None:
    entries = message.entries
    if entries:
        leading.applied_to(state, entries[-1].index, sum([entry_size(each) for each in entries]))
        data = sum([len(each.data) for each in entries])
        state.uncommitted_size = max(state.uncommitted_size - data, 0)
