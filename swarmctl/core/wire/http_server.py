"""HTTP/1.1 over trio: listeners in, one task per connection, a handler's answers out.

What for: the API's front door, on a unix socket today and on TCP with TLS later: anything that
yields trio streams will do.

Laws:
- One task owns one connection. A request is read whole, then handled, then answered, in order.
- While an endless answer streams, a second task watches for the client's end and cancels the
  handler: nobody tails logs for a terminal that is gone.
- Nothing a client does costs more than its own connection; every wait on a client has a deadline,
  save for an endless answer that its client reads slowly: pausing ``logs -f`` is legitimate.
- What a handler raises becomes an answer: a SwarmError its own status and message, all else a 500
  whose cause goes to the log and not to the client.

It must not know routes, models or Docker's rules beyond the headers it is handed.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import NamedTuple, NoReturn

import trio

from swarmctl.core.clock import Clock, SystemClock
from swarmctl.core.errors import RemoteProtocolError, SwarmError

from .http1 import (
    MAX_BODY_BYTES,
    Headers,
    Request,
    Response,
    ServerCodec,
    Signal,
    error_response,
)

_log = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024
LINGER_S = 2.0
"""How long a refused client may finish talking, so that it reads why instead of a reset."""

CLOSE_S = 2.0
"""How long an answer that is over may take to let go of what it was made from."""

INTERNAL_ERROR = "internal error: the daemon's log says more"
CROWDED_IDLE_S = 1.0
"""How long a connection may idle while every slot is taken and others wait."""

MAX_PIPELINED_BYTES = 256 * 1024
"""What a client may send while an endless answer runs; past it the connection is cut."""


@dataclass(frozen=True)
class HttpLimits:
    """What one client may cost. Seconds are of trio's clock."""

    connections: int = 512
    body_bytes: int = MAX_BODY_BYTES
    idle_s: float = 180.0  # keep-alive between requests
    request_s: float = 60.0  # from a request's first byte to its last
    send_s: float = 60.0  # one whole answer into the client's hands


class SlowClient(RemoteProtocolError):
    """The request did not arrive in time."""

    status = 408


SendChunk = Callable[[bytes], Awaitable[None]]


class StreamedResponse(NamedTuple):
    """An answer of unknown length; the head leaves before ``write`` runs.

    ``write(send)`` awaits ``send(chunk)`` per piece and returns at the end. It is cancelled when
    the client goes away; if it raises, the connection is cut so that the client sees a broken
    answer and not a short one. An endless answer may be read as slowly as its client likes; one
    with an end has ``send_s``, like any whole answer. ``aclose()`` lets go of what the answer is
    made from; it is awaited once, also when ``write`` never ran.
    """

    status: int
    headers: Headers
    write: Callable[[SendChunk], Awaitable[None]]
    endless: bool = True
    aclose: Callable[[], Awaitable[None]] | None = None


class Takeover(NamedTuple):
    """HTTP ends here: after the head, ``run(stream, early)`` owns the raw stream.

    ``early`` is what the client sent after its request. 101 is Docker's upgrade (the handler gives
    the Connection and Upgrade headers), 200 its older form. The connection closes when ``run``
    returns; both ends' half-close is up to ``run``. ``aclose()`` is as of StreamedResponse.
    """

    status: int
    headers: Headers
    run: Callable[[trio.abc.Stream, bytes], Awaitable[None]]
    aclose: Callable[[], Awaitable[None]] | None = None


Reply = Response | StreamedResponse | Takeover


class Connection:
    """What a handler may know of the connection its request came by."""

    def __init__(self, stream: trio.abc.Stream, codec: ServerCodec) -> None:
        self.peer = _peer_name(stream)
        self._stream = stream
        self._codec = codec

    async def receive_body(self) -> bytes:
        """Return the next piece of the request's body, or empty bytes at its end.

        Only for requests that ``streams_body`` picked; the body of all others is in the request.

        Raises:
            RemoteProtocolError: the body is malformed or ends early.
        """
        while (chunk := self._codec.next_chunk()) is Signal.NEED_DATA:
            await self.receive_more()
        await trio.lowlevel.checkpoint()
        return chunk if isinstance(chunk, bytes) else b""

    async def receive_more(self) -> None:
        """Feed the codec once, after telling a client that waits for it to go ahead."""
        go_ahead = self._codec.go_ahead()
        if go_ahead:
            await self._stream.send_all(go_ahead)
        self._codec.receive(await self._stream.receive_some(RECEIVE_BYTES))


HttpHandler = Callable[[Request, Connection], Awaitable[Reply]]


