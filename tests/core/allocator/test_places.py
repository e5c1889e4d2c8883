"""Attachable networks: every node with an engine is on them, with room for plain containers."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.api.network_use import status_of
from swarmctl.core.model.change import Update
from swarmctl.core.model.network import problem_of, room_addresses
from tests.core.allocator.joined import add_network, addresses, network_of, on_networks, vips
from tests.core.allocator.test_addresses import holders
from tests.core.allocator.test_pinned_addresses import errors, pinned
from tests.core.dispatcher.networked import carrying
from tests.core.pipeline.world import World

if TYPE_CHECKING:
    from swarmctl.core.model.objects import NetworkRow


def attachable(*subnets: str, nodes: int = 2, **how: object) -> World:
    """Nodes that carry traffic, and the attachable network "net"."""
    world = World()
    for number in range(nodes):
        carrying(world, f"n{number}")
    add_network(world, "net", *subnets, Attachable=True, **how)
    world.settle()
    return world


def everybody(world: World) -> list[str]:
    """Every address of "net" that is somebody's, or is in a node's room."""
    return [*holders(world), *(f"net/{text}" for text in room_addresses(network_of(world)))]


def rooms(world: World) -> dict[str, tuple[str, ...]]:
    return network_of(world).private.rooms


def gateways(row: NetworkRow) -> set[str]:
    return set(row.private.gateways)


def test_every_node_has_a_gateway_and_room_without_any_task() -> None:
    """From the network's making; one that joins later, too; each room is a node's alone."""
    world = attachable()
    assert rooms(world) == {"n0": ("10.0.0.240/29",), "n1": ("10.0.0.232/29",)}
    carrying(world, "n2")
    world.settle()
    assert rooms(world)["n2"] == ("10.0.0.224/29",)
    assert gateways(network_of(world)) == {"n0", "n1", "n2"}
    assert len(everybody(world)) == len(set(everybody(world))) == 3 + 24
    assert world.wishes() == []


def test_networks_that_are_not_attachable_have_no_rooms() -> None:
    """And nodes without tasks have no place on them."""
    world = attachable()
    add_network(world, "other")
    world.settle()
    assert network_of(world, "other").private.rooms == {}
    assert gateways(network_of(world, "other")) == set()


def test_nodes_without_an_engine_have_no_room() -> None:
    """Neither those that run plain processes nor those that carry nothing."""
    world = attachable()
    carrying(world, "n2", host_network=True)
    world.node("n3")
    world.settle()
    assert set(rooms(world)) == {"n0", "n1"}


def test_a_room_goes_with_its_node() -> None:
    """When it is removed, or carries nothing any more; what was in it may be given again."""
    world = attachable(nodes=3)
    world.remove_node("n1")
    row = world.view.node("n2")
    assert row is not None
    world.write(Update(row=replace(row, private=replace(row.private, network_driver=""))))
    world.settle()
    assert (set(rooms(world)), gateways(network_of(world))) == ({"n0"}, {"n0"})
    carrying(world, "n4")
    world.settle()
    assert rooms(world)["n4"] == ("10.0.0.232/29",)


def test_a_node_keeps_its_room_over_tasks_that_come_and_go() -> None:
    """Its room and gateway are not those of its tasks."""
    world = attachable()
    before = network_of(world).private
    world.service("web", on_networks("web", "net", replicas=4))
    world.run()
    world.remove_service("web")
    world.run()
    after = network_of(world).private
    assert (after.rooms, after.gateways) == (before.rooms, before.gateways)


def test_tasks_and_services_get_no_address_of_a_room() -> None:
    """Though nobody is in it; and the use of the network counts it."""
    world = attachable("10.5.0.0/27", nodes=1)  # 30 addresses: a gateway, a room, and 21
    world.service("web", on_networks("web", "net", replicas=30))
    world.run()
    room = ipaddress.ip_network(*rooms(world)["n0"])
    given_out = {ipaddress.ip_interface(one[0]).ip for one in addresses(world) if one}
    assert len(given_out) == 20
    assert not any(address in room for address in given_out)
    assert ipaddress.ip_interface(vips(world)["net"]).ip not in room
    status = status_of(world.view, network_of(world))
    assert status is not None
    assert status.IPAM.Subnets["10.5.0.0/27"].DynamicIPsAvailable == 0


def test_who_asks_for_a_nodes_address_is_told_whose_it_is() -> None:
    """By name, be it the node's own or in its room; asked for before, the room is elsewhere."""
    world = attachable()
    (own,) = network_of(world).private.gateways["n1"]
    for address, why in (
        (own.partition("/")[0], "it is node n1's own"),
        ("10.0.0.243", "it is for containers that users start on node n0"),
    ):
        world.service("web", pinned(ip=address))
        world.run()
        assert errors(world) == {f"address {address} on network net: {why}"}
        world.remove_service("web")
        world.run()
    world.service("web", pinned(ip="10.0.0.227"))
    carrying(world, "n2")
    world.run()
    assert addresses(world) == [("10.0.0.227/24",)]
    assert rooms(world)["n2"] == ("10.0.0.216/29",)


