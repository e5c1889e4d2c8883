"""HTTP/1.1 as a codec: bytes in, requests or responses out, and back. No I/O.

What for: the API server (``http_server``) and the CLI's blocking client speak through the same two
classes, so both sides agree on limits, on framing and on what a broken peer is called.

Laws:
- Any bytes, whole or one at a time, give messages, ``Signal`` values or ``RemoteProtocolError``;
  nothing that h11 raises about a peer gets past this module.
- Every buffer has a limit, named below.
- Header names are lower case on the way in, as given on the way out.

It must not know what a route, a socket or a clock is, and it must stay cheap to import: the CLI
pays for it on every command.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote

import h11

from swarmctl.core.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEAD_BYTES = 64 * 1024
"""Longest request or status line plus headers: a base64 X-Registry-Auth is a few KiB."""

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Longest whole request body: the largest config (1,000 KB) in base64, three times over."""

Headers = tuple[tuple[str, str], ...]

_BODILESS_STATUSES = frozenset({204, 304})


class Signal(enum.Enum):
    """What a codec answers when it has no message to give."""

    NEED_DATA = "need data"
    END = "end of body"
    CLOSED = "closed between messages"


class HeadTooLarge(RemoteProtocolError):
    """Request line and headers are longer than MAX_HEAD_BYTES."""

    status = 431


class BodyTooLarge(RemoteProtocolError):
    """The request's body is longer than the server takes."""

    status = 413


class Fields:
    """An ordered, immutable multi-map of text: the headers or the query of one message."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = tuple(pairs)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of ``name`` (header names are lower case), or ``default``."""
        for key, value in self.pairs:
            if key == name:
                return value
        return default

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value of ``name`` in the order sent."""
        return tuple(value for key, value in self.pairs if key == name)

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __repr__(self) -> str:
        return f"Fields({self.pairs!r})"


class Request(NamedTuple):
    """One request as a handler sees it.

    ``target`` is what the client wrote (for proxying); ``path`` and ``query`` are percent-decoded.
    ``body`` is empty when the handler asked to read the body itself.
    """

    method: str
    target: str
    path: str
    query: Fields
    headers: Fields
    body: bytes = b""


class Response(NamedTuple):
    """One whole answer; the codec adds Content-Length and leaves out a body HTTP forbids."""

    status: int
    headers: Headers = ()
    body: bytes = b""


class ResponseHead(NamedTuple):
    """What a client learns before the body; 101 means that raw bytes follow."""

    status: int
    headers: Fields


def json_response(status: int, encoded: bytes, headers: Headers = ()) -> Response:
    """Wrap encoded JSON as Docker does: exact content type, one newline at the end."""
    # The Go client compares the whole content type, so "; charset" may not follow (docker-api 2.1).
    return Response(status, (("Content-Type", "application/json"), *headers), encoded + b"\n")


def error_response(status: int, message: str) -> Response:
    """Return Docker's error answer, ``{"message": ...}``."""
    import json  # errors are rare, and the CLI should not pay for them

    text = json.dumps({"message": message}, ensure_ascii=False, separators=(",", ":"))
    return json_response(status, text.encode("utf-8", "replace"))


