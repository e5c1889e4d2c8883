"""A web server that stops as a good one does. Runs alone, inside containers: see :mod:`.web`.

    python web_server.py [PORT]

``/`` is answered at once, ``/slow/SECONDS`` after so long. The answer is the host's name, and
``stopping`` if the server was told to stop meanwhile.

On SIGTERM it takes the connections that are made already and then listens no more, so whoever is
sent here later is refused. Open connections are answered, with ``Connection: close``; it ends when
all of them are over. A connection on which nobody asks anything is closed after ``LINGER_S``.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

LINGER_S = 2.0
_IDLE_S = 60.0
_HEAD_MAX = 8192

stopping = threading.Event()


def main() -> None:
    """Serve until told to stop and all connections are over."""
    reader, writer = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(writer, b"."))
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 80
    with socket.create_server(("", port), backlog=1024) as listener:
        listener.setblocking(False)
        while reader not in select.select([listener, reader], [], [])[0]:
            _take_all(listener)
        stopping.set()
        _take_all(listener)
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()


def _take_all(listener: socket.socket) -> None:
    with suppress(BlockingIOError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_converse, args=(client,)).start()


def _converse(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.settimeout(None)
    with client, suppress(OSError):
        while (head := _read_head(client)) is not None:
            path = head.split(b" ", 2)[1].decode()
            if path.startswith("/slow/"):
                time.sleep(float(path.removeprefix("/slow/")))
            over = stopping.is_set() or b"connection: close" in head.lower()
            body = f"{socket.gethostname()}{' stopping' if stopping.is_set() else ''}\n"
            client.sendall(
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                f"Connection: {'close' if over else 'keep-alive'}\r\n\r\n{body}".encode()
            )
            if over:
                return


def _read_head(client: socket.socket) -> bytes | None:
    """The next request, which has no body; None at the end."""
    head = b""
    began = time.monotonic()
    while b"\r\n\r\n" not in head:
        if not select.select([client], [], [], LINGER_S / 4)[0]:
            patience = LINGER_S if stopping.is_set() else _IDLE_S
            if time.monotonic() - began > patience:
                return None
            continue
        data = client.recv(_HEAD_MAX)
        if not data or len(head) > _HEAD_MAX:
            return None
        head += data
    return head


if __name__ == "__main__":
    main()
