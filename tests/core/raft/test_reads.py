"""Linearizable reads: who may answer, and from when on."""

from __future__ import annotations

import pytest

from swarmctl.core.raft.message import Entry, Message, MessageKind, ReadState, Role, Transition
from tests.core.raft.cluster import PLAIN, Cluster, Host, change

HEARTBEAT_RESPONSE = MessageKind.HEARTBEAT_RESPONSE


def test_a_read_is_confirmed_by_a_quorum() -> None:
    """The leader's commit index at arrival, once a quorum has answered a heartbeat sent after."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.raft(1).read_index(b"ctx")
    cluster.settle()
    assert cluster[1].reads == [ReadState(2, b"ctx")]


def test_a_follower_reads_through_its_leader() -> None:
    """The answer comes back to the follower, with its own context."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.raft(3).read_index(b"mine")
    cluster.settle()
    assert cluster[3].reads == [ReadState(2, b"mine")]
    assert cluster[1].reads == []


def test_a_cut_off_leader_confirms_nothing() -> None:
    """Somebody else may lead by now."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.cut(1)
    cluster.raft(1).read_index(b"ctx")
    cluster.settle()
    assert cluster[1].reads == []


def test_old_answers_do_not_confirm_new_reads() -> None:
    """Two reads with one context: the answer to the first one's heartbeat confirms only that."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    host = cluster[1]
    cluster.cut(2, 3)
    host.raft.read_index(b"same")
    old = {each.to: each for each in host.run()}
    host.raft.read_index(b"same")
    host.run()
    host.receive(Message(HEARTBEAT_RESPONSE, 1, 2, term=1, context=old[2].context))
    assert len(host.reads) == 1
    host.receive(Message(HEARTBEAT_RESPONSE, 1, 3, term=1, context=old[3].context))
    assert len(host.reads) == 1


def test_one_round_confirms_all_reads_before_it() -> None:
    """Later heartbeats speak for earlier reads too, so lost ones cost nothing."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.lose(MessageKind.HEARTBEAT)
    for context in (b"1", b"2", b"3"):
        cluster.raft(1).read_index(context)
        cluster.settle()
    assert cluster[1].reads == []
    cluster.heal()
    cluster.tick(1)
    assert [each.context for each in cluster[1].reads] == [b"1", b"2", b"3"]


def test_heartbeats_without_reads_confirm_nothing_later() -> None:
    """An answer to a plain heartbeat carries no position."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.cut(2, 3)
    host = cluster[1]
    host.raft.read_index(b"ctx")
    host.run()
    host.receive(Message(HEARTBEAT_RESPONSE, 1, 2, term=1))
    host.receive(Message(HEARTBEAT_RESPONSE, 1, 2, term=1, context=b"odd"))
    assert host.reads == []


def test_before_the_first_commit_of_its_term_a_leader_waits() -> None:
    """Its commit index may be behind what its predecessor has answered."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.lose(MessageKind.APPEND)
    cluster.elect(1)
    cluster.raft(1).read_index(b"early")
    cluster.settle()
    cluster.tick(1)
    assert cluster[1].reads == []
    cluster.heal()
    cluster.tick(1)
    assert cluster[1].reads == [ReadState(1, b"early")]


def test_a_lone_leader_answers_only_after_a_commit_in_its_term() -> None:
    """After a restart its commit index is what the disk remembers, which may be too little."""
    host = Host(1, [1], log=(1, 1, 1), term=1, commit=1, **PLAIN)
    host.raft.campaign()
    while host.raft.role is not Role.LEADER:
        for order in host.raft.ready().messages:
            for response in order.responses:
                host.raft.step(response)
    host.raft.read_index(b"ctx")
    assert host.raft.read_states == []
    host.run()
    assert host.reads == [ReadState(4, b"ctx")]


def test_a_removed_leader_is_not_alone() -> None:
    """One voter is left and it is somebody else: reads need that one's word."""
    cluster = Cluster.of(2, **PLAIN, step_down_on_removal=False)
    cluster.elect(1)
    cluster.change(1, change("r1"))
    assert cluster.raft(1).role is Role.LEADER
    cluster.cut(2)
    cluster.raft(1).read_index(b"ctx")
    cluster.settle()
    assert cluster[1].reads == []


def test_with_check_quorum_others_are_asked_too() -> None:
    """That a leader would step down in time is a matter of clocks; reads do not rest on it."""
    cluster = Cluster.of(3, pre_vote=True, check_quorum=True, heartbeat_ticks=1)
    cluster.elect(1)
    cluster.cut(1)
    cluster.raft(1).read_index(b"r")
    cluster.settle()
    assert cluster[1].reads == []


