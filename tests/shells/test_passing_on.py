"""Requests that are an engine's, through the front door to a stub on a real socket, and back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core.api.proxy import pass_on
from swarmctl.core.wire.http_server import serve_http

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from swarmctl.core.wire.http1 import Request
    from swarmctl.core.wire.http_server import Connection, Reply

OPEN = b"POST /v1.50/x?a=b%20c HTTP/1.1\r\nHost: d\r\n"


class Doors:
    """Our door and an engine behind it.

    Attributes:
        asked: what the engine was sent.
    """

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self._engine, self._door = str(folder / "engine"), str(folder / "door")
        self._nursery = nursery
        self.asked = b""

    async def open(self, answer: bytes, *, ends_with: bytes) -> None:
        """Open both; the engine answers once it was sent what ends so, and then says no more."""

        async def engine(stream: trio.SocketStream) -> None:
            while not self.asked.endswith(ends_with):
                self.asked += await stream.receive_some()
            await stream.send_all(answer)

        await self.open_before(engine if answer else None)

    async def open_before(
        self, engine: Callable[[trio.SocketStream], Awaitable[None]] | None
    ) -> None:
        """Open our door before an engine that does so with each connection, or before none."""
        if engine is not None:
            await self._serve(self._engine, partial(trio.serve_listeners, engine))
        serve = partial(serve_http, handler=self._hand_on, streams_body=lambda _request: True)
        await self._serve(self._door, serve)

    async def leave(self, said: bytes) -> None:
        """Send this to our door and hang up."""
        async with await trio.open_unix_socket(self._door) as stream:
            await stream.send_all(said)

    async def ask(self, said: bytes) -> bytes:
        """Send this to our door and return all that comes until it closes."""
        with trio.fail_after(10):
            async with await trio.open_unix_socket(self._door) as stream:
                await stream.send_all(said)
                return b"".join([data async for data in stream])

    async def _hand_on(self, request: Request, connection: Connection) -> Reply:
        return await pass_on(self._engine, request, connection)

    async def _serve(self, path: str, serve: Callable[..., Awaitable[None]]) -> None:
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(path)
        listener.listen(8)
        await self._nursery.start(serve, [trio.SocketListener(listener)])


@pytest.fixture
def doors(tmp_path: Path, nursery: trio.Nursery) -> Doors:
    return Doors(tmp_path, nursery)


async def test_bodies_pass_piece_by_piece(doors: Doors) -> None:
    """Both ways; without the version's prefix, with the query, and each side's own headers."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nServer: Docker\r\nX-A: b\r\n\r\n"
    await doors.open(head + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", ends_with=b"\r\n0\r\n\r\n")
    chunks = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nup\r\n0\r\n\r\n"
    head, _, body = (await doors.ask(OPEN + chunks)).partition(b"\r\n\r\n")
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert b"x-a: b" in head.lower()
    assert b"Docker" not in head
    assert doors.asked.startswith(b"POST /x?a=b%20c HTTP/1.1\r\n")
    assert doors.asked.endswith(b"\r\n\r\n2\r\nup\r\n0\r\n\r\n")
    assert b"close" not in doors.asked


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        ("GET", b"200 OK\r\nContent-Length: 2\r\n\r\nok", b"\r\n\r\nok"),
        ("HEAD", b"200 OK\r\nX-Stat: s\r\n\r\n", b"x-stat: s\r\n"),
        ("DELETE", b"204 No Content\r\n\r\n", b"HTTP/1.1 204"),
    ],
)
async def test_short_answers_are_whole(
    doors: Doors, method: str, answer: bytes, expected: bytes
) -> None:
    """With a length, without a body, and where none may be."""
    await doors.open(b"HTTP/1.1 " + answer, ends_with=b"\r\n\r\n")
    asked = f"{method} /x HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode()
    assert expected in await doors.ask(asked)


@pytest.mark.parametrize(
    ("asks", "answers"),
    [
        (b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b"101 UPGRADED\r\nUpgrade: tcp\r\n"),
        (b"", b"200 OK\r\n"),
    ],
)
async def test_a_connection_that_the_engine_takes_over(
    doors: Doors, asks: bytes, answers: bytes
) -> None:
    """Asked for by an upgrade, or as older clients do: from then on it is bytes both ways."""
    head = b"HTTP/1.1 " + answers + b"Content-Type: application/vnd.docker.raw-stream\r\n\r\n"
    await doors.open(head + b"raw", ends_with=b"{}")
    heard = await doors.ask(OPEN + asks + b"Content-Length: 2\r\n\r\n{}")
    assert heard.startswith(b"HTTP/1.1 " + answers[:3])
    assert heard.endswith(b"\r\n\r\nraw")


@pytest.mark.parametrize(
    ("answer", "text"), [(b"", b"does not answer at unix://"), (b"HTTP/1.1 2", b"broke off")]
)
async def test_an_engine_that_is_away(doors: Doors, answer: bytes, text: bytes) -> None:
    """Or breaks off before it has answered: 503, and why."""
    await doors.open(answer, ends_with=b"\r\n\r\n")
    heard = await doors.ask(b"GET /x HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 503")
    assert text in heard


async def test_a_refusal_that_does_not_wait_for_the_upload(doors: Doors) -> None:
    """An engine may answer and go before it has read all: its answer is the client's."""
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 7\r\n\r\nno name"
    await doors.open(answer, ends_with=b"u")
    body = b"u" * 8_000_000  # more than the sockets hold
    heard = await doors.ask(OPEN + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert heard.startswith(b"HTTP/1.1 400")
    assert heard.endswith(b"\r\n\r\nno name")


async def test_a_malformed_upload_is_not_the_engines_fault(doors: Doors) -> None:
    """Who sends one is told so; the engine hears the end of it."""
    over = trio.Event()

    async def engine(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass
        over.set()

    await doors.open_before(engine)
    heard = await doors.ask(OPEN + b"Transfer-Encoding: chunked\r\n\r\nnone\r\n")
    assert heard.startswith(b"HTTP/1.1 400")
    assert b"malformed" in heard
    with trio.fail_after(10):
        await over.wait()


async def test_a_client_that_vanishes_before_its_upgrade(doors: Doors) -> None:
    """What the engine took over for it ends too."""
    gone, over = trio.Event(), trio.Event()

    async def engine(stream: trio.SocketStream) -> None:
        await gone.wait()
        await stream.send_all(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n")
        async for _ in stream:
            pass
        over.set()

    await doors.open_before(engine)
    await doors.leave(OPEN + b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    gone.set()
    with trio.fail_after(10):
        await over.wait()