class ServerCodec:
    """The server's side of one connection: requests come out, answers go in, cycle after cycle.

    ``next_head``, then ``next_body`` or ``next_chunk`` until END, then one answer, then
    ``next_cycle``. Readers raise RemoteProtocolError, after which only ``refusal`` is of use.
    """

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._content_length = 0
        self._method = ""
        self._bodiless = False

    def receive(self, data: bytes | bytearray) -> None:
        """Take bytes from the peer; empty bytes mean that it sends no more."""
        self._h11.receive_data(bytes(data))

    def next_head(self) -> Request | Signal:
        """Return the next request without its body, NEED_DATA, or CLOSED."""
        event = _next_event(self._h11)
        if isinstance(event, h11.Request):
            request = _request_from(event)
            self._content_length = int(request.headers.get("content-length", "0"))
            self._method = request.method
            return request
        if event is h11.NEED_DATA:
            return Signal.NEED_DATA
        return Signal.CLOSED

    def next_chunk(self) -> bytes | Signal:
        """Return the next piece of the request's body, NEED_DATA, or END."""
        event = _next_event(self._h11)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if event is h11.NEED_DATA:
            return Signal.NEED_DATA
        return Signal.END

    def next_body(self, limit_bytes: int = MAX_BODY_BYTES) -> bytes | Signal:
        """Return the whole body once it is there, else NEED_DATA.

        Raises:
            BodyTooLarge: more than ``limit_bytes`` are announced or have come.
        """
        while self._content_length <= limit_bytes and self._parts_bytes <= limit_bytes:
            chunk = self.next_chunk()
            if isinstance(chunk, bytes):
                self._parts.append(chunk)
                self._parts_bytes += len(chunk)
            elif chunk is Signal.NEED_DATA:
                return chunk
            else:
                body = b"".join(self._parts)
                self._parts, self._parts_bytes = [], 0
                return body
        raise BodyTooLarge(f"request body is larger than {limit_bytes} bytes")

    @property
    def has_partial(self) -> bool:
        """True when bytes have come that make no whole message yet."""
        return bool(self._h11.trailing_data[0])

    @property
    def body_complete(self) -> bool:
        """False while the present request's body has not been read to its end."""
        return self._h11.their_state is not h11.SEND_BODY

    def go_ahead(self) -> bytes:
        """Return the ``100 Continue`` that the client waits for, or nothing."""
        if not self._h11.they_are_waiting_for_100_continue:
            return b""
        return _sent(self._h11, h11.InformationalResponse(status_code=100, headers=[]))

    def answer(self, response: Response) -> bytes:
        """Encode one whole answer.

        Raises:
            ValueError: a header's name or value cannot be sent; nothing was encoded.
        """
        status, headers, body = response
        if status not in _BODILESS_STATUSES:
            headers = (*headers, ("Content-Length", str(len(body))))
        head = self.begin(status, headers)
        return head + self.chunk(body) + self.finish()

    def begin(self, status: int, headers: Headers) -> bytes:
        """Encode the head of an answer whose body follows by ``chunk`` and ends by ``finish``.

        Without a Content-Length the body is chunked, or ends with the connection on HTTP/1.0.

        Raises:
            ValueError: a header's name or value cannot be sent; nothing was encoded.
        """
        self._bodiless = self._method == "HEAD" or status in _BODILESS_STATUSES
        return _sent(self._h11, _response_event(status, headers))

    def chunk(self, data: bytes) -> bytes:
        """Encode one piece of the body; nothing for HEAD, 204 and 304."""
        if self._bodiless or not data:
            return b""
        return _sent(self._h11, h11.Data(data=data))

    def finish(self) -> bytes:
        """Encode the end of the answer."""
        return _sent(self._h11, h11.EndOfMessage())

    def take_over(self, status: int, headers: Headers) -> tuple[bytes, bytes]:
        """End HTTP here: return the head to send, and the bytes that the peer sent too early.

        The codec is of no further use. Docker clients ask with ``Upgrade: tcp`` and get 101; old
        ones ask without and get a 200 with no framing at all.
        """
        event = _response_event(status, headers)
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}".encode("ascii")]
        lines += [name + b": " + value for name, value in event.headers.raw_items()]
        early, _closed = self._h11.trailing_data
        return b"\r\n".join(lines) + b"\r\n\r\n", bytes(early)

    def refusal(self, error: RemoteProtocolError, headers: Headers = ()) -> bytes:
        """Encode the last answer to a peer that broke the protocol; nothing if one has begun."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        response = error_response(error.status, error.message)
        closing = (*headers, ("Connection", "close"), *response.headers)
        return self.answer(response._replace(headers=closing))

    def next_cycle(self) -> bool:
        """Make ready for the next request; False when the connection has to end."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._content_length = 0
        self._method = ""  # or a refusal of what follows a HEAD would lack its body
        return True