async def serve_http(
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    handler: HttpHandler,
    *,
    common_headers: Headers = (),
    streams_body: Callable[[Request], bool] = lambda _request: False,
    limits: HttpLimits | None = None,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve HTTP/1.1 until cancelled. Closes the listeners and every connection at the end.

    Args:
        listeners: where connections come from; ready when ``task_status`` is told.
        handler: gives one reply per request; runs in the connection's task.
        common_headers: go into every answer, refusals included, unless the reply has its own of
            that name. ``Date`` is added here.
        streams_body: asked with the head alone; for True the handler reads the body itself by
            ``Connection.receive_body`` (uploads that are proxied), without a limit.
        limits: defaults to ``HttpLimits()``.
        clock: wall time for the Date header.

    Cancellation: handlers are cancelled where they stand, connections closed.
    """
    server = _Server(
        handler, common_headers, streams_body, limits or HttpLimits(), clock or SystemClock()
    )
    gated = [_Gate(listener, server) for listener in listeners]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, server.serve_connection, gated)
        task_status.started()
        await trio.sleep_forever()
    raise AssertionError("sleep_forever returned")


class _Server:
    def __init__(
        self,
        handler: HttpHandler,
        common_headers: Headers,
        streams_body: Callable[[Request], bool],
        limits: HttpLimits,
        clock: Clock,
    ) -> None:
        self._handler = handler
        self._common = tuple((name, value, name.lower()) for name, value in common_headers)
        self._streams_body = streams_body
        self._limits = limits
        self._clock = clock
        self._date = (-1, "")
        self.slots = trio.Semaphore(limits.connections)
        self._waiting = 0
        self._idle: dict[int, trio.CancelScope] = {}  # by how long they have been idle

    async def take_slot(self) -> None:
        """Wait for a slot; while somebody waits, connections that idle give theirs up."""
        try:
            self.slots.acquire_nowait()
        except trio.WouldBlock:
            self._waiting += 1
            if self._idle:
                longest = next(iter(self._idle.values()))
                longest.cancel(reason="room for a new connection")
            try:
                await self.slots.acquire()
            finally:
                self._waiting -= 1

    async def serve_connection(self, stream: trio.abc.Stream) -> None:
        codec = ServerCodec()
        connection = Connection(stream, codec)
        try:
            async with stream:
                try:
                    while await self._serve_request(stream, codec, connection):
                        pass
                    if not codec.body_complete:
                        await _linger(stream)  # answered before it had sent its whole request
                except RemoteProtocolError as error:
                    await self._refuse(stream, codec, error)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            _log.debug("connection of %s ended: %r", connection.peer, error)
        except Exception:  # a bug, such as of a takeover, costs this connection only
            _log.exception("connection of %s failed", connection.peer)
        finally:
            self.slots.release()

    async def _serve_request(
        self, stream: trio.abc.Stream, codec: ServerCodec, connection: Connection
    ) -> bool:
        """Serve one request; False when the connection is over."""
        request = await self._receive_request(stream, codec, connection)
        if request is None:
            return False
        reply = await self._handle(request, connection)
        try:
            return await self._send_reply(stream, codec, request, reply)
        finally:
            if not isinstance(reply, Response) and reply.aclose is not None:
                with trio.move_on_after(CLOSE_S, shield=True):
                    await reply.aclose()

    async def _send_reply(
        self, stream: trio.abc.Stream, codec: ServerCodec, request: Request, reply: Reply
    ) -> bool:
        """Send an answer; False when the connection is over."""
        if isinstance(reply, Takeover):
            head, early = codec.take_over(reply.status, self._complete(reply.headers))
            await stream.send_all(head)
            await reply.run(stream, early)
            return False
        if isinstance(reply, StreamedResponse):
            return await self._stream_answer(stream, codec, reply) and codec.next_cycle()
        data = self._encode(codec, request, reply)
        with trio.fail_after(self._limits.send_s):
            await stream.send_all(data)
        return codec.next_cycle()

    def _encode(self, codec: ServerCodec, request: Request, reply: Response) -> bytes:
        try:
            return codec.answer(reply._replace(headers=self._complete(reply.headers)))
        except ValueError:
            _log.exception("%s %s: unsendable answer", request.method, request.path)
            failed = error_response(500, INTERNAL_ERROR)
            return codec.answer(failed._replace(headers=self._complete(failed.headers)))

    async def _receive_request(
        self, stream: trio.abc.Stream, codec: ServerCodec, connection: Connection
    ) -> Request | None:
        """Return the next request, with its body unless it is to be streamed; None at the end."""
        request = codec.next_head()
        if request is Signal.NEED_DATA and not codec.has_partial:
            if not await self._wait_idle(stream, codec):
                return None
            request = codec.next_head()
        with trio.move_on_after(self._limits.request_s):
            while request is Signal.NEED_DATA:
                codec.receive(await stream.receive_some(RECEIVE_BYTES))
                request = codec.next_head()
            if not isinstance(request, Request):
                return None
            if self._streams_body(request):
                return request
            while (body := codec.next_body(self._limits.body_bytes)) is Signal.NEED_DATA:
                await connection.receive_more()
            assert isinstance(body, bytes)
            return request._replace(body=body) if body else request
        raise SlowClient(f"the request did not arrive within {self._limits.request_s:g} seconds")

    async def _wait_idle(self, stream: trio.abc.Stream, codec: ServerCodec) -> bool:
        """Wait for a request's first bytes; False when idle for too long or room was needed."""
        key = id(codec)
        idle_s = CROWDED_IDLE_S if self._waiting else self._limits.idle_s
        with trio.move_on_after(idle_s) as scope:
            self._idle[key] = scope
            try:
                codec.receive(await stream.receive_some(RECEIVE_BYTES))
                return True
            finally:
                del self._idle[key]
        return False

    async def _handle(self, request: Request, connection: Connection) -> Reply:
        try:
            return await self._handler(request, connection)
        except SwarmError as error:
            return error_response(error.status, error.message)
        except Exception:  # the API's one place that may: a bug costs this request only
            _log.exception("%s %s failed", request.method, request.path)
            return error_response(500, INTERNAL_ERROR)

    async def _stream_answer(
        self, stream: trio.abc.Stream, codec: ServerCodec, reply: StreamedResponse
    ) -> bool:
        """Stream one answer; False when it broke off, so that the connection has to end."""

        client_left = whole = False

        async def send(chunk: bytes) -> None:
            nonlocal client_left
            data = codec.chunk(chunk)
            if not data:  # HEAD, or an empty chunk
                await trio.lowlevel.checkpoint()
                return
            try:
                await stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                client_left = True
                raise

        await stream.send_all(codec.begin(reply.status, self._complete(reply.headers)))
        async with trio.open_nursery() as nursery:
            if codec.body_complete:  # else the handler is still reading, and meets the end itself
                nursery.start_soon(_watch_for_end, stream, codec, nursery.cancel_scope)
            try:
                with trio.fail_after(math.inf if reply.endless else self._limits.send_s):
                    await reply.write(send)
                whole = True
            except trio.TooSlowError:
                _log.debug("the client was too slow for the answer")
            except SwarmError as error:  # the head is out: all that is left is to break off
                _log.info("an answer broke off: %s", error)
            except Exception:
                if not client_left:  # else it may come in a group, if the handler has a nursery
                    _log.exception("an answer broke off")
            nursery.cancel_scope.cancel(reason="the answer is over")
        if whole:
            with trio.fail_after(self._limits.send_s):
                await stream.send_all(codec.finish())
        return whole

    async def _refuse(
        self, stream: trio.abc.Stream, codec: ServerCodec, error: RemoteProtocolError
    ) -> None:
        _log.info("refused a request: %s", error)
        with trio.fail_after(self._limits.send_s):
            await stream.send_all(codec.refusal(error, self._complete(())))
        await _linger(stream)

    def _complete(self, headers: Headers) -> Headers:
        """Add the common headers and the date to a reply's own, which win."""
        own = {name.lower() for name, _ in headers}
        missing = tuple((name, value) for name, value, key in self._common if key not in own)
        if "date" not in own:
            second = self._clock.now() // 1_000_000_000
            if second != self._date[0]:
                self._date = (second, formatdate(second, usegmt=True))
            missing += (("Date", self._date[1]),)
        return headers + missing


class _Gate(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose connections wait for a slot; the kernel's backlog holds those behind."""

    def __init__(self, listener: trio.abc.Listener[trio.abc.Stream], server: _Server) -> None:
        self._listener = listener
        self._server = server

    async def accept(self) -> trio.abc.Stream:
        stream = await self._listener.accept()
        try:
            await self._server.take_slot()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def aclose(self) -> None:
        await self._listener.aclose()


async def _watch_for_end(
    stream: trio.abc.Stream, codec: ServerCodec, scope: trio.CancelScope
) -> None:
    """Cancel ``scope`` when the client hangs up, or talks on and on while it is being answered."""
    received = 0
    try:
        while received <= MAX_PIPELINED_BYTES:
            data = await stream.receive_some(RECEIVE_BYTES)
            codec.receive(data)
            if not data:
                break
            received += len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel(reason="the client left")


async def _linger(stream: trio.abc.Stream) -> None:
    """Let the client finish talking for a moment: closing at once could cost it our last answer."""
    with trio.move_on_after(LINGER_S):
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some(RECEIVE_BYTES):
            pass


def _peer_name(stream: trio.abc.Stream) -> str:
    """Say who is at the other end, for logs: uid and pid on a unix socket, else the address."""
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return "in-memory peer"
    if stream.socket.family == socket.AF_UNIX:
        packed = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _gid = struct.unpack("3i", packed)
        return f"uid {uid} pid {pid}"
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:  # gone already
        return "unknown peer"
    return f"{host}:{port}"
