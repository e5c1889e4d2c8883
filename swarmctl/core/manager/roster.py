"""Who the managers are: member number, node and address of each.

Consensus knows member numbers, the tables know nodes and addresses. A manager that has just joined
has no tables yet; until it has, the addresses that it was told count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..model.change import Index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model.objects import NodeRow
    from ..raft.message import ConfState
    from ..store.view import View


class Manager(NamedTuple):
    """One member.

    Attributes:
        node_id: "" while the tables do not know it.
        addr: ``host:port``, "" while nobody told.
        voter: False for one that still catches up.
    """

    raft_id: int
    node_id: str
    addr: str
    voter: bool


class Roster:
    """Answers about members as things are.

    Args:
        told: addresses by member number, for as long as the tables do not have them.
    """

    def __init__(self, view: View, own_id: int, told: Mapping[int, str]) -> None:
        self._view = view
        self._own_id = own_id
        self._told = dict(told)

    def managers(self, membership: ConfState) -> dict[int, Manager]:
        """Return all members, by number."""
        rows = manager_rows(self._view)
        voters = {*membership.voters, *membership.voters_outgoing}
        found: dict[int, Manager] = {}
        for raft_id in sorted(voters.union(membership.learners)):
            row = rows.get(raft_id)
            found[raft_id] = Manager(
                raft_id=raft_id,
                node_id=row.api.ID if row is not None else "",
                addr=row.private.manager_addr if row is not None else self._told.get(raft_id, ""),
                voter=raft_id in voters,
            )
        return found

    def peers(self, membership: ConfState) -> dict[int, str]:
        """Return where the other members are; before there is a membership, those we were told."""
        managers = self.managers(membership)
        known = {raft_id: each.addr for raft_id, each in managers.items()} or self._told
        return {
            raft_id: addr for raft_id, addr in known.items() if addr and raft_id != self._own_id
        }


def manager_rows(view: View) -> dict[int, NodeRow]:
    """Return the rows of nodes that have a member number, by it."""
    rows = (view.node(node_id) for node_id in view.holders(Index.ROLE, "manager"))
    return {row.private.raft_id: row for row in rows if row is not None and row.private.raft_id}
