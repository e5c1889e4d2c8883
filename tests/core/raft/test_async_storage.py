"""The asynchronous form: what waits for the disk, what does not, and late answers."""

from __future__ import annotations

import pytest

from swarmctl.core.raft.errors import SafetyViolation
from swarmctl.core.raft.message import (
    LOCAL_APPEND,
    LOCAL_APPLY,
    ConfState,
    HardState,
    Message,
    MessageKind,
    Role,
    Snapshot,
)
from tests.core.raft.cluster import PLAIN, Host, entries

APPEND = MessageKind.APPEND
APPEND_DONE = MessageKind.STORAGE_APPEND_RESPONSE


def orders(host: Host) -> tuple[list[Message], list[Message]]:
    """One Ready, split in orders to the log writer and what may leave at once."""
    messages = host.raft.ready().messages
    return (
        [each for each in messages if each.to == LOCAL_APPEND],
        [each for each in messages if each.to > 0],
    )


def carry_out(host: Host, order: Message) -> list[Message]:
    """The disk does ``order``; what it releases for other members is returned."""
    if order.term:
        host.storage.set_hard_state(HardState(order.term, order.vote, order.commit))
    if order.snapshot is not None:
        host.storage.install(order.snapshot)
    host.storage.append(order.entries)
    for response in order.responses:
        if response.to == host.raft.id:
            host.raft.step(response)
    return [each for each in order.responses if each.to != host.raft.id]


def test_answers_wait_for_the_disk_and_requests_do_not() -> None:
    """A vote and an append's answer are released by the log writer; a candidate asks at once."""
    host = Host(**PLAIN)
    host.raft.step(Message(MessageKind.VOTE, 1, 2, term=1))
    (order,), at_once = orders(host)
    assert at_once == []
    assert [each.kind for each in order.responses] == [MessageKind.VOTE_RESPONSE]
    carry_out(host, order)
    host.raft.step(Message(APPEND, 1, 2, 1, entries=entries(1)))
    (order,), at_once = orders(host)
    assert at_once == []
    assert [each.kind for each in order.responses] == [MessageKind.APPEND_RESPONSE, APPEND_DONE]
    host.raft.campaign()
    _, at_once = orders(host)
    assert {each.kind for each in at_once} == {MessageKind.VOTE}


def test_rejections_wait_for_the_disk_too() -> None:
    """A no may rest on a vote or entries that are not durable yet."""
    host = Host(**PLAIN)
    host.raft.step(Message(MessageKind.VOTE, 1, 2, term=1))
    host.raft.step(Message(MessageKind.VOTE, 1, 3, term=1))
    (order,), at_once = orders(host)
    assert at_once == []
    assert [(each.to, each.reject) for each in order.responses] == [(2, False), (3, True)]


def test_a_leader_counts_itself_after_its_own_disk() -> None:
    """Appends leave before the leader's own write is done; its own copy counts afterwards."""
    host = Host(1, (1, 2, 3), **PLAIN)
    host.raft.campaign()
    host.run()
    host.raft.step(Message(MessageKind.VOTE_RESPONSE, 1, 2, term=1))
    (order,), at_once = orders(host)
    assert {each.to for each in at_once if each.kind is APPEND} == {2, 3}
    host.raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, term=1, index=1))
    assert host.raft.status().commit == 0
    carry_out(host, order)
    assert host.raft.status().commit == 1


def test_followers_alone_can_commit_while_the_leaders_disk_is_slow() -> None:
    """A majority without the leader is a majority; it applies once its own disk has caught up."""
    host = Host(1, (1, 2, 3), **PLAIN)
    host.raft.campaign()
    host.run()
    host.raft.step(Message(MessageKind.VOTE_RESPONSE, 1, 2, term=1))
    (order,), _ = orders(host)
    for peer in (2, 3):
        host.raft.step(Message(MessageKind.APPEND_RESPONSE, 1, peer, term=1, index=1))
    assert host.raft.status().commit == 1
    assert host.raft.ready().committed_entries == ()
    carry_out(host, order)
    messages = host.raft.ready().messages
    (apply,) = [each for each in messages if each.to == LOCAL_APPLY]
    assert [entry.index for entry in apply.entries] == [1]
    assert host.raft.status().applied == 0
    host.raft.step(apply.responses[0])
    assert host.raft.status().applied == 1


