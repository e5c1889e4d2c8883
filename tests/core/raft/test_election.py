"""Elections beyond the paper: PreVote, CheckQuorum, leases, who may campaign."""

from __future__ import annotations

from typing import Any

import pytest

from swarmctl.core.raft.election import TRANSFER
from swarmctl.core.raft.errors import SafetyViolation
from swarmctl.core.raft.message import (
    LOCAL_APPEND,
    LOCAL_APPLY,
    Entry,
    EntryKind,
    Message,
    MessageKind,
    Role,
    encode_conf_change,
)
from tests.core.raft.cluster import PLAIN, Cluster, Host, change

FORMS = pytest.mark.parametrize("async_storage", [False, True], ids=["sync", "async"])

QUORUM: dict[str, Any] = {**PLAIN, "check_quorum": True}
PRODUCT: dict[str, Any] = {"pre_vote": True, "check_quorum": True, "heartbeat_ticks": 1}


@FORMS
def test_a_lone_member_elects_itself_and_commits(async_storage: bool) -> None:
    """A cluster of one needs nobody: tick until it leads, propose, applied."""
    host = Host(1, [1], async_storage=async_storage)
    host.tick(2 * host.config.election_ticks)
    assert host.raft.role is Role.LEADER
    host.raft.propose(b"first")
    assert host.run() == []
    assert host.data() == [b"first"]


def test_a_lone_member_leads_only_once_its_vote_is_durable() -> None:
    """Even alone, the own vote counts after the disk has it: a crash before forgets it."""
    host = Host(1, [1])
    host.raft.campaign()
    ready = host.raft.ready()
    assert host.raft.role is Role.PRE_CANDIDATE
    (order,) = ready.messages
    for response in order.responses:
        host.raft.step(response)
    (order,) = host.raft.ready().messages
    assert host.raft.role is Role.CANDIDATE
    assert order.term == 1
    for response in order.responses:
        host.raft.step(response)
    assert host.raft.role is Role.LEADER


def test_a_pre_vote_changes_nothing_at_who_is_asked() -> None:
    """Being asked whether one would vote costs neither term nor vote, and any number may ask."""
    host = Host(**PRODUCT, term=1)
    for asker in (2, 3):
        (answer,) = host.receive(Message(MessageKind.PRE_VOTE, 1, asker, term=2))
        assert not answer.reject
        assert answer.term == 2
    assert (host.raft.term, host.raft.vote) == (1, 0)


def test_a_partitioned_member_does_not_disturb_with_pre_vote() -> None:
    """Cut off for long and back again, it has the old term and the leader goes on."""
    cluster = Cluster.of(3, **PRODUCT)
    cluster.elect(1)
    term = cluster.raft(1).term
    cluster.cut(3)
    cluster.tick(3, times=100)
    assert cluster.raft(3).term == term
    cluster.heal()
    cluster.tick(3, times=20)
    cluster.tick(1)
    assert cluster.roles() == {1: Role.LEADER, 2: Role.FOLLOWER, 3: Role.FOLLOWER}
    assert cluster.raft(1).term == term


def test_without_a_leader_pre_vote_lets_an_election_happen() -> None:
    """The others agree as soon as they hear nobody either."""
    cluster = Cluster.of(3, **PRODUCT)
    cluster.elect(1)
    cluster.cut(1)
    cluster.tick(2, 3, times=30)
    leaders = [node for node, role in cluster.roles().items() if role is Role.LEADER]
    assert len(set(leaders) - {1}) == 1


def test_no_vote_while_a_leader_is_known() -> None:
    """In the same term a vote not yet given is not given to a rival of a leader that is known.

    The member followed without having voted: giving the vote now would elect a second leader.
    """
    host = Host(**PLAIN, term=1)
    host.receive(Message(MessageKind.HEARTBEAT, 1, 2, term=1))
    (answer,) = host.receive(Message(MessageKind.VOTE, 1, 3, term=1))
    assert answer.reject
    host.raft.forget_leader()
    (answer,) = host.receive(Message(MessageKind.VOTE, 1, 3, term=1))
    assert not answer.reject


@pytest.mark.parametrize("kind", [MessageKind.VOTE, MessageKind.PRE_VOTE])
def test_who_hears_a_leader_ignores_candidates(kind: MessageKind) -> None:
    """The lease: no answer and no new term within an election timeout of the leader's voice."""
    host = Host(**QUORUM, term=1)
    host.receive(Message(MessageKind.HEARTBEAT, 1, 2, term=1))
    host.raft.randomized_election_timeout = 19
    host.tick(host.config.election_ticks - 1)
    assert host.receive(Message(kind, 1, 3, term=5)) == []
    assert host.raft.term == 1
    host.tick()
    (answer,) = host.receive(Message(kind, 1, 3, term=5))
    assert not answer.reject


def test_a_transfer_overrides_the_lease() -> None:
    """The old leader has sent this candidate: it is heard at once."""
    host = Host(**QUORUM, term=1)
    host.receive(Message(MessageKind.HEARTBEAT, 1, 2, term=1))
    (answer,) = host.receive(Message(MessageKind.VOTE, 1, 3, term=2, context=TRANSFER))
    assert not answer.reject


