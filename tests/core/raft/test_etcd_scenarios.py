"""Scenarios that etcd's tests name and that no other file here tells; in our own words and values.

The rest of etcd's list: the paper in `test_paper`, votes and leases in `test_election`, flow in
`test_replication` and `test_progress`, snapshots, reads, transfers, membership in their own files.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from swarmctl.core.raft.message import (
    LOCAL_APPEND,
    ConfState,
    Message,
    MessageKind,
    Role,
    Snapshot,
)
from swarmctl.core.raft.progress import ProgressState
from tests.core.raft.cluster import PLAIN, Cluster, Host, change, entries

APPEND = MessageKind.APPEND
GUARDED: dict[str, Any] = {"pre_vote": True, "check_quorum": True, "heartbeat_ticks": 1}
CHECKED: dict[str, Any] = {"pre_vote": False, "check_quorum": True, "heartbeat_ticks": 1}
ASKING: dict[str, Any] = {"pre_vote": True, "check_quorum": False, "heartbeat_ticks": 1}


def in_role(role: Role) -> Host:
    """A member in term 1 that has become ``role``."""
    host = Host(**(ASKING if role is Role.PRE_CANDIDATE else PLAIN))
    host.receive(Message(MessageKind.HEARTBEAT, 1, 2, term=1))
    if role is not Role.FOLLOWER:
        host.raft.campaign()
        host.run()
    if role is Role.LEADER:
        host.receive(Message(MessageKind.VOTE_RESPONSE, 1, 2, term=host.raft.term))
    assert host.raft.role is role
    return host


# Elections


@pytest.mark.parametrize("role", list(Role))
def test_a_real_vote_is_given_from_any_role(role: Role) -> None:
    """VoteFromAnyState: a later term's candidate with a full log gets the vote, whatever we are."""
    host = in_role(role)
    term = host.raft.term + 1
    (answer,) = host.receive(Message(MessageKind.VOTE, 1, 3, term, log_term=term, index=9))
    assert (answer.kind, answer.reject, answer.term) == (MessageKind.VOTE_RESPONSE, False, term)
    assert (host.raft.role, host.raft.term, host.raft.vote) == (Role.FOLLOWER, term, 3)


@pytest.mark.parametrize("role", list(Role))
def test_a_pre_vote_is_given_from_any_role_and_changes_none(role: Role) -> None:
    """PreVoteFromAnyState: the same candidate is encouraged, and role, term and vote stay."""
    host = in_role(role)
    before = (host.raft.role, host.raft.term, host.raft.vote)
    term = host.raft.term + 1
    (answer,) = host.receive(Message(MessageKind.PRE_VOTE, 1, 3, term, log_term=term, index=9))
    assert (answer.kind, answer.reject, answer.term) == (MessageKind.PRE_VOTE_RESPONSE, False, term)
    assert (host.raft.role, host.raft.term, host.raft.vote) == before


@pytest.mark.parametrize("options", [PLAIN, ASKING], ids=["plain", "pre-vote"])
def test_leaders_come_and_go_with_what_is_committed(options: dict[str, Any]) -> None:
    """LeaderCycle: every member leads in its turn, and each finds what the others committed."""
    cluster = Cluster.of(3, **options)
    for round_ in range(2):
        for node in (1, 2, 3):
            cluster.elect(node)
            cluster.propose(node, b"%d %d" % (round_, node))
    assert len({tuple(host.data()) for host in cluster.hosts.values()}) == 1
    assert len(cluster[1].data()) == 6


def test_an_election_overwrites_newer_logs_that_nobody_committed() -> None:
    """LeaderElectionOverwriteNewerLogs: a majority without the newer entry elects and replaces it.

    3 led term 2 with the votes of 4 and 5, which remember that but have none of its entries.
    """
    voters = (1, 2, 3, 4, 5)
    cluster = Cluster(
        Host(1, voters, log=(1,), **PLAIN),
        Host(2, voters, log=(1,), **PLAIN),
        Host(3, voters, log=(2,), vote=3, **PLAIN),
        Host(4, voters, term=2, vote=3, **PLAIN),
        Host(5, voters, term=2, vote=3, **PLAIN),
    )
    cluster.raft(1).campaign()
    cluster.settle()
    assert cluster.raft(1).role is Role.FOLLOWER  # term 2 is taken
    assert cluster.raft(1).term == 2
    cluster.elect(1)
    assert cluster.raft(1).term == 3
    assert {tuple(host.log()) for host in cluster.hosts.values()} == {((1, 1), (3, 2))}


