"""Replication beyond the paper: flow control, loss and reordering, limits, proposals."""

from __future__ import annotations

from typing import Any

import pytest

from swarmctl.core.errors import InvalidArgument
from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.raft.message import ConfState, Entry, Message, MessageKind, Role, Snapshot
from swarmctl.core.raft.progress import ProgressState
from tests.core.raft.cluster import PLAIN, Cluster, Host, entries

APPEND, APPEND_RESPONSE = MessageKind.APPEND, MessageKind.APPEND_RESPONSE


def leader(*, voters: tuple[int, ...] = (1, 2), acked: bool = True, **options: Any) -> Host:
    """Member 1, leading term 1; the others have its first entry if ``acked``."""
    host = Host(1, voters, **{**PLAIN, **options})
    host.raft.campaign()
    host.run()
    for peer in voters[1:]:
        if host.raft.role is not Role.LEADER:
            host.receive(Message(MessageKind.VOTE_RESPONSE, 1, peer, term=1))
    if acked:
        for peer in voters[1:]:
            host.receive(Message(APPEND_RESPONSE, 1, peer, term=1, index=1))
    return host


def appends(messages: list[Message]) -> list[Message]:
    return [each for each in messages if each.kind is APPEND]


def test_a_new_follower_is_probed_once() -> None:
    """Until it answers, a follower gets one message with entries, not one for each proposal."""
    host = leader(acked=False)
    for _ in range(3):
        host.raft.propose(b"x")
    assert appends(host.run()) == []
    out = host.receive(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 2, term=1))
    assert len(appends(out)) == 1


def test_replication_is_pipelined_up_to_the_window() -> None:
    """Messages go out without waiting for answers until the window is full, then stop."""
    host = leader(max_inflight_messages=3)
    for _ in range(5):
        host.raft.propose(b"x")
    assert [each.index for each in appends(host.run())] == [1, 2, 3]
    progress = host.raft.status().progress[2]
    assert (progress.next, progress.inflight, progress.inflight_full) == (5, 3, True)
    out = appends(host.receive(Message(APPEND_RESPONSE, 1, 2, term=1, index=2)))
    assert [entry.index for each in out for entry in each.entries] == [5, 6]


def test_the_window_counts_bytes_too() -> None:
    """However few messages: no more bytes are in flight than allowed, one message aside."""
    host = leader(max_inflight_bytes=1000, max_message_size=500)
    for _ in range(6):
        host.raft.propose(b"x" * 400)
    assert len(appends(host.run())) == 3


def test_a_full_window_of_lost_messages_recovers() -> None:
    """A heartbeat's answer lets one empty append through; refused, it leads to probing."""
    host = leader(max_inflight_messages=2)
    host.raft.propose(b"a")
    host.raft.propose(b"b")
    assert len(appends(host.run())) == 2  # and they are lost
    (probe,) = appends(host.receive(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 2, term=1)))
    assert (probe.index, probe.entries) == (3, ())
    refusal = Message(APPEND_RESPONSE, 1, 2, 1, 1, 3, reject=True, reject_hint=1)
    (again,) = appends(host.receive(refusal))
    assert (again.index, len(again.entries)) == (1, 2)


def test_messages_are_limited_in_size() -> None:
    """A follower that is far behind gets its entries in portions, one oversized entry alone."""
    host = leader(voters=(1, 2, 3), max_message_size=250, max_inflight_messages=100)
    host.receive(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 3, term=1))
    host.raft.report_unreachable(2)
    host.raft.propose_many([b"x" * 100] * 5 + [b"y" * 900] + [b"z"])
    out = appends(host.run())
    assert len(out[0].entries) == 2
    sent = [
        [entry.index for entry in each.entries]
        for each in appends(host.receive(Message(APPEND_RESPONSE, 1, 2, term=1, index=3)))
        if each.to == 2
    ]
    assert sent == [[4, 5], [6], [7], [8]]


def test_unreachable_stops_the_pipeline() -> None:
    """After a failed send the leader goes on from what it knows, one message at a time."""
    host = leader()
    host.raft.propose(b"a")
    host.run()
    host.raft.report_unreachable(2)
    progress = host.raft.status().progress[2]
    assert (progress.state, progress.next) == (ProgressState.PROBE, 2)