def test_a_leader_that_hears_no_quorum_steps_down() -> None:
    """Within two election timeouts of losing its followers; the term stays."""
    cluster = Cluster.of(3, **QUORUM)
    cluster.elect(1)
    cluster.cut(1)
    cluster.tick(1, times=10)
    assert cluster.raft(1).role is Role.LEADER  # they were heard in this period
    cluster.tick(1, times=10)
    assert cluster.raft(1).role is Role.FOLLOWER
    assert cluster.raft(1).term == 1


def test_one_answering_follower_of_two_is_a_quorum() -> None:
    """CheckQuorum counts the leader itself."""
    cluster = Cluster.of(3, **QUORUM)
    cluster.elect(1)
    cluster.cut(3)
    cluster.tick(1, times=50)
    assert cluster.raft(1).role is Role.LEADER


def test_learners_do_not_keep_a_leader_in_office() -> None:
    """Voters are silent, learners answer: that is no quorum."""
    cluster = Cluster.of(3, learners=(4, 5, 6), **QUORUM)
    cluster.elect(1)
    cluster.cut(2, 3)
    cluster.tick(1, times=20)
    assert cluster.raft(1).role is Role.FOLLOWER


def test_a_member_stuck_in_a_later_term_frees_itself() -> None:
    """With CheckQuorum alone a returning candidate is ignored; its answer to the leader's message
    makes that leader step down, and an election that includes it follows."""
    cluster = Cluster.of(3, **QUORUM)
    cluster.elect(1)
    cluster.cut(3)
    for _ in range(3):
        cluster.raft(3).campaign()
        cluster.settle()
    stuck = cluster.raft(3).term
    cluster.heal()
    cluster.tick(1)
    assert cluster.raft(1).role is Role.FOLLOWER
    assert cluster.raft(1).term == stuck


def test_a_pre_vote_of_a_past_term_is_told_so() -> None:
    """Silence could lock a shorter log with a higher term and a longer log out of each other."""
    host = Host(**PRODUCT, term=5)
    (answer,) = host.receive(Message(MessageKind.PRE_VOTE, 1, 2, term=3))
    assert (answer.kind, answer.reject, answer.term) == (MessageKind.PRE_VOTE_RESPONSE, True, 5)


def test_a_refused_pre_vote_of_a_later_term_is_followed() -> None:
    """The rejection carries the term of who refused, and a pre-candidate takes it over."""
    host = Host(**PRODUCT, term=1)
    host.raft.campaign()
    host.run()
    host.receive(Message(MessageKind.PRE_VOTE_RESPONSE, 1, 2, term=7, reject=True))
    assert (host.raft.role, host.raft.term) == (Role.FOLLOWER, 7)


def test_a_granted_pre_vote_does_not_move_the_term() -> None:
    """It carries the term that was asked about, not one that anybody is in."""
    host = Host(1, range(1, 6), **PRODUCT, term=1)
    host.raft.campaign()
    host.run()
    host.receive(Message(MessageKind.PRE_VOTE_RESPONSE, 1, 2, term=2))
    assert (host.raft.role, host.raft.term) == (Role.PRE_CANDIDATE, 1)
    host.receive(Message(MessageKind.PRE_VOTE_RESPONSE, 1, 3, term=2))
    assert (host.raft.role, host.raft.term) == (Role.CANDIDATE, 2)


def test_stale_pre_votes_do_not_elect() -> None:
    """A candidate counts votes, not the pre-votes that still trickle in."""
    host = Host(1, range(1, 6), **PRODUCT)
    host.raft.campaign()
    host.run()
    for voter in (2, 3):
        host.receive(Message(MessageKind.PRE_VOTE_RESPONSE, 1, voter, term=1))
    assert host.raft.role is Role.CANDIDATE
    for voter in (4, 5):
        host.receive(Message(MessageKind.PRE_VOTE_RESPONSE, 1, voter, term=1))
    assert host.raft.role is Role.CANDIDATE


def test_the_first_answer_of_a_voter_counts() -> None:
    """A second, other answer in the same ballot changes nothing."""
    host = Host(1, range(1, 6), **PLAIN)
    host.raft.campaign()
    host.run()
    host.receive(Message(MessageKind.VOTE_RESPONSE, 1, 2, term=1, reject=True))
    host.receive(Message(MessageKind.VOTE_RESPONSE, 1, 2, term=1))
    host.receive(Message(MessageKind.VOTE_RESPONSE, 1, 3, term=1))
    assert host.raft.role is Role.CANDIDATE


def test_votes_of_strangers_do_not_count() -> None:
    """Only voters of the configuration elect."""
    host = Host(1, [1, 2, 3], learners=[4], **PLAIN)
    host.raft.campaign()
    host.run()
    for stranger in (4, 9):
        host.receive(Message(MessageKind.VOTE_RESPONSE, 1, stranger, term=1))
    assert host.raft.role is Role.CANDIDATE


