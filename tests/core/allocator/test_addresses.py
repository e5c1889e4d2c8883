"""Addresses of tasks, services and nodes: unique, on every network, given back, not reused soon."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.dispatcher.assignments import assignments_for
from swarmctl.core.model.change import Create, Update
from swarmctl.core.model.network import first_networks, holds_addresses, problem_of
from swarmctl.core.model.objects import TaskRow
from swarmctl.core.model.spec import NetworkAttachmentConfig, PortConfig, TaskSpec
from swarmctl.core.model.task import Task, TaskState
from tests.core.allocator.joined import (
    add_network,
    addresses,
    drop_network,
    network_of,
    on_networks,
    vips,
)
from tests.core.dispatcher.networked import carrying, joined_up
from tests.core.pipeline.world import World, job, spec

PUBLISHED = (PortConfig(TargetPort=80, PublishedPort=8080),)


def cluster(*, nodes: int = 1) -> World:
    """Nodes, and the network "net" in 10.0.0.0/24."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number}")
    add_network(world)
    world.settle()
    return world


def test_a_service_has_an_address_and_so_has_each_task() -> None:
    """In CIDR form, the service first, the gateway's left out."""
    world = cluster()
    world.service("web", on_networks("web", "net", replicas=2))
    world.settle()
    assert vips(world) == {"net": "10.0.0.2/24"}
    assert addresses(world) == [("10.0.0.3/24",), ("10.0.0.4/24",)]
    (attachment,) = world.runnable("web")[0].api.NetworksAttachments
    network = attachment.Network
    assert (network.ID, network.Spec.Name, network.Spec.Scope) == ("net", "net", "swarm")
    assert network.IPAMOptions is not None
    assert [(one.Subnet, one.Gateway) for one in network.IPAMOptions.Configs] == [
        ("10.0.0.0/24", "10.0.0.1")
    ]
    assert world.wishes() == []


def test_dnsrr_has_no_virtual_ip() -> None:
    """And gives up the one it had when it changes to it; changed back, it gets another."""
    world = cluster()
    world.service("web", on_networks("web", "net"))
    world.settle()
    world.update("web", on_networks("web", "net", mode="dnsrr"))
    world.run()
    assert vips(world) == {}
    world.update("web", on_networks("web", "net"))
    world.run()
    assert list(vips(world)) == ["net"]
    assert vips(world)["net"] != "10.0.0.2/24"


def test_a_virtual_ip_stays_while_the_service_stays_on_the_network() -> None:
    """Updates keep it; leaving a network gives it up, joining one brings one."""
    world = cluster()
    add_network(world, "other")
    world.service("web", on_networks("web", "net"))
    world.run()
    world.update("web", on_networks("web", "net", "other", image="nginx:2"))
    world.run()
    assert vips(world) == {"net": "10.0.0.2/24", "other": "10.0.1.2/24"}
    world.update("web", on_networks("web", "other"))
    world.run()
    assert vips(world) == {"other": "10.0.1.2/24"}
    assert [len(each) for each in addresses(world)] == [1]
    world.update("web", spec("web"))
    world.run()
    assert (vips(world), addresses(world)) == ({}, [()])


def test_what_is_given_back_is_not_given_next() -> None:
    """Scenario 73: a task's address and a virtual IP come up again only when all others did."""
    world = cluster()
    add_network(world, "small", "10.5.0.0/29")  # six addresses, one of them the gateway
    world.settle()
    for number in range(4):
        world.service(f"s{number}", on_networks(f"s{number}", "small", replicas=0))
        world.settle()
        world.remove_service(f"s{number}")
        world.settle()
    world.service("s4", on_networks("s4", "small", replicas=2))
    world.settle()
    assert vips(world, "s4") == {"small": "10.5.0.6/29"}
    assert addresses(world, "s4") == [("10.5.0.2/29",), ("10.5.0.3/29",)]


def test_no_address_is_left() -> None:
    """The tasks beyond the last address say which network is full, and get what is given back."""
    world = cluster()
    add_network(world, "small", "10.5.0.0/29")
    world.settle()
    world.service("web", on_networks("web", "small", replicas=7, mode="dnsrr"))
    world.settle()
    waiting = [row for row in world.tasks("web") if row.api.Status.State is TaskState.NEW]
    assert {row.api.Status.Err for row in waiting} == {
        "network small has no free address left in 10.5.0.0/29"
    }
    assert len(waiting) == 2
    assert network_of(world, "small").private.gateways == {"n0": ("10.5.0.1/29",)}
    assert world.wishes() == []
    world.scale("web", 2)
    world.run()
    world.service("late", on_networks("late", "small", mode="dnsrr"))
    world.run()
    assert len(world.running("late")) == 1