def test_late_answers_of_an_earlier_term_say_nothing_about_entries() -> None:
    """ABA: X is written, overwritten by Y, then by X again; the first X's answer comes last.

    At that moment the disk holds Y: believing the answer would make the log read Y for X.
    """
    host = Host(2, (1, 2, 3, 4, 5), term=1, **PLAIN)
    x = entries(1)
    y = entries(2)
    host.raft.step(Message(APPEND, 2, 1, 1, entries=x))
    (first,), _ = orders(host)
    host.raft.step(Message(APPEND, 2, 3, 2, entries=y))
    (second,), _ = orders(host)
    host.raft.step(Message(APPEND, 2, 1, 3, entries=x))
    (third,), _ = orders(host)
    carry_out(host, first)
    assert host.raft.log.has_unstable_entries
    carry_out(host, second)
    assert host.raft.log.has_unstable_entries
    assert host.storage.term(1) == 2
    assert host.raft.log.term(1) == 1
    carry_out(host, third)
    assert not host.raft.log.has_unstable_entries
    assert host.storage.term(1) == 1


def test_every_order_speaks_for_the_whole_tail() -> None:
    """The answer that a term change made void is made good by the next one, even without entries.

    Otherwise the tail would stay in memory for ever.
    """
    host = Host(2, (1, 2, 3), **PLAIN)
    host.raft.step(Message(APPEND, 2, 1, 1, entries=entries(1)))
    (first,), _ = orders(host)
    host.raft.step(Message(MessageKind.HEARTBEAT, 2, 3, 2))  # a new term, no entries
    (second,), _ = orders(host)
    carry_out(host, first)
    assert host.raft.log.has_unstable_entries
    assert second.entries == ()
    carry_out(host, second)
    assert not host.raft.log.has_unstable_entries


def test_a_snapshot_counts_in_any_term() -> None:
    """Its answer may be late: what it brought is committed whatever the term."""
    host = Host(2, (1, 2), **PLAIN)
    snapshot = Snapshot(7, 1, ConfState((1, 2)))
    host.raft.step(Message(MessageKind.SNAPSHOT, 2, 1, 1, snapshot=snapshot))
    (order,), _ = orders(host)
    host.raft.campaign()
    assert host.raft.role is Role.FOLLOWER  # not while the log is not whole
    host.raft.step(Message(MessageKind.HEARTBEAT, 2, 1, 2))
    carry_out(host, order)
    assert host.raft.status().applied == 7
    assert host.raft.log.pending_snapshot is None


def test_the_acknowledgement_of_a_snapshot_waits_for_the_disk() -> None:
    """The leader hears of it when it is durable."""
    host = Host(2, (1, 2), **PLAIN)
    snapshot = Snapshot(7, 1, ConfState((1, 2)))
    host.raft.step(Message(MessageKind.SNAPSHOT, 2, 1, 1, snapshot=snapshot))
    (order,), at_once = orders(host)
    assert at_once == []
    (answer,) = carry_out(host, order)
    assert (answer.kind, answer.index) == (MessageKind.APPEND_RESPONSE, 7)


def test_nothing_is_said_twice() -> None:
    """What a Ready has handed out does not come again, done or not."""
    host = Host(**PLAIN)
    host.raft.step(Message(APPEND, 1, 2, 1, entries=entries(1), commit=1))
    assert host.raft.has_ready()
    host.raft.ready()
    assert not host.raft.has_ready()
    assert host.raft.ready().messages == ()


def test_the_synchronous_form_is_taken_in_turns() -> None:
    """A second Ready before advance would be built on promises that are not kept."""
    host = Host(async_storage=False, **PLAIN)
    host.raft.campaign()
    host.raft.ready()
    with pytest.raises(SafetyViolation):
        host.raft.ready()
    host.raft.advance()
    host.raft.ready()


def test_a_storage_that_contradicts_itself_is_not_started_from() -> None:
    """A commit past the log's end, or entries of a later term than ours: the disk is damaged."""
    with pytest.raises(SafetyViolation):
        Host(log=(1,), commit=2, **PLAIN)
    with pytest.raises(SafetyViolation):
        Host(log=(1, 3), term=2, **PLAIN)


def test_a_compacted_log_is_committed_even_if_the_hard_state_lags() -> None:
    """The commit index is saved lazily; the snapshot proves more."""
    host = Host(snapshot=Snapshot(5, 2, ConfState((1,))), term=2, commit=3, **PLAIN)
    assert host.raft.status().commit == 5
