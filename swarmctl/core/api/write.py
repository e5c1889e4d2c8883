"""How a handler changes the tables: look, check, propose; and look again when somebody was faster.

Laws:
- What a write rests on is checked again when it is applied, so two writers can never both win.
- A conflict is not an answer. The handler looks at the tables as they are now, and either finds
  the error that the client should read, or a new transaction to propose. Never for ever.
- All that is proposed for one request carries its id, on whichever manager, so at most one of it
  takes effect. With it goes, as a note, what the client is to be told: whoever proposes for the
  same request later gets the note of the one that took effect, hence the first answer.
- A plan need not rest on a confirmed read: a leader that was deposed and does not know it gets
  nothing committed. But its tables may be old, so they alone refuse nobody.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from ..errors import SwarmError, Unavailable
from ..model.change import Conflict, ConflictKind
from ..model.codec import pack, unpack
from ..wire.http1 import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..manager.manager import Manager
    from ..model.change import Applied, Transaction
    from ..store.view import View
    from .call import Call

LOOKS_MAX = 20


async def write(
    manager: Manager,
    call: Call,
    plan: Callable[[View], tuple[Transaction, Response]],
    *,
    part: str = "",
) -> Response:
    """Have a change made, and return the answer that goes with it.

    Cancelled while waiting, the change may still be made.

    Args:
        plan: looks at the tables and returns the transaction that makes the change, and what the
            client is told then; or raises what the client should hear. Called anew after every
            conflict. No secret belongs into the answer: it is kept.
        part: names this write among several of one request; the one whose answer is the request's
            has none.

    Raises:
        Unavailable: others were faster ``LOOKS_MAX`` times.
        NoLeader: this manager cannot write now; nothing was done.
        LostLeadership: it stopped leading; whether the change was made is unknown.
        SwarmError: what ``plan`` raises.
    """
    request_id = call.origin.request_id + (f"/{part}" if part else "")
    for _ in range(LOOKS_MAX):
        transaction, answer = await _planned(manager, plan)
        noted = replace(transaction, request_id=request_id, note=_note_of(answer))
        (result,) = await manager.propose([noted])
        if not isinstance(result, Conflict):
            return first_answer(result)
        if result.kind is ConflictKind.INVALID:  # no second look explains it
            raise SwarmError(f"the change contradicts itself: {result.text}")
    raise Unavailable("what is to be changed changes too fast for this request; try again")


async def _planned(
    manager: Manager, plan: Callable[[View], tuple[Transaction, Response]]
) -> tuple[Transaction, Response]:
    """Plan on the tables as they are here; who is refused on these, on such as are surely new.

    So a change costs one round trip to the other managers, and not two.
    """
    if manager.leading:
        with suppress(SwarmError):
            return plan(manager.view)
    return plan(await manager.read())


class _Note(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it is kept beside what it tells of."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def _note_of(answer: Response) -> bytes:
    return pack(_Note(*answer))


def first_answer(applied: Applied) -> Response:
    """Return what the client is told of a write that took effect."""
    note = unpack(applied.note, _Note)
    return Response(note.status, note.headers, note.body)
