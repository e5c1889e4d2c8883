"""Handing leadership over."""

from __future__ import annotations

from typing import Any

import pytest

from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.raft.message import NOBODY, MessageKind, Role
from tests.core.raft.cluster import PLAIN, Cluster, change

PRODUCT: dict[str, Any] = {"pre_vote": True, "check_quorum": True, "heartbeat_ticks": 1}


def three(**options: Any) -> Cluster:
    cluster = Cluster.of(3, **{**PRODUCT, **options})
    cluster.elect(1)
    return cluster


def hand_over(cluster: Cluster, sender: int, to: int) -> None:
    cluster.raft(sender).transfer_leadership(to)
    cluster.settle()


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_leadership_goes_to_an_up_to_date_voter(asked: int) -> None:
    """At once, whichever member is asked, whatever leases the others hold."""
    cluster = three()
    hand_over(cluster, asked, 2)
    assert cluster.raft(2).role is Role.LEADER
    assert cluster.raft(1).role is Role.FOLLOWER


def test_a_slow_voter_is_brought_up_to_date_first() -> None:
    """It gets what it lacks, then its turn."""
    cluster = three()
    cluster.cut(3)
    cluster.propose(1, b"a", b"b")
    cluster.heal()
    cluster.tick(1)
    hand_over(cluster, 1, 3)
    assert cluster.raft(3).role is Role.LEADER
    assert cluster[3].data() == [b"a", b"b"]


def test_even_by_a_snapshot() -> None:
    """A voter that needs one gets it, and leadership after it."""
    cluster = three()
    cluster.cut(3)
    cluster.propose(1, b"a", b"b")
    cluster[1].compact()
    cluster.heal()
    hand_over(cluster, 1, 3)
    cluster.tick(1)
    cluster.tick(1)
    assert cluster.raft(3).role is Role.LEADER


@pytest.mark.parametrize("target", [1, 4, 9], ids=["self", "learner", "stranger"])
def test_who_cannot_lead_gets_nothing(target: int) -> None:
    """Nothing happens, and proposals go on."""
    cluster = Cluster.of(3, learners=(4,), **PRODUCT)
    cluster.elect(1)
    hand_over(cluster, 1, target)
    assert cluster.raft(1).role is Role.LEADER
    assert cluster.raft(1).transferee == NOBODY
    cluster.propose(1, b"x")


def test_no_proposals_meanwhile() -> None:
    """The target could never catch up otherwise."""
    cluster = three()
    cluster.cut(3)
    hand_over(cluster, 1, 3)
    assert cluster.raft(1).status().transferee == 3
    with pytest.raises(ProposalDropped):
        cluster.raft(1).propose(b"x")


def test_it_is_given_up_after_an_election_timeout() -> None:
    """The old leader goes on leading and taking proposals."""
    cluster = three()
    cluster.cut(3)
    hand_over(cluster, 1, 3)
    cluster.tick(1, times=9)
    assert cluster.raft(1).transferee == 3
    cluster.tick(1)
    assert cluster.raft(1).transferee == NOBODY
    cluster.propose(1, b"x")
    assert cluster[2].data() == [b"x"]


def test_another_target_replaces_the_first() -> None:
    """And asking twice for the same one starts no second patience."""
    cluster = three()
    cluster.cut(3)
    hand_over(cluster, 1, 3)
    cluster.tick(1, times=9)
    hand_over(cluster, 1, 3)
    cluster.tick(1)
    assert cluster.raft(1).transferee == NOBODY
    hand_over(cluster, 1, 3)
    hand_over(cluster, 1, 2)
    assert cluster.raft(2).role is Role.LEADER


@pytest.mark.parametrize("step", ["r3", "l3"], ids=["removed", "demoted"])
def test_a_target_that_is_no_voter_any_more_ends_it(step: str) -> None:
    """It could not lead."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.cut(3)
    cluster.lose(MessageKind.APPEND_RESPONSE)
    cluster.raft(1).propose_membership(change(step))
    cluster.settle()
    hand_over(cluster, 1, 3)
    assert cluster.raft(1).transferee == 3
    cluster.heal()
    cluster.cut(3)
    cluster.tick(1, times=2)
    assert cluster.raft(1).transferee == NOBODY


def test_a_target_that_was_cut_off_does_not_win_later() -> None:
    """A lost TIMEOUT_NOW leaves everything as it was."""
    cluster = three()
    cluster.lose(MessageKind.TIMEOUT_NOW)
    hand_over(cluster, 1, 2)
    cluster.heal()
    cluster.tick(1, times=10)
    assert cluster.roles()[1] is Role.LEADER
    assert cluster.raft(1).term == 1


def test_a_leaving_joint_configuration_waits_for_the_transfer() -> None:
    """While leadership is handed over nothing is proposed, not even the end of a joint state;
    when it is given up the leader goes on with it."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.cut(3)
    cluster.lose(MessageKind.APPEND_RESPONSE)
    cluster.raft(1).propose_membership(change("r2", "l4"))
    cluster.settle()
    hand_over(cluster, 1, 3)
    cluster.heal()
    cluster.cut(3)
    cluster.tick(1, times=2)
    assert cluster.raft(1).tracker.configuration.joint
    cluster.tick(1, times=10)
    cluster.heal()
    cluster.tick(1)
    cluster.propose(1, b"x")
    assert not cluster.raft(1).tracker.configuration.joint


def test_each_transfer_has_a_full_timeout() -> None:
    """Its patience counts from when it was asked for, not from the last CheckQuorum."""
    cluster = three()
    cluster.cut(3)
    cluster.tick(1, times=7)
    hand_over(cluster, 1, 3)
    cluster.tick(1, times=9)
    assert cluster.raft(1).transferee == 3


def test_a_transfer_ends_with_the_leadership() -> None:
    """Who leads again later takes proposals."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.elect(1)
    cluster.cut(3)
    hand_over(cluster, 1, 3)
    cluster.elect(2)
    cluster.elect(1)
    assert cluster.raft(1).status().transferee == NOBODY
    cluster.propose(1, b"x")
    assert cluster[1].data() == [b"x"]
