"""What everybody has to know of networks: which are ours, who uses them, and when subnets overlap.

A swarm has three kinds: overlays that users make, the one ``ingress`` overlay that published ports
go through, and the two networks that every engine has of its own (``bridge``, ``host``), which are
only named here so that services can ask for them; nothing is allocated for those.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import InvalidArgument
from .base import Driver, Time, Version
from .change import Free, Index, Kind, Ref
from .labels import SERVICE_IP
from .objects import (
    IPAM,
    ConfigFrom,
    Network,
    NetworkPrivate,
    NetworkRow,
    NetworkSpec,
    NetworkStatus,
)
from .spec import EndpointSpec
from .task import (
    AttachedNetwork,
    AttachedNetworkSpec,
    IPAMOptions,
    SubnetOptions,
    TaskState,
)
from .validate_cluster import PREDEFINED_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .change import Requirement
    from .objects import NodeRow
    from .service import Service
    from .spec import NetworkAttachmentConfig, PortConfig, ServiceSpec
    from .task import Task

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

OVERLAY = "overlay"
DRIVERS = (OVERLAY,)
VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
DYNAMIC_FIRST = 30_000
DYNAMIC_LAST = 32_767
"""Published ports that are not given by number are chosen from these."""
FIRST_VNI = 4096
LAST_VNI = 2**24 - 1
INGRESS_USERS = Ref(Kind.NETWORK, "ingress")
"""Services that publish a port through the ingress network refer to this, whatever its id is."""
ROOM_MAX = 256
"""So many addresses of a node's room for plain containers count."""
INGRESS_KEY = "network"
"""What the ingress network holds under the INGRESS index, so that there are never two."""
_NO_ENDPOINT = EndpointSpec()


def publishes_ingress(spec: ServiceSpec) -> bool:
    """Return whether a service publishes a port on every node."""
    ports = spec.EndpointSpec.Ports if spec.EndpointSpec is not None else ()
    return any(port.PublishMode in ("", "ingress") for port in ports)


def asked_networks(spec: ServiceSpec) -> tuple[NetworkAttachmentConfig, ...]:
    """Return the networks that a service's tasks join, but for ingress."""
    return spec.TaskTemplate.Networks or spec.Networks


def has_what_it_asks(service: Service) -> bool:
    """Return whether a service's endpoint has each port and virtual IP that its spec asks for.

    Told from the service alone, so that an index can hold those that have not: False also where
    the predefined networks, which give no addresses, are all that is missing.
    """
    spec, endpoint = service.Spec, service.Endpoint
    asked = spec.EndpointSpec or _NO_ENDPOINT
    if endpoint.Spec != asked or len(endpoint.Ports) != len(asked.Ports):
        return False
    if not all(map(_is_given, asked.Ports, endpoint.Ports)):
        return False
    if any(label.startswith(SERVICE_IP) for label in spec.Labels) and not _has_pinned(service):
        return False
    have = list(dict.fromkeys(vip.NetworkID for vip in endpoint.VirtualIPs))
    if asked.Mode == "dnsrr":
        return not have
    if any(port.PublishMode == "ingress" for port in endpoint.Ports):
        if not have:
            return False
        del have[0]  # that of the ingress network comes first
    return have == list(dict.fromkeys(network.Target for network in asked_networks(spec)))


def _has_pinned(service: Service) -> bool:
    """Return whether every address that a service asks for by name is one of its virtual IPs."""
    have = {vip.Addr.partition("/")[0] for vip in service.Endpoint.VirtualIPs}
    pinned = (text for name, text in service.Spec.Labels.items() if name.startswith(SERVICE_IP))
    return all(str(ipaddress.ip_address(one)) in have for text in pinned for one in text.split(","))


def _is_given(asked: PortConfig, have: PortConfig) -> bool:
    mode = asked.PublishMode or "ingress"
    number = asked.PublishedPort
    if not number and mode == "ingress":
        number = have.PublishedPort
        if not DYNAMIC_FIRST <= number <= DYNAMIC_LAST:
            return False
    protocol = asked.Protocol or "tcp"
    return have == replace(asked, Protocol=protocol, PublishMode=mode, PublishedPort=number)


def is_predefined(network: Network) -> bool:
    """Return whether a network is one that every engine has of its own."""
    return network.Labels.get(PREDEFINED_LABEL) == "true"


def is_on_host(task: Task, node: NodeRow | None) -> bool:
    """Return whether a task has its node's own network, and so its node's addresses."""
    if node is not None and node.private.host_network:
        return True
    specs = (attachment.Network.Spec for attachment in task.NetworksAttachments)
    return any(
        spec.Name == "host" and spec.Labels.get(PREDEFINED_LABEL) == "true" for spec in specs
    )


def holds_addresses(task: Task) -> bool:
    """Return whether a task's addresses are still its own: until it ended.

    One that is not wanted any more before it had a node never runs, and nobody reports its end.
    """
    state = task.Status.State
    if state < TaskState.ASSIGNED:
        return task.DesiredState <= TaskState.COMPLETE
    return state <= TaskState.RUNNING


def problem_of(row: NetworkRow) -> str:
    """Return why a network, or a node that needs it, got no addresses; "" for no such trouble."""
    return row.api.Status.Err if row.api.Status is not None else ""


def with_problem(row: NetworkRow, problem: str) -> NetworkRow:
    """Return the row of a network that says so."""
    status = NetworkStatus(Err=problem) if problem else None
    return replace(row, api=replace(row.api, Status=status))


