"""The words between daemon and keeper: JSON objects behind a length of four bytes.

Pure: bytes in, messages out. A request is ``{"id": n, "op": name, ...}``; its answer
``{"id": n, "ok": {...}}`` or ``{"id": n, "error": {"kind": k, "text": t, ...}}``; a message
without an id is an event. ``PROTOCOL`` grows when an old daemon or keeper could misunderstand.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False  # importing typing costs the keeper a tenth of its start-up time
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

PROTOCOL = 1
MAX_FRAME_BYTES = 64 * 1024 * 1024  # a task's secrets and configs travel in one request
_LENGTH = struct.Struct(">I")


class FrameError(Exception):
    """The other side sent something that is no frame; its connection is of no further use."""


def encode(message: Message) -> bytes:
    """Return ``message`` as one frame.

    Raises:
        FrameError: it is larger than the other side accepts.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes; {MAX_FRAME_BYTES} are the limit")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes as they came and return the messages that are complete now.

        Raises:
            FrameError: the bytes are no frames.
        """
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes; {MAX_FRAME_BYTES} are the limit")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(_decode(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return messages


def _decode(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except ValueError as error:  # bad UTF-8 included
        raise FrameError("a frame that is no JSON") from error
    except RecursionError as error:
        raise FrameError("a frame nested too deep") from error
    if not isinstance(message, dict):
        raise FrameError("a frame that is no JSON object")
    return message
