"""Notes in the rows of managers whether the leader hears from them.

Whoever asks about a node is told what the leader hears at that moment (members.py). This is for who
waits to be told: rows are what every manager makes events of, all the same and at the same time.
What is noted was so at two looks: a leader that was stalled has heard from nobody when it goes on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..model.change import Transaction, Update
from ..raft.errors import ProposalDropped
from .roster import manager_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model.objects import NodeRow
    from ..store.view import View
    from .members import Membership
    from .propose import Proposer
    from .roles import Members

LOOK_S = 1.0

log = logging.getLogger(__name__)


async def note_reachability(membership: Membership, view: View, proposer: Proposer) -> None:
    """Note which managers are reachable, until cancelled (leadership lost).

    Raises:
        NoLeader, LostLeadership: leadership went before the cancellation came.
    """
    before = frozenset[str]()
    while True:
        await trio.sleep(LOOK_S)
        changed = {row.api.ID: row for row in changed_rows(view, membership.members())}
        rows = [row for node_id, row in changed.items() if node_id in before]
        before = frozenset(changed)
        if not rows:
            continue
        try:
            await proposer.propose([Transaction(changes=(Update(row=row),)) for row in rows])
        except ProposalDropped:
            log.info("who is reachable is noted later: too much is in flight")


def changed_rows(view: View, members: Members) -> Iterator[NodeRow]:
    """Yield the rows of members of which something else is noted than is so, as they should be."""
    for raft_id, row in sorted(manager_rows(view).items()):
        reachable = raft_id in members.reachable
        if raft_id in members.voters | members.learners and row.private.reachable is not reachable:
            yield replace(row, private=replace(row.private, reachable=reachable))
