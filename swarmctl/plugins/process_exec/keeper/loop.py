"""One selector and a heap of timers: all waiting that the keeper does."""

from __future__ import annotations

import heapq
import selectors
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], object]

LONGEST_WAIT_S = 3600.0  # a selector takes no more than some weeks, and a grace may be years


class Timer:
    """A call that is due at some moment; see :meth:`Loop.later`."""

    __slots__ = ("_callback", "due")

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        """Never make the call."""
        self._callback = None

    def fire(self) -> None:
        """Make the call, unless it was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class Loop:
    """Calls back when a descriptor is ready or a time has come; one turn at a time."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []

    def now(self) -> float:
        """Return the monotonic time that timers count in."""
        return time.monotonic()

    def later(self, delay_s: float, callback: Callback) -> Timer:
        """Call ``callback`` once, after ``delay_s`` seconds."""
        timer = Timer(self.now() + delay_s, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def watch(self, descriptor: int, readable: Callback, writable: Callback | None = None) -> None:
        """Call back whenever ``descriptor`` can be read or, if asked for, written."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writable else 0)
        if descriptor in self._selector.get_map():
            self._selector.modify(descriptor, events, (readable, writable))
        else:
            self._selector.register(descriptor, events, (readable, writable))

    def forget(self, descriptor: int) -> None:
        """Stop watching; to be called before the descriptor is closed."""
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    def turn(self) -> None:
        """Wait for the next thing to happen and make the calls that are due."""
        timeout = None
        if self._timers:
            timeout = min(max(0.0, self._timers[0].due - self.now()), LONGEST_WAIT_S)
        for key, events in self._selector.select(timeout):
            readable, writable = key.data
            # A call made earlier in this turn may have ended the interest in this one.
            if events & selectors.EVENT_READ and self._still(key):
                readable()
            if events & selectors.EVENT_WRITE and writable is not None and self._still(key):
                writable()
        while self._timers and self._timers[0].due <= self.now():
            heapq.heappop(self._timers).fire()

    def _still(self, key: selectors.SelectorKey) -> bool:
        known = self._selector.get_map().get(key.fd)
        return known is not None and known.data is key.data
