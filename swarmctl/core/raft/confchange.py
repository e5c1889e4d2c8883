"""Who is a member, and which change leads from one membership to which.

    simple   V       --one step-->  V'       at most one voter differs
    enter    V       -->            V' && V  joint: both halves decide
    leave    V' && V -->            V'

Laws
- Values only: a change makes a new Configuration or raises; it never leaves half of one behind.
- Every node that applies the same changes gets the same result.
- A voter of the outgoing half that becomes a learner waits in ``learners_next``: nobody is voter
  and learner at once.
- There is always a voter, once there was one.

It must not know: logs, progress, when a change may be proposed.
"""

from __future__ import annotations

import msgspec

from swarmctl.core.raft.errors import ConfChangeRefused, SafetyViolation
from swarmctl.core.raft.message import (
    NOBODY,
    ChangeKind,
    ConfChange,
    ConfState,
    MemberChange,
    Transition,
)


class Configuration(msgspec.Struct, frozen=True):
    """A membership, in sets. ``voters`` is the incoming half while ``outgoing`` is not empty."""

    voters: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def all_voters(self) -> frozenset[int]:
        """Who has a vote in either half."""
        return self.voters | self.outgoing if self.outgoing else self.voters

    @property
    def members(self) -> frozenset[int]:
        return self.voters | self.outgoing | self.learners

    def conf_state(self) -> ConfState:
        return ConfState(
            voters=tuple(sorted(self.voters)),
            learners=tuple(sorted(self.learners)),
            voters_outgoing=tuple(sorted(self.outgoing)),
            learners_next=tuple(sorted(self.learners_next)),
            auto_leave=self.auto_leave,
        )


def apply_change(old: Configuration, change: ConfChange) -> tuple[Configuration, frozenset[int]]:
    """The configuration that ``change`` leads to, and the members it has added anew.

    Those start from nothing even if an id was a member before and removed in the same change.

    Raises:
        ConfChangeRefused: no rule allows ``change`` in ``old``.
    """
    if change.leaves_joint:
        return _leave_joint(old), frozenset()
    # One step changes one voter at most, so that old and new quorums meet; several need both.
    joint = change.transition is not Transition.AUTO or len(change.changes) > 1
    if old.joint:
        raise ConfChangeRefused("the configuration is joint; it must be left first")
    if joint and not old.voters:
        raise ConfChangeRefused("a configuration without voters cannot become joint")
    draft = _Draft(old, joint=joint)
    for step in change.changes:
        draft.apply(step)
    if not draft.voters:
        raise ConfChangeRefused("the last voter cannot be removed")
    auto_leave = joint and change.transition is not Transition.JOINT_EXPLICIT
    new = draft.finish(auto_leave=auto_leave)
    check(new)
    return new, frozenset(draft.fresh)


def _leave_joint(old: Configuration) -> Configuration:
    if not old.joint:
        raise ConfChangeRefused("the configuration is not joint; there is nothing to leave")
    new = Configuration(voters=old.voters, learners=old.learners | old.learners_next)
    check(new)
    return new


def restore(conf_state: ConfState) -> Configuration:
    """The configuration that a snapshot holds.

    Raises:
        SafetyViolation: it is none; the snapshot is damaged.
    """
    configuration = Configuration(
        voters=frozenset(conf_state.voters),
        outgoing=frozenset(conf_state.voters_outgoing),
        learners=frozenset(conf_state.learners),
        learners_next=frozenset(conf_state.learners_next),
        auto_leave=conf_state.auto_leave,
    )
    check(configuration)
    return configuration


def check(configuration: Configuration) -> None:
    """Hold the laws of this module.

    Raises:
        SafetyViolation: one of them is broken, and this is which.
    """
    voters, outgoing = configuration.voters, configuration.outgoing
    if any(node <= NOBODY for node in configuration.members):
        raise SafetyViolation(f"a member id must be positive: {configuration}")
    if both := configuration.learners & (voters | outgoing):
        raise SafetyViolation(f"voter and learner at once: {sorted(both)}")
    if stray := configuration.learners_next - outgoing:
        raise SafetyViolation(f"learners to be that are no outgoing voters: {sorted(stray)}")
    if both := configuration.learners_next & voters:
        raise SafetyViolation(f"incoming voters and learners to be at once: {sorted(both)}")
    if configuration.auto_leave and not outgoing:
        raise SafetyViolation("a configuration that is not joint cannot be left")
    if outgoing and not voters:
        raise SafetyViolation("a joint configuration needs incoming voters")


class _Draft:
    """A configuration being changed. Voters change in the incoming half only."""

    def __init__(self, old: Configuration, *, joint: bool) -> None:
        self.voters = set(old.voters)
        self.outgoing = old.voters if joint else frozenset()
        self.learners = set(old.learners)
        self.learners_next = set(old.learners_next)
        self.tracked = set(old.members)
        self.fresh: set[int] = set()

    def apply(self, step: MemberChange) -> None:
        node = step.node
        if node == NOBODY:
            return  # a change that the host has voided
        if node < NOBODY:
            raise ConfChangeRefused(f"a member id must be positive, not {node}")
        if step.kind is ChangeKind.ADD_VOTER:
            self._track(node)
            self.learners.discard(node)
            self.learners_next.discard(node)
            self.voters.add(node)
        elif step.kind is ChangeKind.ADD_LEARNER:
            self._make_learner(node)
        elif step.kind is ChangeKind.REMOVE:
            self._remove(node)

    def _track(self, node: int) -> None:
        if node not in self.tracked:
            self.tracked.add(node)
            self.fresh.add(node)

    def _make_learner(self, node: int) -> None:
        self._track(node)
        self.voters.discard(node)
        if node in self.outgoing:
            self.learners_next.add(node)
        else:
            self.learners.add(node)

    def _remove(self, node: int) -> None:
        self.voters.discard(node)
        self.learners.discard(node)
        self.learners_next.discard(node)
        if node not in self.outgoing:
            self.tracked.discard(node)
            self.fresh.discard(node)

    def finish(self, *, auto_leave: bool) -> Configuration:
        return Configuration(
            voters=frozenset(self.voters),
            outgoing=self.outgoing,
            learners=frozenset(self.learners),
            learners_next=frozenset(self.learners_next),
            auto_leave=auto_leave,
        )
