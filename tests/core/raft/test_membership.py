"""Membership at work: changes proposed, applied, joint and left; leaders that are removed."""

from __future__ import annotations

from typing import Any

import pytest

from swarmctl.core.raft.errors import ConfChangeRefused, ProposalDropped
from swarmctl.core.raft.message import (
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    Message,
    MessageKind,
    Role,
    Transition,
    encode_conf_change,
)
from tests.core.raft.cluster import PLAIN, Cluster, Host, change

FORMS = pytest.mark.parametrize("async_storage", [False, True], ids=["sync", "async"])


def newcomer(node: int, **options: Any) -> Host:
    """A member that knows nothing yet: it learns the membership from a snapshot."""
    return Host(node, (), **{**PLAIN, **options})


def voters(host: Host) -> tuple[int, ...]:
    return host.raft.status().membership.voters


@FORMS
def test_one_manager_becomes_three(async_storage: bool) -> None:
    """Learner first, then voter: each step commits with the quorum of the moment."""
    options = {"async_storage": async_storage}
    cluster = Cluster.founded(1, **PLAIN, **options)
    cluster.elect(1)
    cluster.propose(1, b"before")
    for node in (2, 3):
        cluster.hosts[node] = newcomer(node, **options)
        cluster.change(1, change(f"l{node}"))
        cluster.tick(1, times=2)
        progress = cluster.raft(1).status().progress[node]
        assert progress.learner
        assert progress.match == cluster.raft(1).status().last_index
        cluster.change(1, change(f"v{node}"))
    cluster.tick(1)
    assert all(voters(host) == (1, 2, 3) for host in cluster.hosts.values())
    cluster.cut(2)
    cluster.propose(1, b"after")
    assert cluster[3].data() == [b"after"]  # the rest came in the snapshot


