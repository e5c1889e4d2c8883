"""Small things on their way to a taker that is slower, as many at a time as there are.

What for: a line of output is small and each hop has its price, so lines that came while the hop
before was busy go on together. A taker that waits gets the first one at once.

Laws: what is held is bounded by ``limit_bytes`` and one item; who puts more waits. Nothing is lost
or reordered, and an error comes after all that was put before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from .errors import SwarmError

T = TypeVar("T")


class Batch(Generic[T]):
    """From those who put to one who takes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._items: list[T] = []
        self._size = 0
        self._over = False
        self._error: SwarmError | None = None
        self._change = trio.Event()
        self._room = trio.lowlevel.ParkingLot()

    async def put(self, item: T, size: int) -> None:
        """Hand over an item, when there is room. No checkpoint while there is.

        Cancellation: the item was not handed over.
        """
        while self._size >= self._limit_bytes:
            await self._room.park()
        self._items.append(item)
        self._size += size
        self._change.set()

    def end(self, error: SwarmError | None = None) -> None:
        """Say that nothing more comes, and why if that is no good end."""
        self._over, self._error = True, error
        self._change.set()

    async def take(self) -> list[T]:
        """Return all there is, in order; sleep until there is something; empty at the end.

        Raises:
            SwarmError: what ``end`` was given, once all before it was taken.
        """
        await self._change.wait()
        items, self._items, self._size = self._items, [], 0
        self._room.unpark_all()
        if not self._over:
            self._change = trio.Event()
        elif not items and self._error is not None:
            raise self._error
        return items