def make_network(network_id: str, spec: NetworkSpec) -> NetworkRow:
    """Return the row of a new network; the allocator gives it addresses."""
    ipam = spec.IPAM or IPAM()
    network = Network(
        Name=spec.Name,
        Id=network_id,
        Scope="swarm",
        Driver=spec.Driver or OVERLAY,
        EnableIPv4=spec.EnableIPv4 is not False,
        EnableIPv6=bool(spec.EnableIPv6),
        IPAM=replace(ipam, Driver=ipam.Driver or "default"),
        Internal=spec.Internal,
        Attachable=spec.Attachable,
        Ingress=spec.Ingress,
        ConfigFrom=spec.ConfigFrom or ConfigFrom(),
        Options=spec.Options,
        Labels=spec.Labels,
    )
    return NetworkRow(api=network, private=NetworkPrivate(spec=spec))


def first_networks(ingress_id: str, bridge_id: str, host_id: str) -> tuple[NetworkRow, ...]:
    """Return the networks that a swarm begins with."""
    predefined = {PREDEFINED_LABEL: "true"}
    return (
        make_network(ingress_id, NetworkSpec(Name="ingress", Driver=OVERLAY, Ingress=True)),
        make_network(bridge_id, NetworkSpec(Name="bridge", Driver="bridge", Labels=predefined)),
        make_network(host_id, NetworkSpec(Name="host", Driver="host", Labels=predefined)),
    )


def check_vni_option(options: dict[str, str]) -> None:
    """Check the number on the wire that a network asks for, if it does.

    Raises:
        InvalidArgument: it is no single number of 24 bits.
    """
    text = options.get(VNI_OPTION)
    if text is None:
        return
    if not text.isdecimal() or not 0 < int(text) <= LAST_VNI:
        raise InvalidArgument(
            f"option {VNI_OPTION}={text}: a network has one number, from 1 to {LAST_VNI}"
        )


def attached_copy(row: NetworkRow) -> AttachedNetwork:
    """Return the copy of a network that tasks carry; the same for all, whenever they got it."""
    network = row.api
    configs = tuple(
        SubnetOptions(Subnet=config.Subnet, Range=config.IPRange, Gateway=config.Gateway)
        for config in network.IPAM.Config or ()
    )
    driver = Driver(Name=network.Driver)
    vni = network.Options.get(VNI_OPTION)
    return AttachedNetwork(
        ID=network.ID,
        Version=Version(Index=row.private.spec_index),
        CreatedAt=network.Created,
        UpdatedAt=Time(network.Created),
        Spec=AttachedNetworkSpec(
            Name=network.Name,
            Labels=network.Labels,
            DriverConfiguration=driver,
            IPv6Enabled=network.EnableIPv6,
            Internal=network.Internal,
            Attachable=network.Attachable,
            Ingress=network.Ingress,
            IPAMOptions=IPAMOptions(Driver=Driver(Name="default"), Configs=configs),
            Scope="swarm",
        ),
        DriverState=replace(driver, Options={VNI_OPTION: vni}) if vni else None,
        IPAMOptions=IPAMOptions(Driver=Driver(Name="default"), Configs=configs),
    )


# --- subnets that overlap ------------------------------------------------------------------------
# Two subnets overlap when one is the other or lies inside it. An allocated network holds, under
# SUBNET, "is S" for its subnet S and "in A" for S and everything that S lies in. So whoever wants Q
# needs "in Q" free (nothing of Q is taken) and "is A" free for every A that Q lies in.


def subnets_of(row: NetworkRow) -> tuple[str, ...]:
    """Return a network's subnets once it has them."""
    if not row.private.vni:
        return ()
    return tuple(config.Subnet for config in row.api.IPAM.Config or ())


def room_addresses(row: NetworkRow) -> Iterator[str]:
    """Yield the addresses that are for plain containers on the nodes, in CIDR form."""
    if row.private.rooms:
        widths = {":" in subnet: subnet.rpartition("/")[2] for subnet in subnets_of(row)}
        for blocks in row.private.rooms.values():
            for block in blocks:
                yield from _addresses_of(block, widths.get(":" in block, ""))


@lru_cache(maxsize=4096)
def _addresses_of(block: str, width: str) -> tuple[str, ...]:
    try:
        room: Subnet = ipaddress.ip_network(block)
    except (
        ValueError
    ):  # no allocator of ours writes that, nor more, but rows are decoded as they come
        return ()
    return tuple(f"{address}/{width}" for address in islice(room, ROOM_MAX))


@lru_cache(maxsize=4096)
def subnet_keys(subnet: str) -> tuple[str, ...]:
    """Return the SUBNET keys that a network with this subnet holds."""
    return (f"is {subnet}", f"in {subnet}", *(f"in {outer}" for outer in _outer(subnet)))


def untaken(subnet: str, holder: str) -> tuple[Requirement, ...]:
    """Return what makes sure that no other network has a part of this subnet."""
    keys = (f"in {subnet}", *(f"is {outer}" for outer in _outer(subnet)))
    return tuple(Free(index=Index.SUBNET, key=key, holder=holder) for key in keys)


def _outer(subnet: str) -> list[str]:
    try:
        network: Subnet = ipaddress.ip_network(subnet)
    except ValueError:  # no allocator of ours writes that, but rows are decoded as they come
        return []
    return [str(network.supernet(new_prefix=size)) for size in range(network.prefixlen)]
