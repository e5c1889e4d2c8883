"""Memberships and the changes between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.raft.confchange import Configuration, apply_change, check, restore
from swarmctl.core.raft.errors import ConfChangeRefused, SafetyViolation
from swarmctl.core.raft.message import (
    ChangeKind,
    ConfChange,
    ConfState,
    MemberChange,
    Transition,
    decode_conf_change,
    encode_conf_change,
)
from tests.core.raft.cluster import change


def of(
    *voters: int, learners: tuple[int, ...] = (), outgoing: tuple[int, ...] = ()
) -> Configuration:
    return Configuration(
        voters=frozenset(voters), learners=frozenset(learners), outgoing=frozenset(outgoing)
    )


steps = st.builds(MemberChange, st.sampled_from(ChangeKind), st.integers(0, 6))
changes = st.builds(ConfChange, st.lists(steps, max_size=4).map(tuple), st.sampled_from(Transition))


@given(st.lists(changes, max_size=12))
def test_every_way_leads_from_one_lawful_membership_to_the_next(
    sequence: list[ConfChange],
) -> None:
    """A change gives a lawful configuration with a voter in it, or is refused and changes nothing.

    The old and the new always share a quorum-deciding half, or differ in at most one voter.
    """
    configuration = of(1, 2, 3)
    for each in sequence:
        try:
            new, fresh = apply_change(configuration, each)
        except ConfChangeRefused:
            continue
        check(new)
        assert new.voters
        assert fresh <= new.members
        if new.joint and not configuration.joint:
            assert new.outgoing == configuration.voters
        elif configuration.joint:
            assert not new.joint
            assert new.voters == configuration.voters
        else:
            assert len(new.voters ^ configuration.voters) <= 1
        assert restore(new.conf_state()) == new
        configuration = new


@given(changes)
def test_a_change_survives_its_encoding(each: ConfChange) -> None:
    """What is decoded from an entry is what was proposed."""
    assert decode_conf_change(encode_conf_change(each)) == each


def test_leaving_costs_no_bytes() -> None:
    """The change that leaves a joint configuration is empty, so no size limit can refuse it."""
    assert encode_conf_change(ConfChange()) == b""


def test_a_demoted_voter_waits_until_the_joint_state_is_left() -> None:
    """In a joint configuration nobody is voter and learner at once."""
    joint, _ = apply_change(of(1, 2, 3), change("v4", "l3"))
    assert joint.voters == {1, 2, 4}
    assert joint.outgoing == {1, 2, 3}
    assert joint.learners == frozenset()
    assert joint.learners_next == {3}
    assert joint.auto_leave
    left, _ = apply_change(joint, ConfChange())
    assert left == of(1, 2, 4, learners=(3,))


def test_explicit_joint_states_are_not_left_by_themselves() -> None:
    """Only the explicit transition waits for somebody to leave it."""
    explicit, _ = apply_change(of(1), change("v2", transition=Transition.JOINT_EXPLICIT))
    implicit, _ = apply_change(of(1), change("v2", transition=Transition.JOINT_IMPLICIT))
    assert not explicit.auto_leave
    assert implicit.auto_leave


@pytest.mark.parametrize(
    ("configuration", "each"),
    [
        (of(1), change("r1")),
        (of(1, 2), change("r1", "r2")),
        (of(1, 2), ConfChange()),
        (of(1, 2, outgoing=(1,)), change("v3")),
        (of(1, 2, outgoing=(1,)), change("v3", "v4")),
        (of(), change("v1", "v2")),
        (of(1), change("v-4")),
    ],
    ids=["last voter", "all voters", "leave", "joint", "joint twice", "from nothing", "bad id"],
)
def test_what_is_refused(configuration: Configuration, each: ConfChange) -> None:
    """No change leads to a membership without voters, nor from one joint state to another."""
    with pytest.raises(ConfChangeRefused):
        apply_change(configuration, each)


def test_who_is_removed_and_added_in_one_change_starts_anew() -> None:
    """A learner that leaves and comes back has no known log; an outgoing voter keeps its own."""
    _, fresh = apply_change(of(1, 2, learners=(4,)), change("r4", "v4"))
    assert fresh == {4}
    _, fresh = apply_change(of(1, 2), change("r2", "v2"))
    assert fresh == frozenset()


@pytest.mark.parametrize(
    "conf_state",
    [
        ConfState(voters=(1, 2), learners=(2,)),
        ConfState(voters=(1,), learners_next=(2,)),
        ConfState(voters=(1,), auto_leave=True),
        ConfState(voters=(0,)),
        ConfState(voters_outgoing=(1,)),
        ConfState(voters=(1, 2), voters_outgoing=(2,), learners_next=(2,)),
    ],
)
def test_a_damaged_membership_is_not_taken_over(conf_state: ConfState) -> None:
    """A snapshot whose membership breaks a law stops the member."""
    with pytest.raises(SafetyViolation):
        restore(conf_state)
