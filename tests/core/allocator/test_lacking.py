"""The index of services that lack something, against looking at all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.allocator.addresses import AddressBook, Refused
from swarmctl.core.allocator.ports import PortBook
from swarmctl.core.model.change import Create
from swarmctl.core.model.network import first_networks
from swarmctl.core.model.spec import EndpointSpec, PortConfig
from swarmctl.plugins.subnets import SubnetAllocator
from tests.core.allocator.joined import add_network, on_networks, vips
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.objects import ServiceRow
    from swarmctl.core.model.spec import ServiceSpec


def cluster() -> World:
    """A node, and networks: ingress, host, one with IPv6 and one that is small."""
    world = World()
    world.node("n0")
    for row in first_networks("ingress", "bridge", "host"):
        world.write(Create(row=row))
    add_network(world, "both", "10.1.0.0/24", "fd00::/64", EnableIPv6=True)
    add_network(world, "small", "10.2.0.0/29")
    world.settle()
    return world


def lacking(world: World) -> set[str]:
    return {row.api.ID for row in world.view.services_lacking()}


def changed_by_looking(world: World) -> set[str]:
    """Return the services that would get another endpoint, each looked at on its own."""
    return {row.api.ID for row in world.view.services() if _would_change(world, row)}


def _would_change(world: World, row: ServiceRow) -> bool:
    ports = PortBook(world.view).allocate(row)
    if ports.refused:
        return False
    found = AddressBook(world.view, SubnetAllocator()).endpoint(row, ports.endpoint)
    return not isinstance(found, Refused) and found[0] != row.api.Endpoint


PORTS = st.lists(
    st.builds(
        PortConfig,
        TargetPort=st.sampled_from([80, 81]),
        PublishedPort=st.sampled_from([0, 0, 8080, 8081, 30_000, 30_001]),
        Protocol=st.sampled_from(["", "tcp", "udp"]),
        PublishMode=st.sampled_from(["", "ingress", "host"]),
    ),
    max_size=3,
    unique_by=lambda port: (port.TargetPort, port.PublishedPort),
)


@st.composite
def specs(draw: st.DrawFn, name: str) -> ServiceSpec:
    networks = draw(st.lists(st.sampled_from(["both", "small", "host"]), max_size=2, unique=True))
    mode = draw(st.sampled_from(["", "vip", "dnsrr"]))
    ports = draw(PORTS)
    if mode == "dnsrr":
        ports = [replace(port, PublishMode="host") for port in ports]
    replicas = draw(st.integers(0, 2))
    made = on_networks(name, *networks, replicas=replicas, mode=mode, ports=tuple(ports))
    if mode != "dnsrr" and networks and networks[0] != "host":
        pins = draw(st.sampled_from(["", "", "10.1.0.9", "10.2.0.3", "10.1.0.8,fd00:0::8"]))
        made = replace(made, Labels={f"swarmctl.vip.{networks[0]}": pins} if pins else {})
    return made if draw(st.booleans()) or ports else replace(made, EndpointSpec=None)


@settings(max_examples=100)
@given(st.data())
def test_no_service_that_lacks_something_is_overlooked(data: st.DataObject) -> None:
    """Whatever is created, updated and removed: who would get another endpoint is in the index;
    and at rest nobody would."""
    world = cluster()
    for _ in range(data.draw(st.integers(1, 6))):
        name = data.draw(st.sampled_from(["a", "b", "c"]))
        step = data.draw(st.sampled_from(["put", "put", "put", "remove", "settle"]))
        if step == "settle":
            world.run()
        elif step == "remove" and world.view.service(name) is not None:
            world.remove_service(name)
        elif step == "put":
            asked = data.draw(specs(name))
            if world.view.service(name) is not None:
                world.update(name, asked)
            elif not _rivals(world, asked):
                world.service(name, asked)
        assert changed_by_looking(world) <= lacking(world)
    world.run()
    assert changed_by_looking(world) == set()


def _rivals(world: World, asked: ServiceSpec) -> bool:
    """Return whether a number is taken: the API would refuse it."""
    assert asked.EndpointSpec is None or asked.EndpointSpec.Ports is not None
    ports = asked.EndpointSpec.Ports if asked.EndpointSpec is not None else ()
    wanted = {port.PublishedPort for port in ports if port.PublishedPort}
    return any(
        wanted & {port.PublishedPort for port in row.api.Endpoint.Ports}
        or (
            row.api.Spec.EndpointSpec is not None
            and wanted & {port.PublishedPort for port in row.api.Spec.EndpointSpec.Ports}
        )
        for row in world.view.services()
    )


def test_who_has_all_is_not_in_the_index() -> None:
    """Most services are not; the reason why looking at those that are is cheap."""
    world = cluster()
    port = PortConfig(TargetPort=80)
    world.service("plain", spec("plain"))
    world.service("web", on_networks("web", "both", ports=(port,)))
    world.service("db", on_networks("db", "small", mode="dnsrr"))
    world.service("new", replace(spec("new"), EndpointSpec=EndpointSpec(Mode="vip")))
    world.settle()
    assert lacking(world) == set()
    world.update("web", on_networks("web", "both", "small", ports=(port,)))
    assert lacking(world) == {"web"}
    world.settle()
    assert lacking(world) == set()


def test_a_service_without_tasks_gets_what_is_given_back() -> None:
    """No task of it waits, so only the service itself can say that it lacks something."""
    world = cluster()
    for number in range(6):
        world.service(f"s{number}", on_networks(f"s{number}", "small", replicas=0))
    world.settle()
    (last,) = lacking(world)
    assert not vips(world, last)
    other = next(name for name in ("s0", "s1") if name != last)
    world.remove_service(other)
    world.settle()
    assert vips(world, last)
