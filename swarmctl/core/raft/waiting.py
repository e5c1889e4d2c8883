"""What a member's owner waits for, and what it brings: proposals, reads, state machine, snapshots.

Values and events of the runner; nothing here touches consensus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from ..errors import LostLeadership

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .message import Entry, Message


class StateMachine(Protocol):
    """What committed entries are applied to."""

    def apply(self, index: int, data: bytes) -> object:
        """Apply one entry and return what its proposer gets. Raising ends this manager."""
        ...

    def skip(self, index: int) -> None:
        """Note an entry that carries nothing for the state machine."""
        ...

    def dump(self) -> Iterable[bytes]:
        """Return the present state in chunks; encoded later, in another thread."""
        ...

    def receive(self) -> Incoming:
        """Begin to take in another member's dump."""
        ...


class Incoming(Protocol):
    """A state that arrives in chunks, beside the present one until it is whole."""

    def add(self, chunk: bytes) -> None:
        """Take the next chunk.

        Raises:
            SwarmError: it is no chunk of a dump; the present state is unharmed.
        """
        ...

    def check_whole(self) -> None:
        """Find nothing wrong, once the last chunk was added.

        Raises:
            SwarmError: chunks are missing.
        """
        ...

    def install(self) -> None:
        """Replace the present state by this one, which is whole."""
        ...


class Proposal:
    """An appended entry whose fate is not known yet. ``wait`` once."""

    def __init__(self, term: int) -> None:
        self._term = term
        self._done = trio.Event()
        self._result: object = None
        self._lost = False

    async def wait(self) -> object:
        """Sleep until the entry was applied; return what the state machine answered.

        Raises:
            LostLeadership: this manager stopped leading first; the entry may still take effect.
        """
        await self._done.wait()
        if self._lost:
            raise LostLeadership("this manager stopped leading before the change was committed")
        return self._result

    def settle(self, entry: Entry, result: object) -> None:
        """Tell the waiter what became of the log's place that the entry was given."""
        self._lost = entry.term != self._term
        self._result = result
        self._done.set()

    def lose(self) -> None:
        """Tell the waiter that nobody here will know."""
        self._lost = True
        self._done.set()


class WaitingRead:
    """A read that waits until it is linearizable, or until that cannot be said here any more."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.lost = False


class Reception:
    """A snapshot of another member on its way in.

    Attributes:
        chunks: how many are on our disk.
        message: what consensus is told once all are.
        over: installed, or of no use.
    """

    def __init__(self, stamp: bytes, state: Incoming) -> None:
        self.stamp = stamp
        self.state = state
        self.chunks = 0
        self.message: Message | None = None
        self.over = trio.Event()