@pytest.mark.parametrize("options", [PLAIN, ASKING], ids=["plain", "pre-vote"])
def test_a_late_own_vote_does_not_revive_a_candidate(options: dict[str, Any]) -> None:
    """CandidateSelfVoteAfterLostElection: our disk answers when we have given up already."""
    host = Host(**options)
    host.raft.campaign()
    (order,) = [each for each in host.raft.ready().messages if each.to == LOCAL_APPEND]
    (own,) = order.responses
    host.raft.step(Message(MessageKind.HEARTBEAT, 1, 2, term=max(host.raft.term, 1)))
    assert host.raft.role is Role.FOLLOWER
    host.raft.step(own)
    assert (host.raft.role, host.raft.leader) == (Role.FOLLOWER, 2)


def test_a_leader_is_superseded_once_its_followers_lease_has_run_out() -> None:
    """LeaderSupersedingWithCheckQuorum: refused while a leader is heard, elected thereafter."""
    cluster = Cluster.of(3, **CHECKED)
    cluster.elect(1)
    cluster.raft(3).campaign()
    cluster.settle()
    assert cluster.raft(3).role is Role.CANDIDATE
    cluster.cut(1)
    cluster.raft(2).randomized_election_timeout = 100
    cluster.tick(2, times=10)
    cluster.raft(3).campaign()
    cluster.settle()
    assert cluster.raft(3).role is Role.LEADER


def test_without_pre_vote_a_returning_follower_deposes_the_leader() -> None:
    """DisruptiveFollower: its answer to an append carries the term that it has run up."""
    cluster = Cluster.of(3, **CHECKED)
    cluster.elect(1)
    cluster.cut(3)
    cluster.raft(3).campaign()
    cluster.settle()
    cluster.heal()
    cluster.tick(1)
    assert cluster.raft(1).role is Role.FOLLOWER
    assert cluster.raft(1).term == cluster.raft(3).term


def test_with_pre_vote_a_returning_follower_deposes_nobody() -> None:
    """DisruptiveFollowerPreVote: it kept its term, is behind, and the leader brings it up."""
    cluster = Cluster.of(3, **GUARDED)
    cluster.elect(1)
    cluster.cut(3)
    cluster.tick(3, times=40)
    cluster.propose(1, b"a", b"b")
    cluster.heal()
    cluster.raft(3).campaign()
    cluster.settle()
    cluster.tick(1, times=2)
    assert cluster.roles() == {1: Role.LEADER, 2: Role.FOLLOWER, 3: Role.FOLLOWER}
    assert cluster.raft(3).term == 1
    assert cluster[3].data() == [b"a", b"b"]


def test_a_member_that_is_no_voter_for_itself_follows_all_the_same() -> None:
    """NonPromotableVoterWithCheckQuorum: others count it, it does not know itself, and it follows.

    So it is while its own promotion is still to be applied.
    """
    cluster = Cluster.of(2, **CHECKED)
    cluster.raft(2).apply_conf_change(change("r2"))
    cluster.raft(1).randomized_election_timeout = 10
    cluster.tick(2, times=50)
    assert cluster.raft(2).role is Role.FOLLOWER
    cluster.tick(1, times=10)
    assert cluster.roles() == {1: Role.LEADER, 2: Role.FOLLOWER}
    assert cluster.raft(2).leader == 1


def test_a_member_of_a_smaller_term_can_complete_an_election() -> None:
    """NodeWithSmallerTermCanCompleteElection: it was away and is behind in term and log; with it
    and one of the others alone there is a leader again."""
    cluster = Cluster.of(3, **ASKING)
    cluster.elect(1)
    cluster.cut(3)
    cluster.elect(2)  # term 2, unknown to 3
    cluster.raft(3).campaign()
    cluster.settle()
    assert cluster.raft(3).role is Role.PRE_CANDIDATE
    cluster.heal()
    cluster.cut(2)
    cluster.raft(3).campaign()  # its log is behind: refused, and told the term
    cluster.settle()
    assert cluster.raft(3).term == 2
    cluster.raft(1).campaign()
    cluster.settle()
    assert cluster.raft(1).role is Role.LEADER
    assert cluster.raft(3).leader == 1


