"""One connection to an engine, spoken through some engine's own Python library. Blocking.

An executor brings the library (docker-py, podman-py): its session and its HTTP over a unix socket.
Request bodies and answers are the engine's own JSON, because the libraries' typed helpers lack
fields. Three things they do not give are here: one kept-alive connection for all paths, a way to
cut a call that waits, and answers as values instead of exceptions.

Used in threads. It must not know trio, nor any of those libraries.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONNECT_TIMEOUT_S = 5.0


class Transport(NamedTuple):
    """How a library reaches an engine.

    Attributes:
        open_session: makes a ``requests`` session (or one that looks the same) for the socket at a
            path, whose every new connection is shown to :meth:`Line.connected`.
        base_url: what that session wants before a path.
        broken: what a call raises when the engine is away, goes away, or is cut off.
        silent: those of them that mean that the engine was silent for too long.
    """

    open_session: Callable[[str, Line], Any]
    base_url: str
    broken: tuple[type[Exception], ...]
    silent: tuple[type[Exception], ...]


class Answer(NamedTuple):
    """One HTTP answer. ``chunks`` is the body of a streamed one, which has an empty ``body``."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    chunks: Iterator[bytes]


class Line:
    """A connection that is opened when first used. One thread at a time may ask; any may cut."""

    def __init__(self, socket_path: str, transport: Transport) -> None:
        self._socket_path = socket_path
        self._transport = transport
        self._session: Any = None
        self._wire: socket.socket | None = None
        self._is_cut = False

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        patience_s: float | None = None,
        stream: bool = False,
    ) -> Answer:
        """Send one request.

        Args:
            path: with its version prefix.
            patience_s: how long the engine may be silent, in seconds; None for ever.
            stream: give the body piece by piece, as it arrives.

        Raises:
            Exception: one of ``transport.broken``; this line is then of no further use.
        """
        if self._session is None:
            # Libraries read their configuration files here: not on the loop.
            self._session = self._transport.open_session(self._socket_path, self)
        reply = self._session.request(
            method,
            self._transport.base_url + path,
            params=query,
            data=body,
            headers={"Content-Type": "application/json", **(headers or {})},
            timeout=(CONNECT_TIMEOUT_S, patience_s),
            stream=stream,
        )
        if stream and reply.status_code < 400:
            return Answer(reply.status_code, reply.headers, b"", reply.iter_content(None))
        return Answer(reply.status_code, reply.headers, reply.content, iter(()))

    def be_patient(self, patience_s: float) -> None:
        """Change how long the engine may be silent in the middle of a streamed answer."""
        if self._wire is not None:
            self._wire.settimeout(patience_s)

    def cut(self) -> None:
        """End the call that waits, from any thread; it raises one of ``transport.broken`` soon.

        The engine sees its client gone, and gives up what it was doing where it can (a pull).
        """
        # First the flag, then the socket: a thread that connects just now looks at the flag after.
        self._is_cut = True
        if self._wire is not None:
            with suppress(OSError):
                self._wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection. One in use is closed by :meth:`cut` ending its call."""
        if self._session is not None:
            self._session.close()

    def connected(self, wire: socket.socket) -> None:
        """Note the socket of a fresh connection (called while connecting)."""
        self._wire = wire
        if self._is_cut:
            raise ConnectionAbortedError("the call was cancelled")


def open_wire(path: str, timeout_s: float | None, line: Line) -> socket.socket:
    """Connect to the unix socket at ``path`` and show the line its wire; for sessions to use.

    The libraries' own leave a socket that could not connect to the garbage collector.

    Raises:
        OSError: nothing listens there, or the line was cut.
    """
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        wire.settimeout(timeout_s)
        wire.connect(path)
        line.connected(wire)
    except BaseException:
        wire.close()
        raise
    return wire


def why_broken(error: BaseException, transport: Transport) -> str:
    """Say in a few words why a call brought no answer."""
    if isinstance(error, transport.silent):
        return "it hangs"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        nested = [arg for arg in inner.args if isinstance(arg, BaseException)]
        inner = nested[-1] if nested else inner.__cause__ or inner.__context__
    return "the connection broke"
