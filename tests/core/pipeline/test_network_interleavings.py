"""Writes about networks that could meet badly, each in both orders, judged by the real store."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.dispatcher.assignments import assignments_for
from swarmctl.core.model.change import (
    Applied,
    Create,
    Delete,
    Exists,
    Free,
    Index,
    Kind,
    Ref,
    Transaction,
    Unreferenced,
    Update,
)
from swarmctl.core.model.network import (
    INGRESS_KEY,
    INGRESS_USERS,
    VNI_OPTION,
    first_networks,
    make_network,
    with_problem,
)
from swarmctl.core.model.objects import NetworkSpec
from swarmctl.core.model.service import EndpointVirtualIP
from swarmctl.core.model.spec import PortConfig
from tests.core.allocator.joined import (
    add_network,
    addresses,
    network_of,
    on_networks,
    subnets,
    vips,
)
from tests.core.dispatcher.networked import carrying
from tests.core.pipeline.test_interleavings import outcome
from tests.core.pipeline.world import World, creation, spec

BOTH_ORDERS = pytest.mark.parametrize("turned", [False, True], ids=["as told", "turned"])


def subject(transaction: Transaction) -> str:
    """Return the id of what a transaction changes first."""
    return transaction.changes[0].row.api.ID  # type: ignore[union-attr]


def removal(world: World, network_id: str = "net", *, ingress: bool = False) -> Transaction:
    """Return the transaction of ``DELETE /networks/{id}``."""
    ref = Ref(Kind.NETWORK, network_id)
    needs = [Unreferenced(ref=ref), Free(index=Index.ATTACHED, key=network_id)]
    if ingress:
        needs.append(Unreferenced(ref=INGRESS_USERS))
    version = network_of(world, network_id).private.version
    return Transaction(changes=(Delete(ref=ref, version=version),), requires=tuple(needs))


def joining(name: str, *networks: str) -> Transaction:
    """Return the transaction of ``POST /services/create`` with networks."""
    made = creation(name, on_networks(name, *networks))
    needs = tuple(Exists(ref=Ref(Kind.NETWORK, network)) for network in networks)
    return replace(made, requires=(*made.requires, *needs))


def test_service_create_then_network_rm() -> None:
    """A network that a service came to use meanwhile is not removed."""
    world = World()
    add_network(world)
    assert outcome(world, joining("web", "net"), removal(world)) == ["applied", "referenced"]


def test_network_rm_then_service_create() -> None:
    """A service that names a network that went meanwhile is not created."""
    world = World()
    add_network(world)
    assert outcome(world, removal(world), joining("web", "net")) == ["applied", "missing"]


PORT = (PortConfig(TargetPort=80, PublishedPort=8080),)


@BOTH_ORDERS
def test_ingress_rm_and_a_service_that_publishes(*, turned: bool) -> None:
    """Either the service is created or the ingress network goes, never both."""
    world = World()
    world.write(*(Create(row=row) for row in first_networks("in", "b", "h")))
    made = creation("web", spec(ports=PORT))
    exists = Exists(ref=Ref(Kind.NETWORK, "in"))
    pair = [
        replace(made, requires=(*made.requires, exists)),
        removal(world, "in", ingress=True),
    ]
    if turned:
        pair.reverse()
    results = outcome(world, *pair)
    assert results == ["applied", "missing" if turned else "referenced"]


@BOTH_ORDERS
def test_two_ingress_networks(*, turned: bool) -> None:
    """Of two that are created at once, under two names, one is."""
    world = World()
    pair = [
        Transaction(
            changes=(Create(row=make_network(name, NetworkSpec(Name=name, Ingress=True))),),
            requires=(Free(index=Index.INGRESS, key=INGRESS_KEY),),
        )
        for name in ("a", "b")
    ]
    if turned:
        pair.reverse()
    assert outcome(world, *pair) == ["applied", "held"]


# --- the allocator against a former self ---------------------------------------------------------


@BOTH_ORDERS
def test_two_networks_are_never_given_one_subnet(*, turned: bool) -> None:
    """Two decisions that know nothing of each other: what overlaps is refused when applied."""
    world, other = World(), World()
    add_network(world, "a", "10.5.0.0/24")
    add_network(world, "b", "10.5.0.0/16", Options={VNI_OPTION: "5000"})
    add_network(other, "b", "10.5.0.0/16", Options={VNI_OPTION: "5000"})  # alone there
    first = [one for one in world.decide("allocator", "everything") if _writes(one, "a")]
    second = [one for one in other.decide("allocator", "everything") if _writes(one, "b")]
    pair = [*first, *(_as_of(world, one) for one in second)]
    if turned:
        pair.reverse()
    assert outcome(world, *pair) == ["applied", "held"]
    world.settle()
    assert sorted(bool(network_of(world, name).private.vni) for name in "ab") == [False, True]


@BOTH_ORDERS
def test_two_networks_are_never_given_one_number(*, turned: bool) -> None:
    """The subnets are apart, the number is not."""
    world, other = World(), World()
    for one, names in ((world, "ab"), (other, "b")):
        for name in names:
            subnet = "10.5.0.0/24" if name == "a" else "10.6.0.0/24"
            add_network(one, name, subnet, Options={VNI_OPTION: "5000"})
    first = [one for one in world.decide("allocator", "everything") if _allocates(one, "a")]
    second = [one for one in other.decide("allocator", "everything") if _allocates(one, "b")]
    pair = [*first, *(_as_of(world, one) for one in second)]
    if turned:
        pair.reverse()
    assert outcome(world, *pair) == ["applied", "held"]


def _writes(transaction: Transaction, network_id: str) -> bool:
    return subject(transaction) == network_id


def _allocates(transaction: Transaction, network_id: str) -> bool:
    return _writes(transaction, network_id) and transaction.changes[0].row.private.vni != 0  # type: ignore[union-attr]


def _as_of(world: World, transaction: Transaction) -> Transaction:
    """Return a network's update as one of its row in another world."""
    (change,) = transaction.changes
    row = change.row  # type: ignore[union-attr]
    present = network_of(world, row.api.ID)
    private = replace(row.private, version=present.private.version)
    return replace(transaction, changes=(replace(change, row=replace(row, private=private)),))


