"""Majorities: what the arithmetic says must be what counting by hand says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.raft.quorum import (
    EVERYTHING,
    Vote,
    joint_index,
    joint_vote_result,
    majority,
    quorum_index,
    vote_result,
)

ids = st.integers(1, 9)
voters = st.frozensets(ids, max_size=7)
votes = st.dictionaries(ids, st.booleans())
acked = st.dictionaries(ids, st.integers(0, 12))


def slow_quorum_index(group: frozenset[int], acknowledged: dict[int, int]) -> int:
    """Try every index from the top: is it reached by more than half?"""
    if not group:
        return EVERYTHING
    for index in range(12, 0, -1):
        reached = [voter for voter in group if acknowledged.get(voter, 0) >= index]
        if 2 * len(reached) > len(group):
            return index
    return 0


def slow_vote_result(group: frozenset[int], given_votes: dict[int, bool]) -> Vote:
    """Complete the ballot both ways: if the missing votes cannot change it, it is decided."""
    if not group:
        return Vote.WON

    def wins(*, missing: bool) -> bool:
        yes = [voter for voter in group if given_votes.get(voter, missing)]
        return 2 * len(yes) > len(group)

    if wins(missing=False):
        return Vote.WON
    return Vote.PENDING if wins(missing=True) else Vote.LOST


@given(voters, acked)
def test_quorum_index_is_what_counting_gives(
    group: frozenset[int], acknowledged: dict[int, int]
) -> None:
    """The committed index is the largest that more than half of the voters have reached."""
    listed = [acknowledged.get(voter, 0) for voter in group]
    assert quorum_index(listed) == slow_quorum_index(group, acknowledged)


@given(voters, voters, acked)
def test_joint_index_is_the_smaller_half(
    incoming: frozenset[int], outgoing: frozenset[int], acknowledged: dict[int, int]
) -> None:
    """A joint configuration has committed what both halves have, each by itself."""
    expected = min(
        slow_quorum_index(incoming, acknowledged), slow_quorum_index(outgoing, acknowledged)
    )
    assert joint_index(incoming, outgoing, acknowledged) == expected


@given(voters, votes)
def test_a_ballot_is_decided_when_the_missing_votes_do_not_matter(
    group: frozenset[int], given_votes: dict[int, bool]
) -> None:
    """Won or lost means: whatever the others answer, it stays so."""
    assert vote_result(group, given_votes) is slow_vote_result(group, given_votes)


@given(voters, voters, votes)
def test_a_joint_ballot_needs_both_halves(
    incoming: frozenset[int], outgoing: frozenset[int], given_votes: dict[int, bool]
) -> None:
    """Both won: won. One lost: lost, even if the other is open. Otherwise open."""
    halves = {slow_vote_result(incoming, given_votes), slow_vote_result(outgoing, given_votes)}
    if halves == {Vote.WON}:
        expected = Vote.WON
    elif Vote.LOST in halves:
        expected = Vote.LOST
    else:
        expected = Vote.PENDING
    assert joint_vote_result(incoming, outgoing, given_votes) is expected


@pytest.mark.parametrize(("members", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_two_majorities_always_meet(members: int, needed: int) -> None:
    """A majority is the smallest number of which two cannot be apart."""
    assert majority(members) == needed
    assert 2 * needed > members >= 2 * (needed - 1)
