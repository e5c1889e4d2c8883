"""The Raft paper, section by section: what it says must happen, happens.

Numbers are those of "In Search of an Understandable Consensus Algorithm" (extended version).
PreVote and CheckQuorum are not in the paper and are off here.
"""

from __future__ import annotations

from typing import Any

import pytest

from swarmctl.core.raft.message import Entry, Message, MessageKind, Role
from tests.core.raft.cluster import PLAIN, Cluster, Host, entries

APPEND, APPEND_RESPONSE = MessageKind.APPEND, MessageKind.APPEND_RESPONSE
VOTE, VOTE_RESPONSE = MessageKind.VOTE, MessageKind.VOTE_RESPONSE

FORMS = pytest.mark.parametrize("async_storage", [False, True], ids=["sync", "async"])


def candidate(**options: Any) -> Host:
    host = Host(**{**PLAIN, **options})
    host.raft.campaign()
    host.run()
    return host


def leader(**options: Any) -> Host:
    """Member 1 of three, leading, with its first entry sent to everybody."""
    host = candidate(**options)
    host.receive(Message(VOTE_RESPONSE, 1, 2, host.raft.term))
    assert host.raft.role is Role.LEADER
    return host


# 5.1  Terms


@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_a_larger_term_makes_everybody_a_follower(role: str) -> None:
    """Whoever meets a larger term takes it over and follows."""
    host = {"follower": lambda: Host(**PLAIN), "candidate": candidate, "leader": leader}[role]()
    host.receive(Message(APPEND, 1, 2, term=9))
    status = host.raft.status()
    assert (status.term, status.role, status.leader) == (9, Role.FOLLOWER, 2)


def test_a_stale_term_is_ignored() -> None:
    """A request of a past term changes nothing and is not answered."""
    host = Host(term=3, **PLAIN)
    assert host.receive(Message(APPEND, 1, 2, term=2, entries=entries(2))) == []
    assert host.log() == []


# 5.2  Leader election


def test_everybody_starts_as_a_follower() -> None:
    """A member begins, and begins again, as a follower."""
    assert Host(term=4, vote=1, **PLAIN).raft.role is Role.FOLLOWER


def test_a_leader_sends_heartbeats() -> None:
    """Every heartbeat interval each follower hears from its leader."""
    host = leader()
    out = host.tick()
    assert [(each.kind, each.to) for each in out] == [
        (MessageKind.HEARTBEAT, 2),
        (MessageKind.HEARTBEAT, 3),
    ]


@pytest.mark.parametrize("role", ["follower", "candidate"])
def test_silence_starts_an_election(role: str) -> None:
    """After an election timeout: a new term, a vote for itself, and requests to all others."""
    host = Host(**PLAIN) if role == "follower" else candidate()
    term = host.raft.term
    out = host.tick(2 * host.config.election_ticks)
    requests = [each for each in out if each.kind is VOTE]
    assert {each.to for each in requests} == {2, 3}
    assert requests[0].term == term + 1
    assert host.raft.role is Role.CANDIDATE
    assert host.raft.vote == 1


@pytest.mark.parametrize(
    ("size", "votes", "role"),
    [
        (1, {}, Role.LEADER),
        (3, {2: True, 3: True}, Role.LEADER),
        (3, {2: True}, Role.LEADER),
        (5, {2: True, 3: True}, Role.LEADER),
        (3, {2: False, 3: False}, Role.FOLLOWER),
        (5, {2: False, 3: False, 4: False, 5: True}, Role.FOLLOWER),
        (3, {}, Role.CANDIDATE),
        (5, {2: True, 3: False}, Role.CANDIDATE),
        (5, {}, Role.CANDIDATE),
    ],
)
@FORMS
def test_a_majority_of_votes_wins(
    size: int, votes: dict[int, bool], role: Role, async_storage: bool
) -> None:
    """A candidate with votes of a majority leads, one that cannot get them any more follows."""
    host = candidate(voters=range(1, size + 1), async_storage=async_storage)
    for voter, granted in votes.items():
        host.receive(Message(VOTE_RESPONSE, 1, voter, term=1, reject=not granted))
    assert host.raft.role is role
    assert host.raft.term == 1


@pytest.mark.parametrize(
    ("vote", "asked_by", "granted"),
    [(0, 2, True), (0, 3, True), (2, 2, True), (3, 3, True), (2, 3, False), (3, 2, False)],
)
def test_one_vote_a_term(vote: int, asked_by: int, granted: bool) -> None:
    """First come, first served; asking again gets the same answer."""
    host = Host(term=1, vote=vote, **PLAIN)
    (answer,) = host.receive(Message(VOTE, 1, asked_by, term=1))
    assert (answer.kind, answer.to, answer.reject) == (VOTE_RESPONSE, asked_by, not granted)


def test_a_vote_survives_a_crash() -> None:
    """What was voted is durable before it is said."""
    host = Host(**PLAIN)
    host.receive(Message(VOTE, 1, 2, term=1))
    host.restart()
    (answer,) = host.receive(Message(VOTE, 1, 3, term=1))
    assert answer.reject


