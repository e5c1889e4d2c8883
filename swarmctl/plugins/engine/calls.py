"""Calls to one engine from trio: threads, limits, versions, errors.

Every call runs in a thread and may be cancelled at once: its connection is cut, the thread ends,
and its place is free again. Separate limits keep slow calls from holding up quick ones: a hung
pull takes no place from a start, and twenty creates under way take none from a kill.

Whatever keeps the engine from answering becomes :class:`EngineUnavailable`; an answer that says no
becomes :class:`Refused`. What a refusal means is the caller's business.
"""

from __future__ import annotations

import math
import os
import stat
import urllib.parse
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from swarmctl.plugins import EngineUnavailable

from .line import Answer, Line, why_broken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from .dialect import Dialect

LOOKUPS = 8
SIGNALS = 8
STREAMS = 4
OUTPUTS = 256
"""Each output that is followed has a thread that waits; they may take none from the events."""
LOOKUP_PATIENCE_S = 15.0
CHANGE_PATIENCE_S = 120.0  # creating may copy an image's files into a volume first
MAX_IDLE_LINES = 12


class Refused(Exception):
    """The engine answered, and said no; ``str()`` is its own sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class NotAnEngine(EngineUnavailable):
    """What answers there cannot run tasks, now or later: the endpoint has to be another."""


class Engine:
    """One engine on this host, behind its unix socket."""

    def __init__(self, socket_path: str, dialect: Dialect, *, changes: int) -> None:
        """``changes``: how many containers may be created, started or removed at a time."""
        self.socket_path = socket_path
        self.dialect = dialect
        self._prefix = ""
        self._idle: list[Line] = []
        self.lookups = trio.CapacityLimiter(LOOKUPS)
        self.changes = trio.CapacityLimiter(changes)
        self.signals = trio.CapacityLimiter(SIGNALS)
        self.unlimited = trio.CapacityLimiter(math.inf)  # for what is limited by its caller
        self.streams = trio.CapacityLimiter(STREAMS)
        self.outputs = trio.CapacityLimiter(OUTPUTS)
        self._outputs_open = 0

    async def prefix(self) -> str:
        """Return what all paths begin with, agreed upon with the engine when not yet known.

        Raises:
            EngineUnavailable: it does not answer, is swarmctl itself, or cannot be used.
        """
        if not self._prefix:
            self._prefix = await self._negotiate()
        return self._prefix

    def forget_prefix(self) -> None:
        """Agree on a version anew: the engine was away and may be another one now."""
        self._prefix = ""

    async def get(self, path: str, **query: str) -> Any:
        """Look something up and return the decoded answer. Raises as :meth:`ask` does."""
        answer = await self.ask("GET", path, query=query)
        return _decoded(answer)

    async def post(
        self,
        path: str,
        body: object = None,
        *,
        limiter: trio.CapacityLimiter,
        patience_s: float,
        **query: str,
    ) -> Any:
        """Change something and return the decoded answer, None for none. Raises as :meth:`ask`."""
        answer = await self.ask(
            "POST", path, query=query, body=body, limiter=limiter, patience_s=patience_s
        )
        return _decoded(answer) if answer.body.strip() else None

    async def change(self, path: str, body: object = None) -> Any:
        """Change something, in turn with others that do. Raises as :meth:`ask` does."""
        return await self.post(path, body, limiter=self.changes, patience_s=CHANGE_PATIENCE_S)

    async def delete(self, path: str, **query: str) -> None:
        """Remove something. Raises as :meth:`ask` does."""
        await self.ask(
            "DELETE", path, query=query, limiter=self.changes, patience_s=CHANGE_PATIENCE_S
        )

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        limiter: trio.CapacityLimiter | None = None,
        patience_s: float = LOOKUP_PATIENCE_S,
    ) -> Answer:
        """Send one request and read its whole answer.

        Args:
            limiter: whose places the call takes; those of look-ups by default.
            patience_s: how long the engine may be silent before it counts as away.

        Raises:
            EngineUnavailable: no answer. Whether the request was carried out is unknown.
            Refused: the answer's status is 400 or above.
        """
        prefix = await self.prefix()
        return await self.call(
            partial(
                _exchange,
                method=method,
                path=prefix + path,
                query=query,
                body=None if body is None else msgspec.json.encode(body),
                patience_s=patience_s,
            ),
            limiter or self.lookups,
        )

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], limiter: trio.CapacityLimiter | None = None
    ) -> AsyncIterator[Stream]:
        """Open an answer that has no end of its own: events, followed logs.

        Leaving the block closes it. Raises as :meth:`ask` does.
        """
        prefix = await self.prefix()
        ask = partial(_exchange, method="GET", path=prefix + path, query=query, stream=True)
        line = self._take()
        limiter = limiter or self.streams
        try:
            yield Stream(self, line, await self._in_thread(line, ask, limiter), limiter)
        finally:
            line.cut()
            line.close()

    @contextmanager
    def output_place(self) -> Iterator[None]:
        """Take one of the places for outputs that are being read.

        Raises:
            EngineUnavailable: there is none left.
        """
        if self._outputs_open >= OUTPUTS:
            raise EngineUnavailable(f"{OUTPUTS} outputs are read on this node already")
        self._outputs_open += 1
        try:
            yield
        finally:
            self._outputs_open -= 1

    async def call(self, work: Callable[[Line], Answer], limiter: trio.CapacityLimiter) -> Answer:
        """Run ``work`` with a line in a thread. Raises as :meth:`ask` does."""
        line = self._take()
        try:
            answer = await self._in_thread(line, work, limiter)
        except Refused:
            self._give_back(line)
            raise
        self._give_back(line)
        return answer

    def close(self) -> None:
        """Close the connections that are not in use; the next call opens another."""
        while self._idle:
            self._idle.pop().close()

    async def _in_thread(
        self, line: Line, work: Callable[[Line], Answer], limiter: trio.CapacityLimiter
    ) -> Answer:
        """Run ``work(line)``; cancelled, cut the line so that thread and place are free at once."""
        try:
            return await trio.to_thread.run_sync(
                work, line, abandon_on_cancel=True, limiter=limiter
            )
        except trio.Cancelled:
            line.cut()
            line.close()
            raise
        except self.dialect.transport.broken as error:
            line.close()
            raise self._unavailable(error) from error

    async def _negotiate(self) -> str:
        ask = partial(_exchange, method="GET", path="/version", patience_s=LOOKUP_PATIENCE_S)
        try:
            version = _decoded(await self.call(ask, self.lookups))
        except Refused as error:
            raise EngineUnavailable(
                f"what answers at unix://{self.socket_path} is no engine: {error}"
            ) from error
        if version.get("Platform", {}).get("Name") == "swarmctl":
            raise NotAnEngine(
                f"unix://{self.socket_path} is swarmctl's own API, not an engine: name the"
                " engine's own socket with --engine"
            )
        try:
            return self.dialect.agree(version)
        except ValueError as error:
            raise NotAnEngine(f"the engine at unix://{self.socket_path} {error}") from error

    def _take(self) -> Line:
        return self._idle.pop() if self._idle else self._new_line()

    def _new_line(self) -> Line:
        return Line(self.socket_path, self.dialect.transport)

    def _give_back(self, line: Line) -> None:
        if len(self._idle) < MAX_IDLE_LINES:
            self._idle.append(line)
        else:
            line.close()

    def _unavailable(self, error: Exception) -> EngineUnavailable:
        """Say why nothing answers, in words that help."""
        place, title = f"unix://{self.socket_path}", self.dialect.title
        try:
            is_socket = stat.S_ISSOCK(os.stat(self.socket_path).st_mode)  # noqa: PTH116
        except FileNotFoundError:
            return EngineUnavailable(f"no {title} engine at {place}: there is no such socket")
        except OSError as why:
            return EngineUnavailable(f"no {title} engine at {place}: {why.strerror}")
        if not is_socket:
            return NotAnEngine(f"no {title} engine at {place}: it is no socket")
        return EngineUnavailable(
            f"the {title} engine at {place} does not answer: "
            + why_broken(error, self.dialect.transport)
        )


class Stream:
    """An open answer, read piece by piece."""

    def __init__(
        self, engine: Engine, line: Line, answer: Answer, limiter: trio.CapacityLimiter
    ) -> None:
        self._engine = engine
        self._limiter = limiter
        self._line = line
        self._chunks = answer.chunks
        self.headers = answer.headers

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece. Cancelled, the stream is cut and cannot be read on.

        Raises:
            EngineUnavailable: it broke off.
        """
        answer = await self._engine._in_thread(self._line, self._next, self._limiter)
        if not answer.body:
            raise StopAsyncIteration
        return answer.body

    def cut(self) -> None:
        """End the stream: whoever reads it gets EngineUnavailable."""
        self._line.cut()

    def _next(self, line: Line) -> Answer:
        piece = next(self._chunks, b"")
        return Answer(200, {}, piece, iter(()))


def _exchange(
    line: Line,
    *,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    body: bytes | None = None,
    patience_s: float | None = None,
    stream: bool = False,
) -> Answer:
    """Ask, and tell a refusal from an answer (in a thread)."""
    answer = line.ask(
        method, path, query=query or {}, body=body, patience_s=patience_s, stream=stream
    )
    return unless_refused(answer)


def quoted(name: str) -> str:
    """Make a name fit to be a part of a path; slashes, which image names have, stay."""
    return urllib.parse.quote(name, safe="/:@")


def unless_refused(answer: Answer) -> Answer:
    """Hand an answer on.

    Raises:
        Refused: its status is 400 or above.
    """
    if answer.status < 400:
        return answer
    text = answer.body.decode(errors="replace").strip()
    try:
        said = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        said = None
    if isinstance(said, dict):
        text = str(said.get("message", text))
    raise Refused(answer.status, text or f"status {answer.status}")


def _decoded(answer: Answer) -> Any:
    try:
        return msgspec.json.decode(answer.body)
    except msgspec.DecodeError as error:
        raise EngineUnavailable(f"the engine answered with no JSON: {error}") from error
