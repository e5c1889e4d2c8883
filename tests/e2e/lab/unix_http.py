"""A keep-alive HTTP client for a unix socket: how tests and benchmarks talk to any engine API.

Docker's engine and swarmctl serve the same routes, so the same client drives both. It is the
standard library's own and knows nothing of swarmctl: a bug in our codec cannot hide behind it.
"""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self


class ApiError(Exception):
    """The server answered with an error status.

    Attributes:
        status: the HTTP status.
        text: the server's message, or its raw answer when that is not the API's JSON.
    """

    def __init__(self, status: int, text: str, request: str) -> None:
        super().__init__(f"{request}: {status} {text}")
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Reply:
    """One answer, read to its end."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """The decoded body; None when there is none."""
        return json.loads(self.body) if self.body.strip() else None


class _UnixConnection(http.client.HTTPConnection):
    """http.client's connection, except where it connects to."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class UnixClient:
    """One kept-alive connection to an HTTP API on a unix socket.

    Not safe to share between threads: open one each. Usable as a context manager; connects when
    first asked and again after the server went away.
    """

    def __init__(self, path: Path, *, timeout_s: float = 60.0) -> None:
        """``timeout_s`` bounds each single wait for the server, in seconds."""
        self._connection = _UnixConnection(path, timeout_s)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send one request and read the whole answer, whatever its status.

        Args:
            body: bytes are sent as they are (a tar); anything else but None goes as JSON.
            query: parameters; a dict or list among them is sent as JSON, as filters are.
            headers: added to those that the body needs.

        Raises:
            OSError: no server, or it went away in the middle.
            http.client.HTTPException: the answer is no HTTP.
        """
        if query:
            path = f"{path}?{urlencode({k: _query_value(v) for k, v in query.items()})}"
        data, own_headers = _encode(body)
        try:
            self._connection.request(method, path, data, {**own_headers, **(headers or {})})
            answer = self._connection.getresponse()
            return Reply(answer.status, answer.read(), dict(answer.getheaders()))
        except BaseException:
            self._connection.close()  # half an exchange must not be mistaken for the next one's
            raise

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, Any] | None = None,
    ) -> Any:
        """As :meth:`request`, and give the decoded body.

        Raises:
            ApiError: the status is 400 or above.
        """
        reply = self.request(method, path, body, query=query)
        if reply.status >= 400:
            raise ApiError(reply.status, _message(reply), f"{method} {path}")
        return reply.json

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _query_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _encode(body: object) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, {}
    if isinstance(body, bytes):
        return body, {"Content-Type": "application/x-tar"}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def _message(reply: Reply) -> str:
    try:
        return str(json.loads(reply.body)["message"])
    except (ValueError, KeyError, TypeError):
        return reply.body.decode(errors="replace")
