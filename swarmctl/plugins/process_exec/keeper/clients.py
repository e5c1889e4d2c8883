"""Connections to the keeper: who may speak, and bytes to messages and back."""

from __future__ import annotations

import os
import socket
import struct

from .frames import FrameError, FrameReader, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .frames import Message
    from .loop import Loop

    OnRequest = Callable[["Client", Message], None]
    OnGone = Callable[["Client"], None]

NAME = "keeper.sock"
BACKLOG = 16
MAX_UNSENT_BYTES = 64 * 1024 * 1024  # a client that does not read is cut off
_READ_BYTES = 256 * 1024
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Listener:
    """The keeper's socket, open to our own user and root.

    Args:
        root: the directory; the socket is reached through a descriptor of it, because the path of
            a unix socket has room for 107 bytes only.
    """

    def __init__(self, root: str) -> None:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        path = f"/proc/self/fd/{folder}/{NAME}"
        self._path = f"{root}/{NAME}"
        try:
            if os.path.lexists(path):
                os.unlink(path)  # of a keeper that was killed; the lock says that there is none
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(path)
            os.chmod(path, 0o600)
        finally:
            os.close(folder)
        self._socket.listen(BACKLOG)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._socket.fileno()

    def accept(self, loop: Loop, on_request: OnRequest, on_gone: OnGone) -> Client | None:
        """Return the next client, or None when it left or may not speak."""
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return None
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(raw)
        if uid not in (0, os.geteuid()):
            connection.close()
            return None
        return Client(connection, loop, on_request, on_gone)

    def close(self) -> None:
        """Take no more clients."""
        os.unlink(self._path)
        self._socket.close()


class Client:
    """One connection.

    Attributes:
        watches: it wants to be told of every change.
    """

    def __init__(
        self, connection: socket.socket, loop: Loop, on_request: OnRequest, on_gone: OnGone
    ) -> None:
        self.watches = False
        self._socket = connection
        self._loop = loop
        self._on_request = on_request
        self._on_gone = on_gone
        self._frames = FrameReader()
        self._unsent = bytearray()
        self._open = True
        connection.setblocking(False)
        loop.watch(connection.fileno(), self._read)

    def send(self, message: Message) -> None:
        """Send a message; one that has left already gets nothing."""
        if not self._open:
            return
        self._unsent += encode(message)
        self._flush()
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self._close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        try:
            requests = self._frames.feed(data)
        except FrameError:
            self._close()
            return
        for request in requests:
            self._on_request(self, request)

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        self._loop.watch(self._socket.fileno(), self._read, self._flush if self._unsent else None)

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._on_gone(self)
