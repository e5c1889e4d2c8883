"""Carries messages between members: one link to each, dialled here, and snapshots beside it.

A message goes out at once over the link that we have dialled, else over the one on which that
member last spoke to us; without either it is dropped, which Raft expects, and reported. Snapshots
take a link of their own, so that a large one delays no heartbeat, and a broken transfer goes on
where it ended.

Laws:

- Nothing here blocks consensus, and nothing queues without bound: the link holds back some bytes,
  and past those messages are dropped.
- Who may speak is decided at the door; here a member is a number and an address.
- Nobody is listened to who has not shown what its disk holds (``introductions.py``), and one that
  has forgotten something is told that its number is gone: it comes back as a new member.

It must not know: what messages mean, who leads, certificates, tables.
"""

from __future__ import annotations

import logging
import random
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from ..errors import MemberRemoved, RemoteProtocolError, SwarmError, Unavailable
from ..together import run_until_first
from ..wire.calls import LinkClosed
from ..wire.link import Methods
from .introductions import Introductions
from .message import Message, MessageKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping

    from ..wire.link import Link, MessageMethod
    from ..wire.stream import LinkStream
    from .rollback import Shown

RAFT = "raft"
SHOWN = "raft_shown"
SNAPSHOT = "raft_snapshot"
REDIAL_FIRST_S = 0.05
REDIAL_MAX_S = 1.0
SNAPSHOT_STALL_S = 30.0
HEARD_FOR_S = 1.5
"""A member that said nothing for longer counts as unreachable; heartbeats come every 0.1 s."""

log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Consensus(Protocol):
    """The runner as the transport knows it."""

    @property
    def commit(self) -> int: ...

    def receive(self, message: Message) -> None: ...

    def report_unreachable(self, member: int) -> None: ...

    def report_snapshot(self, member: int, *, ok: bool) -> None: ...

    async def take_snapshot(
        self,
        message: Message,
        stamp: bytes,
        ask: Callable[[int], Awaitable[AsyncIterable[bytes]]],
    ) -> None: ...


class SnapshotSource(Protocol):
    """The disk as the transport knows it."""

    def shown(self) -> Shown: ...

    def read_snapshot(
        self, index: int, place: int, done: Callable[[tuple[bytes, ...] | None], None]
    ) -> None: ...


