"""One connection to the engine, spoken through docker-py. Blocking: used in threads.

docker-py gives the session and HTTP over a unix socket; request bodies and answers are the Engine
API's own JSON, because its typed helpers lack fields. Three things it does not give are here: one
kept-alive connection for all paths (docker-py keeps one for each path), a way to cut a call that
waits, and answers as values instead of exceptions.

This is the only module that knows docker-py, requests and urllib3. It must not know trio.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import docker
import docker.transport.unixconn as unix
import requests
import urllib3
from docker.errors import DockerException

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECT_TIMEOUT_S = 5.0

BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, DockerException, OSError)
"""What a call raises when the engine is away, goes away, or is cut off."""


class Answer(NamedTuple):
    """One HTTP answer. ``chunks`` is the body of a streamed one, which has an empty ``body``."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    chunks: Iterator[bytes]


class Line:
    """A connection that is opened when first used. One thread at a time may ask; any may cut."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
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
            BROKEN: one of these; this line is then of no further use.
        """
        if self._session is None:
            self._session = self._open()  # reads docker's configuration file: not on the loop
        reply = self._session.request(
            method,
            self._session.base_url + path,
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
        """End the call that waits, from any thread; it raises one of :data:`BROKEN` soon.

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

    def _open(self) -> Any:
        # A version is named so that docker-py asks the engine nothing of itself.
        session = docker.APIClient(base_url=f"unix://{self._socket_path}", version="1.24")
        session.trust_env = False  # a proxy or a .netrc has no say on a unix socket
        session.mount("http+docker://", _Adapter(self._socket_path, self))
        return session

    def connected(self, wire: socket.socket) -> None:
        """Note the socket of a fresh connection (called while connecting)."""
        self._wire = wire
        if self._is_cut:
            raise ConnectionAbortedError("the call was cancelled")


def why_broken(error: BaseException) -> str:
    """Say in a few words why a call brought no answer."""
    if isinstance(error, requests.Timeout):
        return "it hangs"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        nested = [arg for arg in inner.args if isinstance(arg, BaseException)]
        inner = nested[-1] if nested else inner.__cause__ or inner.__context__
    return "the connection broke"


class _Adapter(unix.UnixHTTPAdapter):  # type: ignore[misc] # docker-py is untyped
    """docker-py's, with one connection instead of one for each path."""

    def __init__(self, socket_path: str, line: Line) -> None:
        super().__init__(f"http+unix://{socket_path}")
        self._pool = _Pool(socket_path, line)

    def get_connection(self, url: str, proxies: object = None) -> _Pool:
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()


class _Pool(unix.UnixHTTPConnectionPool):  # type: ignore[misc] # docker-py is untyped
    def __init__(self, socket_path: str, line: Line) -> None:
        super().__init__("http+docker://localhost", socket_path, CONNECT_TIMEOUT_S, maxsize=1)
        self._line = line

    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self._line)


class _Connection(unix.UnixHTTPConnection):  # type: ignore[misc] # docker-py is untyped
    def __init__(self, base_url: str, socket_path: str, line: Line) -> None:
        super().__init__(base_url, socket_path, CONNECT_TIMEOUT_S)
        self._line = line

    def connect(self) -> None:
        # docker-py's own leaves a socket that could not connect to the garbage collector.
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            wire.settimeout(self.timeout)
            wire.connect(self.unix_socket)
            self._line.connected(wire)
        except BaseException:
            wire.close()
            raise
        self.sock = wire
