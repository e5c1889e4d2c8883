"""What a node is told of its networks: who is in them, by which names, and who may be talked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.dispatcher import endpoints as module
from swarmctl.core.dispatcher import journal
from swarmctl.core.dispatcher.endpoints import NOTHING_SENT, Endpoints, Sent, table_for
from swarmctl.core.model.change import Kind, Ref, Update
from swarmctl.core.model.codec import pack, unpack
from swarmctl.core.model.endpointbook import EndpointBook
from swarmctl.core.model.endpoints import (
    EMPTY_TABLE,
    EndpointChanges,
    EndpointTable,
    Member,
    NetworkTable,
    Peer,
    PublishedPort,
    ServiceEndpoint,
)
from swarmctl.core.model.spec import NetworkAttachmentConfig, PortConfig
from swarmctl.core.model.task import (
    TaskState,
)
from tests.core.allocator.joined import add_network, drop_network, network_of, on_networks
from tests.core.dispatcher.networked import carrying, joined_up

if TYPE_CHECKING:
    from tests.core.pipeline.world import World

PUBLISHED = (PortConfig(TargetPort=80, PublishedPort=8080),)


def network_in(table: EndpointTable, network_id: str = "net") -> NetworkTable:
    (found,) = (one for one in table.networks if one.network.id == network_id)
    return found


def service_in(
    table: EndpointTable, service_id: str = "web", network_id: str = "net"
) -> ServiceEndpoint:
    services = network_in(table, network_id).services
    (found,) = (one for one in services if one.service_id == service_id)
    return found


def ready(table: EndpointTable, service_id: str = "web", network_id: str = "net") -> int:
    return sum(one.ready for one in service_in(table, service_id, network_id).members)


def sorted_table(table: EndpointTable) -> EndpointTable:
    """Return a table with everything in an order of its own, to compare it with another."""
    networks = []
    for one in sorted(table.networks, key=lambda one: one.network.id):
        services = [
            replace(each, members=tuple(sorted(each.members, key=lambda m: m.task_id)))
            for each in sorted(one.services, key=lambda each: each.service_id)
        ]
        peers = tuple(sorted(one.peers, key=lambda peer: peer.node_id))
        networks.append(replace(one, services=tuple(services), peers=peers))
    published = [
        replace(port, members=tuple(sorted(port.members, key=lambda m: m.task_id)))
        for port in sorted(table.published, key=lambda port: (port.protocol, port.published))
    ]
    return replace(table, networks=tuple(networks), published=tuple(published))


def test_a_node_is_told_of_its_networks() -> None:
    """Its own place in each, the other nodes there, and the services with names and members."""
    world = joined_up()
    world.service("web", on_networks("web", "net", replicas=2))
    world.run()
    table = table_for(world.view, "n0")
    row = network_of(world)
    own, other = row.private.gateways["n0"], row.private.gateways["n1"]
    seen = network_in(table)
    assert (table.version, table.own_addr, table.data_path_port) == (
        world.view.index,
        "10.77.0.1",
        4789,
    )
    assert seen.network.gateways == own
    assert (seen.network.vni, seen.network.subnets) == (row.private.vni, ("10.0.1.0/24",))
    assert seen.peers == (Peer(node_id="n1", addr="10.77.0.2", gateways=other),)
    web = service_in(table)
    assert web.names == ("web",)
    vip = world.view.service("web").api.Endpoint.VirtualIPs[0].Addr  # type: ignore[union-attr]
    assert web.vips == (vip.partition("/")[0],)
    assert {one.node_id for one in web.members} == {"n0", "n1"}
    for one in web.members:
        attachment = world.task(one.task_id).api.NetworksAttachments[0]
        assert one.addresses == tuple(text.partition("/")[0] for text in attachment.Addresses)
        assert (one.ready, one.on_host) == (True, False)


def test_a_node_takes_part_where_it_has_an_address() -> None:
    """A network whose tasks all run elsewhere is none of its business; ingress always is."""
    world = joined_up()
    world.service("web", on_networks("web", "net"))
    world.run()
    (task,) = world.running("web")
    other = "n1" if task.api.NodeID == "n0" else "n0"
    assert [one.network.id for one in table_for(world.view, other).networks] == ["ingress"]
    assert table_for(world.view, "n7") == replace(EMPTY_TABLE, version=world.view.index)


def test_a_data_path_address_is_where_others_reach_a_node() -> None:
    """What a node said of its data path goes before the address that it was seen with."""
    world = joined_up(1)
    carrying(world, "n1", data_path_addr="192.168.9.9")
    world.service("web", on_networks("web", "net", replicas=2))
    world.run()
    peers = network_in(table_for(world.view, "n0")).peers
    assert [peer.addr for peer in peers] == ["192.168.9.9"]
    assert table_for(world.view, "n1").own_addr == "192.168.9.9"


# --- who is ready --------------------------------------------------------------------------------


def test_a_task_is_there_before_it_is_ready_and_until_it_has_ended() -> None:
    """From its assignment on it is a neighbour; it gets connections while it runs and is wanted."""
    world = joined_up(1)
    world.service("web", on_networks("web", "net"))
    world.settle()
    (task,) = world.runnable("web")
    (member,) = service_in(table_for(world.view, "n0")).members
    assert (member.task_id, member.ready) == (task.api.ID, False)
    world.run()
    assert ready(table_for(world.view, "n0")) == 1
    world.scale("web", 0)
    world.settle()
    (member,) = service_in(table_for(world.view, "n0")).members
    assert not member.ready
    world.end(task, TaskState.SHUTDOWN)
    assert service_in(table_for(world.view, "n0")).members == ()


@pytest.mark.parametrize(
    ("state", "expected"), [("ready", 1), ("unknown", 1), ("disconnected", 1), ("down", 0)]
)
def test_a_node_out_of_touch_keeps_its_tasks_ready_until_it_is_down(
    state: str, expected: int
) -> None:
    """Nobody knows that they are gone before that."""
    world = joined_up(2)
    world.service("web", on_networks("web", "net"))
    world.run()
    (task,) = world.running("web")
    world.set_node(task.api.NodeID, state=state)
    assert ready(table_for(world.view, task.api.NodeID)) == expected


def test_tasks_of_a_drained_node_are_ready_for_as_long_as_they_are_wanted() -> None:
    """With start-first they go on until their relief runs: the availability alone says nothing."""
    world = joined_up(1)
    world.service("web", on_networks("web", "net"))
    world.run()
    world.set_node("n0", availability="drain")
    assert ready(table_for(world.view, "n0")) == 1
    world.settle()
    assert ready(table_for(world.view, "n0")) == 0


def test_a_removed_service_has_no_name_but_its_tasks_stay_until_they_ended() -> None:
    """So that their connections can finish."""
    world = joined_up(1)
    world.service("web", on_networks("web", "net"))
    world.run()
    world.remove_service("web")
    world.settle()
    web = service_in(table_for(world.view, "n0"))
    assert (web.names, web.vips) == ((), ())
    assert [one.ready for one in web.members] == [False]
    world.run()
    assert network_in(table_for(world.view, "n0"), "ingress").services == ()
    assert all(one.network.id != "net" for one in table_for(world.view, "n0").networks)


# --- names ---------------------------------------------------------------------------------------


def test_names_are_the_services_its_aliases_and_the_short_ones_of_its_stack() -> None:
    """Each once, whoever gave it."""
    world = joined_up(1)
    wanted = on_networks("shop_web", "net")
    joined = (NetworkAttachmentConfig(Target="net", Aliases=("web", "front")),)
    wanted = replace(
        wanted,
        Labels={"com.docker.stack.namespace": "shop"},
        TaskTemplate=replace(wanted.TaskTemplate, Networks=joined),
    )
    world.service("web", wanted)
    world.service("shop", replace(on_networks("shop", "net"), Labels=wanted.Labels))
    world.run()
    table = table_for(world.view, "n0")
    assert service_in(table).names == ("shop_web", "web", "front", "web.shop")
    assert service_in(table, "shop").names == ("shop",)


def test_dnsrr_has_members_and_no_virtual_address() -> None:
    """Its names stand for the members then."""
    world = joined_up(1)
    world.service("web", on_networks("web", "net", mode="dnsrr"))
    world.run()
    web = service_in(table_for(world.view, "n0"))
    assert (web.vips, len(web.members), web.names) == ((), 1, ("web",))


# --- published ports -----------------------------------------------------------------------------


def test_every_node_offers_a_published_port() -> None:
    """With the members by their addresses in the ingress network, run they there or elsewhere."""
    world = joined_up(3)
    world.service("web", on_networks("web", ports=PUBLISHED))
    world.run()
    (task,) = world.running("web")
    address = task.api.NetworksAttachments[0].Addresses[0].partition("/")[0]
    expected = PublishedPort(
        service_id="web",
        service_name="web",
        published=8080,
        target=80,
        members=(
            Member(
                task_id=task.api.ID,
                node_id=task.api.NodeID,
                slot=1,
                addresses=(address,),
                ready=True,
            ),
        ),
    )
    for number in range(3):
        assert table_for(world.view, f"n{number}").published == (expected,)


def test_labels_bind_a_port_and_keep_its_clients_addresses() -> None:
    """By number, or by number and protocol, which goes first."""
    world = joined_up(1)
    ports = (
        PortConfig(TargetPort=80, PublishedPort=8080),
        PortConfig(TargetPort=53, PublishedPort=8053, Protocol="udp"),
    )
    labels = {
        "swarmctl.publish.8080.ip": "eth0",
        "swarmctl.publish.8053.ip": "10.0.0.1",
        "swarmctl.publish.8053/udp.ip": "10.0.0.2",
        "swarmctl.publish.8053.source": "keep",
    }
    world.service("web", replace(on_networks("web", ports=ports), Labels=labels))
    world.run()
    tcp, udp = table_for(world.view, "n0").published
    assert (tcp.ip, tcp.keep_source, udp.ip, udp.keep_source) == ("eth0", False, "10.0.0.2", True)
    assert udp.protocol == "udp"


def test_a_task_with_its_hosts_network_is_reached_by_its_nodes_address() -> None:
    """Whether the executor has no networks at all or the task asked for the host's."""
    world = joined_up(1)
    row = world.view.node("n0")
    assert row is not None
    world.write(Update(row=replace(row, private=replace(row.private, host_network=True))))
    world.service("web", on_networks("web", ports=PUBLISHED))
    world.run()
    (port,) = table_for(world.view, "n0").published
    assert [(one.addresses, one.on_host, one.ready) for one in port.members] == [
        (("10.77.0.1",), True, True)
    ]
    row = world.view.node("n0")
    assert row is not None
    world.write(Update(row=replace(row, private=replace(row.private, host_network=False))))
    world.update("web", on_networks("web", "host", ports=PUBLISHED))
    world.run()
    (port,) = table_for(world.view, "n0").published
    assert [(one.addresses, one.on_host) for one in port.members] == [(("10.77.0.1",), True)]


