"""What Podman calls networks: netavark's bridges, in libpod's words."""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import asynccontextmanager, suppress
from pathlib import Path
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
    own_choice,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.engine import Engine
    from swarmctl.plugins.model import HostNetwork

DOCKERS_MTU = "com.docker.network.driver.mtu"
SIOCSIFFLAGS, SIOCSIFADDR, SIOCDIFADDR, SIOCBRDELBR = 0x8914, 0x8916, 0x8936, 0x89A1
CLEANUP_S = 5.0
_LINKS = Path("/sys/class/net")
_IPV6_ADDRESSES = Path("/proc/net/if_inet6")
HAS_ENDED = "exited"
"""Its network is taken down too. ``stopped`` comes before: conmon's cleanup still has to do that,
and would leave the bridge and its addresses behind if the container were taken off by then."""


class PodmanNetworks:
    """Implements :class:`swarmctl.plugins.engine.NetworkWords`."""

    list_path = "/networks/json"
    arrivals: Mapping[str, Sequence[str]] = {
        "type": ["container", "network"],
        "event": ["start", "died", "remove", "connect", "disconnect"],
    }

    def seen(self, row: Json) -> SeenNetwork:
        """Read one element of ``GET /networks/json``."""
        subnets = row.get("subnets") or ()
        return SeenNetwork(
            id=row["name"],  # libpod finds networks by name as well, and some calls only so
            name=row["name"],
            labels=row.get("labels") or {},
            configs=[(one.get("subnet", ""), one.get("gateway", "")) for one in subnets],
            own_choice=[
                (leased.get("start_ip", ""), leased.get("end_ip", ""))
                for one in subnets
                if (leased := one.get("lease_range"))
            ],
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
                {
                    "subnet": subnet,
                    "gateway": gateway,
                    "lease_range": {"start_ip": first, "end_ip": last},
                }
                for (subnet, gateway), (first, last) in zip(
                    ipam_configs(network), self.own_choice(network), strict=True
                )
            ],
            "ipv6_enabled": any(":" in subnet for subnet in network.subnets),
            "internal": network.internal,
            "dns_enabled": False,  # the network driver answers names, on every node alike
            # As on Docker, packets go from one bridge to another by way of published ports only.
            "options": {"mtu": mtu, "isolate": "true", **options},
            "labels": network_labels(network, identity),
        }

    def own_choice(self, network: HostNetwork) -> list[tuple[str, str]]:
        """Without a room it is left with one address by which nobody is reached, and gives that.

        With a range that holds the gateway alone Podman would look for another one for ever.
        """
        return own_choice(network, lambda gateway: str(gateway.network[-1]))

    @asynccontextmanager
    async def making(self, network: HostNetwork) -> AsyncIterator[None]:
        """Podman takes no subnet that an interface of the host has an address of.

        So the bridge of the network driver is without address and mark for that long; by its mark
        the driver knows it again, and gives it its address.
        """
        name = bridge_name(network.id)
        mark = await trio.to_thread.run_sync(hand_over, name)
        try:
            yield
        finally:
            if mark:
                with trio.move_on_after(CLEANUP_S, shield=True):
                    await trio.to_thread.run_sync(set_alias, name, mark)

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


def hand_over(name: str) -> str:
    """Take mark and addresses from the bridge of the network driver; return the mark.

    "" when there is no such bridge.
    """
    try:
        mark = (_LINKS / name / "ifalias").read_text().strip()
    except OSError:
        return ""
    if mark:
        set_alias(name, "")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, suppress(OSError):
            nowhere = struct.pack("16sH14x", name.encode(), socket.AF_INET)
            fcntl.ioctl(any_socket, SIOCSIFADDR, nowhere)
        _remove_ipv6_addresses(name)
    return mark


def set_alias(name: str, alias: str) -> None:
    """Mark an interface, if it is there."""
    with suppress(OSError):
        (_LINKS / name / "ifalias").write_text(f"{alias}\n")


def _remove_ipv6_addresses(name: str) -> None:
    with suppress(OSError):
        for line in _IPV6_ADDRESSES.read_text().splitlines():
            address, index, length, scope, _, device = line.split()
            if device == name and scope == "00":  # the kernel's own address of a link is not ours
                with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
                    packed = bytes.fromhex(address) + struct.pack(
                        "=Ii", int(length, 16), int(index, 16)
                    )
                    fcntl.ioctl(any_socket, SIOCDIFADDR, packed)
