"""Clients of an etcd: raw gRPC puts, closed loop, a connection each. Run by ``raft_alone``.

Needs grpcio and the standard library, nothing else: the request is so small that its protobuf is
written by hand.
"""

from __future__ import annotations

import asyncio
import time

import grpc  # type: ignore[import-not-found, import-untyped, unused-ignore] # its own interpreter

from benchmarks.closed_loop import Meter, key_of, options, value

_PUT = "/etcdserverpb.KV/Put"


async def main() -> None:
    """Put until the time is over, then say how it went."""
    wanted = options("etcd_puts")
    # Without this all channels to one address would share one connection.
    apart = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(wanted.target, apart) for _ in range(wanted.clients)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    meter = Meter(wanted.warm, wanted.seconds)
    await asyncio.gather(*(_ask(meter, number, one) for number, one in enumerate(channels)))
    meter.report()
    await asyncio.gather(*(channel.close() for channel in channels))


async def _ask(meter: Meter, client: int, channel: grpc.aio.Channel) -> None:
    put = channel.unary_unary(_PUT)
    body, turn = value(), 0
    while meter.running:
        started = time.perf_counter()
        await put(_put_request(key_of(client, turn), body))
        meter.note(started)
        turn += 1


def _put_request(key: bytes, body: bytes) -> bytes:
    """A PutRequest: field 1 is the key, field 2 the value, each after a varint of its length."""
    length = bytes((len(body) & 0x7F | 0x80, len(body) >> 7))
    return b"\x0a" + bytes((len(key),)) + key + b"\x12" + length + body


if __name__ == "__main__":
    asyncio.run(main())
