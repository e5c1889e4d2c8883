"""A small HTTP server that answers with a JSON document, as a queue or Prometheus would."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


class Numbers:
    """What it answers, and what it was asked.

    Attributes:
        document: its answer; None for 503, bytes as they are.
        location: where it sends whoever asks, if anywhere.
        drips: it answers a byte at a time and never ends.
        asked: the paths; credentials: the Authorization headers.
    """

    def __init__(self) -> None:
        self.document: object = {"pending": 10}
        self.location = ""
        self.drips = False
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        self.port = 0


@contextmanager
def numbers(tls: ssl.SSLContext | None = None) -> Iterator[Numbers]:
    """Serve numbers on a free port, over TLS where a context for it is given."""
    told = Numbers()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            told.credentials.append(self.headers.get("Authorization"))
            if told.drips:
                self._drip()
                return
            document = told.document
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            status = 302 if told.location else 200
            self.send_response(503 if document is None else status)
            if told.location:
                self.send_header("Location", told.location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _drip(self) -> None:
            with suppress(OSError):  # who asked has gone
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while not over.wait(0.02):
                    self.wfile.write(b" ")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield told
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
