"""What is not the swarm's is the node's own engine's: it is asked, and its answer handed back.

So one socket serves a client's `service ls` and its `exec`, `build` or `run`. Laws:

- Bodies pass through piece by piece, both ways; nothing is kept.
- An engine's version of the API is its own: a path goes without its prefix, and the engine takes
  the newest that it has.
- A connection that the engine takes over (exec, attach) becomes bytes both ways; either side may
  end its half, and the engine's end ends it all.

It must not know what is asked.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ..errors import RemoteProtocolError, Unavailable
from ..wire.http1 import ClientCodec, Response, Signal
from ..wire.http_server import StreamedResponse, Takeover
from .route import split_version

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..wire.http1 import Headers, Request, ResponseHead
    from ..wire.http_server import Connection, Reply, SendChunk

CONNECT_TIMEOUT_S = 5.0
RECEIVE_BYTES = 64 * 1024
WHOLE_BYTES = 1024 * 1024
"""An answer that says it is no longer than this is read whole."""
# They are about one connection, not about what is said on it; or each side's own to say.
OF_A_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect", "host"}
)
OF_AN_ANSWER = OF_A_CONNECTION | {"transfer-encoding", "content-length"}
OURS = frozenset({"api-version", "date", "docker-experimental", "ostype", "server"})


async def pass_on(socket_path: str, request: Request, connection: Connection) -> Reply:
    """Have an engine answer.

    Args:
        socket_path: where it listens.
        connection: the client's, whose body has not been read.

    Raises:
        Unavailable: it does not answer.
        RemoteProtocolError: the request's body is malformed, or ends early.
    """
    engine = Exchange(await _connect(socket_path))
    try:
        try:
            await engine.ask(request, connection.receive_body)
        except trio.BrokenResourceError as error:
            raise RemoteProtocolError("the request broke off") from error
        try:
            return await engine.answer()
        except (trio.BrokenResourceError, RemoteProtocolError) as error:
            raise Unavailable(f"this node's engine broke off: {error}") from error
    except BaseException:
        await engine.aclose()
        raise


async def _connect(socket_path: str) -> trio.SocketStream:
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            return await trio.open_unix_socket(socket_path)
    except (OSError, trio.TooSlowError) as error:
        raise Unavailable(
            f"this node's engine does not answer at unix://{socket_path}: {error}"
        ) from error


class Exchange:
    """One request to the engine and its answer, on a connection of its own."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._codec = ClientCodec()
        self._has_body = True

    async def ask(self, request: Request, body: Callable[[], Awaitable[bytes]]) -> None:
        """Send a request, its body as it arrives, as far as the engine wants it.

        Raises:
            RemoteProtocolError, trio.BrokenResourceError: the body cannot be read to its end.
        """
        self._has_body = request.method != "HEAD"
        path, question, query = request.target.partition("?")
        headers = _kept(request.headers.pairs, OF_A_CONNECTION)
        if upgrade := request.headers.get("upgrade"):
            headers = (*headers, ("Connection", "Upgrade"), ("Upgrade", upgrade))
        target = split_version(path)[1] + question + query
        head = self._codec.begin(request.method, target, (("Host", "engine"), *headers))
        listens = await self._send(head)
        while listens and (data := await body()):
            listens = await self._send(self._codec.chunk(data))
        if listens:
            await self._send(self._codec.finish())

    async def _send(self, data: bytes) -> bool:
        """Send to the engine; False when it reads no more: it may have refused already."""
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            return False
        return True

    async def answer(self) -> Reply:
        """Return the answer as far as it has come; the rest is read by whoever sends it on."""
        while (head := self._codec.next_head()) is Signal.NEED_DATA:
            await self._receive()
        assert not isinstance(head, Signal)
        headers = _kept(head.headers.pairs, OF_AN_ANSWER | OURS)
        if head.status == 101:
            upgrade = ("Upgrade", head.headers.get("upgrade", "tcp"))
            headers = (("Connection", "Upgrade"), upgrade, *headers)
            return Takeover(101, headers, self._be_pipe, self.aclose)
        if self._has_body and _is_pipe(head):
            return Takeover(head.status, headers, self._be_pipe, self.aclose)
        if _is_short(head) or not self._has_body:
            pieces: list[bytes] = []

            async def keep(data: bytes) -> None:
                pieces.append(data)
                await trio.lowlevel.checkpoint()

            await self._copy_body(keep)
            await self.aclose()
            return Response(head.status, headers, b"".join(pieces))
        return StreamedResponse(head.status, headers, self._copy_body, aclose=self.aclose)

    async def aclose(self) -> None:
        """Close the connection to the engine."""
        await trio.aclose_forcefully(self._stream)

    async def _receive(self) -> None:
        self._codec.receive(await self._stream.receive_some(RECEIVE_BYTES))

    async def _copy_body(self, send: SendChunk) -> None:
        while (data := self._codec.next_chunk()) is not Signal.END:
            if isinstance(data, bytes):
                await send(data)
            else:
                await self._receive()

    async def _be_pipe(self, client: trio.abc.Stream, early: bytes) -> None:
        """Be nothing but bytes between a client and the engine, until the engine ends."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if said := self._codec.leftover():
                await client.send_all(said)
            if early:
                await self._stream.send_all(early)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_copy, client, self._stream)
                await _copy(self._stream, client)
                nursery.cancel_scope.cancel()


async def _copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
    """Hand on what comes, and that it ends."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some(RECEIVE_BYTES):
            await sink.send_all(data)
        if isinstance(sink, trio.abc.HalfCloseableStream):
            await sink.send_eof()


def _is_pipe(head: ResponseHead) -> bool:
    """True where no end of the answer is told: older clients' exec and attach."""
    framed = "content-length" in head.headers or "transfer-encoding" in head.headers
    return head.status == 200 and not framed


def _is_short(head: ResponseHead) -> bool:
    length = head.headers.get("content-length")
    if length.isdecimal():
        return int(length) <= WHOLE_BYTES
    return head.status in (204, 304)


def _kept(pairs: Headers, left_out: frozenset[str]) -> Headers:
    return tuple((name, value) for name, value in pairs if name.lower() not in left_out)
