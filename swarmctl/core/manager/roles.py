"""From what nodes shall be to who takes part in consensus: one safe step at a time.

Pure. A node's ``Spec.Role`` is the wish, its row's private ``role`` what its certificate says, and
consensus knows who is a member. Laws:

- A node becomes a manager by its certificate first; then it asks for a member number, catches up as
  a learner, and gets its vote here. It stops being one in the opposite order.
- Nobody is removed while the rest, as far as it is reachable, would be no majority of the rest.
- The leader does not remove itself: it hands over, and the next leader removes it.
- A member that no row stands for is evicted: its node was removed, or came back under a new number.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..model.change import Transaction, Update

if TYPE_CHECKING:
    from ..model.objects import NodeRow
    from ..store.view import View


class Members(NamedTuple):
    """What consensus says.

    Attributes:
        own: the leader's number; it is reachable and caught up.
        caught_up: whose logs are nearly the leader's.
        stale: learners that got nowhere for too long.
    """

    own: int
    voters: frozenset[int]
    learners: frozenset[int]
    reachable: frozenset[int]
    caught_up: frozenset[int]
    stale: frozenset[int] = frozenset()

    @property
    def all(self) -> frozenset[int]:
        return self.voters | self.learners


class StepKind(Enum):
    """What to do to consensus."""

    GIVE_VOTE = "give vote"
    REMOVE = "remove"
    HAND_OVER = "hand over"


class Step(NamedTuple):
    """One membership change, or a change of leaders."""

    kind: StepKind
    member: int


class Plan(NamedTuple):
    """What to write, one step to take, and sentences about what has to wait."""

    transactions: tuple[Transaction, ...] = ()
    step: Step | None = None
    waiting: tuple[str, ...] = ()


def decide(view: View, members: Members) -> Plan:
    """Return what brings certificates and consensus nearer to the wish."""
    rows = list(view.nodes())
    transactions = tuple(
        Transaction(changes=(Update(row=changed),))
        for row in rows
        if (changed := _due_row(row, members)) is not None
    )
    wanted = {row.private.raft_id for row in rows if row.api.Spec.Role == "manager"}
    names = {row.private.raft_id: row.api.ID for row in rows}
    for member in sorted(members.learners & members.caught_up & members.reachable & wanted):
        return Plan(transactions, Step(StepKind.GIVE_VOTE, member))
    waiting: list[str] = []
    for member in sorted(members.all - wanted) + sorted(members.stale & wanted):
        step = _departure(members, member)
        if step is not None:
            return Plan(transactions, step, tuple(waiting))
        waiting.append(_why_it_waits(members, names.get(member, ""), member))
    return Plan(transactions, None, tuple(waiting))


def _due_row(row: NodeRow, members: Members) -> NodeRow | None:
    """Return a node's row with the role that its certificates are due to have, if that is news."""
    wish, private = row.api.Spec.Role, row.private
    if wish == "manager" and private.role == "worker":
        return replace(row, private=replace(private, role="manager"))
    if wish == "worker" and private.role == "manager" and private.raft_id not in members.all:
        return replace(row, private=replace(private, role="worker", raft_id=0, manager_addr=""))
    return None


def _departure(members: Members, member: int) -> Step | None:
    if member in members.learners:
        return Step(StepKind.REMOVE, member)
    if not may_remove(members, member):
        return None
    if member != members.own:
        return Step(StepKind.REMOVE, member)
    able = members.voters & members.reachable & members.caught_up - {member}
    return Step(StepKind.HAND_OVER, min(able)) if able else None


def may_remove(members: Members, member: int) -> bool:
    """True when the rest without ``member`` could decide, as far as it is reachable."""
    rest = members.voters - {member}
    return 2 * len(rest & members.reachable) > len(rest)


def quorum_text(members: Members, member: int) -> str:
    """Say how many managers are there and how many would be needed without ``member``."""
    rest = members.voters - {member}
    there = len(rest & members.reachable)
    return (
        f"{there} of the remaining {len(rest)} managers {'is' if there == 1 else 'are'} reachable, "
        f"{len(rest) // 2 + 1} {'is' if len(rest) < 2 else 'are'} needed"
    )


def _why_it_waits(members: Members, node_id: str, member: int) -> str:
    who = f"manager {node_id}" if node_id else f"the manager with member number {member}"
    if may_remove(members, member):
        return f"{who} leads and is to be demoted, but no other manager can take over yet"
    return (
        f"{who} is to be removed, which would cost the swarm its quorum: "
        f"{quorum_text(members, member)}"
    )
