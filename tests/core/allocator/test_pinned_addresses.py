"""Addresses that labels pin down: given to their users alone, waited for, and kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.network import holds_addresses
from swarmctl.core.model.spec import PortConfig, ServiceSpec, UpdateConfig
from tests.core.allocator.joined import add_network, addresses, network_of, on_networks, vips
from tests.core.pipeline.world import World


def cluster(*, nodes: int = 1, **how: object) -> World:
    world = World()
    for number in range(nodes):
        world.node(f"n{number}")
    add_network(world, "net", "10.5.0.0/24", **how)  # type: ignore[arg-type]
    world.settle()
    return world


def pinned(
    name: str = "web", replicas: int = 1, image: str = "nginx", **labels: str
) -> ServiceSpec:
    made = on_networks(name, "net", replicas=replicas, image=image)
    return replace(made, Labels={f"swarmctl.{key}.net": text for key, text in labels.items()})


def errors(world: World, service_id: str = "web") -> set[str]:
    return {row.api.Status.Err for row in world.tasks(service_id) if row.api.Status.Err}


def test_a_service_and_its_slots_have_what_their_labels_say() -> None:
    """Beyond the list a task gets any; the cursor of the network stays where it was."""
    world = cluster()
    before = network_of(world).private.cursors
    world.service("web", pinned(replicas=2, vip="10.5.0.200", ip="10.5.0.210,10.5.0.211"))
    world.run()
    assert vips(world) == {"net": "10.5.0.200/24"}
    assert addresses(world) == [("10.5.0.210/24",), ("10.5.0.211/24",)]
    assert network_of(world).private.cursors == before
    world.scale("web", 3)
    world.run()
    assert addresses(world)[2] == ("10.5.0.2/24",)


def test_what_somebody_asked_for_nobody_else_is_given() -> None:
    """Also before the one who asked is there to take it."""
    world = cluster()
    world.service("late", pinned("late", replicas=0, ip="10.5.0.3,10.5.0.4"))
    world.settle()
    world.service("web", on_networks("web", "net", replicas=4))
    world.run()
    taken = {text for each in addresses(world) for text in each} | set(vips(world).values())
    assert not taken & {"10.5.0.3/24", "10.5.0.4/24"}
    world.scale("late", 2)
    world.run()
    assert addresses(world, "late") == [("10.5.0.3/24",), ("10.5.0.4/24",)]


def test_who_waits_for_an_address_says_for_whose() -> None:
    """And gets it when it is given back."""
    world = cluster()
    world.service("first", pinned("first", ip="10.5.0.9"))
    world.run()
    (holder,) = world.running("first")
    world.service("web", pinned(ip="10.5.0.9"))
    world.run()
    assert errors(world) == {f"address 10.5.0.9 on network net: it is in use by {holder.api.ID}"}
    world.remove_service("first")
    world.run()
    assert addresses(world) == [("10.5.0.9/24",)]
    assert world.wishes() == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.5.0.0", "it is the network's own"),
        ("10.5.0.255", "it is the network's own"),
        ("10.5.0.1", "it is reserved"),
        ("10.6.0.1", "network net has no address 10.6.0.1"),
    ],
)
def test_what_cannot_be_had_is_said(address: str, why: str) -> None:
    """By the tasks that wait, for the service's address as for their own."""
    for key in ("ip", "vip"):
        world = cluster()
        world.service("web", pinned(**{key: address}))
        world.run()
        (error,) = errors(world)
        assert why in error
        assert world.wishes() == []


def test_an_ip_range_is_for_those_who_did_not_ask() -> None:
    """A pinned address may lie outside of it."""
    world = cluster(ip_range="10.5.0.128/25")
    world.service("web", pinned(replicas=2, ip="10.5.0.9"))
    world.run()
    first, second = addresses(world)
    assert first == ("10.5.0.9/24",)
    assert second[0].startswith("10.5.0.1")


def test_both_families_can_be_pinned_or_one_of_them() -> None:
    """The other is given as always."""
    world = World()
    world.node("n0")
    add_network(world, "net", "10.5.0.0/24", "fd00:5::/64", EnableIPv6=True)
    world.settle()
    world.service("web", pinned(vip="10.5.0.7,fd00:5::7", ip="fd00:5::9"))
    world.run()
    assert vips(world) == {"net": "fd00:5::7/64"}
    ((v4, v6),) = addresses(world)
    assert (v4.startswith("10.5.0."), v6) == (True, "fd00:5::9/64")


def test_a_virtual_ip_follows_its_label() -> None:
    """An update moves it; without the label it stays where it is."""
    world = cluster()
    world.service("web", pinned())
    world.run()
    for labels, expected in (
        ({"vip": "10.5.0.50"}, "10.5.0.50/24"),
        ({"vip": "10.5.0.60"}, "10.5.0.60/24"),
        ({}, "10.5.0.60/24"),
    ):
        world.update("web", pinned(**labels))
        world.run()
        assert vips(world) == {"net": expected}
    assert world.wishes() == []


