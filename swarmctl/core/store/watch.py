"""Telling those who wait that the tables changed.

Two kinds of listeners: a :class:`Mailbox` says "look again" and which rows were touched (many
changes, one wake-up; for reconcilers and the dispatcher). A :data:`Listener` is handed every change
in order, at once and before anybody wakes (for events); it may not raise, nor take long.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..model.change import Ref
    from .store import RowChange

    Listener = Callable[[int, tuple[RowChange, ...]], None]

TOUCHED_MAX = 4_096


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


class Watch:
    """Where the one who applies entries announces them, and all others listen."""

    def __init__(self) -> None:
        self._mailboxes: dict[Mailbox, None] = {}
        self._listeners: dict[Listener, None] = {}

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
    def told(self, listener: Listener) -> Iterator[None]:
        """Hand over everything applied from now on, for the length of a ``with`` block.

        Args:
            listener: gets each entry's log index and changes.
        """
        self._listeners[listener] = None
        try:
            yield
        finally:
            del self._listeners[listener]

    def publish(self, index: int, changes: tuple[RowChange, ...]) -> None:
        """Announce an applied entry."""
        if not changes:
            return
        for listener in self._listeners:
            listener(index, changes)
        refs = [change.ref for change in changes]
        for mailbox in self._mailboxes:
            mailbox.touch(refs)

    def publish_everything(self, index: int, changes: tuple[RowChange, ...] = ()) -> None:
        """Announce that the tables were replaced by a snapshot.

        Args:
            changes: how they differ from what they were.
        """
        for listener in self._listeners:
            listener(index, changes)
        for mailbox in self._mailboxes:
            mailbox.touch(None)
