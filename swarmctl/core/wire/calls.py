"""Many calls, streams and messages on one connection: the state machine, without the connection.

What for: ``link`` feeds it the peer's bytes and sends what it queues; everything about ids, credit,
lateness and violations is decided here and can be tested without a socket.

Vocabulary: the *opener* of a stream is who began it, the *server* who answers; either side of a
connection may be either. A *chunk* is one Data frame.

Laws:
- Ids go up by two; the dialling side has the odd ones. A frame about an id already finished is late
  and dropped; one about an id never used breaks the protocol.
- A stream's sender may send while its credit is above zero, whatever the chunk's size. So no chunk
  is ever too big for a window, and a receiver holds at most its window and one frame.
- A receiver grants credit for what was consumed, never for what merely arrived.
- Errors cross the wire as the name of a leaf of ``core.errors`` and a text. A leaf defined anywhere
  else crosses as its nearest such ancestor: what is about one hop means nothing two hops on.

It must not know clocks (deadlines are durations here), sockets, TLS, or what a body holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from swarmctl.core import errors
from swarmctl.core.errors import RemoteProtocolError, SwarmError, Unavailable

from .frame import (
    MAX_FRAME_BYTES,
    Answer,
    Call,
    Cancel,
    Credit,
    Data,
    End,
    Failure,
    Frame,
    FrameDecoder,
    GoAway,
    Hello,
    Message,
    Open,
    Ping,
    Pong,
    append_frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOL: Final = 1

STREAM_WINDOW_BYTES: Final = 1024 * 1024
"""One stream's unread data: 20 MB/s over 50 ms of distance."""

CHUNK_COST_BYTES: Final = 64
"""What a chunk costs besides its bytes, so that empty ones are not free."""

MAX_SERVED: Final = 1024
"""Calls and streams of one peer that we serve at once; more are refused, not queued."""

MAX_ERROR_CHARS: Final = 8192


class LinkClosed(Unavailable):
    """The connection ended; whether the peer acted on what was still unanswered is unknown.

    ``reason`` is the error that the peer, or this side, gave for ending it.
    """

    def __init__(self, text: str, reason: SwarmError | None = None) -> None:
        super().__init__(text)
        self.reason = reason


class StreamClosed(Unavailable):
    """The server ended the stream well, but we still had something to send."""


Event = Message | Call | Answer | Failure | Cancel | Open | Data | End | Credit | GoAway
"""What ``next_event`` gives out: frames that are in order and that somebody has to act on."""


class _Stream(msgspec.Struct):
    """Both directions of one stream. ``*_bytes`` include CHUNK_COST_BYTES a chunk."""

    ours: bool  # we are the opener
    sent_bytes: int = 0
    granted_to_us_bytes: int = 0
    received_bytes: int = 0
    consumed_bytes: int = 0
    granted_by_us_bytes: int = 0
    sending: bool = True  # we have not sent End
    receiving: bool = True  # the peer has not


