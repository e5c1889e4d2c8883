"""Majorities, plain and joint.

Laws
- A joint decision needs a majority of both halves. No half can lose: an empty half agrees.
- Whoever has not answered counts as missing, never as a no.

It must not know: logs, terms, who the members are.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

EVERYTHING = 2**63 - 1
"""What a quorum of nobody has acknowledged: never the smaller half of a joint decision."""


class Vote(IntEnum):
    PENDING = 0
    """Still open: the answers that are missing decide."""
    LOST = 1
    WON = 2


def majority(members: int) -> int:
    """How many of ``members`` make a majority."""
    return members // 2 + 1


def quorum_index(acked: Sequence[int]) -> int:
    """The largest index that a majority has acknowledged; ``acked`` has one index per voter."""
    if not acked:
        return EVERYTHING
    # In rising order, the index at (n - 1) // 2 is reached by everybody from there on: a majority.
    return sorted(acked)[(len(acked) - 1) >> 1]


def joint_index(
    incoming: Collection[int], outgoing: Collection[int], acked: Mapping[int, int]
) -> int:
    """`quorum_index` of both halves; a voter that is not in ``acked`` has acknowledged nothing."""
    index = quorum_index([acked.get(voter, 0) for voter in incoming])
    if outgoing:
        index = min(index, quorum_index([acked.get(voter, 0) for voter in outgoing]))
    return index


def vote_result(voters: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """Where a ballot of ``voters`` stands; votes of others do not count."""
    if not voters:
        return Vote.WON
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    if granted >= needed:
        return Vote.WON
    missing = sum(1 for voter in voters if voter not in votes)
    return Vote.PENDING if granted + missing >= needed else Vote.LOST


def joint_vote_result(
    incoming: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]
) -> Vote:
    """Won if both halves are won, lost as soon as one is lost."""
    first = vote_result(incoming, votes)
    second = vote_result(outgoing, votes)
    if first is second:
        return first
    if Vote.LOST in (first, second):
        return Vote.LOST
    return Vote.PENDING
