"""Questions in, answers out: over UDP and TCP, at every place, with an end to everything.

What the tables answer is answered at once, one question of each socket a turn, so that a task that
asks without pause takes its own turns only. What others have to answer runs beside, up to a number
for each asker and one for all (Docker's: 100 and 1,024); what is too much is dropped, and who asked
asks again.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from random import SystemRandom
from typing import TYPE_CHECKING

import trio

from .answer import Forward, decide
from .resolvconf import LOCAL, chosen, parse_servers
from .state import ResponderState
from .upstream import receive_message
from .zone import Zone

if TYPE_CHECKING:
    from pathlib import Path

    from trio.socket import SocketType

    from .sockets import Place
    from .upstream import Upstreams
    from .zone import Asker

MAX_DATAGRAM_BYTES = 4096
MAX_FORWARDS, MAX_FORWARDS_EACH = 1_024, 100
MAX_STREAMS, MAX_STREAMS_EACH = 512, 32
STREAM_IDLE_S = 10.0
SEND_S = 1.0  # the kernel takes a datagram at once, or not at all
TROUBLE_PAUSE_S = 0.1
LOOK_AFTER_S = 1.0
_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

logger = logging.getLogger(__name__)


class HostServers:
    """The servers that this host asks, as its file says now.

    Args:
        path: ``/etc/resolv.conf``; programs of the host rewrite it at any time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._servers: tuple[str, ...] = LOCAL
        self._looked_at = float("-inf")
        self._lock = trio.Lock()

    async def current(self) -> tuple[str, ...]:
        """Return the servers; the file is looked at once a second at most."""
        async with self._lock:
            if trio.current_time() > self._looked_at + LOOK_AFTER_S:
                try:
                    text = await trio.to_thread.run_sync(self._read)
                    self._servers = parse_servers(text)
                except OSError:
                    pass  # it is being replaced: what it said holds
                self._looked_at = trio.current_time()
            return self._servers

    def _read(self) -> str:
        return self._path.read_text(errors="replace")


