"""The HTTP server over memory streams, with a clock that jumps."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.clock import TrioClock
from swarmctl.core.errors import LostLeadership, NotFound, OutOfSequence
from swarmctl.core.wire.http1 import Request, Response, json_response
from swarmctl.core.wire.http_server import (
    MAX_PIPELINED_BYTES,
    Connection,
    HttpLimits,
    Reply,
    SendChunk,
    StreamedResponse,
    Takeover,
    serve_http,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

GET = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"
COMMON = (
    ("Api-Version", "1.50"),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", "Docker/28.2.2 (linux)"),
)
Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose clients connect by ``connect``."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](100)

    def connect(self, pair: tuple[Stream, Stream] | None = None) -> Stream:
        ours, theirs = pair or trio.testing.memory_stream_pair()
        self._send.send_nowait(theirs)
        return ours

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        await self._receive.aclose()


@asynccontextmanager
async def serving(
    handler: Callable[[Request, Connection], Awaitable[Reply]], **options: object
) -> AsyncIterator[MemoryListener]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_http(
                [listener], handler, clock=TrioClock(), task_status=task_status, **options
            )
        )
        yield listener
        nursery.cancel_scope.cancel()


async def read_until(stream: Stream, ending: bytes) -> bytes:
    data = b""
    while not data.endswith(ending):
        more = await stream.receive_some()
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


async def read_to_end(stream: Stream) -> bytes:
    data = b""
    while more := await stream.receive_some():
        data += more
    return data


def message_of(data: bytes) -> str:
    return json.loads(data.partition(b"\r\n\r\n")[2])["message"]


async def hello(request: Request, connection: Connection) -> Reply:
    return Response(200, (), request.method.encode() + b" " + request.body + b".")


class TestAnswers:
    async def test_every_answer_carries_the_common_headers_and_the_date(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """Common headers go on answers, errors and refusals alike; a reply's own win."""

        async def handler(request: Request, connection: Connection) -> Reply:
            if request.path == "/missing":
                raise NotFound("service x not found")
            return json_response(200, b"{}", (("Server", "engine"),))

        async with serving(handler, common_headers=COMMON) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            own = await read_until(stream, b"{}\n")
            await stream.send_all(GET.replace(b"/ ", b"/missing "))
            missing = await read_until(stream, b"}\n")
            await stream.send_all(b"nonsense\r\n\r\n")
            refused = await read_to_end(stream)
        assert b"Server: engine\r\n" in own
        assert b"Server: Docker" not in own
        for answer in (missing, refused):
            for name, value in COMMON:
                assert f"{name}: {value}\r\n".encode() in answer
            assert b"\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n" in answer
        assert refused.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close" in refused

    @pytest.mark.parametrize(
        ("error", "status", "message"),
        [
            (NotFound("task x not found"), 404, "task x not found"),
            (OutOfSequence(), 500, "rpc error: code = Unknown desc = update out of sequence"),
            (LostLeadership("later"), 503, "rpc error: code = Unavailable desc = later"),
        ],
    )
    async def test_errors_are_answered_with_their_status_and_message(
        self, error: Exception, status: int, message: str
    ) -> None:
        """A SwarmError is answered as its class says, and the connection goes on."""

        async def handler(request: Request, connection: Connection) -> Reply:
            raise error

        async with serving(handler) as listener:
            stream = listener.connect()
            for _ in range(2):
                await stream.send_all(GET)
                answer = await read_until(stream, b"}\n")
                assert answer.startswith(b"HTTP/1.1 %d " % status)
                assert message_of(answer) == message

    async def test_a_bug_is_logged_and_not_shown(self, caplog: pytest.LogCaptureFixture) -> None:
        """An unforeseen exception gives a 500 without its text, which goes to the log."""

        async def handler(request: Request, connection: Connection) -> Reply:
            raise ZeroDivisionError("the secret is 42")

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            answer = await read_until(stream, b"}\n")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in answer  # "42" may be in the date
        assert "the secret is 42" in caplog.text

    async def test_an_unsendable_answer_is_a_500(self) -> None:
        """A header with a line break injects nothing: the client gets a 500."""

        async def handler(request: Request, connection: Connection) -> Reply:
            return Response(200, (("X", "a\r\nSet-Cookie: b"),))

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            assert (await read_until(stream, b"}\n")).startswith(b"HTTP/1.1 500 ")

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Three requests in one write give three answers, in order."""
        post = b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}"
        async with serving(hello) as listener:
            stream = listener.connect()
            await stream.send_all(GET + post + GET.replace(b"GET", b"DELETE"))
            answers = await read_until(stream, b"DELETE .")
        assert answers.index(b"GET .") < answers.index(b"POST {}.") < answers.index(b"DELETE .")

    async def test_a_bad_request_after_a_head_costs_its_own_connection(self) -> None:
        """Docker's clients begin with HEAD: what they then get wrong is refused like any other."""
        async with serving(hello) as listener:
            stream, other = listener.connect(), listener.connect()
            await stream.send_all(GET.replace(b"GET", b"HEAD"))
            await read_until(stream, b"\r\n\r\n")
            await stream.send_all(b"nonsense\r\n\r\n")
            refused = await read_to_end(stream)
            await other.send_all(GET)
            await read_until(other, b"GET .")
        assert refused.startswith(b"HTTP/1.1 400 ")
        assert "malformed" in message_of(refused)

    async def test_a_body_too_large_is_refused_while_the_client_still_sends(self) -> None:
        """The client reads 413 although it had not finished; the rest is read and dropped."""
        async with serving(hello, limits=HttpLimits(body_bytes=10)) as listener:
            stream = listener.connect()
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 1000\r\n\r\n")
            answer = await read_until(stream, b"}\n")
            await stream.send_all(b"x" * 1000)
            await stream.send_eof()
            assert await read_to_end(stream) == b""
        assert answer.startswith(b"HTTP/1.1 413 ")

    async def test_a_handler_can_read_an_upload_piece_by_piece(self) -> None:
        """Requests picked by ``streams_body`` are handled before their body has come."""
        sizes: list[int] = []

        async def handler(request: Request, connection: Connection) -> Reply:
            while piece := await connection.receive_body():
                sizes.append(len(piece))
            return Response(200, (), b"done")

        def picks(request: Request) -> bool:
            return request.path == "/build"

        async with serving(
            handler, streams_body=picks, limits=HttpLimits(body_bytes=10)
        ) as listener:
            stream = listener.connect()
            await stream.send_all(
                b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert await read_until(stream, b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
            for _ in range(3):
                await stream.send_all(b"7d0\r\n" + b"x" * 2000 + b"\r\n")
                await trio.testing.wait_all_tasks_blocked()
            assert sum(sizes) == 6000
            await stream.send_all(b"0\r\n\r\n")
            await read_until(stream, b"done")

    async def test_a_broken_upload_is_the_clients_fault(self) -> None:
        """When the body that a handler reads is malformed, the client is told 400."""

        async def handler(request: Request, connection: Connection) -> Reply:
            await connection.receive_body()
            raise AssertionError("there was no body to read")

        async with serving(handler, streams_body=lambda _: True) as listener:
            stream = listener.connect()
            await stream.send_all(
                b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            )
            assert (await read_until(stream, b"}\n")).startswith(b"HTTP/1.1 400 ")


class TestStreams:
    async def test_the_head_leaves_before_the_first_chunk(self) -> None:
        """A client of an endless answer learns its status at once."""
        go = trio.Event()

        async def handler(request: Request, connection: Connection) -> Reply:
            async def write(send: SendChunk) -> None:
                await go.wait()
                await send(b"event")

            return StreamedResponse(200, (("Content-Type", "application/json"),), write)

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            head = await read_until(stream, b"\r\n\r\n")
            assert b"Transfer-Encoding: chunked" in head
            go.set()
            assert await read_until(stream, b"0\r\n\r\n") == b"5\r\nevent\r\n0\r\n\r\n"
            await stream.send_all(GET)  # and the connection is good for another request
            await read_until(stream, b"0\r\n\r\n")

    async def test_a_client_that_leaves_cancels_the_handler(self) -> None:
        """The end of the connection cancels a handler that waits for the next event."""
        cancelled = trio.Event()

        async def handler(request: Request, connection: Connection) -> Reply:
            async def write(send: SendChunk) -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    cancelled.set()

            return StreamedResponse(200, (), write)

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            await read_until(stream, b"\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            assert not cancelled.is_set()
            await stream.aclose()
            with trio.fail_after(5):
                await cancelled.wait()

    async def test_a_client_that_talks_on_and_on_is_cut(self) -> None:
        """What a client sends during an endless answer is buffered up to a limit only."""

        async def wait(_send: SendChunk) -> None:
            await trio.sleep_forever()

        async def handler(request: Request, connection: Connection) -> Reply:
            return StreamedResponse(200, (), wait)

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            await read_until(stream, b"\r\n\r\n")
            await stream.send_all(b"x" * MAX_PIPELINED_BYTES)
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(b"x")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")

    async def test_a_writer_that_fails_leaves_the_answer_visibly_broken(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An answer that breaks off lacks its last chunk, so no client takes it for whole."""

        async def handler(request: Request, connection: Connection) -> Reply:
            async def write(send: SendChunk) -> None:
                await send(b"half")
                raise RuntimeError("engine gone")

            return StreamedResponse(200, (), write)

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            assert (await read_to_end(stream)).endswith(b"4\r\nhalf\r\n")
        assert "engine gone" in caplog.text

    async def test_head_of_a_stream_runs_the_writer_without_sending(self) -> None:
        """HEAD of an endless route gets headers only."""

        async def handler(request: Request, connection: Connection) -> Reply:
            return StreamedResponse(200, (), lambda send: send(b"data"))

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET.replace(b"GET", b"HEAD"))
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(GET)
            assert b"data" in await read_until(stream, b"0\r\n\r\n")


class TestTakeover:
    async def test_the_raw_stream_and_early_bytes_are_handed_over(self) -> None:
        """After ``101 UPGRADED`` the handler owns the stream, half-close included."""

        async def handler(request: Request, connection: Connection) -> Reply:
            async def run(stream: trio.abc.Stream, early: bytes) -> None:
                await stream.send_all(b"early " + early)
                while data := await stream.receive_some():
                    await stream.send_all(data.upper())
                await stream.send_all(b"bye")

            upgrade = (("Connection", "Upgrade"), ("Upgrade", "tcp"))
            return Takeover(101, upgrade, run)

        async with serving(handler, common_headers=COMMON) as listener:
            stream = listener.connect()
            await stream.send_all(
                b"POST /exec/1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n"
                b"Upgrade: tcp\r\nContent-Length: 2\r\n\r\n{}ls"
            )
            head = await read_until(stream, b"early ls")
            assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
            await stream.send_all(b"abc")
            assert await read_until(stream, b"ABC")
            await stream.send_eof()
            assert await read_to_end(stream) == b"bye"

    async def test_what_was_to_take_over_is_let_go_of_when_the_client_is_gone(self) -> None:
        """A client that hangs up before it reads the head never runs ``run``, but ``aclose``."""
        called: list[str] = []

        async def run(stream: trio.abc.Stream, early: bytes) -> None:
            called.append("run")

        async def let_go() -> None:
            called.append("aclose")

        async def handler(request: Request, connection: Connection) -> Reply:
            await stream.aclose()
            return Takeover(101, (("Connection", "Upgrade"), ("Upgrade", "tcp")), run, let_go)

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            await trio.testing.wait_all_tasks_blocked()
        assert called == ["aclose"]

    async def test_a_bug_in_it_costs_its_own_connection(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is logged; other clients are served on."""

        async def handler(request: Request, connection: Connection) -> Reply:
            async def run(_stream: trio.abc.Stream, _early: bytes) -> None:
                raise ValueError("the secret is 42")

            if request.path == "/":
                return await hello(request, connection)
            return Takeover(200, (), run)

        async with serving(handler) as listener:
            stream, other = listener.connect(), listener.connect()
            await stream.send_all(GET.replace(b"/ ", b"/attach "))
            assert b"secret" not in await read_to_end(stream)
            await other.send_all(GET)
            await read_until(other, b"GET .")
        assert "the secret is 42" in caplog.text


class TestLimits:
    async def test_an_idle_connection_is_closed(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """A connection kept alive without a request ends after ``idle_s``, silently."""
        async with serving(hello, limits=HttpLimits(idle_s=100)) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            await read_until(stream, b".")
            began = trio.current_time()
            assert await read_to_end(stream) == b""
            assert trio.current_time() - began == pytest.approx(100)

    async def test_a_request_that_never_ends_gets_408(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """Half a request is waited for ``request_s``, drop by drop or not."""
        async with serving(hello, limits=HttpLimits(request_s=30)) as listener:
            stream = listener.connect()
            for byte in b"GET / HTTP/1.1\r\n":
                await stream.send_all(bytes([byte]))
                await trio.sleep(1)
            began = trio.current_time()
            answer = await read_until(stream, b"}\n")
            assert trio.current_time() - began < 30
        assert answer.startswith(b"HTTP/1.1 408 ")

    async def test_a_client_that_does_not_read_its_answer_is_dropped(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """An answer nobody takes is given up after ``send_s``; the slot is free again."""
        async with serving(hello, limits=HttpLimits(send_s=9)) as listener:
            stream = listener.connect(trio.testing.lockstep_stream_pair())
            await stream.send_all(GET)
            await trio.sleep(10)
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(GET)

    async def test_when_every_slot_is_taken_the_longest_idle_connection_makes_room(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """More clients than slots are all served: idle ones go first, busy ones are left alone."""
        release = trio.Event()

        async def handler(request: Request, connection: Connection) -> Reply:
            if request.path == "/wait":
                await release.wait()
            return Response(200, (), b"ok.")

        async with serving(handler, limits=HttpLimits(connections=2)) as listener:
            busy, idle = listener.connect(), listener.connect()
            await busy.send_all(GET.replace(b"/ ", b"/wait "))
            for _ in range(2):  # as many clients as slots: nobody has to go
                await idle.send_all(GET)
                await read_until(idle, b"ok.")
            late = listener.connect()
            await late.send_all(GET)
            began = trio.current_time()
            await read_until(late, b"ok.")
            assert trio.current_time() == began
            assert await read_to_end(idle) == b""
            release.set()
            await read_until(busy, b"ok.")

    async def test_a_waiting_client_is_served_soon_after_a_slot_goes_idle(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        """While clients wait for a slot, nobody keeps one idle for long."""
        release = trio.Event()

        async def handler(request: Request, connection: Connection) -> Reply:
            if request.path == "/wait":
                await release.wait()
            return Response(200, (), b"ok.")

        async with serving(handler, limits=HttpLimits(connections=2)) as listener:
            busy = [listener.connect(), listener.connect()]
            for stream in busy:
                await stream.send_all(GET.replace(b"/ ", b"/wait "))
            await trio.testing.wait_all_tasks_blocked()
            late = listener.connect()
            await late.send_all(GET)
            await trio.testing.wait_all_tasks_blocked()
            release.set()
            began = trio.current_time()
            await read_until(late, b"ok.")
            assert trio.current_time() - began < 5

    async def test_cancelling_the_server_closes_every_connection(self) -> None:
        """Whoever cancels ``serve_http`` leaves no connection behind, busy or idle."""
        streams = []

        async def handler(request: Request, connection: Connection) -> Reply:
            return await trio.sleep_forever()

        async with serving(handler) as listener:
            streams = [listener.connect(), listener.connect()]
            await streams[0].send_all(GET)
            await trio.testing.wait_all_tasks_blocked()
        for stream in streams:
            assert await read_to_end(stream) == b""

    async def test_a_peers_reset_disturbs_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        """A connection that breaks in the middle of an answer is not even a warning."""
        caplog.set_level(logging.INFO)

        async def handler(request: Request, connection: Connection) -> Reply:
            await stream.aclose()
            return Response(200, (), b"x" * 100)

        async with serving(handler) as listener:
            stream = listener.connect()
            await stream.send_all(GET)
            await trio.testing.wait_all_tasks_blocked()
            assert not caplog.records
