"""Asks as programs do, from an address of one's choice; and a node whose networks are loopback's.

Network ``n<i>`` is 127.9.<i>.0/24, its gateway .250, so that everything runs in one namespace and
without an interface of its own.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import dns.message
import trio

from swarmctl.core.model.endpoints import EndpointTable, NetworkTable, ServiceEndpoint
from swarmctl.core.model.task import HostNetwork
from tests.plugins.overlay.dns.tables import member, service

if TYPE_CHECKING:
    from collections.abc import Sequence

GATEWAY = "127.9.1.250"
TASK = "127.9.1.11"
PATIENCE_S = 8.0


def loop_network(number: int, *services: ServiceEndpoint) -> NetworkTable:
    """Return a network on loopback."""
    return NetworkTable(
        network=HostNetwork(
            id=f"n{number}",
            name=f"net{number}",
            subnets=(f"127.9.{number}.0/24",),
            gateways=(f"127.9.{number}.250/24",),
        ),
        services=services,
    )


def table(*networks: NetworkTable, vip: str = "127.9.1.2") -> EndpointTable:
    """Return a node's table: network 1 with ``web``, large ``db`` and task t1, unless others."""
    many = tuple(member(i, f"127.9.1.{i}") for i in range(20, 220))
    web = service("web", vips=(vip,), members=(member(1, TASK),))
    return EndpointTable(networks=networks or (loop_network(1, web, service("db", members=many)),))


async def ask(
    name: str = "web",
    kind: str = "A",
    *,
    port: int,
    at: str = GATEWAY,
    source: str = TASK,
    stream: bool = False,
) -> dns.message.Message:
    """Ask, and return the answer."""
    query = dns.message.make_query(name, kind, use_edns=False)
    with trio.fail_after(PATIENCE_S):
        exchange = send_stream if stream else send_datagram
        wire = await exchange(query.to_wire(), port=port, at=at, source=source)
    response = dns.message.from_wire(wire)
    assert response.id == query.id
    return response


async def send_datagram(wire: bytes, *, port: int, at: str = GATEWAY, source: str = TASK) -> bytes:
    """Send a datagram and return the next that comes."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind((source, 0))
        await sock.connect((at, port))
        await sock.send(wire)
        return await sock.recv(65_535)


async def send_stream(*wires: bytes, port: int, at: str = GATEWAY, source: str = TASK) -> bytes:
    """Send messages over one connection, all at once; return the last answer."""
    stream = await trio.open_tcp_stream(at, port, local_address=source)
    async with stream:
        await stream.send_all(b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires))
        data = b""
        answers = 0
        while True:
            while len(data) > 1 and len(data) >= 2 + int.from_bytes(data[:2], "big"):
                answer, data = _split(data)
                answers += 1
                if answers == len(wires):
                    return answer
            more = await stream.receive_some()
            if not more:
                raise ConnectionError("closed")
            data += more


def _split(data: bytes) -> tuple[bytes, bytes]:
    end = 2 + int.from_bytes(data[:2], "big")
    return data[2:end], data[end:]


def addresses(response: dns.message.Message) -> Sequence[str]:
    """Return the addresses of an answer, sorted."""
    return sorted(str(record) for rrset in response.answer for record in rrset)
