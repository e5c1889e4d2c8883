"""What Podman calls networks: netavark's bridges, in libpod's words."""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from swarmctl.plugins import bridge_name
from swarmctl.plugins.engine import (
    MTU,
    NETWORK_LABEL,
    Body,
    Json,
    Refused,
    SeenNetwork,
    driver_options,
    ipam_configs,
    network_labels,
    quoted,
)

if TYPE_CHECKING:
    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.engine import Engine
    from swarmctl.plugins.model import HostNetwork

DOCKERS_MTU = "com.docker.network.driver.mtu"
SIOCSIFFLAGS, SIOCBRDELBR = 0x8914, 0x89A1
HAS_ENDED = "exited"
"""Its network is taken down too. ``stopped`` comes before: conmon's cleanup still has to do that,
and would leave the bridge and its addresses behind if the container were taken off by then."""


class PodmanNetworks:
    """Implements :class:`swarmctl.plugins.engine.NetworkWords`."""

    list_path = "/networks/json"

    def seen(self, row: Json) -> SeenNetwork:
        """Read one element of ``GET /networks/json``."""
        subnets = row.get("subnets") or ()
        return SeenNetwork(
            id=row["name"],  # libpod finds networks by name as well, and some calls only so
            name=row["name"],
            labels=row.get("labels") or {},
            configs=[(one.get("subnet", ""), one.get("gateway", "")) for one in subnets],
        )

    def body(self, network: HostNetwork, identity: NodeIdentity) -> Body:
        """Return the body of ``POST /networks/create``."""
        options = driver_options(network)
        mtu = options.pop(DOCKERS_MTU, str(MTU))
        return {
            "name": network.name,
            "driver": "bridge",
            "network_interface": bridge_name(network.id),
            "subnets": [
                {"subnet": subnet, "gateway": gateway} for subnet, gateway in ipam_configs(network)
            ],
            "ipv6_enabled": any(":" in subnet for subnet in network.subnets),
            "internal": network.internal,
            "dns_enabled": False,  # the network driver answers names, on every node alike
            # As on Docker, packets go from one bridge to another by way of published ports only.
            "options": {"mtu": mtu, "isolate": "true", **options},
            "labels": network_labels(network, identity),
        }

    def exists_already(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.NetworkWords`."""
        return error.status == 409 or "already used" in str(error) or "exists" in str(error)

    def is_in_use(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.NetworkWords`."""
        return error.status == 409 or "being used" in str(error)

    async def remove(self, engine: Engine, network: SeenNetwork) -> None:
        """Remove a network; ended containers are taken off it first, which Podman asks for.

        Its own way of forcing a removal would take running containers along.
        """
        on_it = msgspec.json.encode({"network": [network.name]}).decode()
        rows = await engine.get("/containers/json", all="1", filters=on_it)
        if any(row["State"] != HAS_ENDED for row in rows):
            raise Refused(409, f"network {network.name} is being used")
        path = f"/networks/{quoted(network.name)}"
        for row in rows:
            await engine.change(f"{path}/disconnect", {"Container": row["Id"], "Force": True})
        await engine.delete(path)
        if network_id := network.labels.get(NETWORK_LABEL):
            await trio.to_thread.run_sync(_remove_bridge, bridge_name(network_id))


def _remove_bridge(name: str) -> None:
    """Remove the bridge from the kernel, in a thread.

    netavark leaves one to which somebody else's interface was connected when its last container
    went, such as the network driver's tunnel; its addresses would be taken for the host's own.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, suppress(OSError):
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), 0))  # down
        fcntl.ioctl(any_socket, SIOCBRDELBR, struct.pack("16s", name.encode()))
