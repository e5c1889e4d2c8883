"""A link: one connection between two nodes, carrying calls, streams and one-way messages.

What for: everything nodes say to each other. ``Multiplexer`` decides what goes over the wire and
what came; this module moves the bytes, runs the handlers and wakes who waits. ``connect`` makes
links: it dials and accepts, with TLS.

Laws:
- ``Link.run`` owns the connection: one task reads, one writes, one listens for silence, and each
  call or stream that the peer asks for has its own. All of them end when ``run`` does.
- Everything queued leaves in one ``send_all``: under TLS a write costs trio 70-100 us, a message in
  a burst 4-7 us.
- Nothing queues without bound: senders wait while ``outbox_bytes`` are unsent, streams by credit,
  and a peer that makes us answer but does not read is cut off.
- A lost link fails everything that waits on it with ``LinkClosed``, at once.

It must not know roles, certificates beyond their bytes, or what any method means.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, NoReturn

import trio

from swarmctl.core.errors import RemoteProtocolError, SwarmError, Unavailable, Unimplemented

from . import tls
from .calls import Event, LinkClosed, Multiplexer, error_from_wire
from .frame import Answer, Call, Cancel, Credit, Data, End, Failure, GoAway, Message, Open
from .stream import LinkStream, Outbox, again

_log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 64 * 1024

MAX_UNREAD_BYTES: Final = 32 * 1024 * 1024
"""Past this much unsent, the peer makes us answer without reading: the link is cut."""

WRITE_ERROR_GRACE_S: Final = 0.2
"""After a failed write the reader may still find the peer's reason in what had arrived."""


OWN_STALL_S: Final = 0.5
"""When our own loop stood still for longer, the peer's answer may be there, unread."""


@dataclass(frozen=True)
class LinkSettings:
    """How patient one link is, in seconds of trio's clock, and how much it may hold back."""

    handshake_s: float = 10.0  # TLS and both Hellos
    connect_s: float = 5.0  # name look-up and TCP
    idle_s: float = 5.0  # silence before we ask whether anybody is there
    pong_s: float = 5.0  # silence after that before the link is lost
    close_s: float = 0.5  # for the peer to take our reason for closing
    outbox_bytes: int = 1024 * 1024  # unsent bytes at which senders wait


CallMethod = Callable[["Link", bytes], Awaitable[bytes]]
StreamMethod = Callable[["Link", LinkStream], Awaitable[None]]
MessageMethod = Callable[["Link", bytes], None]


@dataclass(frozen=True)
class Methods:
    """What this side offers to the peer of one link.

    ``authorize(link, method)`` is asked before each call, stream and message, and raises to refuse.
    Calls and streams run in tasks of their own; a SwarmError they raise reaches the peer as that
    leaf. Messages are taken in order by plain functions, which may not block: a receiver that
    cannot keep up has to decide itself what to drop.
    """

    calls: Mapping[str, CallMethod] = field(default_factory=dict)
    streams: Mapping[str, StreamMethod] = field(default_factory=dict)
    messages: Mapping[str, MessageMethod] = field(default_factory=dict)
    authorize: Callable[[Link, str], None] = lambda _link, _method: None