def test_who_never_had_a_node_leaves_the_addresses() -> None:
    """A task that found no place and was replaced stays in the history, and holds nothing."""
    world = World()
    add_network(world, "small", "10.5.0.0/29")
    world.settle()
    for number in range(8):
        image = f"nginx:{number}"
        wanted = on_networks("web", "small", replicas=2, mode="dnsrr", image=image)
        world.update("web", wanted) if number else world.service("web", wanted)
        world.settle()
    assert len(world.tasks("web")) > 6
    assert {row.api.Status.State for row in world.runnable("web")} == {TaskState.PENDING}
    world.node("n0")
    world.run()
    assert len(world.running("web")) == 2
    assert world.wishes() == []


def test_one_full_network_does_not_hold_up_others() -> None:
    """A service on another network goes on, and addresses taken for nothing are free again."""
    world = cluster()
    add_network(world, "full", "10.5.0.0/30")
    world.settle()
    world.service("a", on_networks("a", "full", mode="dnsrr"))
    world.settle()
    world.service("both", on_networks("both", "net", "full", replicas=3, mode="dnsrr"))
    world.service("b", on_networks("b", "net", mode="dnsrr"))
    world.settle()
    assert addresses(world, "both") == [(), (), ()]
    assert [len(each) for each in addresses(world, "b")] == [1]


def test_a_service_that_gets_only_one_of_its_addresses_takes_none() -> None:
    """What the first network would give goes back to it, so that nothing moves on for ever."""
    world = joined_up(1)
    add_network(world, "full", "10.5.0.0/30")
    world.settle()
    world.service("a", on_networks("a", "full", mode="dnsrr"))
    world.settle()
    before = network_of(world, "ingress").private
    world.service("b", on_networks("b", "full", ports=PUBLISHED))
    world.settle()
    assert vips(world, "b") == {}
    assert network_of(world, "ingress").private == before


def test_tasks_wait_for_their_network() -> None:
    """One that has no subnet yet, or is not there any more, is told by name."""
    world = cluster()
    add_network(world, "second", "10.0.0.0/25")
    world.service("web", on_networks("web", "second"))
    world.service("lost", on_networks("lost", "gone"))
    world.settle()
    (task,) = world.tasks("web")
    assert task.api.Status.Err == (
        "network second is not ready: pool overlaps with other one on this address space: "
        "10.0.0.0/25 and 10.0.0.0/24 of network net"
    )
    assert world.tasks("lost")[0].api.Status.Err == "network gone not found"
    drop_network(world)
    world.settle()
    assert addresses(world) == [("10.0.0.3/25",)]


def test_ranges_gateways_and_reserved_addresses() -> None:
    """Only addresses of the range are given, and none that is the gateway's or was set apart."""
    world = cluster()
    add_network(
        world,
        "mine",
        "10.5.0.0/24",
        ip_range="10.5.0.8/30",
        gateway="10.5.0.9",
        aux={"printer": "10.5.0.10"},
    )
    world.settle()
    world.service("web", on_networks("web", "mine", replicas=3, mode="dnsrr"))
    world.turn(("orchestrator",))
    world.turn(("allocator",))
    assert addresses(world) == [("10.5.0.8/24",), ("10.5.0.11/24",), ()]


def test_dual_stack_addresses() -> None:
    """A task and a service have one address of each family, IPv4 first."""
    world = cluster()
    add_network(world, "dual", "10.5.0.0/24", EnableIPv6=True)
    world.settle()
    world.service("web", on_networks("web", "dual"))
    world.settle()
    row = world.view.service("web")
    assert row is not None
    assert [":" in vip.Addr for vip in row.api.Endpoint.VirtualIPs] == [False, True]
    ((four, six),) = addresses(world)
    assert four == "10.5.0.3/24"
    assert ipaddress.ip_interface(six).network.prefixlen == 64
    assert world.wishes() == []


# --- ingress, the engine's own networks, tasks without a service ---------------------------------


def with_first_networks() -> World:
    world = World()
    world.node("n0")
    world.write(*(Create(row=row) for row in first_networks("ingress-id", "bridge-id", "host-id")))
    world.settle()
    return world


def test_published_ports_go_through_ingress() -> None:
    """It is the first network of such a service's tasks; host-mode ports do not need it."""
    world = with_first_networks()
    add_network(world)
    world.settle()
    world.service("web", on_networks("web", "net", ports=PUBLISHED))
    local = (PortConfig(TargetPort=80, PublishedPort=81, PublishMode="host"),)
    world.service("local", spec("local", ports=local))
    world.settle()
    assert vips(world) == {"ingress-id": "10.0.0.2/24", "net": "10.0.1.2/24"}
    assert addresses(world) == [("10.0.0.3/24", "10.0.1.3/24")]
    assert (vips(world, "local"), addresses(world, "local")) == ({}, [()])


