"""A small real name server on loopback: what the responder passes questions on to, in tests."""

from __future__ import annotations

import contextlib
import functools
import socket
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Respond = Callable[[dns.message.Message], "dns.message.Message | bytes | None"]


class Server:
    """Answers over UDP and TCP what ``respond`` says; None is silence.

    Attributes:
        asked: every question, as (transport, name).
    """

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.asked: list[tuple[str, str]] = []

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        self.asked.append((transport, query.question[0].name.to_text()))
        answer = self.respond(query)
        return answer.to_wire() if isinstance(answer, dns.message.Message) else answer


def address(text: str = "192.0.2.1", *, cut: bool = False) -> Respond:
    """Return what answers every question with an address; ``cut``: and says that more was lost."""

    def respond(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", text))
        if cut:
            response.flags |= dns.flags.TC
        return response

    return respond


def code(rcode: dns.rcode.Rcode) -> Respond:
    """Return what answers every question with a code."""

    def respond(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        return response

    return respond


def silence(query: dns.message.Message) -> None:
    """Answer nothing."""


@contextlib.asynccontextmanager
async def serving(port: int, **responds: Respond) -> AsyncIterator[dict[str, Server]]:
    """Run a server for each name, which stands for an address: ``a1`` is 127.0.1.1.

    All listen on one port, since that is how name servers are told apart.
    """
    servers = {name: Server(respond) for name, respond in responds.items()}
    async with trio.open_nursery() as nursery:
        for name, server in servers.items():
            await nursery.start(_serve, server, ip(name), port)
        yield servers
        nursery.cancel_scope.cancel()


def ip(name: str) -> str:
    """Return the address of the server called ``a<n>``."""
    return f"127.0.1.{name[1:]}"


def free_port() -> int:
    """Return a port that nobody has on those addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.1.1", 0))
        return int(sock.getsockname()[1])


async def _serve(
    server: Server,
    host: str,
    port: int,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    listeners = await trio.open_tcp_listeners(port, host=host)
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind((host, port))
        async with trio.open_nursery() as nursery:
            await nursery.start(
                functools.partial(trio.serve_listeners, handler_nursery=nursery),
                functools.partial(_serve_stream, server),
                listeners,
            )
            task_status.started()
            while True:
                wire, source = await sock.recvfrom(4096)
                answer = server.answer(wire, "udp")
                if answer is not None:
                    await sock.sendto(answer, source)


async def _serve_stream(server: Server, stream: trio.SocketStream) -> None:
    data = b""
    async for chunk in stream:
        data += chunk
        if len(data) > 1 and len(data) >= 2 + int.from_bytes(data[:2], "big"):
            answer = server.answer(data[2:], "tcp")
            if answer is not None:
                await stream.send_all(len(answer).to_bytes(2, "big") + answer)
            return
