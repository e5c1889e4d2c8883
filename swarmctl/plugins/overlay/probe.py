"""Pings, from any namespace of this host, of any size."""

from __future__ import annotations

import itertools
import socket
import struct
from typing import TYPE_CHECKING

import trio

from swarmctl.plugins import Probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swarmctl.plugins.model import NetworkTable

    from .namespaces import Namespace

PROBES_MAX = 32
ANSWER_S = 1.0
_ICMP = {socket.AF_INET: (1, 8, 0), socket.AF_INET6: (58, 128, 129)}  # protocol, echo, reply
_DO_NOT_SPLIT = {
    socket.AF_INET: (socket.IPPROTO_IP, 10, 3),  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 3),
}
_IP_BYTES = {socket.AF_INET: 20, socket.AF_INET6: 40}
_ICMP_BYTES = 8
_HEADERS_BYTES_MAX = 60 + _ICMP_BYTES
_MARK = b"swarmctl"
_numbers = itertools.count(1)


def choose(
    source: str, networks: Iterable[NetworkTable], node_id: str
) -> Iterator[tuple[str, str, str]]:
    """Yield network, task and address of each ready member elsewhere that a task should reach."""
    for part in networks:
        for service in part.services:
            for member in service.members:
                is_elsewhere = member.task_id != source and member.node_id != node_id
                if member.ready and is_elsewhere and not member.on_host:
                    for address in member.addresses:
                        yield part.network.name, member.task_id, address


async def try_path(
    namespace: Namespace, network: str, source: str, target: str, address: str
) -> Probe:
    """Ping an address from a task's namespace, once."""
    began = trio.current_time()
    error = await ping(namespace, address)
    took_ns = max(1, int((trio.current_time() - began) * 1e9))
    return Probe(
        network=network,
        source=source,
        target=f"{target} {address}",
        took_ns=0 if error else took_ns,
        error=error,
    )


async def ping(namespace: Namespace, address: str, *, size: int = 0) -> str:
    """Ping an address from a namespace, once; return why there was no answer, or "".

    Args:
        size: of the packet, which then must not be split on the way.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocol, echo, _ = _ICMP[family]
    number = next(_numbers) & 0xFFFF
    try:
        with namespace.entered():
            pinger = socket.socket(family, socket.SOCK_RAW, protocol)
    except OSError as error:
        await trio.lowlevel.checkpoint()
        return error.strerror or str(error)
    with pinger:
        pinger.setblocking(False)
        if size:
            pinger.setsockopt(*_DO_NOT_SPLIT[family])
        payload = _MARK.ljust(size - _IP_BYTES[family] - _ICMP_BYTES, b"\0")
        try:
            pinger.sendto(_request(echo, number, payload), (address, 0))
        except OSError as error:
            await trio.lowlevel.checkpoint()
            return error.strerror or str(error)
        with trio.move_on_after(ANSWER_S):
            while True:
                await trio.lowlevel.wait_readable(pinger)
                try:
                    data, sender = pinger.recvfrom(_HEADERS_BYTES_MAX)
                except OSError:
                    continue  # something was damaged on the way
                if sender[0] == address and is_reply(data, family, number):
                    return ""
    return f"no answer within {ANSWER_S:g} s"


def is_reply(data: bytes, family: socket.AddressFamily, number: int) -> bool:
    """Return whether a packet answers a ping; a raw socket is given whatever anybody sends."""
    start = (data[0] & 15) * 4 if data and family == socket.AF_INET else 0
    if len(data) < start + _ICMP_BYTES:
        return False
    kind, _, _, its_number = struct.unpack_from("!BBHH", data, start)
    return (kind, its_number) == (_ICMP[family][2], number)


def _request(echo: int, number: int, payload: bytes) -> bytes:
    """Return an echo request; its checksum is the kernel's business with IPv6."""
    body = struct.pack("!BBHHH", echo, 0, 0, number, 1) + payload + bytes(len(payload) % 2)
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return body[:2] + struct.pack("!H", checksum) + body[4:]
