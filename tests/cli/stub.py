"""A daemon that answers from a table and remembers what it was asked, on a real unix socket."""

from __future__ import annotations

import http.server
import json
import socketserver
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Json = Any
Answer = tuple[int, Json]


class Asked(NamedTuple):
    """One request: path and query decoded, body as JSON."""

    method: str
    path: str
    query: dict[str, str]
    body: Json
    headers: dict[str, str]


class Stub:
    """Answers ``METHOD /path`` with what ``answers`` holds: a value, a ``(status, value)`` pair, a
    function of the request that returns either, or bytes to send as they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Asked] = []
        self.answers: dict[str, Any] = {"GET /_ping": "OK", "HEAD /_ping": None}

    def posted(self) -> Json:
        """Return the body of the only POST."""
        (request,) = [asked for asked in self.asked if asked.method == "POST"]
        return request.body

    def lines(self) -> list[str]:
        """Return ``METHOD /path`` of every request."""
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        key = f"{asked.method} {asked.path}"
        if key not in self.answers:
            return 404, {"message": f"{asked.path.strip('/').replace('s/', ' ')} not found"}
        found = self.answers[key]
        if callable(found):
            found = found(asked)
        if isinstance(found, tuple):
            return found
        return 200, found

    @contextmanager
    def serving(self) -> Iterator[None]:
        server = _Server(str(self.path), _handler(self.answer))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="stub daemon")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Tell of errors, but for a client that hung up: the commands do, when they are done."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("client", 0)


def _handler(answer: Callable[[Asked], Answer]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            path, _, query = self.path.partition("?")
            pairs = {key: values[-1] for key, values in parse_qs(query).items()}
            status, value = answer(
                Asked(
                    self.command,
                    unquote(path),
                    pairs,
                    json.loads(data) if data else None,
                    {key.lower(): text for key, text in self.headers.items()},
                )
            )
            body, kind = b"", "application/json"
            if isinstance(value, bytes):
                body, kind = value, "application/vnd.docker.multiplexed-stream"
            elif value is not None:
                body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_DELETE = do_any

    return Handler
