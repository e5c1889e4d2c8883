"""The shell around a plugin's child process: start it, ask it, watch its time, end it.

    run                     while this manager leads
    ├ a batch after the other, as desks have them
    └ log of the child's standard error

Laws:

- Whatever the child does, nobody waits longer than the deadline for one answer; past it the child
  is killed, and the next batch gets a fresh one.
- A failure of any kind is a sentence about the plugin and never an error of the manager.
- No synchronous stretch grows with the cluster: rows are encoded some hundred at a time.
- The child inherits no descriptor and no variable that Python does not need.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import trio

from ... import __version__
from ...core.errors import SwarmError, Undecodable
from .desk import ImpossibleAnswer
from .messages import (
    LENGTH_BYTES,
    MESSAGE_MAX,
    Done,
    Failed,
    Ready,
    Rows,
    Start,
    decode_answer,
    encode_question,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..sources import Source
    from .desk import Desk, Plugin
    from .messages import Answer, FromChild, Question, ToChild
    from .redact import Redactor

DEADLINE_S = 1.0
"""For one answer."""
START_S = 10.0
"""For the interpreter, the plugin's import and the first copy of the tables."""
ROWS_AT_ONCE = 200
END_S = 2.0
LINES_LOGGED = 200
"""Of one child; what it prints beyond that is dropped."""
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "TZ", "XDG_CACHE_HOME")
KEPT_PREFIXES = ("PYTHON", "SWARMCTL_CACHE")

log = logging.getLogger(__name__)


class ChildFailed(SwarmError):
    """The child gave no usable answer; the text says what it did instead.

    Attributes:
        is_gone: the child cannot be asked again.
    """

    def __init__(self, text: str, *, is_gone: bool) -> None:
        super().__init__(text)
        self.is_gone = is_gone


