"""Links over memory streams: calls, streams, messages, silence, ends."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.errors import (
    NotFound,
    PermissionDenied,
    SwarmError,
    Unavailable,
    Unimplemented,
)
from swarmctl.core.wire.calls import STREAM_WINDOW_BYTES, LinkClosed, StreamClosed
from swarmctl.core.wire.connect import Unreachable, open_link
from swarmctl.core.wire.frame import MAX_FRAME_BYTES, FrameTooLarge
from swarmctl.core.wire.link import Link, LinkSettings, Methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from swarmctl.core.wire.stream import LinkStream

Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


async def echo(_link: Link, body: bytes) -> bytes:
    return body


async def open_pair(
    settings: LinkSettings | None = None, pair: tuple[Stream, Stream] | None = None
) -> tuple[Link, Link]:
    """Return a dialled and an accepted link that talk to each other; neither runs yet."""
    links: dict[bool, Link] = {}

    async def make(stream: Stream, dialling: bool) -> None:
        links[dialling] = await open_link(stream, None, dialling=dialling, settings=settings)

    ours, theirs = pair or trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make, ours, True)
        nursery.start_soon(make, theirs, False)
    return links[True], links[False]


async def run_to_its_end(link: Link, methods: Methods | None, ends: list[LinkClosed]) -> None:
    try:
        await link.run(methods)
    except LinkClosed as end:
        ends.append(end)


@asynccontextmanager
async def linked(
    methods: Methods | None = None,
    *,
    settings: LinkSettings | None = None,
    ends: list[LinkClosed] | None = None,
) -> AsyncIterator[tuple[Link, Link]]:
    """A running pair; the accepted side offers ``methods``. ``ends`` gathers how they ended."""
    ends = [] if ends is None else ends
    dialled, accepted = await open_pair(settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_to_its_end, dialled, None, ends)
        nursery.start_soon(run_to_its_end, accepted, methods, ends)
        yield dialled, accepted
        nursery.cancel_scope.cancel()


class TestCalls:
    async def test_a_call_is_answered(self) -> None:
        """The answer is what the peer's method returned."""
        async with linked(Methods(calls={"echo": echo})) as (link, _):
            assert await link.call("echo", b"hello") == b"hello"

    async def test_many_calls_wait_at_once(self) -> None:
        """A slow call holds up nobody, and answers find their callers."""
        release = trio.Event()

        async def slow(_link: Link, body: bytes) -> bytes:
            await release.wait()
            return body

        answers: list[bytes] = []

        async def ask(body: bytes) -> None:
            answers.append(await link.call("slow", body))

        async with (
            linked(Methods(calls={"slow": slow, "echo": echo})) as (link, _),
            trio.open_nursery() as nursery,
        ):
            for i in range(20):
                nursery.start_soon(ask, bytes([i]))
            await trio.testing.wait_all_tasks_blocked()
            assert await link.call("echo", b"quick") == b"quick"
            release.set()
        assert sorted(answers) == [bytes([i]) for i in range(20)]

    async def test_errors_reach_the_caller_as_their_leaf(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A SwarmError crosses with class and text, a bug as a SwarmError without its text."""

        async def refuse(_link: Link, _body: bytes) -> bytes:
            raise NotFound("node n1 not found")

        async def crash(_link: Link, _body: bytes) -> bytes:
            raise KeyError("a secret")

        async with linked(Methods(calls={"refuse": refuse, "crash": crash})) as (link, _):
            with pytest.raises(NotFound, match="node n1 not found"):
                await link.call("refuse")
            with pytest.raises(SwarmError, match="internal error in crash") as caught:
                await link.call("crash")
            assert "secret" not in str(caught.value)
            with pytest.raises(Unimplemented, match="offers no call missing"):
                await link.call("missing")
        assert "a secret" in caplog.text

    async def test_a_cancelled_caller_cancels_the_peers_work(self) -> None:
        """Nobody waits: nobody works."""
        began, cancelled = trio.Event(), trio.Event()

        async def work(_link: Link, _body: bytes) -> bytes:
            began.set()
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        async with linked(Methods(calls={"work": work, "echo": echo})) as (link, _):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.call, "work")
                await began.wait()
                nursery.cancel_scope.cancel()
            with trio.fail_after(5):
                await cancelled.wait()
            assert await link.call("echo", b"still good") == b"still good"

    async def test_the_callers_deadline_travels(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """The method's own scope ends when the caller's time is over, even if no cancel comes."""
        deadlines: list[float] = []

        async def look(_link: Link, _body: bytes) -> bytes:
            deadlines.append(trio.current_effective_deadline() - trio.current_time())
            return b""

        async with linked(Methods(calls={"look": look})) as (link, _):
            with trio.move_on_after(7):
                await link.call("look")
            await link.call("look")
        assert deadlines == [pytest.approx(7, abs=0.1), math.inf]

    async def test_authorize_is_asked_for_every_call_stream_and_message(self) -> None:
        """One function guards everything a peer can ask, and its refusal is what the peer sees."""
        asked: list[str] = []
        taken: list[bytes] = []

        def authorize(_link: Link, method: str) -> None:
            asked.append(method)
            raise PermissionDenied("node n1 was removed from the swarm")

        async def serve(_link: Link, stream: LinkStream) -> None:
            raise AssertionError("not authorized")

        methods = Methods(
            calls={"echo": echo},
            streams={"s": serve},
            messages={"m": lambda _link, body: taken.append(body)},
            authorize=authorize,
        )
        async with linked(methods) as (link, _):
            await link.send("m", b"x")
            with pytest.raises(PermissionDenied, match="was removed"):
                await link.call("echo")
            with pytest.raises(PermissionDenied, match="was removed"):
                async with link.open_stream("s") as stream:
                    await stream.receive()
        assert asked == ["m", "echo", "s"]
        assert taken == []

    async def test_a_body_too_large_is_told_to_whoever_sends_it(self) -> None:
        """Neither a question nor an answer over the frame limit costs the link."""

        async def big(_link: Link, _body: bytes) -> bytes:
            return bytes(MAX_FRAME_BYTES + 1)

        async with linked(Methods(calls={"big": big, "echo": echo})) as (link, _):
            with pytest.raises(FrameTooLarge):
                await link.call("echo", bytes(MAX_FRAME_BYTES + 1))
            with pytest.raises(SwarmError, match="does not fit in a frame"):
                await link.call("big")
            assert await link.call("echo", b"fine") == b"fine"


class TestMessages:
    async def test_a_burst_leaves_in_one_write_and_arrives_in_order(self) -> None:
        """A hundred messages queued together cost one ``send_all``."""
        writes = 0
        ours, theirs = trio.testing.memory_stream_pair()
        dialled, accepted = await open_pair(pair=(ours, theirs))
        pump = ours.send_stream.send_all_hook
        assert pump is not None

        async def count() -> None:
            nonlocal writes
            writes += 1
            await pump()

        ours.send_stream.send_all_hook = count
        taken: list[bytes] = []
        methods = Methods(messages={"raft": lambda _link, body: taken.append(body)})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_to_its_end, dialled, None, [])
            nursery.start_soon(run_to_its_end, accepted, methods, [])
            for i in range(100):
                dialled.send_nowait("raft", bytes([i]))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert taken == [bytes([i]) for i in range(100)]
        assert writes == 1

    async def test_a_full_outbox_holds_senders_back(self) -> None:
        """Past ``outbox_bytes`` the one waits and the other gets WouldBlock; a write frees both."""
        settings = LinkSettings(outbox_bytes=1000)
        dialled, accepted = await open_pair(settings)
        for _ in range(10):
            dialled.send_nowait("m", b"x" * 100)
        with pytest.raises(trio.WouldBlock):
            dialled.send_nowait("m", b"x" * 100)
        waited: list[str] = []

        async def send() -> None:
            await dialled.send("m", b"")
            waited.append("sent")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert waited == []
            nursery.start_soon(run_to_its_end, dialled, None, [])
            nursery.start_soon(run_to_its_end, accepted, None, [])
            await trio.testing.wait_all_tasks_blocked()
            assert waited == ["sent"]
            dialled.send_nowait("m", b"")
            nursery.cancel_scope.cancel()

    async def test_a_bug_in_one_message_costs_that_message(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What a message method raises is logged; the next message is taken."""
        taken: list[bytes] = []

        def take(_link: Link, body: bytes) -> None:
            taken.append(1 // len(body) and body)

        async with linked(Methods(messages={"m": take}, calls={"echo": echo})) as (link, _):
            for body in (b"", b"1"):
                await link.send("m", body)
            await link.send("nobody takes this")
            await link.call("echo")
        assert taken == [b"1"]
        assert "ZeroDivisionError" in caplog.text


async def reverse(_link: Link, stream: LinkStream) -> None:
    await stream.send(b"opened with " + stream.body)
    async for chunk in stream:
        await stream.send(chunk[::-1])


async def send_for_ever(stream: LinkStream) -> None:
    while True:
        await stream.send(bytes(100_000))


async def collect(stream: LinkStream, seen: list[bytes]) -> None:
    async for chunk in stream:
        seen.append(chunk)  # noqa: PERF401 - what came before an error counts


class TestStreams:
    async def test_chunks_go_both_ways(self) -> None:
        """A stream method sees the opening body and each chunk; returning ends the stream."""
        async with (
            linked(Methods(streams={"reverse": reverse})) as (link, _),
            link.open_stream("reverse", b"head") as stream,
        ):
            assert await stream.receive() == b"opened with head"
            for chunk in (b"abc", b""):
                await stream.send(chunk)
                assert await stream.receive() == chunk[::-1]
            stream.end()
            assert [chunk async for chunk in stream] == []

    async def test_a_sender_waits_for_a_slow_receiver(self) -> None:
        """What is under way and unread stays below the window, and all of it arrives."""
        total, chunk = 40, bytes(100_000)
        sent = 0
        go = trio.Event()

        async def slow(_link: Link, stream: LinkStream) -> None:
            await go.wait()
            async for piece in stream:
                assert piece == chunk
                await stream.send(b"took one")

        async def feed(stream: LinkStream) -> None:
            nonlocal sent
            for _ in range(total):
                await stream.send(chunk)
                sent += 1
            stream.end()

        async with (
            linked(Methods(streams={"slow": slow})) as (link, _),
            link.open_stream("slow") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(feed, stream)
            await trio.testing.wait_all_tasks_blocked()
            assert sent == STREAM_WINDOW_BYTES // len(chunk) + 1
            go.set()
            assert len([answer async for answer in stream]) == total

    async def test_leaving_a_stream_cancels_it_at_the_peer(self) -> None:
        """The peer's method is cancelled when the opener's ``async with`` ends."""
        cancelled = trio.Event()

        async def events(_link: Link, stream: LinkStream) -> None:
            try:
                await stream.send(b"first")
                await trio.sleep_forever()
            finally:
                cancelled.set()

        async with linked(Methods(streams={"events": events})) as (link, _):
            async with link.open_stream("events") as stream:
                assert await stream.receive() == b"first"
            with trio.fail_after(5):
                await cancelled.wait()

    async def test_a_failure_comes_after_the_chunks_before_it(self) -> None:
        """Nothing that the server sent is lost because it failed afterwards."""

        async def fails(_link: Link, stream: LinkStream) -> None:
            await stream.send(b"one")
            await stream.send(b"two")
            raise NotFound("no more")

        seen: list[bytes] = []
        async with (
            linked(Methods(streams={"fails": fails})) as (link, _),
            link.open_stream("fails") as stream,
        ):
            with pytest.raises(NotFound, match="no more"):
                await collect(stream, seen)
            with pytest.raises(NotFound):
                await stream.send(b"x")
        assert seen == [b"one", b"two"]

    async def test_sending_on_a_stream_the_server_ended_is_an_error(self) -> None:
        """The opener learns that nobody listens any more, waiting for credit or not."""

        async def brief(_link: Link, stream: LinkStream) -> None:
            await stream.receive()

        async with (
            linked(Methods(streams={"brief": brief})) as (link, _),
            link.open_stream("brief") as stream,
        ):
            with pytest.raises(StreamClosed):
                await send_for_ever(stream)

    async def test_one_stalled_stream_holds_up_no_other(self) -> None:
        """Credit is each stream's own: calls and other streams go on beside a full one."""

        async def stall(_link: Link, _stream: LinkStream) -> None:
            await trio.sleep_forever()

        methods = Methods(streams={"stall": stall, "reverse": reverse}, calls={"echo": echo})
        async with linked(methods) as (link, _), trio.open_nursery() as nursery:

            async def fill() -> None:
                async with link.open_stream("stall") as stream:
                    await send_for_ever(stream)

            nursery.start_soon(fill)
            await trio.testing.wait_all_tasks_blocked()
            assert await link.call("echo", b"x") == b"x"
            async with link.open_stream("reverse") as stream:
                assert await stream.receive() == b"opened with "
            nursery.cancel_scope.cancel()


class TestEnds:
    async def test_a_lost_link_fails_everything_that_waits(self) -> None:
        """Calls, streams and senders all get LinkClosed at once when the connection goes."""
        failed: list[str] = []

        async def hang(_link: Link, _body: bytes) -> bytes:
            return await trio.sleep_forever()

        async def hang_stream(_link: Link, _stream: LinkStream) -> None:
            await trio.sleep_forever()

        async with linked(Methods(calls={"hang": hang}, streams={"hang": hang_stream})) as (
            link,
            peer,
        ):

            async def call() -> None:
                with pytest.raises(LinkClosed):
                    await link.call("hang")
                failed.append("call")

            async def stream() -> None:
                async with link.open_stream("hang") as opened:
                    with pytest.raises(LinkClosed):
                        await opened.receive()
                failed.append("stream")

            async def sender() -> None:
                async with link.open_stream("hang") as opened:
                    with pytest.raises(LinkClosed):
                        await send_for_ever(opened)
                failed.append("sender")

            async with trio.open_nursery() as nursery:
                for work in (call, stream, sender):
                    nursery.start_soon(work)
                await trio.testing.wait_all_tasks_blocked()
                await peer.hang_up()
            assert sorted(failed) == ["call", "sender", "stream"]
            for late in (link.call("x"), link.send("x")):
                with pytest.raises(LinkClosed):
                    await late
            with pytest.raises(LinkClosed):
                link.send_nowait("x")

    async def test_close_tells_the_peer_why(self, autojump_clock: trio.testing.MockClock) -> None:
        """Both sides' ``run`` end with the reason, and so do the peer's waiting calls."""

        async def hang(_link: Link, _body: bytes) -> bytes:
            return await trio.sleep_forever()

        ends: list[LinkClosed] = []
        async with linked(Methods(calls={"hang": hang}), ends=ends) as (link, peer):
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    with pytest.raises(LinkClosed, match="was removed") as caught:
                        await link.call("hang")
                    assert isinstance(caught.value.reason, PermissionDenied)

                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                peer.close(PermissionDenied("node n1 was removed from the swarm"))
                with pytest.raises(LinkClosed):
                    await peer.call("anything")
            await trio.testing.wait_all_tasks_blocked()
            assert [type(end.reason) for end in ends] == [PermissionDenied, PermissionDenied]

    async def test_a_close_does_not_wait_for_a_peer_that_does_not_read(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """The reason is given ``close_s``; then the link ends all the same."""
        ours, _theirs = trio.testing.memory_stream_pair()
        dialled, _ = await open_pair(pair=(ours, _theirs))
        ours.send_stream.send_all_hook = trio.sleep_forever  # the network takes nothing more
        ends: list[LinkClosed] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_to_its_end, dialled, None, ends)
            await trio.sleep(1)
            began = trio.current_time()
            dialled.close("going")
        assert trio.current_time() - began <= 2 * LinkSettings().close_s + 0.01
        assert str(ends[0]).endswith(": going")

    async def test_cancelling_run_cancels_what_it_serves(self) -> None:
        """A link that is cut takes the methods it runs with it."""
        cancelled = trio.Event()

        async def work(_link: Link, _body: bytes) -> bytes:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        dialled, accepted = await open_pair()
        async with trio.open_nursery() as outer:
            outer.start_soon(run_to_its_end, dialled, None, [])
            async with trio.open_nursery() as inner:
                inner.start_soon(run_to_its_end, accepted, Methods(calls={"work": work}), [])

                async def call() -> None:
                    with pytest.raises(LinkClosed):
                        await dialled.call("work")

                outer.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
            assert cancelled.is_set()

    async def test_the_peers_reason_outweighs_a_write_that_failed(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """When a write fails because the peer is closing, its reason is still read and told."""

        async def refuse() -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

        ours, theirs = trio.testing.memory_stream_pair()
        dialled, accepted = await open_pair(pair=(ours, theirs))
        ours.send_stream.send_all_hook = refuse
        ends: list[LinkClosed] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_to_its_end, dialled, None, ends)
            dialled.send_nowait("m")
            await trio.testing.wait_all_tasks_blocked()
            accepted.close(PermissionDenied("node n1 was removed"))
            nursery.start_soon(run_to_its_end, accepted, None, [])
        assert isinstance(ends[0].reason, PermissionDenied)

    async def test_a_peer_that_asks_without_reading_is_cut_off(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Answers that pile up because the peer does not read end the link, not our memory."""
        monkeypatch.setattr("swarmctl.core.wire.link.MAX_UNREAD_BYTES", 50_000)
        ours, theirs = trio.testing.memory_stream_pair()
        asking, link = await open_pair(pair=(ours, theirs))
        theirs.send_stream.send_all_hook = trio.sleep_forever
        ends: list[LinkClosed] = []

        async def ask() -> None:
            with suppress(LinkClosed):
                await asking.call("no such call")

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_to_its_end, asking, None, [])
                nursery.start_soon(run_to_its_end, link, None, ends)
                await trio.testing.wait_all_tasks_blocked()  # else the asker may end itself first
                for _ in range(2000):
                    nursery.start_soon(ask)
        assert "does not read" in str(ends[0])

    async def test_a_peer_that_breaks_the_protocol_is_told_so(self) -> None:
        """Nonsense ends the link on our side, with the reason sent before."""
        ours, theirs = trio.testing.memory_stream_pair()
        dialled, accepted = await open_pair(pair=(ours, theirs))
        ends: list[LinkClosed] = []
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_to_its_end, accepted, None, ends)
                nursery.start_soon(run_to_its_end, dialled, None, ends)
                await trio.testing.wait_all_tasks_blocked()
                await ours.send_all(b"\x00\x00\x00\x01\xc1")
        assert len(ends) == 2
        assert all("malformed frame" in str(end) for end in ends)


class TestSilence:
    settings = LinkSettings(idle_s=5, pong_s=3)

    async def test_a_cut_cable_is_noticed(self, autojump_clock: trio.testing.MockClock) -> None:
        """A peer that sends nothing, not even a pong, is given up after idle and pong time."""
        ours, theirs = trio.testing.memory_stream_pair()
        dialled, _ = await open_pair(self.settings, (ours, theirs))

        async def swallow() -> None:
            await trio.lowlevel.checkpoint()

        theirs.send_stream.send_all_hook = swallow
        began = trio.current_time()
        with pytest.raises(LinkClosed, match="no sign of life"):
            await dialled.run()
        assert trio.current_time() - began == pytest.approx(8)

    async def test_a_quiet_peer_that_answers_pings_is_kept(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """Hours without a word are fine as long as somebody is there."""
        async with linked(Methods(calls={"echo": echo}), settings=self.settings) as (link, _):
            await trio.sleep(7200)
            assert await link.call("echo", b"x") == b"x"

    async def test_our_own_stall_is_not_held_against_the_peer(
        self, mock_clock: trio.testing.MockClock
    ) -> None:
        """When our loop stood still past the time, a pong that waits unread still counts."""
        ours, theirs = trio.testing.memory_stream_pair()
        dialled, accepted = await open_pair(self.settings, (ours, theirs))
        deliver = theirs.send_stream.send_all_hook
        ends: list[LinkClosed] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_to_its_end, dialled, None, ends)
            nursery.start_soon(run_to_its_end, accepted, None, ends)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                theirs.send_stream.send_all_hook = trio.lowlevel.checkpoint  # pongs are held back
                mock_clock.jump(self.settings.idle_s + 0.1)
                await trio.testing.wait_all_tasks_blocked()
                theirs.send_stream.send_all_hook = deliver
                trio.testing.memory_stream_pump(theirs.send_stream, ours.receive_stream)
                mock_clock.jump(100)
                await trio.testing.wait_all_tasks_blocked()
            assert ends == []
            nursery.cancel_scope.cancel()

    async def test_a_handshake_that_stalls_is_given_up(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """Somebody who connects and says nothing is dropped after ``handshake_s``."""
        ours, theirs = trio.testing.memory_stream_pair()
        began = trio.current_time()
        with pytest.raises(Unreachable, match="did not finish its handshake within 10 s"):
            await open_link(ours, None, dialling=False)
        assert trio.current_time() - began == pytest.approx(10)
        assert (await theirs.receive_some())[-1:] == b"" or await theirs.receive_some() == b""

    async def test_a_peer_that_hangs_up_instead_of_greeting_is_named(self) -> None:
        """An end before the Hello is LinkClosed, not a hang."""
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.aclose()
        with pytest.raises((LinkClosed, Unavailable), match="hung up during the handshake"):
            await open_link(ours, None, dialling=True)