def test_an_update_waits_for_the_address() -> None:
    """Start-first would wait for ever: the two tasks of a slot cannot both have it."""
    world = cluster(nodes=2)
    order = UpdateConfig(Parallelism=1, Order="start-first", Monitor=1)
    world.service("web", replace(pinned(replicas=2, ip="10.5.0.8,10.5.0.9"), UpdateConfig=order))
    world.run()
    world.update(
        "web",
        replace(pinned(replicas=2, ip="10.5.0.8,10.5.0.9", image="nginx:2"), UpdateConfig=order),
    )
    world.sleep(60 * 10**9)
    assert [row.api.Spec.ContainerSpec.Image for row in world.running("web")] == ["nginx:2"] * 2  # type: ignore[union-attr]
    assert addresses(world) == [("10.5.0.8/24",), ("10.5.0.9/24",)]
    service = world.view.service("web")
    assert service is not None
    assert service.api.UpdateStatus is not None
    assert service.api.UpdateStatus.State == "completed"


def test_a_task_that_never_had_a_node_leaves_its_address() -> None:
    """Who mends a service that found no place does not wait for what stands in its history."""
    world = cluster(nodes=0)
    world.service("web", pinned(ip="10.5.0.9"))
    world.run()
    assert addresses(world) == [("10.5.0.9/24",)]
    world.update("web", pinned(ip="10.5.0.9", image="nginx:2"))
    world.run()
    assert addresses(world) == [("10.5.0.9/24",)]
    world.node("n0")
    world.run()
    assert len(world.running("web")) == 1
    assert world.wishes() == []


def test_a_task_with_a_pinned_address_is_not_moved() -> None:
    """A move starts the second task first, which would wait for the address of the first."""
    world = cluster()
    made = pinned(replicas=2, ip="10.5.0.8,10.5.0.9")
    world.service("web", replace(made, Labels={**made.Labels, "swarmctl.rebalance": "on-join"}))
    free = on_networks("free", "net", replicas=2)
    world.service("free", replace(free, Labels={"swarmctl.rebalance": "on-join"}))
    world.run()
    world.node("n1")
    world.sleep(60 * 10**9)
    assert {row.api.NodeID for row in world.running("free")} == {"n0", "n1"}
    assert [row.api.NodeID for row in world.tasks("web")] == ["n0", "n0"]
    assert [row.private.move_to for row in world.tasks("web")] == ["", ""]


# --- whatever happens ----------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "pin", "scale", "remove", "fail", "run", "publish"]),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    max_size=25,
)


def held(world: World) -> list[str]:
    """Return every address that somebody has, with its network."""
    found = [
        f"{one.Network.ID} {text}"
        for row in world.view.tasks()
        if holds_addresses(row.api)
        for one in row.api.NetworksAttachments
        for text in one.Addresses
    ]
    for service in world.view.services():
        found += [f"{vip.NetworkID} {vip.Addr}" for vip in service.api.Endpoint.VirtualIPs]
    for network in world.view.networks():
        for each in network.private.gateways.values():
            found += [f"{network.api.ID} {text}" for text in each]
    return found


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_nothing_is_given_twice_and_all_comes_back(steps: list[tuple[str, int, int]]) -> None:
    """With pinned and chosen addresses, small networks that fill up, and another leader each time.

    What a fresh leader would do is what this one did: nothing more. When everything is gone, every
    address is free again.
    """
    world = World()
    for number in range(2):
        world.node(f"n{number}")
    add_network(world, "net", "10.5.0.0/28")
    add_network(world, "ingress", "10.6.0.0/29", Ingress=True)
    world.settle()
    port = PortConfig(TargetPort=80)
    for action, number, count in steps:
        service_id = f"s{number}"
        row = world.view.service(service_id)
        if action in ("create", "pin", "publish") and row is None:
            pins = {"ip": f"10.5.0.{3 + number},10.5.0.{9 + number}"} if action == "pin" else {}
            made = pinned(service_id, replicas=count, **pins)
            if action == "publish":
                made = on_networks(service_id, "net", replicas=count, ports=(port,))
            world.service(service_id, made)
        elif action == "scale" and row is not None:
            world.scale(service_id, count)
        elif action == "remove" and row is not None:
            world.remove_service(service_id)
        elif action == "fail" and world.running(service_id):
            world.end(world.running(service_id)[0])
        elif action == "run":
            world.run()
        world.settle()
        everything = held(world)
        assert len(everything) == len(set(everything)), sorted(everything)
        assert world.wishes() == []
        world.lead()
    for service in list(world.view.services()):
        world.remove_service(service.api.ID)
    world.sleep(10**11)
    assert held(world) == []
