"""Clients of ``raft_node``: puts over the product's own links, closed loop, a connection each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from benchmarks.closed_loop import Meter, key_of, options, value
from swarmctl.core.wire.connect import open_link

if TYPE_CHECKING:
    from swarmctl.core.wire.link import Link


async def main() -> None:
    """Put until the time is over, then say how it went."""
    wanted = options("raft_puts")
    host, _, port = wanted.target.rpartition(":")
    async with trio.open_nursery() as nursery:
        links = [await _connect(nursery, host, int(port)) for _ in range(wanted.clients)]
        meter = Meter(wanted.warm, wanted.seconds)
        async with trio.open_nursery() as asking:
            for number, link in enumerate(links):
                asking.start_soon(_ask, meter, number, link)
        meter.report()
        nursery.cancel_scope.cancel()


async def _connect(nursery: trio.Nursery, host: str, port: int) -> Link:
    """Connect in plain text, and run the link in the nursery."""
    link = await open_link(await trio.open_tcp_stream(host, port), None, dialling=True)
    nursery.start_soon(link.run)
    return link


async def _ask(meter: Meter, client: int, link: Link) -> None:
    body, turn = value(), 0
    while meter.running:
        started = time.perf_counter()
        await link.call("put", key_of(client, turn) + body)
        meter.note(started)
        turn += 1


if __name__ == "__main__":
    trio.run(main)
