"""What Docker calls networks. Pure but for what an engine is asked."""

from __future__ import annotations

import ipaddress
from contextlib import nullcontext
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
    own_choice,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.engine import Engine, Refused
    from swarmctl.plugins.model import HostNetwork

BRIDGE_OPTION = "com.docker.network.bridge.name"
MTU_OPTION = "com.docker.network.driver.mtu"


class DockerNetworks:
    """Implements :class:`swarmctl.plugins.engine.NetworkWords`."""

    list_path = "/networks"
    arrivals: Mapping[str, Sequence[str]] = {
        "type": ["container", "network"],
        "event": ["start", "die", "destroy", "connect", "disconnect"],
    }

    def seen(self, row: Json) -> SeenNetwork:
        """Read one element of ``GET /networks``."""
        configs = (row.get("IPAM") or {}).get("Config") or ()
        return SeenNetwork(
            id=row["Id"],
            name=row["Name"],
            labels=row.get("Labels") or {},
            configs=[(one.get("Subnet", ""), one.get("Gateway", "")) for one in configs],
            own_choice=[_ends(one["IPRange"]) for one in configs if one.get("IPRange")],
        )

    def body(self, network: HostNetwork, identity: NodeIdentity) -> Body:
        """Return the body of ``POST /networks/create``."""
        options = {MTU_OPTION: str(MTU), **driver_options(network)}
        configs = [
            {"Subnet": subnet, "Gateway": gateway, "IPRange": _range(*ends)}
            for (subnet, gateway), ends in zip(
                ipam_configs(network), self.own_choice(network), strict=True
            )
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

    def own_choice(self, network: HostNetwork) -> list[tuple[str, str]]:
        """Without a room it is left with the gateway, which is taken."""
        return own_choice(network, lambda gateway: str(gateway.ip))

    def making(self, _network: HostNetwork) -> AbstractAsyncContextManager[None]:
        """Docker takes a bridge that is there for its own."""
        return nullcontext()

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


def _range(first: str, last: str) -> str:
    """Return a range as Docker writes it."""
    (block,) = ipaddress.summarize_address_range(
        ipaddress.ip_address(first), ipaddress.ip_address(last)
    )
    return str(block)


def _ends(block: str) -> tuple[str, str]:
    network = ipaddress.ip_network(block, strict=False)
    return str(network[0]), str(network[-1])