def test_rooms_are_half_of_a_network_at_most() -> None:
    """Who gets none is named, takes part all the same, and gets one when another goes."""
    world = attachable("10.5.0.0/27", nodes=2)
    (has_one,) = rooms(world)
    (other,) = {"n0", "n1"} - {has_one}
    assert problem_of(network_of(world)) == (
        f"node {other} takes no plain containers: no room for them is left"
    )
    assert gateways(network_of(world)) == {"n0", "n1"}
    world.remove_node(has_one)
    world.settle()
    assert set(rooms(world)) == {other}
    assert problem_of(network_of(world)) == ""


def test_a_problem_goes_with_the_node_that_had_it() -> None:
    """One that got no room is named no longer once it is removed, or carries nothing."""
    world = attachable("10.5.0.0/26", nodes=3)
    for leave in ("remove", "stop carrying"):
        carrying(world, "n3")
        world.settle()
        assert "node n3 takes no plain containers" in problem_of(network_of(world))
        row = world.view.node("n3")
        assert row is not None
        if leave == "remove":
            world.remove_node("n3")
        else:
            world.write(Update(row=replace(row, private=replace(row.private, network_driver=""))))
        world.settle()
        assert problem_of(network_of(world)) == ""


def test_a_node_gets_its_room_when_tasks_have_left_one() -> None:
    """Nobody else waits for what they give back."""
    world = attachable("10.5.0.0/26")
    world.service("web", on_networks("web", "net", replicas=28))
    world.run()
    carrying(world, "n2")
    world.run()
    assert set(rooms(world)) == {"n0", "n1"}
    world.update("web", on_networks("web", "net", replicas=0))
    world.run()
    assert set(rooms(world)) == {"n0", "n1", "n2"}
    assert problem_of(network_of(world)) == ""


def test_a_room_has_addresses_of_each_family() -> None:
    """More in a large network than in a small one."""
    world = attachable("10.8.0.0/16", nodes=1, EnableIPv6=True)
    four, six = rooms(world)["n0"]
    assert four == "10.8.255.224/28"
    assert six.endswith("/124")
    assert len(everybody(world)) == len(set(everybody(world))) == 2 + 32


def test_a_network_that_was_made_before_there_were_rooms_gets_them() -> None:
    """A node that has a gateway by its tasks gets its room with the next leader."""
    world = attachable()
    world.service("web", on_networks("web", "net", replicas=2))
    world.run()
    row = network_of(world)
    world.write(Update(row=replace(row, private=replace(row.private, rooms={}))))
    world.lead()
    world.settle()
    assert set(rooms(world)) == {"n0", "n1"}
    assert len(everybody(world)) == len(set(everybody(world)))


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("join"), st.integers(2, 6)),
            st.tuples(st.just("part"), st.integers(0, 6)),
            st.tuples(st.just("scale"), st.integers(0, 40)),
            st.tuples(st.just("turn"), st.integers(1, 3)),
            st.tuples(st.just("lead"), st.just(0)),
        ),
        max_size=20,
    )
)
def test_nothing_is_ever_given_twice(history: list[tuple[str, int]]) -> None:
    """Whatever comes and goes: each address is one user's, or one node's for plain containers."""
    world = attachable("10.5.0.0/26")
    world.service("web", on_networks("web", "net", replicas=1))
    for step, number in history:
        node_id = f"n{number}"
        if step == "join" and world.view.node(node_id) is None:
            carrying(world, node_id)
        elif step == "part" and world.view.node(node_id) is not None:
            world.remove_node(node_id)
        elif step == "scale":
            world.update("web", on_networks("web", "net", replicas=number))
        elif step == "turn":
            for _ in range(number):
                world.turn()
        elif step == "lead":
            world.lead()
        found = everybody(world)
        assert len(found) == len(set(found)), sorted(found)
    world.sleep(10 * 10**9)
    assert world.wishes() == []