# --- only what changed ---------------------------------------------------------------------------


class Node:
    """What one node holds by the messages that it was sent."""

    def __init__(self, node_id: str, endpoints: Endpoints) -> None:
        self._id = node_id
        self._endpoints = endpoints
        self._sent: Sent = NOTHING_SENT
        self._book = EndpointBook()
        self.table = EMPTY_TABLE
        self.last: list[EndpointChanges] = []

    def receive(self) -> None:
        parts, self._sent = self._endpoints.changes(self._id, self._sent)
        self.last = [unpack(pack(part), EndpointChanges) for part in parts]
        for part in self.last:
            table = self._book.apply(part)
            assert (table is None) == part.more
            self.table = table or self.table


class Told:
    """The nodes of a world, told of what is touched."""

    def __init__(self, world: World, *node_ids: str) -> None:
        self.world = world
        self.endpoints = Endpoints(world.view)
        for _ in self.endpoints.rebuild():
            pass
        self.nodes = {one: Node(one, self.endpoints) for one in node_ids}
        self._index = world.view.index
        self.touched: set[Ref] = set()
        world.watchers.append(self.touched.update)

    def tell(self, *some: str) -> set[str]:
        changed = self.endpoints.refresh(self.touched)
        self.touched.clear()
        for node_id in some or self.nodes:
            self.nodes[node_id].receive()
        return changed


