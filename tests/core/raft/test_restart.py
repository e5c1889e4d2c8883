"""What a member knows after a crash: what storage says, and nothing else."""

from __future__ import annotations

import random

import pytest

from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.message import ConfState, HardState, Message, MessageKind, Role, Snapshot
from swarmctl.core.raft.raft import Raft
from swarmctl.core.raft.storage import MemoryStorage
from tests.core.raft.cluster import PLAIN, Host, entries


def test_term_vote_and_commit_come_back() -> None:
    """The term counts even where the log ends in an earlier one; role and leader do not come."""
    host = Host(1, log=(1, 2), term=5, vote=3, commit=1, **PLAIN)
    status = host.raft.status()
    assert (status.term, status.vote, status.commit) == (5, 3, 1)
    assert (status.role, status.leader) == (Role.FOLLOWER, 0)
    (answer,) = host.receive(Message(MessageKind.VOTE, 1, 2, 5, log_term=5, index=9))
    assert answer.reject  # the vote of term 5 is given


@pytest.mark.parametrize("applied", [1, 2, 3, 4])
def test_what_is_applied_is_not_handed_out_again(applied: int) -> None:
    """The state machine has kept it: applying goes on with the next entry."""
    storage = MemoryStorage(
        Snapshot(1, 1, ConfState((1, 2))), HardState(1, 0, 4), entries(1, 1, 1, start=2)
    )
    raft = Raft(1, storage, RaftConfig(applied=applied), random.Random(1))
    assert raft.status().applied == applied
    handed_out = raft.ready().committed_entries if raft.has_ready() else ()
    assert [entry.index for entry in handed_out] == list(range(applied + 1, 5))


@pytest.mark.parametrize(
    "membership",
    [
        ConfState((1, 2), (3, 4)),
        ConfState((1, 2, 5), (4,), (1, 2, 3), (3,), auto_leave=True),
        ConfState((2, 3), (), (1, 2, 3)),
    ],
    ids=["learners", "joint, left by itself", "joint, explicit"],
)
def test_the_membership_is_the_snapshots(membership: ConfState) -> None:
    """Voters, learners, both halves of a joint state, and how that is left."""
    host = Host(1, snapshot=Snapshot(3, 2, membership), term=2, **PLAIN)
    assert host.raft.status().membership == membership
