"""What happened in the swarm of late, for all who ask on this node.

Events are made where entries are applied, so every manager has all of them, whoever leads, and a
reader outlasts leaders. One list holds the last ones for everybody: a reader is a place in it and
nothing more, so one that is slow costs no memory. It is told what it missed once its place was
overwritten, and has to begin anew.

The list belongs to the daemon: it goes on when this node becomes a manager, or ceases to be one. A
reader that was told of the swarm ends with that, since it would wait for nothing.

It must not know HTTP, nor what a client filters by.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ..errors import NotManager, SwarmError
from ..raft.message import NOBODY
from ..store.events import events_of, leader_event
from .roster import manager_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..clock import Clock
    from ..model.event import Event
    from ..raft.runner import Runner
    from ..store.store import RowChange
    from ..store.view import View
    from ..store.watch import Watch

KEPT = 8_192
"""How many events are kept at least; an entry of the log makes a thousand at most."""
PIECE = 256


class EventsLost(SwarmError):
    """The reader was too slow: events were overwritten before it had seen them."""


class EventLog:
    """The last events, and who waits for more.

    Args:
        clock: stamps what no entry of the log has a time for.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[Event] = []
        self._first = 0  # how many were forgotten, the number of the first that is kept
        self._live = 0  # what comes before this one had happened when this daemon started
        self._grown = trio.Event()
        self._about_tasks = 0
        self._telling: object | None = None

    # --- writing ---

    @contextmanager
    def told_by(self, watch: Watch, *, replayed_to: int) -> Iterator[None]:
        """Take what a manager's tables tell, for the length of a ``with`` block.

        Args:
            replayed_to: the last entry of the log that this manager had when it started. What those
                tell has happened before; it is kept, but it is no news.
        """

        def note(index: int, changes: tuple[RowChange, ...]) -> None:
            self._take(changes)
            if index <= replayed_to:
                self._live = self._end

        self._telling = token = object()
        try:
            with watch.told(note):
                self._wake()
                yield
        finally:
            if self._telling is token:
                self._telling = None
            self._wake()

    async def follow_leaders(self, runner: Runner, view: View) -> None:
        """Note who leads, until cancelled. No row says so: each manager tells what it sees.

        The one that a manager finds when it starts is no news.
        """
        while runner.leader == NOBODY:
            await runner.leadership_changed.wait()
        led_by = runner.leader
        while True:
            await runner.leadership_changed.wait()
            rows = manager_rows(view)
            for raft_id, leads in ((led_by, False), (runner.leader, True)):
                if raft_id in rows and runner.leader != led_by:
                    self._add(leader_event(rows[raft_id], leads=leads, at=self._clock.now()))
            led_by = runner.leader
            self._wake()

    def _take(self, changes: tuple[RowChange, ...]) -> None:
        before = self._end
        for change in changes:
            for event in events_of(change, tasks=self._about_tasks > 0):
                self._add(event if event.at else event._replace(at=self._clock.now()))
        if self._end > before:
            self._wake()

    def _add(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) >= 2 * KEPT:
            del self._events[:KEPT]
            self._first += KEPT

    def _wake(self) -> None:
        grown, self._grown = self._grown, trio.Event()
        grown.set()

    # --- reading ---

    @property
    def _end(self) -> int:
        return self._first + len(self._events)

    def open_reader(self, *, past: bool, tasks: bool) -> Reader:
        """Return a reader; its owner closes it.

        Args:
            past: it begins with the oldest that is kept, else with what comes from now on.
            tasks: tasks are told of; nobody notes them while nobody asks, so they have no past.
        """
        self._about_tasks += tasks
        return Reader(self, self._first if past else self._end, past=past, tasks=tasks)


class Reader:
    """One reader's place; made by :meth:`EventLog.open_reader`."""

    def __init__(self, events: EventLog, at: int, *, past: bool, tasks: bool) -> None:
        self._log = events
        self._at = at
        self._past, self._tasks = past, tasks
        self._told_by = events._telling

    def take(self) -> list[Event]:
        """Return the next events that are there, at most :data:`PIECE`; none at the end.

        Raises:
            EventsLost: this reader was too slow.
            NotManager: this node was a manager, and is none any more.
        """
        log = self._log
        if self._at < log._first:
            raise EventsLost("this client reads too slowly: events were lost")
        if not self._past:
            self._at = max(self._at, log._live)
        start = self._at - log._first
        found = log._events[start : start + PIECE]
        self._at += len(found)
        if not found and self._told_by is not log._telling:
            if self._told_by is not None:
                raise NotManager("this node is no manager any more")
            self._told_by = log._telling
        return found

    async def wait(self) -> None:
        """Sleep until there may be more."""
        if self._at < self._log._end:
            await trio.lowlevel.checkpoint()
        else:
            await self._log._grown.wait()

    def close(self) -> None:
        """Read no more."""
        self._log._about_tasks -= self._tasks
        self._tasks = False
