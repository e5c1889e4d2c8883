"""Network namespaces of tasks, held open: sockets in them, their rules, their connections.

A process id may be somebody else's a moment later, so a namespace is opened once, checked, and kept
by its descriptor until its task is gone. Its netfilter socket was made in it and stays in it,
so most questions cost one system call and no process.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .netlink import NETFILTER, ROUTE, NetlinkSocket, Request, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_GET_GENERATION = (10 << 8) | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_GENERATION_ID = 1
_NFGEN = struct.pack("=BBH", 0, 0, 0)
_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceGone(OSError):
    """The process whose namespace was asked for has ended, or has none of its own."""


class Namespace:
    """A network namespace: the one of a process, or this program's own.

    Args:
        pid: a process in it; 0 for our own.

    Raises:
        NamespaceGone: it is not there.
    """

    def __init__(self, pid: int = 0) -> None:
        self.pid = pid
        path = Path(f"/proc/{pid}/ns/net") if pid else _own()
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NamespaceGone(error.errno, f"process {pid} has no network namespace") from error
        try:
            if pid:
                self._check_foreign()
            self.netfilter = self.netfilter_socket()
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def path(self) -> str:
        """Where another program of this host finds it while it is open here."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def is_of_its_process(self) -> bool:
        """Return whether the process that it was opened by is there and still in it."""
        try:
            return (
                Path(f"/proc/{self.pid}/ns/net").stat().st_ino == os.fstat(self._descriptor).st_ino
            )
        except OSError:
            return False

    def close(self) -> None:
        """Let go of it; the kernel frees a namespace when nobody holds it."""
        self.netfilter.close()
        os.close(self._descriptor)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread in the namespace for a moment, in which sockets are made."""
        if not self.pid:
            yield
            return
        own = os.open(_own(), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_namespace(self._descriptor)
            try:
                yield
            finally:
                _set_namespace(own)
        finally:
            os.close(own)

    def route_socket(self) -> NetlinkSocket:
        """Return a socket for links and addresses in the namespace."""
        with self.entered():
            return NetlinkSocket(ROUTE)

    def netfilter_socket(self) -> NetlinkSocket:
        """Return another socket for rules and connections in the namespace."""
        with self.entered():
            return NetlinkSocket(NETFILTER)

    def generation(self) -> int:
        """Return a number that changes with every change of any nftables rule in it.

        Raises:
            OSError: the kernel has no nftables.
        """
        answer = self.netfilter.ask(Request(_GET_GENERATION, 0, _NFGEN))
        return int(struct.unpack("!I", attributes(answer[0], len(_NFGEN))[_GENERATION_ID])[0])

    def _check_foreign(self) -> None:
        if os.fstat(self._descriptor).st_ino == _own().stat().st_ino:
            raise NamespaceGone(0, f"process {self.pid} is in this host's own network namespace")


def _own() -> Path:
    """Return where the calling thread's namespace is."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/ns/net")


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