def test_one_probe_a_term_finds_where_logs_agree() -> None:
    """A long contradicting tail costs a round trip a term, not one an entry."""
    terms = (*(1,) * 5, *(3,) * 30, *(5,) * 30)
    theirs = (*(1,) * 5, *(2,) * 25, *(4,) * 25)
    cluster = Cluster(Host(1, (1, 2, 3), log=terms, **PLAIN), Host(3, (1, 2, 3), **PLAIN))
    follower = Host(2, (1, 2, 3), log=theirs, term=5, **PLAIN)
    cluster.elect(1)
    cluster.hosts[2] = follower
    cluster.carried.clear()
    cluster.tick(1)
    cluster.tick(1)
    assert follower.log() == cluster[1].log()
    refusals = [each for each in cluster.carried if each.kind is APPEND_RESPONSE and each.reject]
    assert 1 <= len(refusals) <= 3


def test_an_old_append_does_not_cut_what_was_acknowledged() -> None:
    """Messages that overtake each other: the shorter, older one changes nothing."""
    host = Host(2, (1, 2), **PLAIN)
    host.receive(Message(APPEND, 2, 1, 1, entries=entries(1, 1, 1)))
    (answer,) = host.receive(Message(APPEND, 2, 1, 1, entries=entries(1)))
    assert host.log() == [(1, 1), (1, 2), (1, 3)]
    assert answer.index == 1


def test_an_append_from_before_our_log_begins_is_answered_with_our_commit() -> None:
    """Append consistency: its place is compacted here, so committed; a refusal would send the
    leader back to where we have nothing to compare."""
    founding = Snapshot(5, 2, ConfState((1, 2, 3)))
    host = Host(1, snapshot=founding, log=(2,), term=2, **PLAIN)
    (answer,) = host.receive(
        Message(MessageKind.APPEND, 1, 2, 2, log_term=1, index=3, entries=entries(2, start=4))
    )
    assert (answer.reject, answer.index) == (False, 5)


def test_an_append_commits_no_more_than_it_brings() -> None:
    """The tail behind the new entries may contradict the leader: its commit is not ours yet."""
    host = Host(2, (1, 2, 3), log=(1, 1, 1), **PLAIN)
    host.receive(Message(APPEND, 2, 1, 2, 1, 1, commit=3, entries=entries(1, start=2)))
    assert host.raft.status().commit == 2


def test_a_heartbeat_commits_no_more_than_the_follower_has() -> None:
    """The leader tells a follower the smaller of its commit and the follower's match."""
    host = leader(voters=(1, 2, 3))
    host.raft.propose(b"x")
    host.run()
    host.receive(Message(APPEND_RESPONSE, 1, 2, term=1, index=2))
    assert host.raft.status().commit == 2
    told = {each.to: each.commit for each in host.tick() if each.kind is MessageKind.HEARTBEAT}
    assert told == {2: 2, 3: 1}


def test_stale_answers_are_ignored() -> None:
    """An answer of an earlier term, or for less than is known, moves nothing."""
    host = leader()
    before = host.raft.status().progress[2]
    host.receive(Message(APPEND_RESPONSE, 1, 2, term=0, index=0))
    host.receive(Message(APPEND_RESPONSE, 1, 2, 1, 1, 1, reject=True, reject_hint=0))
    assert host.raft.status().progress[2] == before


def test_answers_of_strangers_are_ignored() -> None:
    """Somebody who is not in the configuration moves neither term nor log."""
    host = leader()
    for kind in (APPEND_RESPONSE, MessageKind.HEARTBEAT_RESPONSE, MessageKind.VOTE_RESPONSE):
        assert host.receive(Message(kind, 1, 9, term=5, index=9, reject=True)) == []
    assert (host.raft.term, host.raft.role) == (1, Role.LEADER)


def test_too_much_uncommitted_data_is_refused() -> None:
    """Above the cap proposals are dropped, whole; empty ones and a first one always pass."""
    host = leader(max_uncommitted_size=100)
    host.raft.propose(b"x" * 1000)  # the first may be of any size
    with pytest.raises(ProposalDropped):
        host.raft.propose(b"x")
    host.raft.propose(b"")
    host.run()
    host.receive(Message(APPEND_RESPONSE, 1, 2, term=1, index=3))
    host.raft.propose(b"x" * 60)
    with pytest.raises(ProposalDropped):
        host.raft.propose_many([b"x" * 30, b"x" * 30])
    host.raft.propose(b"x" * 40)
    assert host.raft.status().last_index == 5


def test_a_leader_that_is_deposed_forgets_what_was_uncommitted() -> None:
    """The cap counts one leadership's proposals only."""
    host = leader(max_uncommitted_size=100)
    host.raft.propose(b"x" * 100)
    host.receive(Message(APPEND, 1, 2, term=2))
    assert host.raft.uncommitted_size == 0


