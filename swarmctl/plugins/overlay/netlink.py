"""Netlink messages as bytes, and a socket for them.

Small on purpose: what this driver asks of the kernel is a dozen kinds of messages, but thousands
of forwarding entries at a time, written and read every few seconds. A general library takes some
hundred microseconds for each of them; here a thousand go down in one system call.

Everything blocks, for as long as the kernel takes. It must not know what is asked.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUTE, NETFILTER = 0, 12

REQUEST, ACK, ROOT, MATCH = 0x1, 0x4, 0x100, 0x200
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
DUMP = ROOT | MATCH
NESTED = 0x8000

_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED = 0x10
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_SOL_NETLINK, _CAP_ACK = 270, 10
_BATCH = 64
"""Requests in flight: their answers must fit into the socket's buffer."""
_BUFFER = 1 << 20
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_OF_NFTABLES = struct.pack("!BBH", 0, 0, 10)
_SO_SNDBUFFORCE = 32
_DUMP_TRIES = 5


class Request(NamedTuple):
    """One message to the kernel."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute with its padding."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute of attributes."""
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """Return an attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """Return an attribute that is a 32-bit number."""
    return attribute(kind, struct.pack("=I", value))


def flag(kind: int, *, on: bool) -> bytes:
    """Return an attribute that is a byte, 0 or 1."""
    return attribute(kind, bytes([on]))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return attributes by kind; of several of a kind, the last."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield attributes in order, with their kinds, of which there may be several alike."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def string_of(value: bytes) -> str:
    """Return the text of a string attribute."""
    return value.rstrip(b"\0").decode(errors="replace")


def mac_bytes(mac: str) -> bytes:
    """Return a MAC address as the kernel has it."""
    return bytes.fromhex(mac.replace(":", ""))


def address_bytes(address: str) -> bytes:
    """Return a bare IP address as the kernel has it."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def address_text(packed: bytes) -> str:
    """Return an IP address as it is written."""
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


class NetlinkSocket:
    """A socket to the kernel, for the network namespace of the thread that made it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.bind((0, 0))
        self._number = 0

    def close(self) -> None:
        """Give it back."""
        self._socket.close()

    def fileno(self) -> int:
        """Return its descriptor, to wait for news."""
        return self._socket.fileno()

    def subscribe(self, groups: int) -> None:
        """Hear of changes from now on; used for nothing else then."""
        self._socket.close()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, groups))

    def drain(self) -> None:
        """Throw away what was heard."""
        while True:
            try:
                self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def ask(self, request: Request) -> list[bytes]:
        """Return the bodies of the answer to a request, which may be a dump.

        Raises:
            OSError: what the kernel says.
        """
        for _ in range(_DUMP_TRIES):
            found: list[bytes] = []
            self._send([request])
            is_dump = request.flags & DUMP == DUMP
            if self._answer(self._number, found, is_dump=is_dump):
                return found
        raise OSError(errno.EINTR, "what is read from the kernel changes too fast")

    def _answer(self, wanted: int, found: list[bytes], *, is_dump: bool) -> bool:
        """Collect an answer; False when it changed while it was read."""
        whole = True
        for kind, flags, sequence, body in self._messages():
            if sequence != wanted:
                continue
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return whole
            if flags & _DUMP_INTERRUPTED:
                whole = False
            if kind == _DONE:
                return whole
            found.append(body)
            if not is_dump:
                return True
        return whole

    def tell(self, requests: Sequence[Request]) -> list[int]:
        """Carry out many requests in order; return the error number of each, 0 for none."""
        results: list[int] = []
        for start in range(0, len(requests), _BATCH):
            batch = requests[start : start + _BATCH]
            self._send([one._replace(flags=one.flags | ACK) for one in batch])
            first = self._number - len(batch) + 1
            codes: dict[int, int] = {}
            for kind, _, sequence, body in self._messages():
                if kind == _ERROR and sequence >= first:
                    codes[sequence] = -struct.unpack_from("=i", body)[0]
                    if len(codes) == len(batch):
                        break
            results += [codes[first + place] for place in range(len(batch))]
        return results

    def carry_out(self, requests: Sequence[Request]) -> None:
        """Have all requests carried out, or none: those of nftables between begin and end.

        Raises:
            OSError: what the kernel says of the first that it does not take.
        """
        begin, end = (Request(kind, 0, _OF_NFTABLES) for kind in (_BATCH_BEGIN, _BATCH_END))
        whole = [begin, *requests[:-1], requests[-1]._replace(flags=requests[-1].flags | ACK), end]
        first = self._number + 1
        size = sum(_HEADER.size + 4 + len(one.body) for one in whole)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * size + 65536)
        self._send(whole)
        for kind, _, sequence, body in self._messages():
            if kind == _ERROR and sequence >= first:
                code = -struct.unpack_from("=i", body)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return

    def _send(self, requests: Sequence[Request]) -> None:
        parts = []
        for request in requests:
            self._number += 1
            length = _HEADER.size + len(request.body)
            parts.append(
                _HEADER.pack(length, request.kind, request.flags | REQUEST, self._number, 0)
            )
            parts.append(request.body + bytes(-length % 4))
        self._socket.sendto(b"".join(parts), (0, 0))

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            data = self._socket.recv(_BUFFER)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                if length < _HEADER.size:
                    break
                yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3
