"""A unix socket to listen on: bound safely, removed at the end.

What for: the API's socket. Who may connect is decided by the file's mode and group alone, so both
are set before anybody can.

Laws: a live daemon's socket is never taken over, a dead one's never stands in the way, and nothing
that is no socket is ever removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from swarmctl.core.errors import SwarmError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LISTEN_BACKLOG = 1024
MAX_UNIX_PATH_BYTES = 107  # sun_path holds 108 with its closing zero


class ListenFailed(SwarmError):
    """The socket cannot be opened; the text says why and what to do."""


@asynccontextmanager
async def open_unix_listener(
    path: str, *, mode: int = 0o660, gid: int | None = None
) -> AsyncIterator[trio.SocketListener]:
    """Listen on a unix socket for as long as the ``async with`` lasts, then remove it.

    A socket that a dead process left behind is replaced; one that answers is not, and neither is
    anything that is no socket.

    Args:
        path: at most 107 bytes, in a directory that exists.
        mode: permissions; set before anybody can connect.
        gid: group that owns the socket; None leaves the process's own.

    Raises:
        ListenFailed: with the reason, in words for the user.
    """
    bound, inode = await trio.to_thread.run_sync(_bind_unix, path, mode, gid)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
    try:
        yield listener
    finally:
        _remove_ours(path, inode)
        await listener.aclose()


def _bind_unix(path: str, mode: int, gid: int | None) -> tuple[socket.socket, int]:
    """Bind and listen; return the socket and its file's inode. Blocking, but short."""
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        raise ListenFailed(
            f"socket path {path} is longer than {MAX_UNIX_PATH_BYTES} bytes, the kernel's limit: "
            "choose a shorter one"
        )
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked(Path(path).parent):
            _remove_stale(path)
            bound.bind(path)
            if gid is not None:
                os.chown(path, -1, gid)
            Path(path).chmod(mode)
            bound.setblocking(False)
            bound.listen(LISTEN_BACKLOG)  # only now can anybody connect
            return bound, os.lstat(path).st_ino
    except OSError as error:
        bound.close()
        raise ListenFailed(f"cannot listen on {path}: {error.strerror}") from error
    except BaseException:
        bound.close()
        raise


def _remove_ours(path: str, inode: int) -> None:
    with contextlib.suppress(OSError):
        if os.lstat(path).st_ino == inode:  # else it is another daemon's by now
            Path(path).unlink()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: of two daemons that start at once, one finds the other alive."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _remove_stale(path: str) -> None:
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ListenFailed(f"cannot listen on {path}: it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full: very much alive
    raise ListenFailed(
        f"cannot listen on {path}: another daemon answers there; stop it, or choose another "
        "socket with --socket"
    )
