"""A change is planned on the leader's own tables, and refused only on confirmed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core.api.call import Call
from swarmctl.core.api.forward import Origin
from swarmctl.core.api.write import write
from swarmctl.core.errors import AlreadyExists, NoLeader, SwarmError
from swarmctl.core.model.change import Applied, Transaction
from swarmctl.core.store.store import Store
from swarmctl.core.wire.http1 import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmctl.core.store.view import View

CALL = Call(None, {}, "", Origin("n1", "r1", ""))  # type: ignore[arg-type] # only its id counts
CREATED = Response(201, (), b"made")


class Leader:
    """A manager that takes itself for the leader; ``deposed`` says whether it is wrong."""

    leading = True

    def __init__(self, *, deposed: bool = False) -> None:
        self.deposed = deposed
        self.view = Store().view
        self.newer = Store().view
        self.reads = 0

    async def read(self) -> View:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        if self.deposed:
            raise NoLeader
        return self.newer

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Applied, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(Applied(index=5, note=each.note) for each in transactions)


def _refuse(refused: Sequence[View]) -> object:
    def plan(view: View) -> tuple[Transaction, Response]:
        if any(view is one for one in refused):
            raise AlreadyExists("taken")
        return Transaction(changes=()), CREATED

    return plan


async def _write(leader: Leader, refused: Sequence[View]) -> Response:
    return await write(leader, CALL, _refuse(refused))  # type: ignore[arg-type] # stand-ins


async def test_a_change_that_nothing_speaks_against_asks_nobody_first() -> None:
    """A plan that holds on the leader's tables is proposed without a confirmed read."""
    leader = Leader()
    assert await _write(leader, []) == CREATED
    assert leader.reads == 0


async def test_old_tables_refuse_nobody() -> None:
    """What speaks against a change on tables that were overtaken is not told to the client."""
    leader = Leader()
    assert await _write(leader, [leader.view]) == CREATED
    assert leader.reads == 1


@pytest.mark.parametrize("deposed", [True, False])
async def test_a_refusal_is_confirmed(*, deposed: bool) -> None:
    """A leader refuses once it has read as one; a deposed one says that nobody leads."""
    leader = Leader(deposed=deposed)
    expected: type[SwarmError] = NoLeader if deposed else AlreadyExists
    with pytest.raises(expected):
        await _write(leader, [leader.view, leader.newer])
    assert leader.reads == 1