def test_the_engines_own_networks_give_no_addresses() -> None:
    """A task on ``host`` is told so by its attachment, and has no address of the swarm's."""
    world = with_first_networks()
    world.service("web", on_networks("web", "host-id"))
    world.run()
    (task,) = world.running("web")
    (attachment,) = task.api.NetworksAttachments
    assert (attachment.Network.Spec.Name, attachment.Addresses) == ("host", ())
    assert vips(world) == {}
    assert network_of(world, "host-id").private.gateways == {}
    assert world.wishes() == []


def test_a_task_without_a_service_gets_an_address_too() -> None:
    """A plain container's task."""
    world = cluster()
    joined = TaskSpec(Networks=(NetworkAttachmentConfig(Target="net"),))
    task = Task(ID="x", Spec=joined, DesiredState=TaskState.RUNNING)
    world.write(Create(row=TaskRow(api=task)))
    world.turn(("allocator",))
    (attachment,) = world.task("x").api.NetworksAttachments
    assert attachment.Addresses == ("10.0.0.2/24",)


# --- gateways ------------------------------------------------------------------------------------


def test_a_node_has_a_gateway_while_it_runs_tasks_of_the_network() -> None:
    """Scenario 77: on exactly those nodes, and gone with the last task."""
    world = cluster(nodes=3)
    world.service("web", on_networks("web", "net", replicas=2))
    world.run()
    used = {row.api.NodeID for row in world.running("web")}
    gateways = network_of(world).private.gateways
    assert set(gateways) == used
    assert len(used) == 2
    taken = [*gateways.values(), *addresses(world), (vips(world)["net"],)]
    assert len(set(taken)) == 5
    world.scale("web", 1)
    world.run()
    (left,) = (row.api.NodeID for row in world.running("web"))
    assert set(network_of(world).private.gateways) == {left}
    world.remove_service("web")
    world.run()
    assert network_of(world).private.gateways == {}
    assert world.wishes() == []


def test_a_gateway_goes_though_its_tasks_were_deleted_unseen() -> None:
    """An allocator that only hears that a task is not there any more finds what it left."""
    world = cluster()
    world.service("web", on_networks("web", "net"))
    world.run()
    world.remove_service("web")
    others = [one.name for one in world.reconcilers if one.name != "allocator"]
    for _ in range(10):
        world.turn(others)
        world.agents()
    assert world.tasks() == []
    assert network_of(world).private.gateways
    world.run()
    assert network_of(world).private.gateways == {}


def test_a_jobs_task_waits_for_its_nodes_gateway() -> None:
    """As any task does, though it shall complete and not run on."""
    world = cluster()
    made = replace(job(1), TaskTemplate=on_networks("batch", "net").TaskTemplate)
    world.service("batch", made)
    while world.turn(("orchestrator", "allocator")):
        pass
    world.turn(("scheduler",))
    (task,) = world.tasks("batch")
    assert task.api.Status.State is TaskState.ASSIGNED
    assert assignments_for(world.view, "n0").tasks == {}
    world.run()
    assert network_of(world).private.gateways.keys() == {"n0"}
    assert len(assignments_for(world.view, "n0").tasks) == 1


def test_a_half_allocated_node_is_completed_by_the_next_leader() -> None:
    """Scenario 77: a task was placed, and the leader went before the node got its gateway."""
    world = cluster()
    world.service("web", on_networks("web", "net"))
    while world.turn(("orchestrator", "allocator")):
        pass
    world.turn(("scheduler",))
    assert network_of(world).private.gateways == {}
    world.lead()
    world.turn(("allocator",))
    assert set(network_of(world).private.gateways) == {"n0"}


def test_addresses_are_kept_for_gateways() -> None:
    """A network's last addresses are for nodes: a task on a node without one could not start."""
    world = cluster(nodes=3)
    add_network(world, "small", "10.5.0.0/29")
    world.settle()
    world.service("web", on_networks("web", "small", replicas=5, mode="dnsrr"))
    world.run()
    assert [len(each) for each in addresses(world)].count(1) == 3
    assert len(world.running("web")) == 3
    assert len(network_of(world, "small").private.gateways) == 3