def test_a_joint_election_needs_both_halves() -> None:
    """The incoming half's majority alone does not elect, nor the outgoing one's."""
    for first, second in (((4, 5), 2), ((2, 3), 4)):
        host = Host(1, [1, 2, 3], **PLAIN)
        host.raft.apply_conf_change(change("r2", "r3", "v4", "v5"))
        host.raft.campaign()
        assert {each.to for each in host.run()} == {2, 3, 4, 5}
        for voter in first:
            host.receive(Message(MessageKind.VOTE_RESPONSE, 1, voter, term=1))
        assert host.raft.role is Role.CANDIDATE
        host.receive(Message(MessageKind.VOTE_RESPONSE, 1, second, term=1))
        assert host.raft.role is Role.LEADER


def test_learners_vote_but_do_not_campaign() -> None:
    """A learner may be a voter without knowing it, so it answers; it never asks."""
    host = Host(4, [1, 2, 3], learners=[4], **PLAIN)
    (answer,) = host.receive(Message(MessageKind.VOTE, 4, 1, term=1))
    assert not answer.reject
    host.tick(50)
    host.raft.campaign()
    host.receive(Message(MessageKind.TIMEOUT_NOW, 4, 1, term=1))
    assert host.raft.role is Role.FOLLOWER


def test_no_campaign_with_a_committed_change_to_apply() -> None:
    """Its configuration is about to change: it could count the wrong quorum."""
    host = Host(**PLAIN)
    new = (Entry(1, 1, EntryKind.CONF_CHANGE, encode_conf_change(change("v4"))),)
    host.raft.step(Message(MessageKind.APPEND, 1, 2, 1, entries=new, commit=1))
    host.raft.campaign()
    assert host.raft.role is Role.FOLLOWER
    host.run()
    host.raft.campaign()
    assert host.raft.role is Role.CANDIDATE


def test_no_campaign_with_a_change_that_is_being_applied() -> None:
    """Handed out is not applied: until the state machine answers, the old quorum is counted."""
    host = Host(async_storage=True, **PLAIN)
    new = (Entry(1, 1, EntryKind.CONF_CHANGE, encode_conf_change(change("v4"))),)
    host.raft.step(Message(MessageKind.APPEND, 1, 2, 1, entries=new, commit=1))
    (order,) = (each for each in host.raft.ready().messages if each.to == LOCAL_APPEND)
    host.storage.append(order.entries)
    for answer in order.responses:
        if answer.to == 1:
            host.raft.step(answer)
    ready = host.raft.ready()
    assert ready.committed_entries == new
    host.raft.campaign()
    assert host.raft.role is Role.FOLLOWER
    (order,) = (each for each in ready.messages if each.to == LOCAL_APPLY)
    host.raft.apply_conf_change(change("v4"), 1)
    host.raft.step(*order.responses)
    host.raft.campaign()
    assert host.raft.role is Role.CANDIDATE


def test_a_member_removed_from_the_configuration_does_not_campaign() -> None:
    """Who is not a voter any more stays quiet."""
    host = Host(1, [1, 2, 3], **PLAIN)
    host.raft.apply_conf_change(change("r1"))
    host.tick(50)
    assert host.raft.role is Role.FOLLOWER
    assert host.raft.term == 0


def test_dueling_candidates() -> None:
    """Who comes back with a stale log takes the term up, not the leadership."""
    cluster = Cluster.of(3, **PLAIN)
    cluster.cut_link(1, 3)
    cluster.cut_link(3, 1)
    cluster.elect(1)
    cluster.raft(3).campaign()
    cluster.settle()
    assert cluster.raft(3).role is not Role.LEADER
    cluster.heal()
    cluster.raft(3).campaign()
    cluster.settle()
    assert cluster.raft(3).role is not Role.LEADER
    cluster.elect(1)
    assert cluster[3].log() == cluster[1].log()


def test_an_id_must_be_positive() -> None:
    """0 is nobody and negative ids are the local workers."""
    with pytest.raises(SafetyViolation):
        Host(0, [1])


def test_two_members_with_one_seed_behave_alike() -> None:
    """The same calls give the same answers: nothing but the generator is random."""

    def story() -> list[Message]:
        cluster = Cluster.of(3, **PRODUCT)
        cluster.tick(times=40)
        cluster.cut(1)
        cluster.tick(times=40)
        return cluster.carried

    assert story() == story()


@pytest.mark.parametrize(("last", "role"), [(1, Role.FOLLOWER), (0, Role.CANDIDATE)])
def test_giving_a_vote_puts_off_the_own_campaign(last: int, role: Role) -> None:
    """Whoever has voted gives that candidate a full timeout to win; refusing puts off nothing."""
    host = Host(log=(1,), **PLAIN)
    host.raft.randomized_election_timeout = 10
    host.tick(9)
    host.receive(Message(MessageKind.VOTE, 1, 2, term=1, log_term=last, index=last))
    host.tick()
    assert host.raft.role is role
