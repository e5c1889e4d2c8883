"""The transport between members: messages out and in, snapshots whole or from where they broke."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.errors import MemberRemoved, RemoteProtocolError, SwarmError, Unavailable
from swarmctl.core.raft.message import ConfState, Message, MessageKind, Snapshot
from swarmctl.core.raft.rollback import Shown
from swarmctl.core.raft.transport import HEARD_FOR_S, SNAPSHOT, Transport, decode_message
from swarmctl.core.wire.connect import Unreachable, open_link
from swarmctl.core.wire.link import Link, LinkSettings, Methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

CHUNKS = tuple(b"chunk %d" % number for number in range(10))
HEAD = Snapshot(index=40, term=2, conf_state=ConfState(voters=(1, 2)))


class Side:
    """One member: its transport, and a consensus that notes what it is told.

    Attributes:
        stop_after: a reception breaks after so many chunks, once.
    """

    def __init__(self, network: Network, number: int) -> None:
        self.number = number
        self.network = network
        self.received: list[Message] = []
        self.unreachable: list[int] = []
        self.delivered: list[tuple[int, bool]] = []
        self.chunks: list[bytes] = []
        self.stamp = b""
        self.asked: list[int] = []
        self.stop_after = 0
        self.replaced = False
        self.told_removed = trio.Event()
        self.disk = Shown(starts=1, run=number, term=1, last_index=10)
        self.commit = 0
        self.transport = Transport(network.dial, self, self.told_removed.set)
        self.transport.serve(self)

    # --- as consensus ---

    def receive(self, message: Message) -> None:
        self.received.append(message)

    def report_unreachable(self, member: int) -> None:
        self.unreachable.append(member)

    def report_snapshot(self, member: int, *, ok: bool) -> None:
        self.delivered.append((member, ok))

    async def take_snapshot(
        self,
        message: Message,
        stamp: bytes,
        ask: Callable[[int], Awaitable[AsyncIterable[bytes]]],
    ) -> None:
        if stamp != self.stamp:
            self.stamp, self.chunks = stamp, []
        self.asked.append(len(self.chunks))
        async for chunk in await ask(len(self.chunks)):
            self.chunks.append(chunk)
            if len(self.chunks) == self.stop_after:
                self.stop_after = 0
                raise Unavailable("the connection broke")
        self.received.append(message)

    # --- as the disk ---

    def shown(self) -> Shown:
        return self.disk

    def read_snapshot(
        self, index: int, place: int, done: Callable[[tuple[bytes, ...] | None], None]
    ) -> None:
        if self.replaced or index != HEAD.index:
            done(None)
        else:
            done(CHUNKS[place : place + 3])

    # --- as the door ---

    async def welcome(self, link: Link) -> None:
        await link.run(
            Methods(
                messages=self.transport.messages(),
                streams={SNAPSHOT: self.transport.serve_snapshot},
            )
        )


class Network:
    """Members at the addresses ``m<number>``, while their doors are open."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.doors: dict[str, Callable[[Link], Awaitable[None]]] = {}
        self.links: list[Link] = []

    async def dial(self, address: str) -> Link:
        await trio.lowlevel.checkpoint()
        door = self.doors.get(address)
        if door is None:
            raise Unreachable(f"cannot reach {address}")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._accept, theirs, door)
        link = await open_link(ours, None, dialling=True)
        self.links.append(link)
        return link

    async def _accept(
        self, stream: trio.abc.Stream, door: Callable[[Link], Awaitable[None]]
    ) -> None:
        link = await open_link(stream, None, dialling=False)
        try:
            await door(link)
        except SwarmError:
            await link.hang_up()


