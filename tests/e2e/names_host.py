"""What a daemon does for names, as a program: told a table, it keeps a responder and ends.

A table without networks means that the host leaves.

    python names_host.py STATE_DIR < told.json

Run in a lab host. The responder that it leaves is the next one's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import trio

from swarmctl.core.agent.network import Sandbox
from swarmctl.core.model.endpoints import EndpointTable
from swarmctl.plugins.overlay.dns.link import ResponderLink

PATIENCE_S = 20.0


class Told(msgspec.Struct):
    """What arrives on standard input; networks of sandboxes are waited for inside."""

    table: EndpointTable
    sandboxes: tuple[Sandbox, ...] = ()


class Said(msgspec.Struct):
    """What is printed at the end."""

    served: tuple[str, ...]
    problems: tuple[str, ...]


async def main() -> None:
    """Do it, and say how it went."""
    told = msgspec.json.decode(sys.stdin.buffer.read(), type=Told)
    link = ResponderLink(Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        link.want(told.table, told.sandboxes)
        with trio.fail_after(PATIENCE_S):
            if told.table.networks:
                await link.wait_current()
            else:
                await link.remove()
        nursery.cancel_scope.cancel()
    said = Said(tuple(sorted(link.served)), link.problems)
    sys.stdout.buffer.write(msgspec.json.encode(said))


if __name__ == "__main__":
    trio.run(main)
