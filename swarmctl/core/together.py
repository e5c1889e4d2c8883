"""Tasks that share one fate: the first to end ends the others, and decides how it all ends.

A session is such a thing: one task reads, one writes, one keeps time, and when the connection goes
all of them meet the same error. Trio's nursery would raise a group of them; here the first one's
error is *the* error, and the rest is only noticed.

It must not know who uses it.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import trio

from .errors import SwarmError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


async def run_until_first(*parts: Callable[[], Awaitable[None]]) -> None:
    """Run all parts; when the first ends, cancel the others and end as it did.

    Raises:
        SwarmError: what the first part raised, as it is. What others raise after it is logged.
        BaseExceptionGroup: a bug in a part, as from any nursery.

    Cancellation: cancels all parts.
    """
    ended: list[SwarmError | None] = []

    async def live(part: Callable[[], Awaitable[None]]) -> None:
        end: SwarmError | None = None
        try:
            await part()
        except SwarmError as error:
            end = error
        if ended and end is not None:
            log.debug("a task whose neighbour had ended ended with: %s", end)
        ended.append(end)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for part in parts:
            nursery.start_soon(live, part)
    if ended[0] is not None:
        raise ended[0]


def leaves(group: BaseExceptionGroup[SwarmError]) -> list[SwarmError]:
    """Return the errors of a group without its nesting."""
    found: list[SwarmError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found.extend(leaves(error))
        else:
            found.append(error)
    return found