@asynccontextmanager
async def two_members() -> AsyncIterator[tuple[Side, Side]]:
    """Members 1 and 2, which know each other and are connected."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        one, two = Side(network, 1), Side(network, 2)
        for side, other in ((one, two), (two, one)):
            network.doors[f"m{side.number}"] = side.welcome
            side.transport.set_peers({other.number: f"m{other.number}"})
            nursery.start_soon(side.transport.run)
        await until(lambda: one.transport.link_to(2) and two.transport.link_to(1))
        yield one, two
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object], within_s: float = 60.0) -> None:
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - no one event stands for any condition
            await trio.sleep(0.01)


def heartbeat(sender: int, to: int, term: int = 1) -> Message:
    return Message(MessageKind.HEARTBEAT, to, sender, term)


def snapshot_message() -> Message:
    return Message(MessageKind.SNAPSHOT, 2, 1, 2, snapshot=HEAD)


async def test_messages_arrive_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """What is sent over a link arrives, in order, and its sender counts as reachable."""
    async with two_members() as (one, two):
        sent = [heartbeat(1, 2, term) for term in range(100)]
        for message in sent:
            one.transport.send(message)
        await until(lambda: len(two.received) == 100)
        assert two.received == sent
        assert two.transport.reachable(1)
        assert not one.transport.reachable(2)
        await trio.sleep(HEARD_FOR_S + 0.1)
        assert not two.transport.reachable(1)


async def test_a_message_without_a_way_is_dropped_and_reported(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing waits for a member that cannot be reached; consensus is told at once."""
    async with two_members() as (one, _two):
        one.transport.send(heartbeat(1, 9))
        assert (one.unreachable, one.transport.dropped) == ([9], 1)


