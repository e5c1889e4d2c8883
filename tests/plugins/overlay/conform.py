"""Puts the overlay driver through the laws of network drivers, in the namespace it starts in."""

from __future__ import annotations

import json
import sys

import msgspec
import trio

from swarmctl.plugins import NetworkDriverSettings, NodeIdentity, Sandbox
from swarmctl.plugins.model import EndpointTable
from swarmctl.plugins.overlay.driver import OverlayDriver
from swarmctl.plugins.testing import check_network_driver


async def main() -> None:
    """Read identity, table and sandboxes from standard input; raise where a law is broken."""
    words = json.loads(sys.stdin.read())
    node = words["node"]
    await check_network_driver(
        lambda: OverlayDriver(NetworkDriverSettings(state_dir=words["state_dir"])),
        identity=NodeIdentity(
            cluster_id="c", node_id=node, hostname=node, state_dir=words["state_dir"]
        ),
        table=msgspec.convert(words["table"], EndpointTable),
        sandboxes=[msgspec.convert(one, Sandbox) for one in words["sandboxes"]],
    )


if __name__ == "__main__":
    trio.run(main)