class ClientCodec:
    """The client's side of one connection: one request goes out, one answer comes in, and again.

    ``request``, ``next_head``, ``next_chunk`` until END, ``next_cycle``.
    """

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def request(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> bytes:
        """Encode one whole request; Content-Length is added.

        Raises:
            ValueError: method, target or a header cannot be sent; nothing was encoded.
        """
        if body or method not in ("GET", "HEAD", "DELETE"):
            headers = (*headers, ("Content-Length", str(len(body))))
        try:
            event = h11.Request(method=method, target=target, headers=_encoded(headers))
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise ValueError(f"this request cannot be sent: {error}") from error
        head = _sent(self._h11, event)
        data = _sent(self._h11, h11.Data(data=body)) if body else b""
        return head + data + _sent(self._h11, h11.EndOfMessage())

    def begin(self, method: str, target: str, headers: Headers) -> bytes:
        """Encode the head of a request whose body follows as its headers say; then ``chunk``."""
        event = h11.Request(method=method, target=target, headers=_encoded(headers))
        return _sent(self._h11, event)

    def chunk(self, data: bytes) -> bytes:
        """Encode one piece of the body that ``begin`` announced."""
        return _sent(self._h11, h11.Data(data=data))

    def finish(self) -> bytes:
        """Encode the end of that body."""
        return _sent(self._h11, h11.EndOfMessage())

    def receive(self, data: bytes | bytearray) -> None:
        """Take bytes from the server; empty bytes mean that it sends no more."""
        self._h11.receive_data(bytes(data))

    def next_head(self) -> ResponseHead | Signal:
        """Return the answer's head or NEED_DATA; of the 1xx answers only 101 is shown."""
        while True:
            event = _next_event(self._h11)
            if event is h11.NEED_DATA:
                return Signal.NEED_DATA
            if isinstance(event, h11.Response):
                return ResponseHead(event.status_code, _decoded(event.headers))
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return ResponseHead(101, _decoded(event.headers))
            if not isinstance(event, h11.InformationalResponse):
                raise RemoteProtocolError("the connection ended before an answer came")

    def next_chunk(self) -> bytes | Signal:
        """Return the next piece of the answer's body, NEED_DATA, or END."""
        event = _next_event(self._h11)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if event is h11.NEED_DATA:
            return Signal.NEED_DATA
        return Signal.END

    def leftover(self) -> bytes:
        """Return bytes that followed a 101: they belong to the protocol that HTTP gave way to."""
        return bytes(self._h11.trailing_data[0])

    def next_cycle(self) -> bool:
        """Make ready for the next request; False when the connection has to end."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True


def _request_from(event: h11.Request) -> Request:
    target = event.target.decode("ascii")
    path_and_query = target
    if not target.startswith("/") and "://" in target:  # absolute form, as to a proxy
        path_and_query = "/" + target.split("://", 1)[1].partition("/")[2]
    path, _, query = path_and_query.partition("?")
    return Request(
        method=event.method.decode("ascii"),
        target=target,
        path=unquote(path, errors="replace"),
        query=Fields(parse_qsl(query, keep_blank_values=True) if query else ()),
        headers=_decoded(event.headers),
    )


def _next_event(connection: h11.Connection) -> object:
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == HeadTooLarge.status:
            raise HeadTooLarge(f"request head is longer than {MAX_HEAD_BYTES} bytes") from error
        raise RemoteProtocolError(f"malformed HTTP/1.1: {error}") from error


def _sent(connection: h11.Connection, event: h11.Event) -> bytes:
    data = connection.send(event)
    assert data is not None, "only ConnectionClosed encodes to nothing, and it is never sent"
    return data


def _response_event(status: int, headers: Headers) -> h11.Response | h11.InformationalResponse:
    kind = h11.InformationalResponse if status < 200 else h11.Response
    try:
        return kind(status_code=status, headers=_encoded(headers), reason=_REASONS.get(status, ""))
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise ValueError(f"this answer cannot be sent: {error}") from error


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    return Fields((name.decode("ascii"), value.decode("latin-1")) for name, value in headers)


# Only the words that clients print; http.HTTPStatus would cost the CLI an import for them.
_REASONS = {
    101: "UPGRADED",  # docker-api.md 2.8: Docker's own word
    200: "OK",
    201: "Created",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