class _Pending:
    """A call of ours that waits for its end."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.body = b""
        self.error: SwarmError | None = None

    def finish(self, body: bytes, error: SwarmError | None) -> None:
        self.body, self.error = body, error
        self.done.set()


class Link:
    """One connection to one peer, both Hellos said. ``connect`` makes it; ``run`` it right away."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        mux: Multiplexer,
        *,
        peer_address: str,
        peer_certificate_der: bytes | None,
        settings: LinkSettings,
    ) -> None:
        self.peer_address = peer_address
        self.peer_certificate_der = peer_certificate_der
        self._stream = stream
        self._mux = mux
        self._settings = settings
        self._methods = Methods()
        self._early: list[Event] = []  # what came in one read with the Hello
        self._pending: dict[int, _Pending] = {}
        self._streams: dict[int, LinkStream] = {}
        self._serving: dict[int, trio.CancelScope] = {}
        self._outbox = Outbox(mux, settings.outbox_bytes)
        self._last_heard = trio.current_time()
        self._closing: LinkClosed | None = None  # asked for here, reason on its way
        self._close_asked = trio.Event()
        self._end: LinkClosed | None = None
        self._scope = trio.CancelScope()

    async def call(self, method: str, body: bytes = b"") -> bytes:
        """Ask the peer and return its answer.

        The deadline of the caller's cancel scope travels along, so the peer stops working when
        nobody waits any more.

        Raises:
            SwarmError: the leaf that the peer's method raised; Unimplemented if it has none.
            LinkClosed: the connection went first; whether the peer acted is unknown.
            FrameTooLarge: the body is longer than a frame.

        Cancellation: the peer is told and cancels its work; whether it acted is unknown.
        """
        await self._outbox.wait_room()
        left_s = trio.current_effective_deadline() - trio.current_time()
        timeout_ms = None if left_s == math.inf else max(0, math.ceil(left_s * 1000))
        number = self._mux.begin_call(method, body, timeout_ms)
        pending = self._pending[number] = _Pending()
        self._outbox.wake_writer()
        try:
            await pending.done.wait()
        finally:
            del self._pending[number]
            self._mux.cancel(number)  # nothing to cancel, unless we were cancelled
            self._outbox.wake_writer()
        if pending.error is not None:
            raise again(pending.error)
        return pending.body

    async def send(self, method: str, body: bytes = b"") -> None:
        """Queue a one-way message; waits while too much is unsent.

        Raises:
            LinkClosed, FrameTooLarge. That a message was queued does not mean that it arrives.
        """
        await self._outbox.wait_room()
        self._mux.send_message(method, body)
        self._outbox.wake_writer()

    def send_nowait(self, method: str, body: bytes = b"") -> None:
        """Queue a one-way message now or not at all.

        Raises:
            trio.WouldBlock: too much is unsent; the caller drops the message and counts it.
            LinkClosed, FrameTooLarge.
        """
        self._outbox.require_open()
        if self._outbox.full:
            raise trio.WouldBlock
        self._mux.send_message(method, body)
        self._outbox.wake_writer()

    @asynccontextmanager
    async def open_stream(self, method: str, body: bytes = b"") -> AsyncIterator[LinkStream]:
        """Open a stream for as long as the ``async with`` lasts.

        Leaving it cancels the stream at the peer, unless the stream has ended by then: an upload
        calls ``end`` and reads to the end before it leaves.
        """
        await self._outbox.wait_room()
        number = self._mux.open_stream(method, body)
        stream = self._streams[number] = LinkStream(self._outbox, number, method, body, ours=True)
        self._outbox.wake_writer()
        try:
            yield stream
        finally:
            del self._streams[number]
            self._mux.cancel(number)  # nothing to cancel if it has ended
            self._outbox.wake_writer()

    def close(self, reason: SwarmError | str) -> None:
        """End the link, telling the peer why; returns at once, ``run`` ends soon after."""
        if self._closing is None and self._end is None:
            error = SwarmError(reason) if isinstance(reason, str) else reason
            self._closing = LinkClosed(f"closed the link to {self.peer_address}: {error}", error)
            self._mux.go_away(error)
            self._outbox.close(self._closing)
            self._close_asked.set()
            self._outbox.wake_writer()

    async def run(
        self,
        methods: Methods | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Carry the link until it ends; call it once.

        Args:
            methods: what the peer may ask of us; nothing by default.

        Raises:
            LinkClosed: the only way it ends by itself; its text and ``reason`` say why, be it the
                peer, the network, or ``close``.

        Cancellation: hangs up without a reason, after cancelling the methods that run for the peer.
        """
        self._methods = methods or Methods()
        self._last_heard = trio.current_time()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, nursery, name="link reader")
                    nursery.start_soon(self._write, name="link writer")
                    nursery.start_soon(self._mind_silence, name="link keepalive")
                    task_status.started()
        finally:
            self._finish(LinkClosed(f"the link to {self.peer_address} was dropped here"))
            await self.hang_up()  # noqa: ASYNC102 - shielded and bounded in there
        assert self._end is not None
        raise again(self._end)

    async def hang_up(self) -> None:
        """Close the connection as it is; ``run`` does it by itself. Never blocks for long."""
        with (
            trio.move_on_after(self._settings.close_s, shield=True),
            suppress(trio.BrokenResourceError),  # closing sends a goodbye, and the peer may be gone
        ):
            await self._stream.aclose()

    async def wait_greeted(self) -> None:
        """Wait for the peer's Hello; part of making a link.

        Raises:
            LinkClosed: it hung up, or closed the link, instead.
            RemoteProtocolError: it speaks something else, or another version.
            trio.BrokenResourceError: the connection broke.
        """
        while not self._mux.greeted:
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise LinkClosed(f"{self.peer_address} hung up during the handshake")
            self._mux.receive(data)
            early = self._mux.next_event()
            if early is not None:
                self._early.append(early)

    # The three tasks of a link

    async def _read(self, nursery: trio.Nursery) -> None:
        """Take what comes and act on it. Adds the peer's calls and streams to ``nursery``."""
        try:
            for early in self._early:
                self._act(early, nursery)
            while True:
                while (event := self._mux.next_event()) is not None:
                    self._act(event, nursery)
                self._outbox.wake_writer()  # for pongs, credit and refusals
                if self._mux.outgoing_bytes > MAX_UNREAD_BYTES:
                    self._finish(LinkClosed(f"{self.peer_address} does not read what it asks for"))
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    self._finish(LinkClosed(f"{self.peer_address} hung up"))
                    return
                self._last_heard = trio.current_time()
                self._mux.receive(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lose(error)
        except RemoteProtocolError as error:
            _log.warning("link to %s: %s", self.peer_address, error)
            self.close(error)

    async def _write(self) -> None:
        try:
            while True:
                await self._stream.send_all(await self._outbox.take())
                if self._closing is not None and not self._mux.outgoing_bytes:
                    self._finish(self._closing)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await trio.sleep(WRITE_ERROR_GRACE_S)
            self._lose(error)

    async def _mind_silence(self) -> None:
        """Ping a silent peer, give up on one that stays silent, and bound a close."""
        settings = self._settings
        while not await self._close_asked_by(self._last_heard + settings.idle_s):
            asked_at = trio.current_time()
            if asked_at < self._last_heard + settings.idle_s:
                continue
            self._mux.ping()
            self._outbox.wake_writer()
            due = asked_at + settings.pong_s
            if await self._close_asked_by(due):
                break
            if self._last_heard >= asked_at or trio.current_time() - due > OWN_STALL_S:
                continue
            silence_s = trio.current_time() - self._last_heard
            self._finish(LinkClosed(f"no sign of life from {self.peer_address}: {silence_s:.1f} s"))
            return
        await trio.sleep(settings.close_s)
        assert self._closing is not None
        self._finish(self._closing)

    async def _close_asked_by(self, when: float) -> bool:
        with trio.move_on_at(when):
            await self._close_asked.wait()
        return self._close_asked.is_set()

    # What the peer asks for

    def _act(self, event: Event, nursery: trio.Nursery) -> None:
        match event:
            case Message(method=method, body=body):
                self._deliver(method, body)
            case Data(id=number, body=body):
                if number in self._streams:
                    self._streams[number].arrived(body)
            case Answer(id=number, body=body):
                if number in self._pending:
                    self._pending[number].finish(body, None)
            case Failure(id=number, leaf=leaf, text=text):
                self._fail(number, error_from_wire(leaf, text))
            case Credit(id=number):
                if number in self._streams:
                    self._streams[number].changed()
            case End(id=number):
                if number in self._streams:
                    self._streams[number].finish(None)
            case Cancel(id=number):
                if number in self._serving:
                    self._serving[number].cancel(reason="the peer gave it up")
            case Call() | Open():
                if isinstance(event, Open):  # now, for its first chunk may be the next event
                    self._streams[event.id] = LinkStream(
                        self._outbox, event.id, event.method, event.body, ours=False
                    )
                scope = self._serving[event.id] = trio.CancelScope()
                nursery.start_soon(self._serve, event, scope, name=f"serve {event.method}")
            case GoAway(leaf=leaf, text=text):
                reason = error_from_wire(leaf, text)
                self._finish(LinkClosed(f"{self.peer_address} closed the link: {text}", reason))

    async def _serve(self, request: Call | Open, scope: trio.CancelScope) -> None:
        """Run one call or stream of the peer's; whatever it raises becomes its failure."""
        number = request.id
        error: SwarmError | None = None
        try:
            with scope:
                self._methods.authorize(self, request.method)
                if isinstance(request, Call):
                    await self._serve_call(request, scope)
                else:
                    await self._serve_stream(request)
            if scope.cancelled_caught:
                error = Unavailable(f"{request.method}: the time allowed for it was over")
        except SwarmError as raised:
            error = raised
        except Exception:  # a bug costs this call only
            _log.exception("%s for %s failed", request.method, self.peer_address)
            error = SwarmError(f"internal error in {request.method}: the node's log says more")
        finally:
            del self._serving[number]
            self._streams.pop(number, None)
        if error is not None:
            self._mux.fail(number, error)
        self._outbox.wake_writer()

    async def _serve_call(self, call: Call, scope: trio.CancelScope) -> None:
        if call.timeout_ms is not None:
            scope.deadline = trio.current_time() + call.timeout_ms / 1000
        method = self._methods.calls.get(call.method)
        if method is None:
            raise Unimplemented(f"this node offers no call {call.method}")
        body = await method(self, call.body)
        await self._outbox.wait_room()
        self._mux.answer(call.id, body)

    async def _serve_stream(self, opened: Open) -> None:
        method = self._methods.streams.get(opened.method)
        if method is None:
            raise Unimplemented(f"this node offers no stream {opened.method}")
        await method(self, self._streams[opened.id])
        self._mux.end(opened.id)

    def _deliver(self, method: str, body: bytes) -> None:
        take = self._methods.messages.get(method)
        if take is None:
            _log.info("%s sent a message %s, which nobody takes", self.peer_address, method)
            return
        try:
            self._methods.authorize(self, method)
            take(self, body)
        except SwarmError as error:
            _log.info("message %s of %s dropped: %s", method, self.peer_address, error)
        except Exception:  # a bug costs this message only
            _log.exception("message %s of %s failed", method, self.peer_address)

    # How it ends

    def _fail(self, number: int, error: SwarmError) -> None:
        if number in self._pending:
            self._pending[number].finish(b"", error)
        elif number in self._streams:
            self._streams[number].finish(error)

    def _lose(self, error: Exception) -> None:
        why = tls.explain(error)
        self._finish(LinkClosed(f"lost the link to {self.peer_address}: {why or error}", why))

    def _finish(self, end: LinkClosed) -> None:
        """End the link once: wake everybody who waits on it, and end the tasks of ``run``."""
        if self._end is not None:
            return
        self._end = self._closing or end
        for number in (*self._pending, *self._streams):
            self._fail(number, self._end)
        self._outbox.close(self._end)
        self._scope.cancel(reason=str(self._end))