def test_a_split_vote_ends_with_the_next_timeout() -> None:
    """PreVoteWithSplitVote: two win their PreVote at once and share the votes; the next one to ask
    is elected in a later term."""
    cluster = Cluster.of(3, **ASKING)
    cluster.elect(1)
    cluster.cut(1)
    for node in (2, 3):
        cluster.raft(node).campaign()
    # Both have asked before either has heard the other.
    cluster.settle()
    assert {cluster.raft(2).role, cluster.raft(3).role} == {Role.CANDIDATE}
    assert cluster.raft(2).term == cluster.raft(3).term == 2
    cluster.raft(2).campaign()
    cluster.settle()
    assert cluster.roles()[2] is Role.LEADER
    assert cluster.raft(3).term == cluster.raft(2).term == 3


def _half_migrated() -> Cluster:
    """1 leads, 2 follows, both with PreVote; 3 knows none yet, was away, and is in a later term."""
    voters = (1, 2, 3)
    cluster = Cluster(
        Host(1, voters, **ASKING), Host(2, voters, **ASKING), Host(3, voters, **PLAIN)
    )
    cluster.elect(1)
    cluster.cut(3)
    cluster.propose(1, b"missed")
    for _ in range(2):
        cluster.raft(3).campaign()
    cluster.settle()
    assert cluster.raft(3).term == 3
    cluster[3].config = Host(3, voters, **ASKING).config
    cluster[3].restart()
    cluster.heal()
    return cluster


def test_a_half_migrated_cluster_elects() -> None:
    """PreVoteMigrationCanCompleteElection: a stuck pre-candidate with a higher term and a shorter
    log does not lock the others out."""
    cluster = _half_migrated()
    cluster.cut(1)
    cluster.raft(3).campaign()
    cluster.raft(2).campaign()
    cluster.settle()
    cluster.raft(2).campaign()
    cluster.settle()
    assert cluster.raft(2).role is Role.LEADER
    assert cluster.raft(3).leader == 2


def test_a_half_migrated_member_is_freed() -> None:
    """PreVoteMigrationWithFreeStuckPreCandidate: the leader's next message shows it the later term;
    it steps down, and the next election includes everybody."""
    cluster = _half_migrated()
    cluster.raft(3).campaign()
    cluster.settle()
    cluster.tick(1)
    assert cluster.raft(1).role is Role.FOLLOWER
    assert cluster.raft(1).term == 3
    cluster.elect(1)
    assert cluster.raft(3).leader == 1
    assert cluster[3].data() == [b"missed"]


# Replication


def test_messages_of_an_earlier_leadership_change_nothing() -> None:
    """OldMessages: what 2 sent when it led an earlier term does not touch the log of who leads."""
    cluster = Cluster.of(3, **PLAIN)
    for node in (1, 2, 1):
        cluster.elect(node)
    old = Message(APPEND, 1, 2, 2, log_term=2, index=2, entries=entries(2, start=3), commit=3)
    before = cluster[1].log()
    cluster[1].receive(old)
    assert (cluster[1].log(), cluster.raft(1).role) == (before, Role.LEADER)
    cluster.propose(1, b"news")
    assert all(host.data() == [b"news"] for host in cluster.hosts.values())


@pytest.mark.parametrize(("told", "commit"), [(3, 3), (2, 2), (1, 2)])
def test_a_heartbeat_raises_commit_and_never_lowers_it(told: int, commit: int) -> None:
    """HandleHeartbeat: it is answered in any case."""
    host = Host(log=(1, 1, 2), commit=2, **PLAIN)
    (answer,) = host.receive(Message(MessageKind.HEARTBEAT, 1, 2, term=2, commit=told))
    assert answer.kind is MessageKind.HEARTBEAT_RESPONSE
    assert host.raft.log.committed == commit


