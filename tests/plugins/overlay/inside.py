"""Clients and servers of this process inside any network namespace; they cost no processes."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from swarmctl.plugins.overlay.namespaces import Namespace

if TYPE_CHECKING:
    from contextlib import ExitStack

PATIENCE_S = 2.0


class Inside:
    """The network namespace of a process, to open sockets in.

    Args:
        pid: a process in it.
        name: what servers in it call themselves.
    """

    def __init__(self, stack: ExitStack, pid: int, name: str) -> None:
        self.pid = pid
        self.called = name
        self.namespace = Namespace(pid)
        stack.callback(self.namespace.close)

    def is_there(self) -> bool:
        """Does the process live?"""
        return self.namespace.is_of_its_process()

    def socket(self, kind: socket.SocketKind, *, six: bool = False) -> socket.socket:
        """Open a socket in it."""
        with self.namespace.entered():
            made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind)
        made.settimeout(PATIENCE_S)
        return made

    def ask(self, address: str, port: int = 80) -> str:
        """Connect, and return what the server calls itself and whom it saw."""
        with self.socket(socket.SOCK_STREAM, six=":" in address) as client:
            client.connect((address, port))
            return client.recv(200).decode()

    def ask_udp(self, address: str, port: int = 80) -> str:
        """Send a datagram, and return the answer."""
        with self.socket(socket.SOCK_DGRAM, six=":" in address) as client:
            client.connect((address, port))
            client.send(b"?")
            return client.recv(200).decode()

    def serve(self, stack: ExitStack, *, port: int = 80) -> None:
        """Answer on tcp and udp, of both families, with its name and the client's address."""
        listener = self.socket(socket.SOCK_STREAM, six=True)
        listener.settimeout(None)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.listen(128)
        datagrams = self.socket(socket.SOCK_DGRAM, six=True)
        datagrams.settimeout(None)
        datagrams.bind(("::", port))
        for target, sock in ((self._serve_tcp, listener), (self._serve_udp, datagrams)):
            thread = threading.Thread(target=target, args=(sock,), daemon=True)
            thread.start()
            stack.callback(thread.join, 5)
            stack.callback(_shut, sock)

    def _serve_tcp(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, sender = listener.accept()
                threading.Thread(target=self._converse, args=(client, sender), daemon=True).start()

    def _converse(self, client: socket.socket, sender: tuple[Any, ...]) -> None:
        with client, suppress(OSError):
            client.sendall(self._words(sender))
            while data := client.recv(200):
                client.sendall(data)

    def _serve_udp(self, datagrams: socket.socket) -> None:
        with suppress(OSError):
            while True:
                data, sender = datagrams.recvfrom(200)
                if not data:
                    return
                datagrams.sendto(self._words(sender), sender)

    def _words(self, sender: tuple[Any, ...]) -> bytes:
        return f"{self.called} {str(sender[0]).removeprefix('::ffff:')}".encode()


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