@pytest.mark.parametrize("term", [1, 2])
def test_a_candidate_that_hears_a_leader_follows_it(term: int) -> None:
    """A leader of the same term or a later one is legitimate."""
    host = candidate()
    host.receive(Message(APPEND, 1, 3, term=term))
    assert (host.raft.role, host.raft.leader, host.raft.term) == (Role.FOLLOWER, 3, term)


def test_election_timeouts_are_spread() -> None:
    """Every timeout from E to 2E - 1 occurs, none outside, and they are drawn anew each time."""
    host = Host(**PLAIN)
    seen = set()
    for _ in range(400):
        host.raft.reset(host.raft.term + 1)
        seen.add(host.raft.randomized_election_timeout)
    ticks = host.config.election_ticks
    assert seen == set(range(ticks, 2 * ticks))


def test_timeouts_of_several_members_rarely_meet() -> None:
    """Of a hundred elections of five, most have one member that times out first."""
    conflicts = 0
    hosts = [Host(node, range(1, 6), **PLAIN) for node in range(1, 6)]
    for _ in range(100):
        for host in hosts:
            host.raft.reset(host.raft.term + 1)
        drawn = sorted(host.raft.randomized_election_timeout for host in hosts)
        conflicts += drawn[0] == drawn[1]
    assert conflicts < 50


def test_hearing_the_leader_puts_off_the_election() -> None:
    """Nobody campaigns as long as heartbeats come."""
    host = Host(**PLAIN)
    for _ in range(5 * host.config.election_ticks):
        host.tick()
        host.receive(Message(MessageKind.HEARTBEAT, 1, 2, term=1))
    assert host.raft.role is Role.FOLLOWER


# 5.3  Log replication