def test_each_read_is_answered_at_its_own_index() -> None:
    """Two that are confirmed together had come before and after a write: the second must see it."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.lose(MessageKind.HEARTBEAT)
    cluster.raft(1).read_index(b"before")
    cluster.settle()
    cluster.propose(1, b"x")
    cluster.raft(1).read_index(b"after")
    cluster.settle()
    cluster.heal()
    cluster.tick(1)
    assert cluster[1].reads == [ReadState(1, b"before"), ReadState(2, b"after")]


def test_one_read_after_the_other_is_confirmed() -> None:
    """Positions run on through a leadership: those of later reads are not those of earlier ones."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    for number in range(4):
        cluster.raft(1).read_index(b"%d" % number)
        cluster.settle()
        assert len(cluster[1].reads) == number + 1


def test_a_late_answer_takes_nothing_back() -> None:
    """Who has confirmed the second read has confirmed it, even if its first answer comes last."""
    host = Host(1, range(1, 6), **PLAIN)
    cluster = Cluster(host, *(Host(node, range(1, 6), **PLAIN) for node in range(2, 6)))
    cluster.elect(1)
    asked: list[Message] = []
    for context in (b"first", b"second"):
        host.raft.read_index(context)
        asked += host.run()
    answers = {
        (node, place): Message(
            HEARTBEAT_RESPONSE, 1, node, host.raft.term, context=asked[place * 4].context
        )
        for node in (2, 3)
        for place in (0, 1)
    }
    host.receive(answers[2, 1])
    host.receive(answers[2, 0])
    assert host.reads == []
    host.receive(answers[3, 1])
    assert [read.context for read in host.reads] == [b"first", b"second"]


def test_alone_in_one_half_is_not_alone() -> None:
    """A leader that is the whole incoming half asks the outgoing one before it answers."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.change(1, change("r2", "r3", transition=Transition.JOINT_EXPLICIT))
    assert cluster.raft(1).status().membership.voters == (1,)
    cluster.cut(2, 3)
    cluster.raft(1).read_index(b"r")
    cluster.settle()
    assert cluster[1].reads == []
    cluster.heal()
    cluster.tick(1)
    assert [read.context for read in cluster[1].reads] == [b"r"]


def test_learners_do_not_confirm() -> None:
    """They do not elect, so they cannot know that nobody else leads."""
    cluster = Cluster.of(3, learners=(4, 5), **PLAIN)
    cluster.elect(1)
    cluster.cut(2, 3)
    cluster.raft(1).read_index(b"ctx")
    cluster.settle()
    assert cluster[1].reads == []


def test_a_lone_voter_with_learners_answers_at_once() -> None:
    """Nobody else can have been elected."""
    cluster = Cluster.of(1, learners=(2,), **PLAIN)
    cluster.elect(1)
    cluster.cut(2)
    cluster.raft(1).read_index(b"ctx")
    cluster.settle()
    assert [each.context for each in cluster[1].reads] == [b"ctx"]


def test_a_read_that_waits_is_answered_when_the_others_leave() -> None:
    """Once the leader is the only voter it has its own word, and that is enough."""
    cluster = Cluster.of(2, **PLAIN)
    cluster.elect(1)
    cluster.lose(MessageKind.HEARTBEAT)
    cluster.raft(1).read_index(b"ctx")
    cluster.settle()
    cluster.change(1, change("r2"))
    assert [each.context for each in cluster[1].reads] == [b"ctx"]


def test_a_deposed_leader_forgets_the_reads_it_was_asked() -> None:
    """Nothing is answered from an earlier leadership."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.cut(1)
    cluster.raft(1).read_index(b"ctx")
    cluster.settle()
    cluster.elect(2)
    cluster.heal()
    cluster.tick(2)
    cluster.elect(1)
    cluster.tick(1)
    assert cluster[1].reads == []


def test_without_a_leader_a_read_is_lost() -> None:
    """Its asker has to ask again; nothing is sent."""
    host = Host(**PLAIN)
    host.raft.read_index(b"ctx")
    assert host.run() == []


def test_lease_reads_ask_nobody() -> None:
    """With a lease the leader answers at once, after the first commit of its term."""
    cluster = Cluster.of(3, pre_vote=False, lease_reads=True)
    cluster.elect(1)
    cluster.cut(1)
    cluster.raft(1).read_index(b"ctx")
    cluster.settle()
    assert cluster[1].reads == [ReadState(1, b"ctx")]


@pytest.mark.parametrize("lease", [True, False])
def test_a_lease_forbids_forgetting_the_leader(lease: bool) -> None:
    """A follower that forgot its leader would vote for another while the lease still runs."""
    cluster = Cluster.of(3, pre_vote=False, lease_reads=lease)
    cluster.elect(1)
    cluster.raft(2).forget_leader()
    assert cluster.raft(2).leader == (1 if lease else 0)


def test_an_answer_in_odd_form_is_ignored() -> None:
    """A read's answer carries exactly one context."""
    host = Host(**PLAIN)
    host.receive(Message(MessageKind.HEARTBEAT, 1, 2, term=1))
    for contexts in ((), (Entry(), Entry())):
        host.receive(Message(MessageKind.READ_INDEX_RESPONSE, 1, 2, term=1, entries=contexts))
    assert host.reads == []
