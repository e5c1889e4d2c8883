"""Asking other servers: what is not ours goes to them as it came, and back as they answered.

Every attempt has a socket of its own, connected, with a port and a number that nobody can foresee,
and takes only an answer with that number and that very question: 32 bits to guess, for one answer,
since nothing is kept. Servers are asked one after the other, each a moment after the last, and the
first that answers has answered; one that did not is asked later than the others for a while.

A cut answer goes back cut: who asked will ask again over TCP, and is then asked for over TCP.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from typing import TYPE_CHECKING, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.socket import SocketType

PORT = 53
NEXT_AFTER_S = 1.0
TOTAL_S = 4.5  # programs give up, or ask again, after five seconds
MAX_ATTEMPTS = 4
AVOIDED_S = 30.0
MAX_KNOWN = 1_000
MAX_BYTES = 65_535

_HEADER = 12
_QR = 0x80
_SERVFAIL, _NOTIMP, _REFUSED = 2, 4, 5
_TRY_NEXT = (_SERVFAIL, _NOTIMP, _REFUSED)


class Upstreams:
    """Asks servers, and knows which of them did not answer lately.

    Args:
        port: where servers listen; tests have theirs elsewhere.
    """

    def __init__(self, *, port: int = PORT) -> None:
        self._port = port
        self._avoided: dict[str, float] = {}

    async def ask(self, query: bytes, servers: Sequence[str], *, stream: bool) -> bytes | None:
        """Return the first good answer to a question, else the last bad one, else None.

        Args:
            stream: ask over TCP.
        """
        attempts = (self._ordered(servers) * 2)[:MAX_ATTEMPTS]
        told, outcomes = trio.open_memory_channel[_Outcome](len(attempts))
        bad: bytes | None = None
        good: bytes | None = None
        with trio.move_on_after(TOTAL_S):
            async with trio.open_nursery() as nursery:
                running = 0
                for server in attempts:
                    nursery.start_soon(self._attempt, server, query, stream, told)
                    running += 1
                    is_last = running == len(attempts)
                    with trio.move_on_after(TOTAL_S if is_last else NEXT_AFTER_S) as patience:
                        while running and good is None:
                            outcome = await outcomes.receive()
                            running -= 1
                            bad = outcome.answer or bad
                            good = outcome.answer if outcome.is_good else None
                            self._note(outcome.server, answered=outcome.is_good)
                    if good is not None:
                        break
                    if patience.cancelled_caught:
                        self._note(server, answered=False)
                nursery.cancel_scope.cancel()
        answer = good or bad
        return None if answer is None else _restored(query, answer)

    def _ordered(self, servers: Sequence[str]) -> list[str]:
        now = trio.current_time()
        self._avoided = {one: until for one, until in self._avoided.items() if until > now}
        return sorted(servers, key=lambda server: server in self._avoided)

    async def _attempt(
        self,
        server: str,
        query: bytes,
        stream: bool,
        told: trio.MemorySendChannel[_Outcome],
    ) -> None:
        exchange = _exchange_stream if stream else _exchange_datagram
        try:
            answer = await exchange(server, self._port, secrets.token_bytes(2) + query[2:])
        except (OSError, ValueError):  # unreachable, or no address at all
            answer = None
        told.send_nowait(_Outcome(server, answer))  # there is room for every attempt

    def _note(self, server: str, *, answered: bool) -> None:
        """Ask a server that answers before one that does not."""
        if answered:
            self._avoided.pop(server, None)
        elif len(self._avoided) < MAX_KNOWN:
            self._avoided[server] = trio.current_time() + AVOIDED_S


class _Outcome(NamedTuple):
    """What came of one attempt."""

    server: str
    answer: bytes | None

    @property
    def is_good(self) -> bool:
        """Is it worth more than what another server may say?"""
        return self.answer is not None and self.answer[3] & 0xF not in _TRY_NEXT


def _restored(query: bytes, answer: bytes) -> bytes:
    """Return an answer with the number, and the question's letters, of who asked."""
    end = question_end(query) if answer[4:6] == b"\0\1" else _HEADER
    return query[:2] + answer[2:_HEADER] + query[_HEADER:end] + answer[end:]


def fits(query: bytes, answer: bytes) -> bool:
    """Return whether bytes that arrived are the answer to what was asked."""
    if len(answer) < _HEADER or answer[:2] != query[:2] or not answer[2] & _QR:
        return False
    if answer[4:6] == b"\0\0":  # some servers leave the question out when they refuse it
        return answer[3] & 0xF != 0
    end = question_end(query)
    return answer[4:6] == b"\0\1" and answer[_HEADER:end].lower() == query[_HEADER:end].lower()


def question_end(query: bytes) -> int:
    """Return where the question of a message with one question ends."""
    place = _HEADER
    while place < len(query) and query[place]:
        place += query[place] + 1  # a question's name is never compressed: nothing is before it
    return place + 5


async def _exchange_datagram(server: str, port: int, query: bytes) -> bytes:
    """Return the answer that a server gives to a datagram. Raises OSError."""
    with _socket_to(server, socket.SOCK_DGRAM) as sock:
        await sock.connect(_place(server, port))
        await sock.send(query)
        while True:
            answer = await sock.recv(MAX_BYTES)
            if fits(query, answer):
                return answer


async def _exchange_stream(server: str, port: int, query: bytes) -> bytes:
    """Return the answer that a server gives over TCP. Raises OSError."""
    with _socket_to(server, socket.SOCK_STREAM) as sock:
        await sock.connect(_place(server, port))
        stream = trio.SocketStream(sock)
        try:
            await stream.send_all(len(query).to_bytes(2, "big") + query)
            answer = await receive_message(stream)
        except trio.BrokenResourceError as error:
            raise ConnectionError(f"{server} broke the connection") from error
        if answer is None or not fits(query, answer):
            raise ConnectionError(f"{server} answered nothing that was asked")
        return answer


async def receive_message(stream: trio.SocketStream) -> bytes | None:
    """Return the next message of a stream; None at its end, wherever that is.

    Raises:
        trio.BrokenResourceError: the connection broke.
    """
    head = await _receive_exactly(stream, 2)
    return None if head is None else await _receive_exactly(stream, int.from_bytes(head, "big"))


async def _receive_exactly(stream: trio.SocketStream, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            return None
        data += more
    return bytes(data)


def _socket_to(server: str, kind: socket.SocketKind) -> SocketType:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    return trio.socket.socket(family, kind)


def _place(server: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return a server's socket address; ``fe80::1%eth0`` is one on that link."""
    if ":" not in server:
        return (server, port)
    address = ipaddress.IPv6Address(server)
    scope = address.scope_id
    index = 0
    if scope:
        index = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    return (server.partition("%")[0], port, 0, index)