def test_no_address_is_left_for_a_gateway() -> None:
    """The network says so, and the node gets its address when one is given back."""
    world = World()
    add_network(world, "small", "10.5.0.0/29")
    world.settle()
    world.service("web", on_networks("web", "small", replicas=5, mode="dnsrr"))
    world.settle()  # without a node, all five have an address
    for node_id in ("n0", "n1"):
        world.node(node_id)
    world.run()
    (has_one,) = network_of(world, "small").private.gateways
    lacks_one = "n1" if has_one == "n0" else "n0"
    assert problem_of(network_of(world, "small")) == (
        f"node {lacks_one} gets no tasks of it: network small has no free address left in "
        "10.5.0.0/29"
    )
    assert {row.api.NodeID for row in world.running("web")} == {has_one}
    assert world.wishes() == []
    world.scale("web", 4)
    world.run()
    assert problem_of(network_of(world, "small")) == ""
    assert len(world.running("web")) == 4


# --- many ----------------------------------------------------------------------------------------


def test_hundreds_of_tasks_at_once() -> None:
    """Scenario 73: no address is given twice, over several turns."""
    world = World()
    add_network(world, "net", "10.5.0.0/21")
    world.settle()
    world.service("web", on_networks("web", "net", replicas=1_500))
    world.settle()
    found = addresses(world)
    assert len(found) == len(set(found)) == 1_500


def test_ten_thousand_tasks_have_addresses_of_their_own() -> None:
    """A few hundred with each decision, and a decision looks at few addresses."""
    world = World()
    world.node("n0", cpus=100_000, memory=1 << 50)
    add_network(world, "net", "10.32.0.0/16")
    world.settle()
    world.service("web", on_networks("web", "net", replicas=10_000))
    world.settle(200)
    given = [text for each in addresses(world) for text in each]
    assert (len(given), len(set(given))) == (10_000, 10_000)
    assert world.wishes() == []


def test_holes_are_found() -> None:
    """A network of which every other address was given back is filled to the last one again."""
    world = cluster()
    add_network(world, "small", "10.5.0.0/27")
    world.settle()
    world.service("web", on_networks("web", "small", replicas=29, mode="dnsrr"))
    world.run()
    before = set(addresses(world))
    for row in world.running("web")[::2]:
        world.end(row, TaskState.COMPLETE)
    world.sleep(10**11)
    assert set(addresses(world)) == before
    assert len(world.running("web")) == len(before) == 29


def test_a_new_leader_gives_nothing_away_that_is_in_use() -> None:
    """Scenario 74: everything that was allocated counts before anything new is."""
    world = cluster(nodes=2)
    world.service("web", on_networks("web", "net", replicas=5))
    world.run()
    before = (vips(world), addresses(world), network_of(world).private.gateways)
    row = network_of(world)
    world.write(Update(row=replace(row, private=replace(row.private, cursors={}))))  # a lost memory
    world.lead()
    world.service("late", on_networks("late", "net", replicas=5))
    world.run()
    assert (vips(world), addresses(world), network_of(world).private.gateways) == before
    found = [one for each in addresses(world) + addresses(world, "late") for one in each]
    gateways = [one for each in network_of(world).private.gateways.values() for one in each]
    given_out = [*found, *gateways, vips(world)["net"], vips(world, "late")["net"]]
    assert len(given_out) == len(set(given_out))


NETWORKS = ("net", "small", "dual")
JOINED = st.lists(st.sampled_from(NETWORKS), max_size=2, unique=True).map(tuple)
HISTORY = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 4), JOINED),
        st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 4), JOINED),
        st.tuples(st.just("remove"), st.sampled_from("abc"), st.just(0), st.just(())),
        st.tuples(st.just("turn"), st.just(""), st.integers(1, 4), st.just(())),
        st.tuples(st.just("agents"), st.just(""), st.just(0), st.just(())),
        st.tuples(st.just("crash"), st.just(""), st.integers(0, 9), st.just(())),
        st.tuples(st.just("lead"), st.just(""), st.just(0), st.just(())),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(HISTORY, st.sampled_from(["", "dnsrr"]))