async def test_a_member_that_nobody_told_of_is_answered_where_it_spoke(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A leader that joined while we were away can be answered over the link it has dialled."""
    async with two_members() as (one, two):
        two.transport.set_peers({})
        await until(lambda: two.transport.link_to(1) is None)
        one.transport.send(heartbeat(1, 2))
        await until(lambda: two.received)
        two.transport.send(heartbeat(2, 1))
        await until(lambda: one.received)


async def test_a_lost_link_is_made_again(autojump_clock: trio.testing.MockClock) -> None:
    """A broken connection costs the messages of that moment and nothing later."""
    async with two_members() as (one, two):
        before = one.transport.link_to(2)
        for link in one.network.links:
            link.close("the cable was pulled")
        await until(lambda: one.transport.link_to(2) not in (None, before))
        one.transport.send(heartbeat(1, 2))
        await until(lambda: two.received)


async def test_a_new_address_counts_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """A member that moved is dialled where it is now."""
    async with two_members() as (one, two):
        before = one.transport.link_to(2)
        one.network.doors["elsewhere"] = one.network.doors.pop("m2")
        one.transport.set_peers({2: "elsewhere"})
        await until(lambda: one.transport.link_to(2) not in (None, before))
        one.transport.send(heartbeat(1, 2))
        await until(lambda: two.received)


async def test_a_snapshot_arrives_whole(autojump_clock: trio.testing.MockClock) -> None:
    """All chunks arrive in order before the message that they belong to, and success is told."""
    async with two_members() as (one, two):
        one.transport.send(snapshot_message())
        await until(lambda: one.delivered)
        assert one.delivered == [(2, True)]
        assert two.chunks == list(CHUNKS)
        assert two.received == [snapshot_message()]


async def test_a_broken_snapshot_goes_on_where_it_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After a break only the chunks that are missing are sent."""
    async with two_members() as (one, two):
        two.stop_after = 4
        one.transport.send(snapshot_message())
        await until(lambda: one.delivered == [(2, False)])
        one.transport.send(snapshot_message())
        await until(lambda: len(one.delivered) == 2)
        assert (one.delivered[-1], two.asked) == ((2, True), [0, 4])
        assert two.chunks == list(CHUNKS)


async def test_a_snapshot_that_was_replaced_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """When a newer snapshot has taken its place the transfer fails, and consensus sends another."""
    async with two_members() as (one, two):
        one.replaced = True
        one.transport.send(snapshot_message())
        await until(lambda: one.delivered)
        assert one.delivered == [(2, False)]
        assert two.received == []


async def test_a_snapshot_that_does_not_arrive_is_told_of_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Consensus tries again ten times a second; the log says each reason once."""
    async with two_members() as (one, _two):
        one.replaced = True
        for attempt in range(1, 4):
            one.transport.send(snapshot_message())
            await until(lambda: len(one.delivered) == attempt)  # noqa: B023 - at once
        assert caplog.text.count("manager m2 does not get its snapshot") == 1


async def test_a_snapshot_for_one_who_moved_meanwhile_did_not_arrive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A transfer that ends because its member is elsewhere now is told as failed: consensus sends
    that member nothing else before it hears of it."""
    async with two_members() as (one, _two):
        one.network.doors["elsewhere"] = one.network.doors.pop("m2")
        one.transport.send(snapshot_message())
        one.transport.set_peers({2: "elsewhere"})
        await until(lambda: one.delivered)
        assert one.delivered == [(2, False)]
        one.transport.send(snapshot_message())
        await until(lambda: len(one.delivered) == 2)
        assert one.delivered[-1] == (2, True)


async def test_a_second_snapshot_waits_for_no_first(autojump_clock: trio.testing.MockClock) -> None:
    """While one is under way another to the same member is refused; consensus asks again."""
    async with two_members() as (one, _two):
        one.transport.send(snapshot_message())
        one.transport.send(snapshot_message())
        assert one.delivered == [(2, False)]
        await until(lambda: len(one.delivered) == 2)
        assert one.delivered[-1] == (2, True)


async def test_a_removed_member_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """A member whose number is gone learns it from whoever closes the link for that reason."""
    async with two_members() as (one, two):

        async def refuse(link: Link) -> None:
            link.close(MemberRemoved("member 1 was removed"))
            await link.run()

        one.network.doors["m2"] = refuse
        for link in one.network.links:
            link.close("restart")
        await until(one.told_removed.is_set)
        assert not two.told_removed.is_set()


async def test_a_disk_that_went_back_is_found_out(autojump_clock: trio.testing.MockClock) -> None:
    """A member that comes back without what it acknowledged is not heard, and told why."""
    async with two_members() as (one, two):
        one.transport.send(
            Message(MessageKind.APPEND_RESPONSE, 2, 1, 5, index=20),
        )
        await until(lambda: two.received)
        one.disk = Shown(starts=2, run=9, term=5, last_index=19)
        before = one.transport.link_to(2)
        for link in one.network.links:
            link.close("restart")
        await until(lambda: one.transport.link_to(2) not in (None, before))
        one.transport.send(heartbeat(1, 2, 6))
        await until(one.told_removed.is_set)
        assert len(two.received) == 1


async def test_who_finds_a_disk_out_over_its_own_link_stays(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A member without a link of its own answers over the other's: it is not heard there either,
    and the other does not take the end of it for its own removal."""
    async with two_members() as (one, two):
        one.transport.send(Message(MessageKind.APPEND_RESPONSE, 2, 1, 5, index=20))
        await until(lambda: two.received)
        one.disk = Shown(starts=2, run=9, term=5, last_index=19)
        one.transport.set_peers({})
        before = two.transport.link_to(1)
        for link in one.network.links:
            link.close("restart")
        await until(lambda: two.transport.link_to(1) not in (None, before))
        two.transport.send(heartbeat(2, 1, 6))
        await until(lambda: one.received)
        one.transport.send(heartbeat(1, 2, 6))
        await trio.sleep(1.0)
        assert len(two.received) == 1
        assert not two.told_removed.is_set()
        one.transport.set_peers({2: "m2"})
        await until(lambda: one.transport.link_to(2))
        one.transport.send(heartbeat(1, 2, 6))
        await until(one.told_removed.is_set)
        assert not two.told_removed.is_set()


async def test_a_full_link_is_introduced_on_later(autojump_clock: trio.testing.MockClock) -> None:
    """Who could not introduce itself because a link was full does so with the next message."""
    async with two_members() as (one, two):
        link = one.transport.link_to(2)
        assert link is not None
        for _ in range(LinkSettings().outbox_bytes // 100_000 + 1):
            link.send_nowait("something else", b"x" * 100_000)
        one.transport.send(heartbeat(1, 2))
        assert one.unreachable == [2]
        await trio.testing.wait_all_tasks_blocked()
        one.transport.send(heartbeat(1, 2))
        await until(lambda: two.received)
        assert one.unreachable == [2]


async def test_a_disk_that_kept_everything_is_heard(autojump_clock: trio.testing.MockClock) -> None:
    """A restart with all that was promised is nothing to ask about."""
    async with two_members() as (one, two):
        one.transport.send(Message(MessageKind.APPEND_RESPONSE, 2, 1, 5, index=20))
        await until(lambda: two.received)
        one.disk = Shown(starts=2, run=9, term=5, last_index=20)
        before = one.transport.link_to(2)
        for link in one.network.links:
            link.close("restart")
        await until(lambda: one.transport.link_to(2) not in (None, before))
        one.transport.send(heartbeat(1, 2, 6))
        await until(lambda: len(two.received) == 2)
        assert not one.told_removed.is_set()


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x90", b"\x93\x01\x02"])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """Bytes that are no message of consensus are the sender's fault, in words."""
    with pytest.raises(RemoteProtocolError, match="no message of consensus"):
        decode_message(body)
