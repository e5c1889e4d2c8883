"""The CLI's blocking client against the real server on a real unix socket."""

from __future__ import annotations

import socket
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.cli.client import Answer, Client, ClientError
from swarmctl.core.wire.http1 import Request, Response, error_response
from swarmctl.core.wire.http_server import (
    Connection,
    HttpLimits,
    Reply,
    SendChunk,
    StreamedResponse,
    serve_http,
)
from swarmctl.core.wire.unix_listener import open_unix_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


async def handler(request: Request, connection: Connection) -> Reply:
    if request.path == "/stream":

        async def write(send: SendChunk) -> None:
            for line in (b"one\n", b"two\n"):
                await send(line)
            await trio.sleep_forever()

        return StreamedResponse(200, (), write)
    if request.path == "/peer":
        return Response(200, (), str(id(connection)).encode())
    if request.path == "/missing":
        return error_response(404, "service x not found")
    query = ",".join(f"{name}={value}" for name, value in request.query.pairs)
    content = request.headers.get("content-type", "none")
    return Response(200, (), f"{request.method} {query} {content} ".encode() + request.body)


@asynccontextmanager
async def serving(path: Path, limits: HttpLimits | None = None) -> AsyncIterator[None]:
    async with open_unix_listener(str(path)) as listener, trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_http(
                [listener], handler, limits=limits, task_status=task_status
            )
        )
        yield
        nursery.cancel_scope.cancel()


async def in_thread(path: Path, work: Callable[[Client], object]) -> object:
    def run() -> object:
        with Client(str(path)) as client:
            return work(client)

    return await trio.to_thread.run_sync(run)


async def test_requests_go_and_answers_come(tmp_path: Path) -> None:
    """Method, query and body arrive as given, and an answer comes back whatever its status."""
    path = tmp_path / "s.sock"

    def work(client: Client) -> None:
        assert client.request("GET", "/x", {"filters": '{"a":1}', "b": ""}).body == (
            b'GET filters={"a":1},b= none '
        )
        assert client.request("POST", "/x", body=b"{}").body == b"POST  application/json {}"
        assert client.request("HEAD", "/x") == Answer(
            200, client.request("HEAD", "/x").headers, b""
        )
        missing = client.request("GET", "/missing")
        assert (missing.status, missing.body) == (404, b'{"message":"service x not found"}\n')

    async with serving(path):
        await in_thread(path, work)


async def test_a_connection_is_used_again(tmp_path: Path) -> None:
    """Several requests of one client share one connection."""
    path = tmp_path / "s.sock"

    def work(client: Client) -> set[bytes]:
        return {client.request("GET", "/peer").body for _ in range(3)}

    async with serving(path):
        assert len(await in_thread(path, work)) == 1


async def test_a_connection_the_daemon_has_closed_is_replaced(tmp_path: Path) -> None:
    """After the daemon dropped an idle connection even a POST goes through, once."""
    path = tmp_path / "s.sock"
    first, closed = threading.Event(), threading.Event()

    def work(client: Client) -> bytes:
        client.request("GET", "/x")
        first.set()
        assert closed.wait(10)
        return client.request("POST", "/x", body=b"1").body

    async def watch() -> None:
        await trio.to_thread.run_sync(first.wait)
        await trio.sleep(0.05)  # real sockets, real time: the server's idle limit is 0.01 s
        await trio.testing.wait_all_tasks_blocked()  # and it has closed by now
        closed.set()

    async with serving(path, HttpLimits(idle_s=0.01)), trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        assert await in_thread(path, work) == b"POST  application/json 1"


async def test_a_stream_is_read_while_requests_go_on(tmp_path: Path) -> None:
    """Chunks come as they are sent, on a connection of their own; leaving hangs up."""
    path = tmp_path / "s.sock"

    def work(client: Client) -> list[bytes]:
        with client.stream("GET", "/stream") as (status, _headers, chunks):
            assert status == 200
            seen = [next(chunks)]
            assert client.request("GET", "/x").status == 200
            return [*seen, next(chunks)]

    async with serving(path):
        assert await in_thread(path, work) == [b"one\n", b"two\n"]


def test_a_missing_daemon_is_explained(tmp_path: Path) -> None:
    """Without a daemon the error says how to start one."""
    path = tmp_path / "s.sock"
    with pytest.raises(ClientError, match=r"no swarmctl daemon answers at .*swarmctl init"):
        Client(str(path)).request("GET", "/x")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(ClientError, match="no swarmctl daemon answers"):
        Client(str(path)).request("GET", "/x")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "sent no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", "broke off its answer"),
    ],
)
def test_what_is_no_answer_is_an_error(tmp_path: Path, answer: bytes, error: str) -> None:
    """A daemon that hangs up, talks nonsense or breaks off is told apart, and nothing is resent."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        requests: list[bytes] = []

        def serve_one() -> None:
            accepted, _ = server.accept()
            with accepted:
                requests.append(accepted.recv(65536))
                accepted.sendall(answer)

        thread = threading.Thread(target=serve_one)
        thread.start()
        with Client(str(path)) as client, pytest.raises(ClientError, match=error):
            client.request("POST", "/services/create", body=b"{}")
        thread.join()
    assert len(requests) == 1


@pytest.mark.parametrize("size", [2, 8 * 1024 * 1024])
def test_a_daemon_that_hangs_is_an_error(tmp_path: Path, size: int) -> None:
    """One that never answers, or never reads what is large, is given up in words."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()  # which connects clients, and that is all
        error = pytest.raises(ClientError, match=r"did not answer for 0\.2 s; see its log")
        with Client(str(path), answer_timeout_s=0.2) as client, error:
            client.request("POST", "/secrets/create", body=bytes(size))