@BOTH_ORDERS
def test_a_room_and_an_address_in_it(*, turned: bool) -> None:
    """A node's room for plain containers is refused when somebody got an address of it, and an
    address of it to everybody else."""
    world = World()
    carrying(world, "n0")
    add_network(world, "net", "10.5.0.0/24", Attachable=True)
    world.service("web", spec("web"))
    world.settle()
    carrying(world, "n1")
    (room,) = (one for one in world.decide("allocator", "everything") if _writes(one, "net"))
    service = world.view.service("web")
    assert service is not None
    text = "10.5.0.233/24"
    vip = EndpointVirtualIP(NetworkID="net", Addr=text)
    endpoint = replace(service.api.Endpoint, VirtualIPs=(vip,))
    address = Transaction(
        changes=(Update(row=replace(service, api=replace(service.api, Endpoint=endpoint))),),
        requires=(Free(index=Index.ADDRESS, key=f"net/{text}", holder="web"),),
    )
    pair = [room, address]
    if turned:
        pair.reverse()
    assert outcome(world, *pair) == ["applied", "held"]


@BOTH_ORDERS
def test_an_address_is_given_once(*, turned: bool) -> None:
    """Two decisions about two services, each made before the other was applied."""
    decided = []
    world = World()
    add_network(world)
    world.settle()
    for name in ("a", "b"):
        world.service(name, on_networks(name, "net"))
    world.turn(("orchestrator",))
    for name in ("a", "b"):
        other = World()
        add_network(other)
        other.settle()
        other.service("x", spec("x"))  # so that indexes and task ids are not those of the other
        _copy_service(world, other, name)
        (one,) = (
            transaction
            for transaction in other.decide("allocator", "everything")
            if subject(transaction) == name
        )
        decided.append(one)
    if turned:
        decided.reverse()
    assert outcome(world, *decided) == ["applied", "held"]
    world.settle()
    found = [*addresses(world, "a"), *addresses(world, "b")]
    found += [(vips(world, name)["net"],) for name in "ab"]
    assert len(set(found)) == 4


