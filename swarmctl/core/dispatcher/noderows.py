"""Writing nodes' rows: read, change, propose, and again when somebody else was faster.

Nodes' rows hold what nodes say of themselves beside what administrators want, so their writers
race; each change here is a function of the row, asked again for every try. It must not know
sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..errors import NotFound
from ..model.change import Conflict, Transaction, Update
from ..raft.errors import ProposalDropped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..clock import Clock
    from ..manager.propose import Proposer
    from ..model.change import Result
    from ..model.objects import NodeRow
    from ..store.view import View

DROPPED_PAUSE_S = 0.2


class NodeRows:
    """The dispatcher's hand on the tables.

    Everything raises NoLeader or LostLeadership when this manager does not lead any more.
    """

    def __init__(self, view: View, proposer: Proposer, clock: Clock) -> None:
        self._view = view
        self._proposer = proposer
        self._clock = clock

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        """Have transactions applied, waiting while too much is in flight.

        What nodes report is not refused under load: they would only say it again.
        """
        while True:
            try:
                return await self._proposer.propose(transactions)
            except ProposalDropped:
                await trio.sleep(DROPPED_PAUSE_S)

    async def change(self, node_id: str, change: Callable[[NodeRow], NodeRow]) -> None:
        """Write a node's row if ``change`` makes a difference; races are tried again.

        Raises:
            NotFound: the node was removed.
        """
        while True:
            row = self._view.node(node_id)
            if row is None:
                raise NotFound(f"node {node_id} was removed from the swarm")
            changed = change(row)
            if changed == row:
                return
            if changed.api.Status.State != row.api.Status.State:
                since = replace(changed.private, status_since=self._clock.now())
                changed = replace(changed, private=since)
            result = await self.propose([Transaction(changes=(Update(row=changed),))])
            if not isinstance(result[0], Conflict):
                return

    async def set_state(
        self, node_id: str, state: str, message: str, *, grace_until: int = 0
    ) -> None:
        """Write that a node is down, or away for a while; nothing if it was removed.

        Args:
            grace_until: wall time in nanoseconds until which its silence is expected.
        """

        def changed(row: NodeRow) -> NodeRow:
            status = replace(row.api.Status, State=state, Message=message)
            private = replace(row.private, grace_until=grace_until)
            return replace(row, api=replace(row.api, Status=status), private=private)

        try:
            await self.change(node_id, changed)
        except NotFound:
            return