@pytest.mark.parametrize(
    ("leader", "follower", "probes"),
    [
        # The follower's hint jumps over a whole term that the leader does not know.
        ((1, 3, 3, 5, 5, 5), (1, 2, 2, 2, 2, 2), 2),
        # The leader jumps over a whole term that the follower does not know.
        ((1, 2, 4, 4, 4, 4), (1, 2, 3), 2),
        # A follower that is merely short says where it ends.
        ((1, 1, 1, 2, 2, 2), (1, 1), 2),
        # Alternating terms: one probe for each term of the leader's, not for each entry.
        ((1, 1, 2, 2, 4, 4, 6, 6), (1, 1, 1, 3, 3, 3, 5, 5), 4),
        # Nothing in common.
        ((2, 2, 2), (1, 1, 1, 1, 1), 2),
        # Everything in common.
        ((1, 1, 2), (1, 1, 2), 1),
    ],
)
def test_logs_meet_after_few_probes(
    leader: tuple[int, ...], follower: tuple[int, ...], probes: int
) -> None:
    """FastLogRejection: so many appends until the first one fits, then the logs are equal."""
    voters = (1, 2, 3)
    cluster = Cluster(
        Host(1, voters, log=leader, term=8, **PLAIN),
        Host(2, voters, log=follower, term=8, **PLAIN),
        Host(3, voters, log=(), term=8, **PLAIN),
    )
    cluster.elect(1)
    sent = [each for each in cluster.carried if each.kind is APPEND and each.to == 2]
    refused = [
        each
        for each in cluster.carried
        if each.kind is MessageKind.APPEND_RESPONSE and each.sender == 2 and each.reject
    ]
    assert len(refused) == probes - 1, [(each.log_term, each.index) for each in sent]
    assert cluster[2].log() == cluster[1].log()


def test_refusals_that_overtake_each_other_do_not_confuse_the_leader() -> None:
    """LogReplicationWithReorderedMessage: a refusal of the pipeline, delivered after the probe
    that it caused was answered, is stale; and the other way round nothing is lost."""
    cluster = Cluster.of(2, learners=(3,), **PLAIN)
    cluster.elect(1)
    cluster.cut_link(1, 2)
    cluster.propose(1, b"lost")
    cluster.heal()
    leader = cluster.raft(1)
    leader.propose(b"first")
    leader.propose(b"second")
    first, second = (each for each in cluster[1].run() if each.to == 2)
    (late,) = cluster[2].receive(second)
    (early,) = cluster[2].receive(first)
    assert late.reject
    assert early.reject
    (probe,) = (each for each in cluster[1].receive(early) if each.to == 2)
    for answer in cluster[2].receive(probe):
        cluster[1].receive(answer)
    known = leader.status().progress[2]
    assert known.state is ProgressState.REPLICATE
    cluster[1].receive(late)
    assert leader.status().progress[2].match == known.match
    cluster.tick(1)
    cluster.settle()
    assert cluster[2].data() == [b"lost", b"first", b"second"]


@pytest.mark.parametrize(
    ("state", "sent"),
    [(ProgressState.PROBE, 1), (ProgressState.REPLICATE, 3), (ProgressState.SNAPSHOT, 0)],
)
def test_how_much_goes_to_a_member_in_each_state(state: ProgressState, sent: int) -> None:
    """SendAppendForProgress: three proposals are one message, three, or none."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    progress = cluster.raft(1).tracker.progress[2]
    if state is ProgressState.PROBE:
        progress.become_probe()
    elif state is ProgressState.SNAPSHOT:
        progress.become_snapshot(1)
    for data in (b"a", b"b", b"c"):
        cluster.raft(1).propose(data)
    appends = Counter(each.to for each in cluster[1].run() if each.kind is APPEND)
    assert appends[2] == sent
    assert appends[3] == 3


# Snapshots


@pytest.mark.parametrize(
    ("before", "after", "voter"),
    [
        pytest.param(ConfState((2, 3), (1,)), ConfState((1, 2, 3)), True, id="promotion"),
        pytest.param(ConfState((1, 2, 3)), ConfState((2, 3), (1,)), False, id="demotion"),
        pytest.param(
            ConfState((1, 2, 3)), ConfState((2, 3, 4), (), (1, 2, 3)), True, id="outgoing voter"
        ),
        pytest.param(
            ConfState((1, 2, 3)),
            ConfState((2, 3), (), (1, 2, 3), (1,)),
            True,
            id="learner as soon as the joint state is left",
        ),
    ],
)
def test_a_snapshot_says_what_we_are(before: ConfState, after: ConfState, voter: bool) -> None:
    """RestoreLearnerPromotion and its kin: from the snapshot on we are what its membership says."""
    host = Host(1, before.voters, learners=before.learners, **PLAIN)
    host.receive(Message(MessageKind.SNAPSHOT, 1, 2, 5, snapshot=Snapshot(9, 5, after)))
    assert host.raft.status().membership == after
    host.raft.campaign()
    assert (host.raft.role is Role.CANDIDATE) is voter