def test_a_batch_is_one_message_and_one_answer() -> None:
    """Proposals made together travel and commit together."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.carried.clear()
    cluster.raft(1).propose_many([b"a", b"b", b"c"])
    cluster.settle()
    assert cluster[3].data() == [b"a", b"b", b"c"]
    with_entries = [each for each in cluster.carried if each.entries]
    assert len(with_entries) == 2


@pytest.mark.parametrize("forward", [True, False])
def test_a_follower_passes_proposals_on_or_refuses(forward: bool) -> None:
    """As configured; without a leader it refuses in any case."""
    cluster = Cluster.of(3, **PLAIN, forward_proposals=forward)
    with pytest.raises(ProposalDropped):
        cluster.raft(2).propose(b"x")
    cluster.elect(1)
    if forward:
        cluster.propose(2, b"x")
        assert cluster[2].data() == [b"x"]
    else:
        with pytest.raises(ProposalDropped):
            cluster.raft(2).propose(b"x")


def test_a_candidate_refuses_proposals() -> None:
    """It has nobody to pass them to."""
    host = Host(**PLAIN)
    host.raft.campaign()
    with pytest.raises(ProposalDropped):
        host.raft.propose(b"x")


@pytest.mark.parametrize("async_storage", [False, True], ids=["sync", "async"])
def test_what_a_minority_leader_appended_is_replaced(async_storage: bool) -> None:
    """Entries that never had a majority give way to the new leader's everywhere."""
    cluster = Cluster.of(5, **PLAIN, async_storage=async_storage)
    cluster.elect(1)
    cluster.cut(3, 4, 5)
    cluster.propose(1, b"lost 1", b"lost 2")
    cluster.heal()
    cluster.cut(1, 2)
    cluster.elect(3)
    cluster.propose(3, b"kept")
    cluster.heal()
    cluster.tick(3)
    for node in range(1, 6):
        assert cluster[node].data() == [b"kept"]
        assert cluster[node].log() == cluster[3].log()


def test_everybody_catches_up_after_loss() -> None:
    """Appends lost for a while are made good with the next heartbeats."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.lose(APPEND)
    cluster.propose(1, b"a", b"b")
    assert cluster[2].data() == []
    cluster.heal()
    cluster.tick(1)
    cluster.tick(1)
    assert cluster[2].data() == cluster[3].data() == [b"a", b"b"]


def test_the_commit_index_is_saved_and_costs_no_sync() -> None:
    """Only new entries, a new term or a new vote have to be on the disk before going on."""
    host = Host(2, (1, 2, 3), async_storage=False, **PLAIN)
    host.raft.step(Message(APPEND, 2, 1, 1, entries=entries(1)))
    assert host.raft.ready().must_sync
    host.raft.advance()
    host.storage.append(entries(1))
    host.raft.step(Message(MessageKind.HEARTBEAT, 2, 1, 1, commit=1))
    ready = host.raft.ready()
    assert ready.hard_state is not None
    assert ready.hard_state.commit == 1
    assert not ready.must_sync


@pytest.mark.parametrize(
    "options",
    [
        {"heartbeat_ticks": 10},
        {"heartbeat_ticks": 0},
        {"max_inflight_messages": 0},
        {"max_inflight_bytes": 5, "max_message_size": 10},
        {"max_uncommitted_size": 0},
        {"lease_reads": True, "check_quorum": False},
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """At construction, with a sentence that says what would be right."""
    with pytest.raises(InvalidArgument):
        RaftConfig(**options)


def test_entries_keep_kind_and_data() -> None:
    """The leader gives term and index, nothing else changes on the way."""
    cluster = Cluster.of(1, **PLAIN)
    cluster.elect(1)
    cluster.raft(1).propose_entries((Entry(9, 9, data=b"\0\xff"),))
    cluster.settle()
    assert cluster[1].applied[-1] == Entry(1, 2, data=b"\0\xff")


def test_a_reachable_follower_is_pipelined_again() -> None:
    """An acknowledgement that brings no news still ends the probing."""
    cluster = Cluster.of(2, **PLAIN)
    cluster.elect(1)
    cluster.raft(1).report_unreachable(2)
    cluster.tick(1)
    assert cluster.raft(1).status().progress[2].state is ProgressState.REPLICATE


def test_a_vote_alone_has_to_be_synced() -> None:
    """A vote in a term that is known already is a promise like any other."""
    host = Host(2, async_storage=False, term=1, **PLAIN)
    host.raft.step(Message(MessageKind.VOTE, 2, 1, term=1))
    assert host.raft.ready().must_sync