class Multiplexer:
    """One side of one connection.

    Feed ``receive``, drain ``next_event`` until None, and send what ``take_outgoing`` returns;
    every other method only queues. Methods about an id that is over do nothing: the peer's cancel
    and our answer may cross.
    """

    def __init__(
        self,
        *,
        dialling: bool,
        window_bytes: int = STREAM_WINDOW_BYTES,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        max_served: int = MAX_SERVED,
    ) -> None:
        self._window_bytes = window_bytes
        self._max_frame_bytes = max_frame_bytes
        self._max_served = max_served
        self._decoder = FrameDecoder(max_frame_bytes)
        self._outgoing = bytearray()
        self._last_id = -1 if dialling else 0
        self._last_peer_id = 0 if dialling else -1
        self._peer_window_bytes: int | None = None  # unknown until its Hello
        self._calls: set[int] = set()  # ours, unanswered
        self._serving: set[int] = set()  # the peer's, unanswered
        self._streams: dict[int, _Stream] = {}
        self._streams_served = 0  # those of them that the peer opened
        self._pong_due = False
        self._emit(Hello(PROTOCOL, window_bytes))

    # What the peer sent

    def receive(self, data: bytes | bytearray) -> None:
        """Take bytes from the peer; drain ``next_event`` before the next call."""
        self._decoder.receive(data)

    def next_event(self) -> Event | None:
        """Return the next frame that somebody has to act on, or None when all is done.

        Raises:
            RemoteProtocolError: the peer breaks the protocol; this connection has to end.
        """
        while (frame := self._decoder.next_frame()) is not None:
            if self._peer_window_bytes is None and type(frame) is not Hello:
                raise RemoteProtocolError("the peer did not say hello first: no swarmctl node")
            event = self._take(frame)
            if event is not None:
                return event
        return None

    @property
    def greeted(self) -> bool:
        """True once the peer's Hello has come: it speaks our protocol."""
        return self._peer_window_bytes is not None

    def _take(self, frame: Frame) -> Event | None:
        match frame:
            case Message() | GoAway():
                return frame
            case Call(id=number):
                return frame if self._admit(number, self._serving.add) else None
            case Open(id=number):
                return frame if self._admit(number, self._begin_serving_stream) else None
            case Answer(id=number):
                return self._take_answer(frame, number)
            case Failure(id=number):
                return self._take_failure(frame, number)
            case Cancel(id=number):
                return self._take_cancel(frame, number)
            case Data(id=number, body=body):
                return self._take_data(frame, number, body)
            case End(id=number):
                return self._take_end(frame, number)
            case Credit(id=number, grant_bytes=grant_bytes):
                return self._take_credit(frame, number, grant_bytes)
            case Ping():
                self._pong_due = True
            case Hello(protocol=protocol, window_bytes=window_bytes):
                self._take_hello(protocol, window_bytes)
        return None  # Pong: that anything came is all it says

    def _take_hello(self, protocol: int, window_bytes: int) -> None:
        if self._peer_window_bytes is not None:
            raise RemoteProtocolError("the peer said hello twice")
        if protocol != PROTOCOL:
            raise RemoteProtocolError(
                f"the peer speaks version {protocol} of the node protocol, we speak {PROTOCOL}: "
                "bring both to one version of swarmctl"
            )
        self._peer_window_bytes = window_bytes

    def _admit(self, number: int, begin: Callable[[int], None]) -> bool:
        """Register the peer's new call or stream; False when it was refused as one too many."""
        if self._is_ours(number) or number <= self._last_peer_id:
            raise RemoteProtocolError(f"id {number} is not the peer's next one")
        self._last_peer_id = number
        served = len(self._serving) + self._streams_served
        if served >= self._max_served:
            leaf, text = error_to_wire(Unavailable(f"already serving {served} calls of this peer"))
            self._emit(Failure(number, leaf, text))
            return False
        begin(number)
        return True

    def _begin_serving_stream(self, number: int) -> None:
        self._streams[number] = _Stream(ours=False)
        self._streams_served += 1

    def _take_answer(self, frame: Answer, number: int) -> Answer | None:
        if number in self._calls:
            self._calls.discard(number)
            return frame
        self._require_late(number, ours=True)
        return None

    def _take_failure(self, frame: Failure, number: int) -> Failure | None:
        if number in self._calls:
            self._calls.discard(number)
            return frame
        if number in self._streams and self._is_ours(number):
            self._drop(number)
            return frame
        self._require_late(number, ours=True)
        return None

    def _take_cancel(self, frame: Cancel, number: int) -> Cancel | None:
        if number in self._serving:
            self._serving.discard(number)
            return frame
        if number in self._streams and not self._is_ours(number):
            self._drop(number)
            return frame
        self._require_late(number, ours=False)
        return None

    def _take_data(self, frame: Data, number: int, body: bytes) -> Data | None:
        stream = self._streams.get(number)
        if stream is None:
            self._require_late(number)
            return None
        if not stream.receiving:
            raise RemoteProtocolError(f"data on stream {number} after its end")
        allowed_bytes = self._window_bytes + stream.granted_by_us_bytes
        if stream.received_bytes >= allowed_bytes:
            raise RemoteProtocolError(f"data on stream {number} without credit")
        stream.received_bytes += len(body) + CHUNK_COST_BYTES
        return frame

    def _take_end(self, frame: End, number: int) -> End | None:
        stream = self._streams.get(number)
        if stream is None:
            self._require_late(number)
            return None
        if not stream.receiving:
            raise RemoteProtocolError(f"stream {number} ended twice")
        if stream.ours:
            self._drop(number)
        else:
            stream.receiving = False
        return frame

    def _take_credit(self, frame: Credit, number: int, grant_bytes: int) -> Credit | None:
        stream = self._streams.get(number)
        if stream is None:
            self._require_late(number)
            return None
        stream.granted_to_us_bytes += grant_bytes
        return frame

    # What we send

    def send_message(self, method: str, body: bytes) -> None:
        """Queue a one-way message.

        Raises:
            FrameTooLarge: as do ``begin_call``, ``open_stream``, ``answer`` and ``send_chunk``;
                then nothing was queued and nothing has changed.
        """
        self._emit(Message(method, body))

    def begin_call(self, method: str, body: bytes, timeout_ms: int | None = None) -> int:
        """Queue a call and return its id; an Answer or a Failure with that id will come."""
        number = self._last_id + 2
        self._emit(Call(number, method, body, timeout_ms))
        self._last_id = number
        self._calls.add(number)
        return number

    def open_stream(self, method: str, body: bytes) -> int:
        """Queue the opening of a stream and return its id; an End or a Failure will come."""
        number = self._last_id + 2
        self._emit(Open(number, method, body))
        self._last_id = number
        self._streams[number] = _Stream(ours=True)
        return number

    def answer(self, number: int, body: bytes) -> None:
        """Queue the answer to a call of the peer's."""
        if number in self._serving:
            self._emit(Answer(number, body))
            self._serving.discard(number)

    def fail(self, number: int, error: SwarmError) -> None:
        """Queue an error as the end of a call or stream that we serve."""
        if number in self._serving:
            self._serving.discard(number)
        elif number in self._streams and not self._is_ours(number):
            self._drop(number)
        else:
            return
        leaf, text = error_to_wire(error)
        self._emit(Failure(number, leaf, text))

    def cancel(self, number: int) -> None:
        """Give up a call or stream that we began; nothing more will come about it."""
        if number in self._calls:
            self._calls.discard(number)
        elif number in self._streams and self._is_ours(number):
            self._drop(number)
        else:
            return
        self._emit(Cancel(number))

    def credit_bytes(self, number: int) -> int:
        """What may still be sent on a stream now; one chunk may overdraw it. 0 for ended ones."""
        stream = self._streams.get(number)
        if stream is None or self._peer_window_bytes is None:
            return 0
        return self._peer_window_bytes + stream.granted_to_us_bytes - stream.sent_bytes

    def send_chunk(self, number: int, chunk: bytes) -> None:
        """Queue one chunk of a stream.

        Raises:
            ValueError: without credit, or after our end; both are the caller's mistakes.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        if not stream.sending or self.credit_bytes(number) <= 0:
            raise ValueError(f"stream {number} may not send now")
        self._emit(Data(number, chunk))
        stream.sent_bytes += len(chunk) + CHUNK_COST_BYTES

    def consume(self, number: int, chunk: bytes) -> None:
        """Say that the application took this chunk; grants credit by half windows."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.consumed_bytes += len(chunk) + CHUNK_COST_BYTES
        grant_bytes = stream.consumed_bytes - stream.granted_by_us_bytes
        if grant_bytes * 2 >= self._window_bytes and stream.receiving:
            stream.granted_by_us_bytes += grant_bytes
            self._emit(Credit(number, grant_bytes))

    def end(self, number: int) -> None:
        """End our half of a stream we opened, or the whole of one that we serve."""
        stream = self._streams.get(number)
        if stream is None or not stream.sending:
            return
        stream.sending = False
        if not stream.ours:
            self._drop(number)
        self._emit(End(number))

    def ping(self) -> None:
        """Queue a Ping; any bytes that come after it show that the peer lives."""
        self._emit(Ping())

    def go_away(self, reason: SwarmError) -> None:
        """Queue the last frame: why this side ends the connection."""
        leaf, text = error_to_wire(reason)
        self._emit(GoAway(leaf, text))

    @property
    def outgoing_bytes(self) -> int:
        """How much is queued and not yet taken."""
        return len(self._outgoing)

    @property
    def wants_to_send(self) -> bool:
        """True when ``take_outgoing`` has something to give."""
        return self._pong_due or bool(self._outgoing)

    def take_outgoing(self) -> bytearray:
        """Return everything queued, for one write; empty when there is nothing to send."""
        if self._pong_due:  # however many pings came, so that pings cannot pile up pongs
            self._pong_due = False
            self._emit(Pong())
        outgoing, self._outgoing = self._outgoing, bytearray()
        return outgoing

    # Bookkeeping

    def _emit(self, frame: Frame) -> None:
        append_frame(self._outgoing, frame, self._max_frame_bytes)

    def _is_ours(self, number: int) -> bool:
        return number & 1 == self._last_id & 1

    def _drop(self, number: int) -> None:
        if not self._streams.pop(number).ours:
            self._streams_served -= 1

    def _require_late(self, number: int, *, ours: bool | None = None) -> None:
        """Accept a frame about an id that is over; refuse one about an id never used."""
        is_ours = self._is_ours(number)
        used = number <= (self._last_id if is_ours else self._last_peer_id)
        if not used or (ours is not None and ours != is_ours):
            raise RemoteProtocolError(f"a frame about id {number}, which nobody used")


_LEAVES: Final = {
    name: leaf
    for name, leaf in vars(errors).items()
    if isinstance(leaf, type)
    and issubclass(leaf, SwarmError)
    # Across a wire it would accuse the wrong connection.
    and not issubclass(leaf, RemoteProtocolError)
}


def error_to_wire(error: SwarmError) -> tuple[str, str]:
    """Return the leaf's name and the text that cross the wire for ``error``."""
    for ancestor in type(error).__mro__:
        if _LEAVES.get(ancestor.__name__) is ancestor:
            return ancestor.__name__, str(error)[:MAX_ERROR_CHARS]
    raise AssertionError("SwarmError itself is a leaf")


def error_from_wire(leaf: str, text: str) -> SwarmError:
    """Rebuild the error; a leaf that this version does not know becomes a plain SwarmError."""
    kind = _LEAVES.get(leaf, SwarmError)
    # Some leaves take no text of their own; all of them are Exceptions whose text is args[0].
    return kind.__new__(kind, text)