class Room:
    """Room for so many at once, of each and of all."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._inside: Counter[str] = Counter()
        self._total = 0

    def enter(self, key: str) -> bool:
        """Take a place, if there is one."""
        if self._total >= self._most or self._inside[key] >= self._most_each:
            return False
        self._inside[key] += 1
        self._total += 1
        return True

    def leave(self, key: str) -> None:
        """Give a place back."""
        self._total -= 1
        self._inside[key] -= 1
        if not self._inside[key]:
            del self._inside[key]


class Desk:
    """Answers questions from one zone.

    Args:
        nursery: answers that take time run in it, also after a socket is no longer read.

    Attributes:
        zone: what is answered from; whoever has a newer one puts it here.
        counts: of questions that were ``answered``, ``forwarded``, ``unanswered`` by others,
            ``dropped`` as too many, and from a ``stranger``.
    """

    def __init__(self, upstreams: Upstreams, hosts: HostServers, nursery: trio.Nursery) -> None:
        self.zone = Zone(ResponderState())
        self.counts: Counter[str] = Counter()
        self._upstreams = upstreams
        self._hosts = hosts
        self._nursery = nursery
        self._rng = SystemRandom()
        self._forwards = Room(MAX_FORWARDS, MAX_FORWARDS_EACH)
        self._streams = Room(MAX_STREAMS, MAX_STREAMS_EACH)

    async def serve_datagrams(self, place: Place, sock: SocketType) -> None:
        """Answer what arrives at a UDP socket, until cancelled; nothing read is left unanswered."""
        while True:
            try:
                wire, source = await sock.recvfrom(MAX_DATAGRAM_BYTES)
                # Not to be cancelled between reading and answering: another responder may have
                # taken over the socket, but not what was read from it.
                with trio.move_on_after(SEND_S, shield=True):
                    await self._answer_datagram(place, sock, wire, source)
            except OSError as error:
                # An answer that cannot be sent now, or a kernel in trouble.
                logger.debug("%s: %s", place, error)
                await trio.sleep(TROUBLE_PAUSE_S if error.errno in _RESOURCES else 0)

    async def serve_streams(self, place: Place, sock: SocketType) -> None:
        """Take connections at a TCP socket, until cancelled."""
        while True:
            try:
                connection, source = await sock.accept()
            except OSError as error:
                logger.warning("%s: %s", place, error)
                await trio.sleep(TROUBLE_PAUSE_S)
                continue
            asker = self._asker(place, source)
            if asker is None or not self._streams.enter(asker.key):
                self.counts["stranger" if asker is None else "dropped"] += 1
                connection.close()
                continue
            self._nursery.start_soon(self._serve_stream, place, connection, source, asker.key)

    # --- datagrams -------------------------------------------------------------------------------

    async def _answer_datagram(
        self, place: Place, sock: SocketType, wire: bytes, source: tuple[str, int]
    ) -> None:
        asker = self._asker(place, source)
        if asker is None:
            self.counts["stranger"] += 1
            return
        outcome = self._decide(wire, asker, stream=False)
        if isinstance(outcome, Forward):
            if self._forwards.enter(asker.key):
                self._nursery.start_soon(self._forward_datagram, sock, source, outcome, asker)
            else:
                self.counts["dropped"] += 1
        elif outcome is not None:
            await sock.sendto(outcome, source)

    async def _forward_datagram(
        self, sock: SocketType, source: tuple[str, int], question: Forward, asker: Asker
    ) -> None:
        try:
            answer = await self._ask(question, asker, stream=False)
            try:
                await sock.sendto(answer, source)
            except OSError as error:
                logger.debug("answering %s: %s", source[0], error)
        finally:
            self._forwards.leave(asker.key)

    # --- connections -----------------------------------------------------------------------------

    async def _serve_stream(
        self, place: Place, sock: SocketType, source: tuple[str, int], key: str
    ) -> None:
        try:
            async with trio.SocketStream(sock) as stream:
                while await self._answer_stream(place, stream, source):
                    pass
        except trio.BrokenResourceError:
            pass
        finally:
            self._streams.leave(key)

    async def _answer_stream(
        self, place: Place, stream: trio.SocketStream, source: tuple[str, int]
    ) -> bool:
        """Answer one question of a connection; False when there is no other to come."""
        wire = None
        with trio.move_on_after(STREAM_IDLE_S):
            wire = await receive_message(stream)
        asker = self._asker(place, source)
        if wire is None or asker is None:
            return False
        outcome = self._decide(wire, asker, stream=True)
        if isinstance(outcome, Forward):
            outcome = await self._ask(outcome, asker, stream=True)
        if outcome is None:
            return False
        with trio.move_on_after(STREAM_IDLE_S):
            await stream.send_all(len(outcome).to_bytes(2, "big") + outcome)
            return True
        return False

    # --- what both do ----------------------------------------------------------------------------

    def _asker(self, place: Place, source: tuple[str, int]) -> Asker | None:
        if place.inside:
            return self.zone.inside(place.owner)
        return self.zone.at_gateway(place.owner, source[0].partition("%")[0])

    def _decide(self, wire: bytes, asker: Asker, *, stream: bool) -> Forward | bytes | None:
        try:
            outcome = decide(wire, asker, self.zone, self._rng, stream=stream)
        except Exception:
            # One question that nobody foresaw must not take the names from everybody else.
            logger.exception("a question of %s: %s", asker.key, wire.hex())
            self.counts["failed"] += 1
            return None
        if outcome is None or isinstance(outcome, Forward):
            return outcome
        self.counts["answered"] += 1
        return outcome.wire

    async def _ask(self, question: Forward, asker: Asker, *, stream: bool) -> bytes:
        self.counts["forwarded"] += 1
        servers = chosen(asker.nameservers, await self._hosts.current(), self.zone.gateways)
        answer = await self._upstreams.ask(question.wire, servers, stream=stream)
        if answer is None:
            self.counts["unanswered"] += 1
        return answer or question.failure
