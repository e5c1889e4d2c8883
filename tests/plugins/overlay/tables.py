"""Endpoint tables for the tests, small ones by hand and any by chance."""

from __future__ import annotations

from hypothesis import strategies as st

from swarmctl.plugins.model import (
    EndpointTable,
    HostNetwork,
    Member,
    NetworkTable,
    Peer,
    PublishedPort,
    ServiceEndpoint,
)

NODES = ("node1", "node2", "node3")
UNDERLAY = {"node1": "10.77.0.1", "node2": "10.77.0.2", "node3": "10.77.0.3"}
NET_ID, INGRESS_ID = "netaaaaaaaaaaaaaaaaaaaaaa", "ingressaaaaaaaaaaaaaaaaaa"
BRIDGE, DEVICE = "sw-netaaaaaaaaa", "sx-netaaaaaaaaa"


def member(
    number: int,
    node: str = "node2",
    *,
    subnet: str = "10.0.1",
    ready: bool = True,
    on_host: bool = False,
    six: bool = False,
) -> Member:
    """A member with an address by its number."""
    addresses = (UNDERLAY[node],) if on_host else (f"{subnet}.{number}",)
    if six and not on_host:
        addresses += (f"fd00:{subnet.rpartition('.')[2]}::{number:x}",)
    return Member(
        task_id=f"task{number}", node_id=node, addresses=addresses, ready=ready, on_host=on_host
    )


def service(*members: Member, name: str = "web", vip: str = "10.0.1.2") -> ServiceEndpoint:
    """A service with a virtual address, unless that is empty."""
    return ServiceEndpoint(
        service_id=f"id-{name}", names=(name,), vips=(vip,) if vip else (), members=members
    )


def network(
    *services: ServiceEndpoint,
    network_id: str = NET_ID,
    vni: int = 4097,
    own: str = "node1",
    subnet: str = "10.0.1",
    six: bool = False,
    ingress: bool = False,
    mtu: str = "",
) -> NetworkTable:
    """A network as a node sees it, with all the others as peers."""

    def gateways(node: str) -> tuple[str, ...]:
        last = 250 + NODES.index(node)
        four = f"{subnet}.{last}/24"
        tail = subnet.rpartition(".")[2]
        return (four, f"fd00:{tail}::{last:x}/64") if six else (four,)

    return NetworkTable(
        network=HostNetwork(
            id=network_id,
            name="ingress" if ingress else "net",
            vni=vni,
            gateways=gateways(own),
            ingress=ingress,
            options={"com.docker.network.driver.mtu": mtu} if mtu else {},
        ),
        peers=tuple(
            Peer(node_id=node, addr=UNDERLAY[node], gateways=gateways(node))
            for node in NODES
            if node != own
        ),
        services=services,
    )


def ingress(*, own: str = "node1", six: bool = False) -> NetworkTable:
    """The ingress network as a node sees it."""
    return network(network_id=INGRESS_ID, vni=4096, own=own, subnet="10.0.0", six=six, ingress=True)


def published(
    *members: Member, port: int = 8080, target: int = 80, **parts: object
) -> PublishedPort:
    """A published port."""
    return PublishedPort(
        service_id="id-web",
        service_name="web",
        published=port,
        target=target,
        members=members,
        **parts,  # type: ignore[arg-type]
    )


def table(
    *networks: NetworkTable, ports: tuple[PublishedPort, ...] = (), own: str = "node1"
) -> EndpointTable:
    """A node's table."""
    return EndpointTable(version=1, own_addr=UNDERLAY[own], networks=networks, published=ports)


@st.composite
def members(draw: st.DrawFn, subnet: str) -> tuple[Member, ...]:
    """Members with addresses of their own."""
    numbers = draw(st.sets(st.integers(2, 40), max_size=5))
    return tuple(
        member(
            number,
            draw(st.sampled_from(NODES)),
            subnet=subnet,
            ready=draw(st.booleans()),
            on_host=draw(st.integers(0, 5)) == 0,
            six=draw(st.booleans()),
        )
        for number in sorted(numbers)
    )


@st.composite
def tables(draw: st.DrawFn) -> EndpointTable:
    """Any table of node1: up to two networks of users, ingress, and published ports."""
    networks = []
    for place in range(draw(st.integers(0, 2))):
        subnet = f"10.0.{place + 1}"
        services = [
            service(*draw(members(subnet)), name=f"s{place}{n}", vip=f"{subnet}.{100 + n}")
            for n in range(draw(st.integers(0, 3)))
        ]
        networks.append(
            network(
                *services,
                network_id=f"net{place}aaaaaaaaaaaaaaaaaaaaa",
                vni=draw(st.sampled_from((4097 + place, 5000 + place))),
                subnet=subnet,
                six=draw(st.booleans()),
                mtu=draw(st.sampled_from(("", "1300"))),
            )
        )
    ports = []
    if draw(st.booleans()):
        networks.append(ingress(six=draw(st.booleans())))
        ports = [
            published(
                *draw(members("10.0.0")),
                port=number,
                protocol=draw(st.sampled_from(("tcp", "udp", "sctp"))),
                ip=draw(st.sampled_from(("", "10.77.0.1", "eth0", "0.0.0.0"))),
                keep_source=draw(st.booleans()),
            )
            for number in draw(st.sets(st.integers(8080, 8084), max_size=3))
        ]
    return table(*networks, ports=tuple(ports))
