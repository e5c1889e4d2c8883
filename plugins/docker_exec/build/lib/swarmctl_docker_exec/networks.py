"""What Docker calls networks. Pure but for what an engine is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins import bridge_name
from swarmctl.plugins.engine import (
    MTU,
    Body,
    Json,
    SeenNetwork,
    driver_options,
    ipam_configs,
    network_labels,
)

if TYPE_CHECKING:
    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.engine import Engine, Refused
    from swarmctl.plugins.model import HostNetwork

BRIDGE_OPTION = "com.docker.network.bridge.name"
MTU_OPTION = "com.docker.network.driver.mtu"


class DockerNetworks:
    """Implements :class:`swarmctl.plugins.engine.NetworkWords`."""

    list_path = "/networks"

    def seen(self, row: Json) -> SeenNetwork:
        """Read one element of ``GET /networks``."""
        configs = (row.get("IPAM") or {}).get("Config") or ()
        return SeenNetwork(
            id=row["Id"],
            name=row["Name"],
            labels=row.get("Labels") or {},
            configs=[(one.get("Subnet", ""), one.get("Gateway", "")) for one in configs],
        )

    def body(self, network: HostNetwork, identity: NodeIdentity) -> Body:
        """Return the body of ``POST /networks/create``."""
        options = {MTU_OPTION: str(MTU), **driver_options(network)}
        configs = [
            {"Subnet": subnet, "Gateway": gateway} for subnet, gateway in ipam_configs(network)
        ]
        return {
            "Name": network.name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": network.internal,
            "EnableIPv6": any(":" in subnet for subnet in network.subnets),
            "IPAM": {"Driver": "default", "Config": configs},
            "Options": {**options, BRIDGE_OPTION: bridge_name(network.id)},
            "Labels": network_labels(network, identity),
        }

    def exists_already(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.NetworkWords`."""
        return error.status == 409 or "file exists" in str(
            error
        )  # a bridge of the network driver's

    def is_in_use(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.NetworkWords`."""
        return error.status in (403, 409)

    async def remove(self, engine: Engine, network: SeenNetwork) -> None:
        """Remove a network; to Docker only running containers are on it."""
        await engine.delete(f"/networks/{network.id}")