def test_a_learner_does_not_count() -> None:
    """One voter commits alone however many learners are silent."""
    cluster = Cluster.of(1, learners=(2, 3), **PLAIN)
    cluster.cut(2, 3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    assert cluster[1].data() == [b"x"]


def test_a_v1_change_takes_the_same_way() -> None:
    """The older entry kind carries one step."""
    cluster = Cluster.of(2, **PLAIN)
    cluster.elect(1)
    single = change("r2")
    cluster.change(1, ConfChange(single.changes, v1=True))
    assert voters(cluster[1]) == (1,)
    assert EntryKind.CONF_CHANGE_V1 in [entry.kind for entry in cluster[1].applied]
    with pytest.raises(ConfChangeRefused):
        cluster.raft(1).propose_membership(ConfChange(change("l3", "l4").changes, v1=True))


@FORMS
def test_several_steps_go_through_a_joint_state_and_out(async_storage: bool) -> None:
    """Replacing two of three at once: joint first, left by itself, nobody asks for it."""
    options = {**PLAIN, "async_storage": async_storage}
    cluster = Cluster.founded(3, **options)
    for node in (4, 5):
        cluster.hosts[node] = newcomer(node, async_storage=async_storage)
    cluster.elect(1)
    cluster.change(1, change("r2", "r3", "v4", "v5"))
    cluster.tick(1, times=3)
    for node in (1, 4, 5):
        membership = cluster.raft(node).status().membership
        assert membership == ConfState(voters=(1, 4, 5))


def test_an_explicit_joint_state_waits() -> None:
    """It stays until somebody proposes to leave it; meanwhile no other change is taken."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.change(1, change("r3", transition=Transition.JOINT_EXPLICIT))
    cluster.tick(1, times=3)
    joint = ConfState(voters=(1, 2), voters_outgoing=(1, 2, 3))
    assert cluster.raft(2).status().membership == joint
    cluster.change(1, change("l9"))
    assert cluster.raft(2).status().membership == joint
    cluster.change(1, ConfChange())
    assert cluster.raft(2).status().membership == ConfState(voters=(1, 2))


def test_in_a_joint_state_both_halves_commit() -> None:
    """With the outgoing half out of reach nothing is committed, though the incoming one is."""
    cluster = Cluster.founded(3, **PLAIN)
    for node in (4, 5):
        cluster.hosts[node] = newcomer(node)
    cluster.elect(1)
    cluster.change(1, change("r2", "r3", "v4", "v5", transition=Transition.JOINT_EXPLICIT))
    cluster.tick(1, times=2)
    cluster.cut(2, 3)
    cluster.propose(1, b"x")
    assert cluster[1].data() == []
    cluster.heal()
    cluster.tick(1, times=2)
    assert cluster[4].data() == [b"x"]
    cluster.cut(4, 5)
    cluster.propose(1, b"y")
    assert cluster[1].data() == [b"x"]


def test_one_change_at_a_time() -> None:
    """While one may not be applied yet, another becomes an empty entry."""
    host = Host(1, (1, 2), **PLAIN)
    cluster = Cluster(host, Host(2, (1, 2), **PLAIN))
    cluster.elect(1)
    cluster.cut(2)
    host.raft.propose_membership(change("v3"))
    host.raft.propose_membership(change("v4"))
    kinds = [entry.kind for entry in host.raft.log.entries(2, 2**63)]
    assert kinds == [EntryKind.CONF_CHANGE, EntryKind.NORMAL]


def test_no_change_is_fit_before_the_leader_has_committed_in_its_term() -> None:
    """One change at a time: all that is inherited is applied, and still nothing is of its term."""
    host = Host(1, (1, 2), log=(1, 1), commit=2, **PLAIN)
    host.raft.campaign()
    host.run()
    host.receive(Message(MessageKind.VOTE_RESPONSE, 1, 2, term=2))
    assert host.raft.log.applied == 2
    with pytest.raises(ConfChangeRefused, match="not committed anything in its term"):
        host.raft.check_membership(change("l3"))
    host.receive(Message(MessageKind.APPEND_RESPONSE, 1, 2, 2, index=3))
    host.raft.check_membership(change("l3"))


def test_the_neighbours_of_a_refused_change_stay() -> None:
    """One change at a time: only the change gives way to an empty entry, in its place."""
    cluster = Cluster.of(2, **PLAIN)
    cluster.elect(1)
    leader = cluster.raft(1)
    leader.propose_membership(change("v3"))
    before = leader.log.last_index
    refused = Entry(kind=EntryKind.CONF_CHANGE, data=encode_conf_change(change("v4")))
    leader.propose_entries((Entry(data=b"a"), refused, Entry(data=b"b")))
    added = leader.log.entries(before + 1, 2**63)
    assert [(entry.kind, entry.data) for entry in added] == [(0, b"a"), (0, b""), (0, b"b")]


def test_a_change_behind_others_in_one_proposal_is_waited_for() -> None:
    """One change at a time: it is under way until its own entry is applied, not its neighbours'."""
    cluster = Cluster.of(2, **PLAIN)
    cluster.elect(1)
    host = cluster[1]
    before = host.raft.log.last_index
    batch = (
        Entry(data=b"a"),
        Entry(data=b"b"),
        Entry(kind=EntryKind.CONF_CHANGE, data=encode_conf_change(change("l8"))),
    )
    host.raft.propose_entries(batch)
    host.run()
    for acknowledged, kind in (
        (1, EntryKind.NORMAL),
        (2, EntryKind.NORMAL),
        (4, EntryKind.CONF_CHANGE),  # 4 is what the first attempt has become
    ):
        index = before + acknowledged
        host.receive(Message(MessageKind.APPEND_RESPONSE, 1, 2, host.raft.term, index=index))
        assert host.raft.log.applied == index
        host.raft.propose_membership(change("l9"))
        (*_, last) = host.raft.log.entries(index, 2**63)
        assert last.kind is kind


def test_a_new_leader_assumes_a_change_in_what_it_inherits() -> None:
    """Until all of that is applied it takes no change: there could be one in it."""
    host = Host(1, (1, 2), log=(1, 1), **PLAIN)
    host.raft.campaign()
    host.run()
    host.receive(Message(MessageKind.VOTE_RESPONSE, 1, 2, term=2))
    assert host.raft.role is Role.LEADER
    host.raft.propose_membership(change("v3"))
    assert host.raft.log.entries(4, 2**63)[0].kind is EntryKind.NORMAL


def test_nonsense_from_afar_becomes_an_empty_entry() -> None:
    """A forwarded proposal whose change cannot be read reaches no log."""
    cluster = Cluster.of(2, **PLAIN)
    cluster.elect(1)
    bad = Entry(kind=EntryKind.CONF_CHANGE, data=b"\xc1 nonsense")
    cluster.raft(2).propose_entries((bad,))
    cluster.settle()
    assert cluster[1].applied[-1] == Entry(1, 2)


@pytest.mark.parametrize(
    "unfit",
    [change("r1", "r2"), ConfChange(), ConfChange((), Transition.JOINT_EXPLICIT)],
    ids=["nobody left", "not joint", "empty"],
)
def test_a_leader_can_say_before_why_a_change_is_unfit(unfit: ConfChange) -> None:
    """check_membership refuses with a reason what would come to nothing."""
    cluster = Cluster.of(2, **PLAIN)
    with pytest.raises(ConfChangeRefused):
        cluster.raft(1).check_membership(change("v3"))  # not leading
    cluster.raft(1).campaign()
    cluster.lose(MessageKind.APPEND)
    cluster.settle()
    with pytest.raises(ConfChangeRefused):
        cluster.raft(1).check_membership(change("v3"))  # nothing committed in this term
    cluster.heal()
    cluster.tick(1)
    cluster.raft(1).check_membership(change("v3"))
    with pytest.raises(ConfChangeRefused):
        cluster.raft(1).check_membership(unfit)


def test_a_removed_leader_steps_down() -> None:
    """It leads until its own removal is applied, and then no more; the others elect."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.change(1, change("r1"))
    assert cluster.raft(1).role is Role.FOLLOWER
    cluster.tick(2, 3, times=30)
    assert Role.LEADER in (cluster.raft(2).role, cluster.raft(3).role)
    cluster.tick(1, times=50)
    assert cluster.raft(1).role is Role.FOLLOWER


def test_a_demoted_leader_steps_down() -> None:
    """A leader that becomes a learner does not lead on."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.change(1, change("l1"))
    cluster.settle()
    assert cluster.raft(1).role is Role.FOLLOWER


def test_without_stepping_down_a_removed_leader_takes_no_proposals() -> None:
    """As etcd does by default: it goes on replicating, but is not asked any more."""
    cluster = Cluster.of(3, **PLAIN, step_down_on_removal=False)
    cluster.elect(1)
    cluster.change(1, change("r1"))
    assert cluster.raft(1).role is Role.LEADER
    with pytest.raises(ProposalDropped):
        cluster.raft(1).propose(b"x")


def test_removal_can_commit_what_waited() -> None:
    """Entries that lacked the removed member's acknowledgement are committed without it."""
    cluster = Cluster.of(2, **PLAIN)
    cluster.elect(1)
    cluster.raft(1).propose_membership(change("r2"))
    cluster.cut_link(2, 1)
    cluster.propose(1, b"x")
    assert cluster[1].data() == []
    last = cluster.raft(1).status().last_index
    cluster[1].receive(Message(MessageKind.APPEND_RESPONSE, 1, 2, term=1, index=last - 1))
    assert cluster[1].data() == [b"x"]
    assert voters(cluster[1]) == (1,)


def test_validation_can_be_switched_off_for_hosts_that_know_better() -> None:
    """Then every change is appended, and refused (or not) when it is applied."""
    host = Host(1, (1,), **PLAIN, validate_conf_changes=False)
    host.raft.campaign()
    host.run()
    host.raft.propose_membership(ConfChange())
    assert host.raft.log.entries(2, 2**63)[0].kind is EntryKind.CONF_CHANGE
    with pytest.raises(ConfChangeRefused):
        host.run()
    assert host.raft.status().membership == ConfState((1,))


def test_a_new_voter_is_given_time_to_answer() -> None:
    """CheckQuorum does not depose a leader for a member that was added a moment ago."""
    cluster = Cluster.of(1, pre_vote=False, check_quorum=True)
    cluster.elect(1)
    cluster.tick(1, times=8)
    cluster.change(1, change("v2"))
    cluster.tick(1, times=2)
    assert cluster.raft(1).role is Role.LEADER
    cluster.tick(1, times=10)
    assert cluster.raft(1).role is Role.FOLLOWER


def test_who_leaves_and_comes_back_in_one_change_is_probed_anew() -> None:
    """What was known of its log may not count for the voter that it becomes."""
    cluster = Cluster.of(1, learners=(4,), **PLAIN)
    cluster.elect(1)
    assert cluster.raft(1).status().progress[4].match == 1
    cluster.cut(4)
    cluster.change(1, change("r4", "v4", transition=Transition.JOINT_EXPLICIT))
    assert cluster.raft(1).status().progress[4].match == 0


def test_a_leader_leaves_a_joint_state_once_it_has_applied_what_it_inherited() -> None:
    """Proposing earlier would only fill the log with empty entries."""
    cluster = Cluster.of(3, **PLAIN, max_committed_size=1)
    cluster.elect(1)
    cluster.lose(MessageKind.APPEND_RESPONSE)
    cluster.raft(1).propose_membership(change("r3", "l4"))
    for data in (b"a", b"b", b"c"):
        cluster.raft(1).propose(data)
    cluster.settle()
    cluster.heal()
    cluster.elect(2)
    cluster.tick(2, times=3)
    assert not cluster.raft(2).tracker.configuration.joint
    empty = [each for each in cluster[2].applied if not each.data and not each.kind]
    assert len(empty) == 2  # the first of each leader
