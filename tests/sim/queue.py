"""The one queue on which a simulated cluster happens, and scripts that wait on it.

Time is an integer of nanoseconds and moves only from event to event. Nothing here or anywhere in
the simulation asks the machine's clock, and equal times go in the order in which they were asked
for; so one seed is one history.

A script is a coroutine that awaits a :class:`Wait` and nothing else. A :class:`Scope` is what ends
together: the timers and scripts of one process, or of one term of leadership.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")

MS = 1_000_000
S = 1_000_000_000


class Queue:
    """Events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0
        self._events: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = count()

    def after(self, delay: float, call: Callable[..., object], *args: object) -> None:
        """Have ``call(*args)`` happen in ``delay`` nanoseconds."""
        heappush(self._events, (self.now + int(delay), next(self._order), call, args))

    def step(self) -> None:
        """Let the next event happen."""
        self.now, _, call, args = heappop(self._events)
        call(*args)


class Wait(Generic[T]):
    """Something that is not there yet: awaited by one script, resolved once."""

    __slots__ = ("_error", "_resume", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._resume: Callable[[], None] | None = None

    def resolve(self, value: T) -> None:
        """Let the script go on with ``value``; later calls are ignored."""
        if not self.done:
            self.done = True
            self._value = value
            self._wake()

    def fail(self, error: Exception) -> None:
        """Let the script go on with an error; ignored once resolved."""
        if not self.done:
            self.done = True
            self._error = error
            self._wake()

    def then(self, resume: Callable[[], None]) -> None:
        """Have ``resume`` called once there is something."""
        self._resume = resume

    def _wake(self) -> None:
        if self._resume is not None:
            self._resume()

    def __await__(self) -> Generator[Wait[T], None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class _Script:
    """A coroutine on its way."""

    def __init__(self, coroutine: Coroutine[Wait[Any], None, None], scope: Scope) -> None:
        self._coroutine = coroutine
        self._scope = scope
        self._running = False
        self._cancelled = False

    def go_on(self) -> None:
        if self._cancelled:
            return
        self._running = True
        try:
            waiting = self._coroutine.send(None)
        except StopIteration:
            self._scope.scripts.pop(self, None)
            return
        except BaseException:
            self._scope.scripts.pop(self, None)
            raise
        finally:
            self._running = False
        if self._cancelled:
            self._coroutine.close()
        else:
            waiting.then(self.go_on)

    def cancel(self) -> None:
        self._cancelled = True
        if not self._running:
            self._coroutine.close()


class Scope:
    """What ends together."""

    def __init__(self, queue: Queue) -> None:
        self.alive = True
        self.scripts: dict[_Script, None] = {}
        self._queue = queue

    def after(self, delay: float, call: Callable[..., object], *args: object) -> None:
        """Have ``call(*args)`` happen later, unless the scope has ended by then."""
        self._queue.after(delay, self._call, call, args)

    def sleep(self, delay: float) -> Wait[None]:
        """Return what is resolved after ``delay`` nanoseconds."""
        wait: Wait[None] = Wait()
        self.after(delay, wait.resolve, None)
        return wait

    def limit(self, wait: Wait[T], delay: float, error: Exception) -> Wait[T]:
        """Return ``wait``, which fails with ``error`` when it is not resolved in time."""
        self.after(delay, wait.fail, error)
        return wait

    def start(self, coroutine: Coroutine[Wait[Any], None, None]) -> None:
        """Run a script."""
        script = _Script(coroutine, self)
        if not self.alive:
            script.cancel()
            return
        self.scripts[script] = None
        script.go_on()

    def cancel(self) -> None:
        """End everything in here."""
        self.alive = False
        scripts, self.scripts = self.scripts, {}
        for script in scripts:
            script.cancel()

    def _call(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.alive:
            call(*args)