def test_a_change_of_one_task_is_one_member() -> None:
    """To the nodes of its network, and nothing to the others."""
    world = joined_up(3)
    world.service("web", on_networks("web", "net", replicas=2))
    world.run()
    (absent,) = {"n0", "n1", "n2"} - set(network_of(world).private.gateways)
    told = Told(world, "n0", "n1", "n2")
    told.tell()
    task = world.running("web")[0]
    world.end(task, TaskState.FAILED)
    assert told.tell() == {"net"}
    assert told.nodes[absent].last == []
    for node_id in {"n0", "n1", "n2"} - {absent}:
        (message,) = told.nodes[node_id].last
        (change,) = message.networks
        assert (change.network, change.peers, message.complete) == (None, (), False)
        (service,) = change.services
        assert (service.members, service.gone) == ((), (task.api.ID,))


def test_what_a_status_says_beside_readiness_is_no_news() -> None:
    """A report that changes neither place nor readiness sends nothing to anybody."""
    world = joined_up(2)
    world.service("web", on_networks("web", "net", replicas=2))
    world.settle()
    told = Told(world, "n0", "n1")
    told.tell()
    world.end(world.runnable("web")[0], TaskState.PREPARING)
    assert told.tell() == set()
    assert [node.last for node in told.nodes.values()] == [[], []]


