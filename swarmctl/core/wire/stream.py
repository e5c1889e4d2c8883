"""What senders on one link share, and one side of one stream.

What for: ``link`` moves bytes for everybody; here a task waits until it may queue some, and a
stream's chunks wait until somebody takes them.

Laws: nobody queues while ``limit_bytes`` are unsent; a stream's unread chunks are bounded by its
window, since credit is granted for what was taken only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

import trio

from .calls import LinkClosed, Multiplexer, StreamClosed

if TYPE_CHECKING:
    from swarmctl.core.errors import SwarmError

ErrorT = TypeVar("ErrorT", bound="SwarmError")


class LinkStream:
    """One side of one stream: chunks of bytes both ways, with flow control.

    Made by ``Link.open_stream``, or handed to a stream method, which sees ``method`` and the
    opening ``body``. Any number of tasks may send while one receives.
    """

    def __init__(
        self, outbox: Outbox, number: int, method: str, body: bytes, *, ours: bool
    ) -> None:
        self.method = method
        self.body = body
        self._outbox = outbox
        self._number = number
        self._ours = ours
        self._chunks: deque[bytes] = deque()  # bounded by the window: credit follows consumption
        self._change = trio.lowlevel.ParkingLot()
        self._over = False  # nothing more will come
        self._error: SwarmError | None = None

    async def send(self, chunk: bytes) -> None:
        """Send one chunk; waits while the peer has not consumed enough of the earlier ones.

        Raises:
            StreamClosed: the server has ended the stream.
            SwarmError: the leaf the server failed with.
            LinkClosed: the connection is gone.
            FrameTooLarge: the chunk is longer than a frame.

        Cancellation: the chunk was not sent.
        """
        await self._outbox.wait_room()
        self._require_open()
        while self._outbox.mux.credit_bytes(self._number) <= 0:
            await self._change.park()
            self._require_open()
        self._outbox.mux.send_chunk(self._number, chunk)
        self._outbox.wake_writer()

    async def receive(self) -> bytes:
        """Return the next chunk; ``async for chunk in stream`` does the same.

        Raises:
            trio.EndOfChannel: the peer has ended its half, and well.
            SwarmError: the leaf the server failed with, after the chunks before it.
            LinkClosed: the connection is gone.

        Cancellation: no chunk is lost.
        """
        await trio.lowlevel.checkpoint()
        while not self._chunks:
            if self._error is not None:
                raise again(self._error)
            if self._over:
                raise trio.EndOfChannel
            await self._change.park()
        chunk = self._chunks.popleft()
        self._outbox.mux.consume(self._number, chunk)
        self._outbox.wake_writer()
        return chunk

    def end(self) -> None:
        """Say that we send no more (the opener; a server ends its stream by returning)."""
        self._outbox.mux.end(self._number)
        self._outbox.wake_writer()

    def __aiter__(self) -> LinkStream:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def _require_open(self) -> None:
        if self._error is not None:
            raise again(self._error)
        if self._over and self._ours:
            raise StreamClosed(f"the other side has ended the stream {self.method}")

    # The link's side of it

    def arrived(self, chunk: bytes) -> None:
        """Take a chunk that the peer sent."""
        self._chunks.append(chunk)
        self._change.unpark_all()

    def changed(self) -> None:
        """Look again: credit came."""
        self._change.unpark_all()

    def finish(self, error: SwarmError | None) -> None:
        """Nothing more will come; with an error, nothing more will go either."""
        self._over = True
        self._error = self._error or error
        self._change.unpark_all()


class Outbox:
    """What is queued for the peer: senders wait here for room, the writer for something to send."""

    def __init__(self, mux: Multiplexer, limit_bytes: int) -> None:
        self.mux = mux
        self._limit_bytes = limit_bytes
        self._closed: LinkClosed | None = None
        self._queued = trio.Event()
        self._drained = trio.lowlevel.ParkingLot()

    def require_open(self) -> None:
        """Raise LinkClosed once ``close`` was called."""
        if self._closed is not None:
            raise again(self._closed)

    @property
    def full(self) -> bool:
        """True while senders have to wait."""
        return self.mux.outgoing_bytes >= self._limit_bytes

    async def wait_room(self) -> None:
        """Wait while too much is unsent; always a checkpoint. Raises LinkClosed."""
        await trio.lowlevel.checkpoint()
        self.require_open()
        while self.full:
            await self._drained.park()
            self.require_open()

    def wake_writer(self) -> None:
        """Tell the writer, after something may have been queued."""
        if self.mux.wants_to_send:
            self._queued.set()

    async def take(self) -> bytearray:
        """Wait for something to send and return all of it, for one write."""
        await self._queued.wait()
        self._queued = trio.Event()
        data = self.mux.take_outgoing()
        self._drained.unpark_all()
        return data

    def close(self, end: LinkClosed) -> None:
        """Fail all who wait for room, and all who come later."""
        self._closed = self._closed or end
        self._drained.unpark_all()


def again(error: ErrorT) -> ErrorT:
    """Return a fresh copy: one error raised in many tasks would gather all their tracebacks."""
    fresh = type(error).__new__(type(error), *error.args)
    fresh.__dict__.update(error.__dict__)
    return fresh
