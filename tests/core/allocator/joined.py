"""Networks, and services on them, for tests of the allocator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from swarmctl.core.model.change import Create, Delete, Kind, Ref
from swarmctl.core.model.network import make_network
from swarmctl.core.model.objects import IPAM, IPAMConfig, NetworkRow, NetworkSpec
from swarmctl.core.model.spec import (
    EndpointSpec,
    NetworkAttachmentConfig,
    PortConfig,
    ServiceSpec,
    TaskSpec,
)
from tests.core.pipeline.world import spec

if TYPE_CHECKING:
    from tests.core.pipeline.world import World


def add_network(
    world: World,
    name: str = "net",
    *subnets: str,
    ip_range: str = "",
    gateway: str = "",
    aux: dict[str, str] | None = None,
    **how: object,
) -> NetworkRow:
    """Create a network, as the API does, under its name as id."""
    configs = tuple(
        IPAMConfig(Subnet=subnet, IPRange=ip_range, Gateway=gateway, AuxiliaryAddresses=aux or {})
        for subnet in subnets
    )
    wanted = NetworkSpec(
        Name=name,
        Driver="overlay",
        IPAM=IPAM(Driver="default", Config=configs) if configs else None,
        **how,  # type: ignore[arg-type]
    )
    world.write(Create(row=make_network(name, wanted)))
    return network_of(world, name)


def network_of(world: World, network_id: str = "net") -> NetworkRow:
    row = world.view.network(network_id)
    assert row is not None
    return row


def subnets(world: World, network_id: str = "net") -> list[str]:
    return [config.Subnet for config in network_of(world, network_id).api.IPAM.Config or ()]


def drop_network(world: World, network_id: str = "net") -> None:
    version = network_of(world, network_id).private.version
    world.write(Delete(ref=Ref(Kind.NETWORK, network_id), version=version))


def on_networks(
    name: str = "web",
    *networks: str,
    replicas: int = 1,
    mode: str = "",
    image: str = "nginx",
    ports: tuple[PortConfig, ...] = (),
) -> ServiceSpec:
    """Return the spec of a service on networks."""
    joined = tuple(NetworkAttachmentConfig(Target=network) for network in networks)
    made = spec(name, replicas, task=TaskSpec(Networks=joined), image=image, ports=ports)
    return replace(made, EndpointSpec=EndpointSpec(Mode=mode, Ports=ports))


def addresses(world: World, service_id: str = "web") -> list[tuple[str, ...]]:
    """Return the addresses of a service's tasks, by slot, each with those of all its networks."""
    return [
        tuple(text for one in row.api.NetworksAttachments for text in one.Addresses)
        for row in world.runnable(service_id)
    ]


def vips(world: World, service_id: str = "web") -> dict[str, str]:
    """Return a service's virtual IPs by network; of two families the last."""
    row = world.view.service(service_id)
    assert row is not None
    return {vip.NetworkID: vip.Addr for vip in row.api.Endpoint.VirtualIPs}
