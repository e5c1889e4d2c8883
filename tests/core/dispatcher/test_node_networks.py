"""What a node is sent of networks: only those its tasks use, with its own gateways, and when."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.agent.executor import ExecutorError, NodeIdentity
from swarmctl.core.agent.expand import assignment_of
from swarmctl.core.dispatcher.assignments import EMPTY, assignments_for, diff
from swarmctl.core.model.change import Update
from swarmctl.core.model.task import HostNetwork, TaskState
from tests.core.allocator.joined import add_network, network_of, on_networks
from tests.core.pipeline.world import World

NODE = NodeIdentity(cluster_id="c", node_id="n0", hostname="h", state_dir="/nowhere")


def placed() -> World:
    """One node, two networks, and a task on the first of them."""
    world = World()
    world.node("n0")
    add_network(world, "used", Options={"a": "b"}, Internal=True)
    add_network(world, "other")
    world.settle()
    world.service("web", on_networks("web", "used"))
    world.run()
    return world


def test_a_node_knows_the_networks_of_its_tasks() -> None:
    """With what it needs to make a bridge, and no others."""
    world = placed()
    sent = assignments_for(world.view, "n0")
    row = network_of(world, "used")
    assert sent.networks == {
        "used": HostNetwork(
            id="used",
            name="used",
            vni=row.private.vni,
            subnets=("10.0.1.0/24",),
            gateways=("10.0.1.1/24",),
            internal=True,
            options=row.api.Options,
        )
    }
    message = diff(sent, EMPTY, 1)
    assert message is not None
    assert [network.id for network in message.networks] == ["used"]
    assert assignments_for(world.view, "n1").networks == {}


def test_only_changes_are_sent() -> None:
    """A cursor that moved is none; another gateway is; the last task's end drops the network."""
    world = placed()
    sent = assignments_for(world.view, "n0")
    row = network_of(world, "used")
    moved = replace(row.private, cursors={"10.0.1.0/24": "10.0.1.200"})
    world.write(Update(row=replace(row, private=moved)))
    assert diff(assignments_for(world.view, "n0"), sent, 2) is None
    row = network_of(world, "used")
    other = replace(row.private, gateways={"n0": ("10.0.1.9/24",)})
    world.write(Update(row=replace(row, private=other)))
    wanted = assignments_for(world.view, "n0")
    message = diff(wanted, sent, 2)
    assert message is not None
    assert [network.gateways for network in message.networks] == [("10.0.1.9/24",)]
    assert (message.put, message.dropped) == ((), ())
    world.end(world.running("web")[0], TaskState.COMPLETE)
    message = diff(assignments_for(world.view, "n0"), wanted, 3)
    assert message is not None
    assert message.dropped == ("used",)


def test_the_executor_gets_what_its_node_has() -> None:
    """A network that a task needs and the node was not given rejects the task by name."""
    world = placed()
    sent = assignments_for(world.view, "n0")
    (assigned,) = sent.tasks.values()
    made = assignment_of(assigned, NODE, ("linux", "x86_64"), {}, {}, sent.networks)
    assert [network.id for network in made.networks] == ["used"]
    with pytest.raises(ExecutorError, match=r"^network used was not given to this node$"):
        assignment_of(assigned, NODE, ("linux", "x86_64"), {}, {}, {})
