"""Frames: what two nodes put on one connection, and how it is cut out of a byte stream.

A frame is four bytes of length (big-endian, without themselves) and that many bytes of msgpack: an
array of the frame's number and its fields.

Laws:
- Any bytes, in any pieces, give frames or ``RemoteProtocolError``; frames before the first bad byte
  are given out first.
- No frame is longer than the limit, in either direction, so a peer's greatest claim on our memory
  is the limit and one read.
- Numbers are never reused, and fields are only ever added at the end: an older decoder skips them.

Bodies are opaque bytes here. What a method's body means is the business of who calls it.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Union

import msgspec

from swarmctl.core.errors import InvalidArgument, RemoteProtocolError

MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
"""Room for a log entry of 1.5 MB several times over; snapshots travel in chunks of a stream."""

_PREFIX: Final = struct.Struct(">I")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class FrameTooLarge(InvalidArgument):
    """The body does not fit in one frame: send it in pieces."""


class _Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all frames: arrays on the wire, values in memory."""


class Hello(_Frame, frozen=True, tag=0):
    """First on every connection, from both sides."""

    protocol: int
    window_bytes: Count  # what each of the sender's streams takes before it grants more


class Message(_Frame, frozen=True, tag=1):
    """One way; nobody answers."""

    method: str
    body: bytes


class Call(_Frame, frozen=True, tag=2):
    """Asks for one Answer or Failure."""

    id: Count
    method: str
    body: bytes
    timeout_ms: Count | None = None  # how long the caller will still wait


class Answer(_Frame, frozen=True, tag=3):
    """Ends a call well."""

    id: Count
    body: bytes


class Failure(_Frame, frozen=True, tag=4):
    """Ends a call or a stream with an error: the name of a SwarmError leaf and its text."""

    id: Count
    leaf: str
    text: str


class Cancel(_Frame, frozen=True, tag=5):
    """Whoever began the call or stream no longer wants it."""

    id: Count


class Open(_Frame, frozen=True, tag=6):
    """Begins a stream."""

    id: Count
    method: str
    body: bytes


class Data(_Frame, frozen=True, tag=7):
    """One chunk of a stream; boundaries are kept."""

    id: Count
    body: bytes


class End(_Frame, frozen=True, tag=8):
    """The opener's: no more data from me. The server's: the stream is over, and well."""

    id: Count


class Credit(_Frame, frozen=True, tag=9):
    """The other side may send so many bytes more on this stream."""

    id: Count
    grant_bytes: Count


class Ping(_Frame, frozen=True, tag=10):
    """Asks for a Pong: is anybody there?"""


class Pong(_Frame, frozen=True, tag=11):
    """Answers every Ping received so far."""


class GoAway(_Frame, frozen=True, tag=12):
    """Last on a connection: why it ends."""

    leaf: str
    text: str


Frame = Union[  # noqa: UP007 - read at run time by msgspec, on 3.10 too
    Hello, Message, Call, Answer, Failure, Cancel, Open, Data, End, Credit, Ping, Pong, GoAway
]

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def append_frame(buffer: bytearray, frame: Frame, limit_bytes: int = MAX_FRAME_BYTES) -> None:
    """Encode ``frame`` at the end of ``buffer``, so that many frames leave in one write.

    Raises:
        FrameTooLarge: longer than ``limit_bytes``; the buffer is as it was.
    """
    start = len(buffer)
    buffer += b"\0\0\0\0"
    _encoder.encode_into(frame, buffer, -1)
    length = len(buffer) - start - _PREFIX.size
    if length > limit_bytes:
        del buffer[start:]
        raise FrameTooLarge(
            f"a message of {length} bytes does not fit in a frame of at most {limit_bytes}"
        )
    _PREFIX.pack_into(buffer, start, length)


class FrameDecoder:
    """Cuts frames out of a byte stream: ``receive`` bytes, then ``next_frame`` until None."""

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._start = 0  # of the first frame not yet given out

    def receive(self, data: bytes | bytearray) -> None:
        """Take bytes from the peer; take out all frames before the next call."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """Return the next frame, or None when it needs more data.

        Raises:
            RemoteProtocolError: the bytes are no frame. The decoder is of no further use.
        """
        body = self._start + _PREFIX.size
        if len(self._buffer) < body:
            return None
        (length,) = _PREFIX.unpack_from(self._buffer, self._start)
        if length > self._limit_bytes:
            raise RemoteProtocolError(
                f"a frame of {length} bytes was announced; the limit is {self._limit_bytes}"
            )
        end = body + length
        if len(self._buffer) < end:
            return None
        try:
            with memoryview(self._buffer) as view, view[body:end] as encoded:
                frame = _decoder.decode(encoded)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RemoteProtocolError(f"malformed frame: {error}") from error
        self._start = end
        return frame
