"""A swarm of two hosts as its network drivers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swarmctl.plugins.model import (
    EndpointTable,
    HostNetwork,
    NetworkTable,
    Peer,
    PublishedPort,
    ServiceEndpoint,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import ExitStack

    from swarmctl.plugins.model import Member
    from tests.plugins.overlay.wire import Container, Driver, Host

NET, INGRESS = "netaaaaaaaaaaaaaaaaaaaaa", "ingressaaaaaaaaaaaaaaaaaa"
VIP, VIP6 = "10.0.1.2", "fd00:1::2"
_SUBNETS = {NET: ("10.0.1", "fd00:1"), INGRESS: ("10.0.0", "fd00:9")}


def gateways(network_id: str, host: Host) -> tuple[str, str]:
    """A host's own addresses in a network."""
    four, six = _SUBNETS[network_id]
    last = 250 + int(host.node[-1])
    return f"{four}.{last}/24", f"{six}::{last:x}/64"


class Scene:
    """Hosts, and a service ``web`` with members a1 on the first, b1 and b2 on the second.

    Attributes:
        client: a container on the first host that is no member.
        unready, gone: names of members that are not ready, or have left.
        members_of: who has a published port, by its number, where that is not the service.
        internal: whether the network is.
    """

    def __init__(self, stack: ExitStack, hosts: list[Host]) -> None:
        self.stack = stack
        self.hosts = hosts
        self.wire = hosts[0].wire
        self.published: tuple[PublishedPort, ...] = ()
        self.unready: set[str] = set()
        self.gone: set[str] = set()
        self.internal = False
        self.members_of: dict[int, tuple[Member, ...]] = {}
        for host in hosts:
            for network_id in (NET, INGRESS):
                host.bridge(network_id, *gateways(network_id, host))
        a, b = hosts
        self.members = [
            self.container(host, name, number)
            for host, name, number in ((a, "a1", 11), (b, "b1", 12), (b, "b2", 13))
        ]
        self.client = self.container(a, "client", 20)
        for member in self.members:
            member.serve(stack)
        self.drivers: list[Driver] = [host.start_driver() for host in hosts]

    def container(self, host: Host, name: str, number: int) -> Container:
        """Make a container on both networks, as an executor does."""
        made = host.container(name)
        made.join(NET, f"10.0.1.{number}", f"fd00:1::{number:x}")
        made.join(
            INGRESS,
            f"10.0.0.{number}",
            f"fd00:9::{number:x}",
            gateway=gateways(INGRESS, host)[0].partition("/")[0],
        )
        return made

    def publish(self, **parts: object) -> None:
        """Publish port 8080 of the service."""
        parts = {"published": 8080, "target": 80, **parts}
        self.published += (
            PublishedPort(service_id="s", service_name="web", **parts),  # type: ignore[arg-type]
        )

    def table(self, host: Host) -> EndpointTable:
        """What a host's driver is told."""
        return EndpointTable(
            own_addr=host.address,
            networks=(
                self._network(NET, 4097, host, (VIP, VIP6)),
                self._network(INGRESS, 4096, host, ()),
            ),
            published=tuple(
                msgspec.structs.replace(
                    port, members=self.members_of.get(port.published, self._members(INGRESS))
                )
                for port in self.published
            ),
        )

    def agree(self, hosts: Collection[int] = (0, 1)) -> list[dict]:
        """Have every driver want its table, and wait until all have it; return their states."""
        return [
            self.drivers[place].want(
                self.table(self.hosts[place]),
                *(
                    one
                    for one in [*self.members, self.client]
                    if one.host is self.hosts[place] and one.task not in self.gone
                ),
            )
            for place in hosts
        ]

    def findings(self, kind: str) -> list[tuple[str, str, str]]:
        """What the first host's doctor finds of a kind: which, table and kernel."""
        found = self.drivers[0].call(do="doctor", brief=False, probe=False)["findings"]
        return [
            (one["subject"], one["table"], one["kernel"]) for one in found if one["kind"] == kind
        ]

    def _network(
        self, network_id: str, vni: int, host: Host, vips: tuple[str, ...]
    ) -> NetworkTable:
        return NetworkTable(
            network=HostNetwork(
                id=network_id,
                name=network_id[:3],
                vni=vni,
                gateways=gateways(network_id, host),
                ingress=network_id == INGRESS,
                internal=self.internal and network_id == NET,
            ),
            peers=tuple(
                Peer(node_id=one.node, addr=one.address, gateways=gateways(network_id, one))
                for one in self.hosts
                if one is not host
            ),
            services=(
                ServiceEndpoint(
                    service_id="s", names=("web",), vips=vips, members=self._members(network_id)
                ),
                ServiceEndpoint(
                    service_id="c", names=("client",), members=(self.client.member(network_id),)
                ),
            ),
        )

    def _members(self, network_id: str) -> tuple:
        return tuple(
            one.member(network_id, ready=one.task not in self.unready)
            for one in self.members
            if one.task not in self.gone
        )
