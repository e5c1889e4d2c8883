"""The CLI's line to the daemon: HTTP/1.1 over its unix socket, blocking, and cheap to import.

Laws:
- One idle connection is kept and used again; a stream has a connection of its own, so requests can
  be made while it runs.
- A request is sent again only when its connection was closed before a byte of the answer came *and*
  the method changes nothing: nothing is ever created twice.
- A daemon that is not there is told apart from one that refuses us, with what to do about it.

It knows no routes and raises nothing for an answer's status: that is the commands' business.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, NamedTuple, final
from urllib.parse import urlencode

from swarmctl.core.errors import RemoteProtocolError, SwarmError
from swarmctl.core.wire.http1 import ClientCodec, Fields, Headers, ResponseHead, Signal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 120.0
"""Silence after which the daemon is given up: above all a join, which may take 20 s."""

RECEIVE_BYTES = 64 * 1024
_SAFE_METHODS = frozenset({"GET", "HEAD"})


class ClientError(SwarmError):
    """The daemon cannot be talked to; the text says why and what would help."""

    status = 503


class NoDaemon(ClientError):
    """Nobody listens at the socket: there is no daemon, or not any more."""


class Answer(NamedTuple):
    """One whole answer."""

    status: int
    headers: Fields
    body: bytes


@final
class Client:
    """Requests to one daemon; usable as a context manager. Not for several threads at once."""

    def __init__(self, socket_path: str, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._socket_path = socket_path
        self._answer_timeout_s = answer_timeout_s
        self._idle: _Connection | None = None

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Headers = (),
    ) -> Answer:
        """Send one request and return its whole answer, whatever its status.

        Args:
            path: percent-encoded by the caller where a name needs it.
            query: encoded here.
            body: JSON; ``Content-Type: application/json`` is added unless ``headers`` has one.

        Raises:
            ClientError: no daemon, no permission, no answer, or not HTTP.
        """
        connection = self._take_idle()
        if connection is not None:
            try:
                return self._exchange(connection, method, path, query, body, headers)
            except _ClosedUnanswered as error:
                if method not in _SAFE_METHODS:
                    raise ClientError(_unanswered(self._socket_path)) from error
        connection = _Connection(self._socket_path, self._answer_timeout_s)
        try:
            return self._exchange(connection, method, path, query, body, headers)
        except _ClosedUnanswered as error:
            raise ClientError(_unanswered(self._socket_path)) from error

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Headers = (),
    ) -> Iterator[tuple[int, Fields, Iterator[bytes]]]:
        """Send one request; yield status, headers and the chunks of an answer without end.

        Chunks may be waited for without limit. Leaving the ``with`` hangs up, which makes the
        daemon stop.

        Raises:
            ClientError: as ``request``; also out of the iterator.
        """
        with contextlib.closing(
            _Connection(self._socket_path, self._answer_timeout_s)
        ) as connection:
            try:
                head = connection.exchange(method, path, query, body, headers)
            except _ClosedUnanswered as error:
                raise ClientError(_unanswered(self._socket_path)) from error
            connection.wait_forever()
            yield head.status, head.headers, connection.chunks()

    def close(self) -> None:
        """Close the idle connection."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(
        self,
        connection: _Connection,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        headers: Headers,
    ) -> Answer:
        """One whole exchange; keeps the connection if it can be used again, else closes it."""
        try:
            head = connection.exchange(method, path, query, body, headers)
            answer = Answer(head.status, head.headers, b"".join(connection.chunks()))
            if connection.codec.next_cycle():
                self._idle = connection
            return answer
        finally:
            if self._idle is not connection:
                connection.close()

    def _take_idle(self) -> _Connection | None:
        connection, self._idle = self._idle, None
        if connection is not None and not connection.usable:
            connection.close()
            return None
        return connection


class _ClosedUnanswered(Exception):
    """The daemon hung up before the first byte of its answer."""


class _Connection:
    """One connected socket and its codec."""

    def __init__(self, socket_path: str, answer_timeout_s: float) -> None:
        self.codec = ClientCodec()
        self._socket_path = socket_path
        self._answer_timeout_s = answer_timeout_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(CONNECT_TIMEOUT_S)
            self._socket.connect(socket_path)
            self._socket.settimeout(self._answer_timeout_s)
        except OSError as error:
            self._socket.close()
            raise _unreachable(socket_path, error) from error

    @property
    def usable(self) -> bool:
        """False when the daemon has closed the connection, or sent what nobody asked for."""
        self._socket.setblocking(False)  # MSG_DONTWAIT would wait: Python minds the timeout first
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(self._answer_timeout_s)
        return False

    def exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        headers: Headers,
    ) -> ResponseHead:
        """Send a request and return the head of its answer."""
        target = f"{path}?{urlencode(query)}" if query else path
        headers = (("Host", "swarmctl"), ("User-Agent", "swarmctl"), *headers)
        if body is not None and not any(name.lower() == "content-type" for name, _ in headers):
            headers = (*headers, ("Content-Type", "application/json"))
        request = self.codec.request(method, target, headers, body or b"")
        # A server that refuses may answer and close before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            try:
                self._socket.sendall(request)
            except TimeoutError as error:
                raise self._silence() from error
        first = self._receive()
        if not first:
            raise _ClosedUnanswered
        self.codec.receive(first)
        with _our_words():
            while not isinstance(head := self.codec.next_head(), ResponseHead):
                self.codec.receive(self._receive())
            return head

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's pieces to its end."""
        with _our_words():
            while (chunk := self.codec.next_chunk()) is not Signal.END:
                if isinstance(chunk, bytes):
                    yield chunk
                else:
                    self.codec.receive(self._receive())

    def wait_forever(self) -> None:
        """From here on the daemon may be silent for as long as it likes."""
        self._socket.settimeout(None)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except TimeoutError as error:
            raise self._silence() from error
        except ConnectionResetError:
            return b""

    def _silence(self) -> ClientError:
        return ClientError(
            f"the daemon at {self._socket_path} did not answer for {self._answer_timeout_s:g} s; "
            "see its log"
        )


@contextlib.contextmanager
def _our_words() -> Iterator[None]:
    try:
        yield
    except RemoteProtocolError as error:
        raise ClientError(f"the daemon broke off its answer, or sent no HTTP: {error}") from error


def _unanswered(socket_path: str) -> str:
    return f"the daemon at {socket_path} closed the connection without an answer; see its log"


def _unreachable(socket_path: str, error: OSError) -> ClientError:
    if isinstance(error, PermissionError):
        return ClientError(
            f"no permission for {socket_path}: run this as root, or join the socket's group"
        )
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return NoDaemon(
            f"no swarmctl daemon answers at {socket_path}. `swarmctl init` or `swarmctl join` "
            "start one; `swarmctl daemon` runs it in the foreground; --socket names another"
        )
    return ClientError(f"cannot reach the daemon at {socket_path}: {error.strerror or error}")
