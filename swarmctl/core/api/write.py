"""How a handler changes the tables: look, check, propose; and look again when somebody was faster.

Laws:
- What a write rests on is checked again when it is applied, so two writers can never both win.
- A conflict is not an answer. The handler looks at the tables as they are now, and either finds
  the error that the client should read, or a new transaction to propose. Never for ever.
- A leader lost in the middle leaves the write's fate unknown: the same transaction is proposed
  again under the same request id, and gets the first answer if there was one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from ..errors import LostLeadership, SwarmError, Unavailable
from ..model.change import Conflict, ConflictKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..manager.manager import Manager
    from ..model.change import Result, Transaction
    from ..store.view import View

T = TypeVar("T")

LOOKS_MAX = 20
LOST_LEADERS_MAX = 5


async def write(
    manager: Manager,
    new_id: Callable[[], str],
    plan: Callable[[View], tuple[Transaction, T]],
) -> T:
    """Have a change made, and return what the plan of it gave beside its transaction.

    Cancelled while waiting, the change may still be made.

    Args:
        new_id: makes request ids.
        plan: looks at the tables and returns the transaction that makes the change, or raises what
            the client should hear. Called anew after every conflict.

    Raises:
        Unavailable: others were faster ``LOOKS_MAX`` times.
        NoLeader, LostLeadership: this manager cannot write now.
        SwarmError: what ``plan`` raises.
    """
    for _ in range(LOOKS_MAX):
        transaction, planned = plan(await manager.read())
        result = await _propose(manager, replace(transaction, request_id=new_id()))
        if not isinstance(result, Conflict):
            return planned
        if result.kind is ConflictKind.INVALID:  # no second look explains it
            raise SwarmError(f"the change contradicts itself: {result.text}")
    raise Unavailable("what is to be changed changes too fast for this request; try again")


async def _propose(manager: Manager, transaction: Transaction) -> Result:
    for _ in range(LOST_LEADERS_MAX):
        try:
            return (await manager.propose([transaction]))[0]
        except LostLeadership:
            pass  # the next call waits for a leader
    return (await manager.propose([transaction]))[0]