def test_a_table_comes_in_parts_that_fit() -> None:
    """A whole large network takes several messages; only with the last the table counts."""
    world = joined_up(1, networks=())
    add_network(world, "net", "10.5.0.0/16")
    world.settle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART_MEMBERS_MAX", 7)
        world.service("web", on_networks("web", "net", replicas=20))
        world.run()
        told = Told(world, "n0")
        told.tell()
        assert len(told.nodes["n0"].last) > 2
        assert [one.more for one in told.nodes["n0"].last][-2:] == [True, False]
        assert [one.complete for one in told.nodes["n0"].last].count(True) == 1
    assert sorted_table(told.nodes["n0"].table) == sorted_table(table_for(world.view, "n0"))


def test_what_is_gone_is_remembered_while_it_is_little() -> None:
    """However much there is beside it: nobody has to begin anew for less."""
    told = journal.Journal()
    there = [("member", str(number)) for number in range(2 * journal.TOMBSTONES_MAX)]
    gone = [("gone", str(number)) for number in range(journal.TOMBSTONES_MAX // 2 - 100)]
    for index, item in enumerate((*gone, *there), 1):
        told.note(item, index)
    told.prune(lambda item: item[0] == "member")
    assert told.floor == 0
    assert told.since(0) == [*gone, *there]


def test_who_missed_too_much_begins_anew() -> None:
    """What is gone is not remembered for ever; a node that knows less gets the network whole."""
    world = joined_up(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "TOMBSTONES_MAX", 2)
        told = Told(world, "n0")
        for number in range(9):
            world.service(f"s{number}", on_networks(f"s{number}", "net"))
            world.run()
            if number == 0:
                told.tell()
            told.endpoints.refresh(told.touched)
            world.remove_service(f"s{number}")
            world.run()
        told.endpoints.refresh(told.touched)
    world.service("web", on_networks("web", "net"))
    world.run()
    told.tell()
    (message,) = told.nodes["n0"].last
    assert [one.complete for one in message.networks if one.id == "net"] == [True]
    assert sorted_table(told.nodes["n0"].table) == sorted_table(table_for(world.view, "n0"))


ACTIONS = st.sampled_from(
    ["create", "remove", "scale", "fail", "run", "down", "up", "drain", "move", "port", "network"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 5), st.booleans()), max_size=30))
def test_pieces_come_to_the_same_as_the_whole(actions: list[tuple[str, int, bool]]) -> None:
    """Whatever happens, a node that is told now and then holds what the tables say, afresh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "TOMBSTONES_MAX", 3)
        patch.setattr(module, "PART_MEMBERS_MAX", 4)
        world = joined_up(3, networks=("a", "b"))
        told = Told(world, "n0", "n1", "n2")
        for action, number, tells in actions:
            act(world, action, number)
            if tells:
                told.tell(f"n{number % 3}")
        told.tell()
        for node_id, node in told.nodes.items():
            assert sorted_table(node.table) == sorted_table(
                replace(table_for(world.view, node_id), version=node.table.version)
            )


def act(world: World, action: str, number: int) -> None:
    service_id = f"s{number % 3}"
    there = world.view.service(service_id) is not None
    node_id = f"n{number % 3}"
    if action == "create" and not there:
        networks = ("a", "b")[: number % 3] or ("b",)
        ports = PUBLISHED if number == 5 else ()
        world.service(service_id, on_networks(service_id, *networks, replicas=number, ports=ports))
    elif action == "remove" and there:
        world.remove_service(service_id)
    elif action == "scale" and there:
        world.scale(service_id, number)
    elif action == "fail" and there and world.running(service_id):
        world.end(world.running(service_id)[0], TaskState.FAILED)
    elif action == "run":
        world.run()
    elif action in ("down", "up"):
        world.set_node(node_id, state="down" if action == "down" else "ready")
    elif action == "drain":
        world.set_node(node_id, availability=("active", "drain")[number % 2])
    elif action == "move":
        row = world.view.node(node_id)
        assert row is not None
        status = replace(row.api.Status, Addr=f"10.88.0.{number}")
        world.write(Update(row=replace(row, api=replace(row.api, Status=status))))
    elif action == "port" and there:
        world.update(service_id, on_networks(service_id, "a", ports=PUBLISHED[: number % 2]))
    elif action == "network" and not world.view.referrers(Ref(Kind.NETWORK, "c")):
        if world.view.network("c") is None:
            add_network(world, "c")
        else:
            drop_network(world, "c")
    world.settle()