class _Child:
    """A running child and its pipes."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.last_words: deque[str] = deque(maxlen=3)
        self._received = bytearray()

    async def converse(self, message: ToChild) -> FromChild:
        """Say something and return what it says to that.

        Raises:
            ChildFailed: it is gone, or talks nonsense.
        """
        body = await self._exchange(encode_question(message))
        if body is None:
            with trio.move_on_after(END_S):
                await self.process.wait()
            raise ChildFailed(f"its process ended{self._how()}", is_gone=True)
        try:
            return decode_answer(body)
        except Undecodable as error:
            raise ChildFailed(f"it talks nonsense: {error}", is_gone=True) from error

    async def _exchange(self, message: bytes) -> bytes | None:
        """Write a message and return the one that comes back, None where the child is gone."""
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(message)
            length = int.from_bytes(await self._receive(LENGTH_BYTES), "big")
            if length > MESSAGE_MAX:
                raise ChildFailed(f"its answer has {length} bytes", is_gone=True)
            return await self._receive(length)
        except (trio.BrokenResourceError, EOFError):
            return None

    async def _receive(self, length: int) -> bytes:
        assert self.process.stdout is not None
        while len(self._received) < length:
            data = await self.process.stdout.receive_some(1 << 16)
            if not data:
                raise EOFError
            self._received += data
        found = bytes(self._received[:length])
        del self._received[:length]
        return found

    def _how(self) -> str:
        code = self.process.returncode
        how = "" if code is None else f" by signal {-code}" if code < 0 else f" with code {code}"
        words = f" ({self.last_words[-1]})" if self.last_words else ""
        return how + words


class Runner:
    """Has one plugin's questions answered by a child process.

    Args:
        options: settings by the name of what they are for.
        command: starts swarmctl again.
        memory_bytes: address space that the child may have.
        loaded: told what the child says of itself, each time one was started.
        went_off: told why, once the plugin is off; called in a thread.
    """

    def __init__(
        self,
        plugin: Plugin,
        source: Source,
        redactor: Redactor,
        *,
        options: dict[str, dict[str, str]],
        command: Sequence[str],
        memory_bytes: int,
        loaded: Callable[[Ready], None] = lambda _: None,
        went_off: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.plugin = plugin
        self._source = source
        self._redactor = redactor
        self._start = Start(
            version=__version__,
            source=source,
            options=options,
            memory_bytes=memory_bytes,
            deadline_s=DEADLINE_S,
        )
        self._command = command
        self._loaded = loaded
        self._went_off = went_off
        self._posted = trio.Event()
        self._child: _Child | None = None
        self._logging: trio.Nursery | None = None
        plugin.post = self._post

    def _post(self) -> None:
        self._posted.set()

    async def run(self) -> None:
        """Answer batches until cancelled; the child ends with it."""
        try:
            async with trio.open_nursery() as nursery:
                self._logging = nursery
                await self._try_start()
                while True:
                    await self._posted.wait()
                    self._posted = trio.Event()
                    for desk in self.plugin.desks:
                        if desk.open is not None:
                            await self._serve(desk)
        except Exception as error:  # a bug here: whoever restarts us gives up after three, as this
            self.plugin.failed(f"asking it failed: {error!r}", trio.current_time())
            raise
        finally:
            self._logging = None
            self.plugin.forget()
            with trio.move_on_after(END_S, shield=True):
                await self._end_child()

    async def _try_start(self) -> None:
        """Start the child before it is needed, so that its first question waits for nothing."""
        if self.plugin.off:
            return
        try:
            await self._ready_child()
        except ChildFailed as failure:
            await self._note(failure)

    async def _serve(self, desk: Desk[object]) -> None:
        """Have one batch answered, as far as the plugin can."""
        assert desk.open is not None
        try:
            child = await self._ready_child()
            await self._send_rows(child)
            for at, (key, asked) in enumerate(list(desk.open.items())):
                answer = await self._answer(child, asked.question(at == 0))
                try:
                    desk.answered(key, asked.found(answer))
                except ImpossibleAnswer as error:
                    raise ChildFailed(f"its answer is impossible: {error}", is_gone=False) from None
        except ChildFailed as failure:
            await self._note(failure)
        if desk.open is not None:
            desk.close()

    async def _note(self, failure: ChildFailed) -> None:
        plugin = self.plugin
        plugin.failed(str(failure), trio.current_time())
        log.warning("plugin %s: %s; the default takes its place", plugin.name, failure)
        if plugin.off:
            log.error("%s", plugin.off)
        if failure.is_gone or plugin.off:
            await self._end_child()
        if plugin.off:
            await trio.to_thread.run_sync(self._went_off, plugin.off)
        if failure.is_gone or plugin.off:
            for desk in plugin.desks:  # their questions rest on rows that a new child lacks
                if desk.open is not None:
                    desk.close()

    async def _answer(self, child: _Child, question: Question) -> Answer:
        """Return the plugin's answer.

        Raises:
            ChildFailed: it gave none in time, or raised.
        """
        answer = await self._within(DEADLINE_S, child, question)
        if isinstance(answer, (Ready, Done)):
            raise ChildFailed("it talks nonsense: no answer to the question", is_gone=True)
        return answer

    async def _send_rows(self, child: _Child) -> None:
        mirror = self.plugin.mirror
        outbox, mirror.outbox = mirror.outbox, {}
        is_anew, mirror.starts_anew = mirror.starts_anew, False
        gone = tuple(ref for ref, row in outbox.items() if row is None)
        rows = iter([row for row in outbox.values() if row is not None])
        while True:
            some = tuple(map(self._redactor.row, islice(rows, ROWS_AT_ONCE)))
            if not (some or gone or is_anew):
                return
            message = Rows(index=mirror.index, rows=some, gone=gone, is_anew=is_anew)
            await self._within(START_S, child, message)
            is_anew, gone = False, ()

    async def _within(
        self, deadline_s: float, child: _Child, message: ToChild
    ) -> Answer | Done | Ready:
        try:
            with trio.fail_after(deadline_s):
                answer = await child.converse(message)
        except trio.TooSlowError:
            raise ChildFailed(
                f"it did not answer within {deadline_s:g} s and was killed", is_gone=True
            ) from None
        if isinstance(answer, Failed):
            raise ChildFailed(answer.text, is_gone=isinstance(message, Start))
        return answer

    # --- the process ---

    async def _ready_child(self) -> _Child:
        """Return the child, started if there is none.

        Raises:
            ChildFailed: it cannot be started, or its plugin cannot be loaded.
        """
        if self._child is not None:
            return self._child
        assert self._logging is not None, "only asked while it runs"
        try:
            process = await trio.lowlevel.open_process(
                [*self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise ChildFailed(f"its process cannot be started: {error}", is_gone=True) from error
        self._child = child = _Child(process)
        self._logging.start_soon(self._log, child, name=f"log of plugin {self.plugin.name}")
        ready = await self._within(START_S, child, self._start)
        if not isinstance(ready, Ready):
            raise ChildFailed("it talks nonsense: it did not say that it is ready", is_gone=True)
        self._loaded(ready)
        return child

    async def _end_child(self) -> None:
        """Kill the child, and reap it."""
        child, self._child = self._child, None
        self.plugin.mirror.forget()
        if child is None:
            return
        process = child.process
        process.kill()
        with trio.move_on_after(END_S, shield=True):
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await trio.aclose_forcefully(stream)

    async def _log(self, child: _Child) -> None:
        """Log what the child prints, line by line, up to a bound."""
        assert child.process.stderr is not None
        rest, count = b"", 0
        try:
            async for data in child.process.stderr:
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[-1000:]
                for line in lines:
                    text = line[:1000].decode(errors="replace")
                    child.last_words.append(text)
                    count += 1
                    if count <= LINES_LOGGED:
                        log.info("plugin %s: %s", self.plugin.name, text)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return  # it was ended


def _environment() -> dict[str, str]:
    """Return the variables that the child gets."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
    }
