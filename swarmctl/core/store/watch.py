"""Telling those who wait that the tables changed.

Two kinds of listeners: a :class:`Mailbox` says "look again" and which rows were touched (many
changes, one wake-up; for reconcilers and the dispatcher), a :class:`Feed` hands over every change
in order (for event streams) and ends with :class:`FeedOverflow` when its reader is too slow,
instead of holding up the writers or growing without bound.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ..errors import SwarmError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..model.change import Ref
    from .store import RowChange

TOUCHED_MAX = 4_096
FEED_MAX = 4_096


class FeedOverflow(SwarmError):
    """The reader fell too far behind; it has to start over from the tables."""


class Mailbox:
    """Which rows were touched since the last look.

    ``take`` returns None instead of a set when everything has to be looked at: at first, after a
    snapshot was installed, or when too many rows were touched to list them.
    """

    def __init__(self) -> None:
        self._touched: set[Ref] | None = None
        self._event = trio.Event()
        self._event.set()

    @property
    def everything(self) -> bool:
        """Whether the next :meth:`take` returns None."""
        return self._touched is None

    def take(self) -> set[Ref] | None:
        """Return what was touched since the last call, and start anew."""
        touched, self._touched = self._touched, set()
        if self._event.is_set():  # whoever waits already goes on waiting for the same
            self._event = trio.Event()
        return touched

    async def wait(self) -> None:
        """Sleep until something was touched since the last :meth:`take`."""
        await self._event.wait()

    def touch(self, refs: Sequence[Ref] | None) -> None:
        """Note touched rows (None: everything) and wake the waiter."""
        if refs is None or self._touched is None:
            self._touched = None
        else:
            self._touched.update(refs)
            if len(self._touched) > TOUCHED_MAX:
                self._touched = None
        self._event.set()


class Feed:
    """Every change in order, for one reader."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[int, tuple["RowChange", ...]]](
            FEED_MAX
        )

    async def next(self) -> tuple[int, tuple[RowChange, ...]]:
        """Return the next entry's log index and changes; sleep until there is one.

        Raises:
            FeedOverflow: changes were lost, or the tables were replaced by a snapshot.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise FeedOverflow("the reader of changes fell too far behind") from None

    def put(self, index: int, changes: tuple[RowChange, ...]) -> None:
        """Hand over one entry's changes; end the feed when it is full."""
        try:
            self._send.send_nowait((index, changes))
        except trio.WouldBlock:
            self.end()
        except trio.ClosedResourceError:
            pass  # ended before: the reader will find out

    def end(self) -> None:
        """Let the reader take what is queued and then raise FeedOverflow."""
        self._send.close()


class Watch:
    """Where the one who applies entries announces them, and all others listen."""

    def __init__(self) -> None:
        self.index = 0
        self._mailboxes: dict[Mailbox, None] = {}
        self._feeds: dict[Feed, None] = {}
        self._advanced = trio.Event()

    @contextmanager
    def mailbox(self) -> Iterator[Mailbox]:
        """Open a mailbox for the length of a ``with`` block."""
        mailbox = Mailbox()
        self._mailboxes[mailbox] = None
        try:
            yield mailbox
        finally:
            del self._mailboxes[mailbox]

    @contextmanager
    def feed(self) -> Iterator[Feed]:
        """Open a feed of everything applied from now on, for the length of a ``with`` block."""
        feed = Feed()
        self._feeds[feed] = None
        try:
            yield feed
        finally:
            del self._feeds[feed]

    def publish(self, index: int, changes: tuple[RowChange, ...]) -> None:
        """Announce an applied entry."""
        self._advance(index)
        if not changes:
            return
        refs = [change.ref for change in changes]
        for mailbox in self._mailboxes:
            mailbox.touch(refs)
        for feed in self._feeds:
            feed.put(index, changes)

    def publish_everything(self, index: int) -> None:
        """Announce that the tables were replaced by a snapshot."""
        self._advance(index)
        for mailbox in self._mailboxes:
            mailbox.touch(None)
        for feed in self._feeds:
            feed.end()

    async def wait_index(self, index: int) -> None:
        """Sleep until the entry at ``index`` was applied."""
        while self.index < index:
            await self._advanced.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _advance(self, index: int) -> None:
        self.index = max(self.index, index)
        self._advanced.set()
        self._advanced = trio.Event()