def test_no_address_is_ever_given_twice(
    history: list[tuple[str, str, int, tuple[str, ...]]], mode: str
) -> None:
    """At every step of any history each address has one holder; at rest nothing is wanted, all
    gateways are those of nodes with tasks, and without services every address is free again."""
    world = cluster(nodes=2)
    add_network(world, "small", "10.5.0.0/28")
    add_network(world, "dual", "10.6.0.0/24", EnableIPv6=True)
    world.settle()
    for step, name, count, networks in history:
        if step == "set":
            wanted = on_networks(name, *networks, replicas=count, mode=mode)
            known = world.view.service(name) is not None
            world.update(name, wanted) if known else world.service(name, wanted)
        elif step == "remove" and world.view.service(name) is not None:
            world.remove_service(name)
        elif step == "turn":
            for _ in range(count):
                world.turn()
        elif step == "agents":
            world.agents()
        elif step == "crash":
            running = [row for row in world.tasks() if row.api.Status.State is TaskState.RUNNING]
            if running:
                world.end(running[count % len(running)])
        elif step == "lead":
            world.lead()
        check_holders(world)
    world.sleep(10 * 10**9)
    check_holders(world)
    assert world.wishes() == []
    for network_id in NETWORKS:
        nodes = {row.api.NodeID for row in world.view.tasks_attached(network_id) if row.api.NodeID}
        assert set(network_of(world, network_id).private.gateways) == nodes
    for row in list(world.view.services()):
        world.remove_service(row.api.ID)
    world.run()
    assert holders(world) == []


def holders(world: World, *, nodes: bool = True) -> list[str]:
    """Return every address that somebody has, as ``network/address``; those of nodes or not."""
    found = []
    for task in world.view.tasks():
        if holds_addresses(task.api):
            found += [
                f"{one.Network.ID}/{text}"
                for one in task.api.NetworksAttachments
                for text in one.Addresses
            ]
    for service in world.view.services():
        found += [f"{vip.NetworkID}/{vip.Addr}" for vip in service.api.Endpoint.VirtualIPs]
    for row in world.view.networks() if nodes else ():
        found += [
            f"{row.api.ID}/{text}" for texts in row.private.gateways.values() for text in texts
        ]
    return found


def check_holders(world: World) -> None:
    found = holders(world)
    assert len(found) == len(set(found)), sorted(found)
    gateways = {
        f"{row.api.ID}/{config.Gateway}/{config.Subnet.partition('/')[2]}"
        for row in world.view.networks()
        for config in row.api.IPAM.Config or ()
    }
    assert not gateways & set(holders(world, nodes=False))


@pytest.mark.parametrize("replicas", [0, 3])
def test_a_service_off_all_networks_is_a_key_of_its_own(replicas: int) -> None:
    """Networks elsewhere cost it nothing."""
    world = cluster()
    world.service("web", on_networks("web", "net", replicas=2))
    world.service("plain", spec("plain", replicas))
    world.run()
    before = network_of(world)
    world.update("plain", spec("plain", replicas, image="other"))
    world.run()
    assert network_of(world) == before


# --- the ingress network -------------------------------------------------------------------------


def test_every_node_that_carries_traffic_is_on_the_ingress_network() -> None:
    """From the start, without a task or a port; one that joins later or gets a driver is, too."""
    world = joined_up(2)
    assert set(network_of(world, "ingress").private.gateways) == {"n0", "n1"}
    carrying(world, "n2")
    world.node("n3")
    world.settle()
    assert set(network_of(world, "ingress").private.gateways) == {"n0", "n1", "n2"}
    row = world.view.node("n3")
    assert row is not None
    world.write(Update(row=replace(row, private=replace(row.private, network_driver="null"))))
    world.settle()
    assert set(network_of(world, "ingress").private.gateways) == {"n0", "n1", "n2", "n3"}
    assert world.wishes() == []


def test_a_node_keeps_its_place_on_the_ingress_network_until_it_is_removed() -> None:
    """Down and drained it keeps it, with or without tasks; without a driver it does not."""
    world = joined_up(3)
    before = network_of(world, "ingress").private.gateways
    world.service("web", on_networks("web", ports=PUBLISHED))
    world.run()
    world.remove_service("web")
    world.set_node("n0", availability="drain")
    world.set_node("n1", state="down")
    world.run()
    assert network_of(world, "ingress").private.gateways == before
    world.remove_node("n1")
    row = world.view.node("n2")
    assert row is not None
    world.write(Update(row=replace(row, private=replace(row.private, network_driver=""))))
    world.settle()
    assert network_of(world, "ingress").private.gateways == {"n0": before["n0"]}


def test_another_ingress_network_takes_the_place_of_the_first() -> None:
    """All nodes get their places on it, and published ports go through it."""
    world = joined_up(2)
    drop_network(world, "ingress")
    world.settle()
    add_network(world, "mesh", "10.99.0.0/24", Ingress=True)
    world.settle()
    assert set(network_of(world, "mesh").private.gateways) == {"n0", "n1"}
    world.service("web", on_networks("web", ports=PUBLISHED))
    world.run()
    assert vips(world) == {"mesh": "10.99.0.3/24"}
    assert len(world.running("web")) == 1