class Transport:
    """Links to the other members, for as long as :meth:`run` runs.

    Args:
        dial: makes a link to ``host:port`` whose other end has proved to be a manager.
        source: where snapshots to send are read from.
        removed: called when another member says that this one was removed.

    Attributes:
        links_changed: set, and replaced, when a link came or went.
        dropped: messages that found no way, so far.
    """

    def __init__(
        self,
        dial: Callable[[str], Awaitable[Link]],
        source: SnapshotSource,
        removed: Callable[[], None],
    ) -> None:
        self._dial = dial
        self._source = source
        self._removed = removed
        self._consensus: Consensus | None = None
        self._peers: dict[int, _Peer] = {}
        self._addresses: dict[int, str] = {}
        self._changed = trio.Event()
        self._heard: dict[int, float] = {}
        self._back: dict[int, Link] = {}  # links that others dialled, by who spoke on them last
        self._stamp = secrets.token_bytes(8)
        self._introductions = Introductions(source.shown)
        self.links_changed = trio.Event()
        self.dropped = 0

    def serve(self, consensus: Consensus) -> None:
        """Say whom messages are for; before :meth:`run`."""
        self._consensus = consensus

    def set_peers(self, addresses: Mapping[int, str]) -> None:
        """Say where the other members are, all of them. One whose address changed is redialled."""
        if dict(addresses) != self._addresses:
            self._addresses = dict(addresses)
            self._changed.set()

    def link_to(self, member: int) -> Link | None:
        """Return the live link that we have dialled to a member, or None."""
        peer = self._peers.get(member)
        return peer.link if peer is not None else None

    def reachable(self, member: int) -> bool:
        """True when a member spoke to us lately."""
        heard = self._heard.get(member)
        return heard is not None and trio.current_time() - heard < HEARD_FOR_S

    # --- out ---

    def send(self, message: Message) -> None:
        """Send a message to a member, or drop it. For the runner."""
        if message.kind is MessageKind.SNAPSHOT:
            self._send_snapshot(message)
            return
        link = self.link_to(message.to) or self._back.get(message.to)
        if link is not None:
            try:
                introduction = self._introductions.due(link, message.sender)
                if introduction is not None:
                    link.send_nowait(SHOWN, introduction)
                    self._introductions.said(link)
                link.send_nowait(RAFT, _encode(message))
            except (trio.WouldBlock, SwarmError):
                pass
            else:
                return
        self.dropped += 1
        assert self._consensus is not None
        self._consensus.report_unreachable(message.to)

    def _send_snapshot(self, message: Message) -> None:
        peer = self._peers.get(message.to)
        assert self._consensus is not None
        if peer is None or peer.snapshot is not None:
            self._consensus.report_snapshot(message.to, ok=False)
        else:
            peer.snapshot = message
            peer.wake.set()

    async def run(self) -> None:
        """Keep a link to each member until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                for member, peer in list(self._peers.items()):
                    if self._addresses.get(member) != peer.address:
                        self._drop(peer)
                for member, address in self._addresses.items():
                    if member not in self._peers:
                        peer = self._peers[member] = _Peer(member, address)
                        nursery.start_soon(self._keep, peer, name=f"raft peer {address}")
                await self._changed.wait()

    def _drop(self, peer: _Peer) -> None:
        """Let go of a member that is gone or has another address."""
        del self._peers[peer.member]
        peer.scope.cancel(reason="the member is gone or has another address")
        if peer.snapshot is not None:  # consensus sends no other before it hears of this one
            assert self._consensus is not None
            self._consensus.report_snapshot(peer.member, ok=False)

    async def _keep(self, peer: _Peer) -> None:
        """Stay connected to one member, and send it the snapshots that it is to get."""
        with peer.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stay_connected, peer, name="raft link")
                nursery.start_soon(self._feed, peer, name="raft snapshots")

    async def _stay_connected(self, peer: _Peer) -> None:
        pause_s = REDIAL_FIRST_S
        while True:
            try:
                link = await self._dial(peer.address)
                pause_s = REDIAL_FIRST_S
                await self._carry(peer, link)
            except SwarmError as error:
                if str(error) != peer.trouble:
                    log.info("no link to manager %s: %s", peer.address, error)
                peer.trouble = str(error)
                if isinstance(error, LinkClosed) and isinstance(error.reason, MemberRemoved):
                    self._removed()
            await trio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - jitter
            pause_s = min(2 * pause_s, REDIAL_MAX_S)

    async def _carry(self, peer: _Peer, link: Link) -> None:
        peer.link, peer.trouble = link, ""
        self._tell_links()
        try:
            await link.run(Methods(messages=self.messages()))
        finally:
            peer.link = None
            self._tell_links()

    def _tell_links(self) -> None:
        changed, self.links_changed = self.links_changed, trio.Event()
        changed.set()

    # --- snapshots out ---

    async def _feed(self, peer: _Peer) -> None:
        assert self._consensus is not None
        while True:
            await peer.wake.wait()
            peer.wake = trio.Event()
            message = peer.snapshot
            if message is None:
                continue
            try:
                await self._transfer(peer, message)
            except SwarmError as error:
                if str(error) != peer.lost:  # consensus tries again with every heartbeat
                    log.warning("manager %s does not get its snapshot: %s", peer.address, error)
                peer.lost = str(error)
                self._consensus.report_snapshot(peer.member, ok=False)
            else:
                peer.lost = ""
                self._consensus.report_snapshot(peer.member, ok=True)
            finally:
                peer.snapshot = None

    async def _transfer(self, peer: _Peer, message: Message) -> None:
        """Send a snapshot over a link of its own."""
        assert message.snapshot is not None
        index = message.snapshot.index
        stamp = self._stamp + index.to_bytes(8, "big")
        head = msgspec.structs.replace(message, context=stamp)
        link = await self._dial(peer.address)

        async def upload() -> None:
            async with link.open_stream(SNAPSHOT, _encode(head)) as stream:
                place = int.from_bytes(await _receive(stream), "big")
                while chunks := await self._read(index, place):
                    for chunk in chunks:
                        with _patience():
                            await stream.send(chunk)
                    place += len(chunks)
                stream.end()
                with _patience():
                    await _receive(stream)
            log.info("manager %s has the snapshot at log index %d", peer.address, index)

        await run_until_first(link.run, upload)

    async def _read(self, index: int, place: int) -> tuple[bytes, ...]:
        read = trio.Event()
        found: list[tuple[bytes, ...] | None] = []

        def done(chunks: tuple[bytes, ...] | None) -> None:
            found.append(chunks)
            read.set()

        self._source.read_snapshot(index, place, done)
        await read.wait()
        if found[0] is None:
            raise Unavailable(f"the snapshot at log index {index} was replaced by a newer one")
        return found[0]

    # --- in: for the door ---

    def messages(self) -> dict[str, MessageMethod]:
        """Return what members may say, by method."""
        return {SHOWN: self._take_introduction, RAFT: self._take_message}

    def _take_introduction(self, link: Link, body: bytes) -> None:
        try:
            forgotten = self._introductions.take(link, body)
        except msgspec.MsgspecError as error:
            raise RemoteProtocolError(f"no introduction of a member: {error}") from error
        if forgotten is None:
            return
        text = f"the manager at {link.peer_address} must join anew: {forgotten}"
        log.error("%s", text)
        # A link that we have dialled stays, unheard: its end for this reason would mean that we are
        # the one who was removed. The member is told over the link that it dials.
        if all(peer.link is not link for peer in self._peers.values()):
            link.close(MemberRemoved(text))

    def _take_message(self, link: Link, body: bytes) -> None:
        if not self._introductions.made(link):
            return
        message = decode_message(body)
        sender = message.sender
        self._heard[sender] = trio.current_time()
        if sender not in self._peers or self._peers[sender].link is None:
            self._back[sender] = link
        else:
            self._back.pop(sender, None)
        if self._consensus is not None:
            self._introductions.note(message, self._consensus.commit)
            self._consensus.receive(message)

    async def serve_snapshot(self, _link: Link, stream: LinkStream) -> None:
        """Take in a snapshot that a member sends."""
        message = decode_message(stream.body)
        if message.kind is not MessageKind.SNAPSHOT or message.snapshot is None:
            raise RemoteProtocolError("a snapshot's stream begins with the message it belongs to")
        if self._consensus is None:
            raise Unavailable("this manager is being prepared")

        async def ask(place: int) -> AsyncIterable[bytes]:
            await stream.send(place.to_bytes(8, "big"))
            return stream

        self._heard[message.sender] = trio.current_time()
        stamp = message.sender.to_bytes(8, "big") + message.context
        bare = msgspec.structs.replace(message, context=b"")
        await self._consensus.take_snapshot(bare, stamp, ask)
        await stream.send(b"taken")


class _Peer:
    """One other member.

    Attributes:
        snapshot: what it is being sent, if anything.
        trouble: why there is no link, as it was last said.
        lost: why the last snapshot did not arrive; empty if it did.
    """

    def __init__(self, member: int, address: str) -> None:
        self.member = member
        self.address = address
        self.link: Link | None = None
        self.trouble = ""
        self.lost = ""
        self.snapshot: Message | None = None
        self.wake = trio.Event()
        self.scope = trio.CancelScope()


def decode_message(body: bytes) -> Message:
    """Decode what a member sent.

    Raises:
        RemoteProtocolError: it is no message of consensus.
    """
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise RemoteProtocolError(f"no message of consensus: {error}") from error


@contextmanager
def _patience() -> Iterator[None]:
    """Wait for the other side only so long."""
    try:
        with trio.fail_after(SNAPSHOT_STALL_S):
            yield
    except trio.TooSlowError:
        raise Unavailable(f"no progress for {SNAPSHOT_STALL_S:g} s") from None


async def _receive(stream: LinkStream) -> bytes:
    try:
        return await stream.receive()
    except trio.EndOfChannel:
        raise Unavailable("the other manager gave the transfer up") from None