def test_a_leader_appends_and_sends() -> None:
    """A proposal goes to the leader's log and to all others, after the entry before it."""
    host = leader()
    for peer in (2, 3):
        host.receive(Message(APPEND_RESPONSE, 1, peer, term=1, index=1))
    host.raft.propose(b"data")
    sent = [each for each in host.run() if each.kind is APPEND]
    assert {each.to for each in sent} == {2, 3}
    assert (sent[0].index, sent[0].log_term) == (1, 1)
    assert sent[0].entries == (Entry(1, 2, data=b"data"),)
    assert host.log() == [(1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("size", "acked_by", "committed"),
    [
        (1, (), True),
        (3, (), False),
        (3, (2,), True),
        (3, (2, 3), True),
        (5, (), False),
        (5, (2,), False),
        (5, (2, 3), True),
        (5, (2, 3, 4, 5), True),
    ],
)
@FORMS
def test_an_entry_is_committed_once_a_majority_has_it(
    size: int, acked_by: tuple[int, ...], committed: bool, async_storage: bool
) -> None:
    """The leader counts itself and whoever has acknowledged."""
    cluster = Cluster.of(size, **PLAIN, async_storage=async_storage)
    cluster.elect(1)
    cluster.cut(*(set(range(2, size + 1)) - set(acked_by)))
    cluster.propose(1, b"data")
    assert (cluster[1].data() == [b"data"]) is committed


@pytest.mark.parametrize("tail", [(), (2,), (1,), (1, 2)])
def test_committing_commits_everything_before(tail: tuple[int, ...]) -> None:
    """Entries of earlier leaders are committed with the first one of the present."""
    cluster = Cluster(
        Host(1, log=tail, term=2, **PLAIN), Host(2, term=2, **PLAIN), Host(3, term=2, **PLAIN)
    )
    cluster.elect(1)
    expected = [*(enumerate(tail, 1)), (len(tail) + 1, 3)]
    for node in (1, 2, 3):
        assert [(each.index, each.term) for each in cluster[node].applied] == expected


def test_followers_apply_what_the_leader_says_is_committed() -> None:
    """In log order, each once."""
    host = Host(**PLAIN)
    new = (Entry(1, 1, data=b"a"), Entry(1, 2, data=b"b"))
    host.receive(Message(APPEND, 1, 2, term=1, entries=new, commit=1))
    assert host.data() == [b"a"]
    host.receive(Message(APPEND, 1, 2, term=1, log_term=1, index=2, commit=2))
    assert host.data() == [b"a", b"b"]


@pytest.mark.parametrize(
    ("log_term", "index", "answer_index", "hint"),
    [
        (0, 0, 1, None),  # committed already
        (1, 1, 1, None),
        (2, 2, 2, None),
        (1, 2, 2, 1),  # other term there
        (3, 3, 3, 2),  # nothing there
    ],
)
def test_the_consistency_check(
    log_term: int, index: int, answer_index: int, hint: int | None
) -> None:
    """Without the entry before the new ones a follower refuses, and says where to look."""
    host = Host(log=(1, 2), commit=1, **PLAIN)
    (answer,) = host.receive(Message(APPEND, 1, 2, 2, log_term, index))
    assert (answer.index, answer.reject) == (answer_index, hint is not None)
    assert answer.reject_hint == (hint or 0)


@pytest.mark.parametrize(
    ("log_term", "index", "new", "after"),
    [
        (2, 2, (3,), (1, 2, 3)),
        (1, 1, (3, 4), (1, 3, 4)),
        (0, 0, (1,), (1, 2)),
        (0, 0, (3,), (3,)),
    ],
)
def test_a_contradicting_tail_is_replaced(
    log_term: int, index: int, new: tuple[int, ...], after: tuple[int, ...]
) -> None:
    """The leader's entries replace the follower's from the first that differs."""
    host = Host(log=(1, 2), **PLAIN)
    host.receive(Message(APPEND, 1, 2, 4, log_term, index, entries=entries(*new, start=index + 1)))
    assert tuple(term for term, _ in host.log()) == after


@pytest.mark.parametrize(
    "tail",
    [
        (1, 1, 1, 4, 4, 5, 5, 6, 6),
        (1, 1, 1, 4),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
        (1, 1, 1, 4, 4, 4, 4),
        (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    ],
    ids="abcdef",
)
@FORMS
def test_figure_7_every_follower_is_brought_into_line(
    tail: tuple[int, ...], async_storage: bool
) -> None:
    """Whatever tail a follower has, it ends up with the leader's log."""
    ours = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
    options = {**PLAIN, "async_storage": async_storage}
    cluster = Cluster(
        Host(1, log=ours, term=7, **options), Host(2, log=tail, term=7, **options), Host(3)
    )
    cluster.cut(2)
    cluster.hosts[3] = Host(3, log=ours, term=7, **options)
    cluster.elect(1)
    cluster.heal()
    cluster.tick(1)
    cluster.propose(1, b"x")
    assert cluster[2].log() == cluster[1].log()


# 5.4  Safety


def test_vote_requests_tell_how_complete_the_log_is() -> None:
    """A candidate shows its last entry."""
    host = Host(log=(1, 1, 2), **PLAIN)
    host.raft.campaign()
    requests = host.run()
    assert {(each.to, each.log_term, each.index) for each in requests} == {(2, 2, 3), (3, 2, 3)}


@pytest.mark.parametrize(
    ("ours", "theirs", "granted"),
    [
        ((1,), (1, 1), True),
        ((1,), (1, 2), True),
        ((1, 1), (1, 1), False),
        ((1,), (2, 1), True),
        ((1, 1), (2, 1), True),
        ((2,), (1, 1), False),
        ((2,), (1, 2), False),
        ((1, 2), (2, 1), False),
    ],
)
def test_no_vote_for_a_less_complete_log(
    ours: tuple[int, ...], theirs: tuple[int, int], granted: bool
) -> None:
    """Who could miss a committed entry is not elected."""
    host = Host(log=ours, **PLAIN)
    log_term, index = theirs
    (answer,) = host.receive(Message(VOTE, 1, 2, 3, log_term, index))
    assert answer.reject is not granted


@pytest.mark.parametrize(("index", "committed"), [(1, 0), (2, 0), (3, 3)])
def test_figure_8_only_entries_of_the_own_term_are_counted(index: int, committed: int) -> None:
    """A majority with an entry of an earlier term does not commit it.

    One entry a message: otherwise the leader's own first entry travels with the old ones and hides
    the rule.
    """
    host = Host(log=(1, 2), term=2, max_message_size=1, **PLAIN)
    host.raft.campaign()
    host.run()
    host.receive(Message(VOTE_RESPONSE, 1, 2, term=3))
    assert host.raft.role is Role.LEADER
    host.receive(Message(APPEND_RESPONSE, 1, 2, term=3, index=index))
    assert host.raft.status().commit == committed


def test_figure_8_played_out() -> None:
    """An entry that a majority has may still be replaced, so nobody may have applied it.

    S1 leads term 4 with entry 2 of term 2, which S2 and S3 have too. S5, whose entry 2 is of term
    3, still wins term 5 with S3's vote and replaces it there.
    """
    five = range(1, 6)
    options = {**PLAIN, "max_message_size": 1}
    s1 = Host(1, five, log=(1, 2), term=3, **options)
    s3 = Host(3, five, log=(1, 2), term=3, **options)
    s1.raft.campaign()
    s1.run()
    s1.receive(Message(VOTE_RESPONSE, 1, 2, term=4))
    s1.receive(Message(VOTE_RESPONSE, 1, 3, term=4))
    assert s1.raft.role is Role.LEADER
    to_s3: list[Message] = []
    for peer in (2, 3):
        out = s1.receive(Message(APPEND_RESPONSE, 1, peer, term=4, index=2))
        to_s3 += [each for each in out if each.to == 3 and not each.entries]
    for message in to_s3:
        s3.receive(message)
    assert s1.applied == s3.applied == []
    (answer,) = s3.receive(Message(VOTE, 3, 5, term=5, log_term=3, index=2))
    assert not answer.reject
    s3.receive(Message(APPEND, 3, 5, 5, 1, 1, entries=entries(3, start=2)))
    assert s3.log() == [(1, 1), (3, 2)]