def _copy_service(source: World, target: World, name: str) -> None:
    """Put a service and its tasks into another world as they are, versions included."""
    row = source.view.service(name)
    assert row is not None
    target.store.view.put(row)
    for task in source.tasks(name):
        target.store.view.put(task)


@BOTH_ORDERS
def test_network_rm_and_an_allocation_on_it(*, turned: bool) -> None:
    """No task gets a place on a network that is gone; one that a task is on is not removed.

    The service has left the network already, but a new task of its former spec is still waiting.
    """
    world = World()
    add_network(world)
    world.settle()
    world.service("web", on_networks("web", "net"))
    world.turn(("orchestrator",))
    (allocating,) = (
        one for one in world.decide("allocator", "everything") if subject(one) == "web"
    )
    only_tasks = replace(allocating, changes=allocating.changes[1:])
    world.update("web", spec("web"))
    pair = [removal(world), only_tasks]
    if turned:
        pair.reverse()
    assert outcome(world, *pair) == ["applied", "held" if turned else "missing"]


# --- gateways ------------------------------------------------------------------------------------


def placed() -> tuple[World, Transaction]:
    """A node with a gateway and without tasks, and a task that is about to be placed on it."""
    world = World()
    world.node("n0")
    add_network(world)
    world.settle()
    world.service("a", on_networks("a", "net"))
    world.run()
    world.remove_service("a")
    others = [one.name for one in world.reconcilers if one.name != "allocator"]
    for _ in range(10):
        world.turn(others)
        world.agents()
    assert network_of(world).private.gateways
    world.service("b", on_networks("b", "net"))
    world.turn(("orchestrator",))
    (allocating,) = (one for one in world.decide("allocator", "everything") if subject(one) == "b")
    world.apply(allocating)
    (placing,) = world.decide("scheduler", "everything")
    return world, placing


def test_a_task_is_placed_then_its_gateway_is_taken_back() -> None:
    """The gateway stays, since it is needed again."""
    world, placing = placed()
    (taking,) = world.decide("allocator", "gateways")
    assert outcome(world, placing, taking) == ["applied", "held"]
    assert network_of(world).private.gateways
    assert assignments_for(world.view, "n0").networks


def test_a_gateway_is_taken_back_then_a_task_is_placed() -> None:
    """The task is held back until its node has a gateway again."""
    world, placing = placed()
    (taking,) = world.decide("allocator", "gateways")
    assert outcome(world, taking, placing) == ["applied", "applied"]
    assert not assignments_for(world.view, "n0").tasks
    world.run()
    assert len(world.running("b")) == 1
    assert assignments_for(world.view, "n0").networks["net"].gateways


def test_a_stale_memory_of_the_last_address_costs_nothing() -> None:
    """Should the network's row have changed meanwhile, addresses are given all the same."""
    world = World()
    add_network(world)
    world.settle()
    world.service("web", on_networks("web", "net"))
    world.turn(("orchestrator",))
    decided = world.decide("allocator", "everything")
    row = network_of(world)
    world.write(
        *(
            replace(change, row=with_problem(row, "x"))
            for one in decided
            for change in one.changes
            if isinstance(change.row.api, type(row.api))  # type: ignore[union-attr]
        )
    )
    results = world.apply(*decided)
    assert sum(isinstance(one, Applied) for one in results) == len(results) - 1
    world.run()
    assert subnets(world) == ["10.0.0.0/24"]
    assert len({*addresses(world), (vips(world)["net"],)}) == 2
