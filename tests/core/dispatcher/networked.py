"""Worlds whose nodes carry traffic, for tests of what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from swarmctl.core.model.change import Create, Update
from swarmctl.core.model.network import first_networks
from tests.core.allocator.joined import add_network
from tests.core.pipeline.world import World

if TYPE_CHECKING:
    from swarmctl.core.model.objects import NodeRow


def carrying(world: World, node_id: str, addr: str = "", **private: object) -> NodeRow:
    """Add a node with a network driver, at an address of its own."""
    world.node(node_id)
    row = world.view.node(node_id)
    assert row is not None
    number = int(node_id.lstrip("n")) + 1
    status = replace(row.api.Status, Addr=addr or f"10.77.{number >> 8}.{number & 255}")
    how = {"network_driver": "null", **private}
    changed = replace(row, api=replace(row.api, Status=status), private=replace(row.private, **how))
    world.write(Update(row=changed))
    return changed


def joined_up(nodes: int = 2, *, networks: tuple[str, ...] = ("net",)) -> World:
    """Nodes n0, n1, ..., an ingress network, and others by name."""
    world = World()
    for number in range(nodes):
        carrying(world, f"n{number}")
    world.write(*(Create(row=row) for row in first_networks("ingress", "bridge", "host")))
    for name in networks:
        add_network(world, name)
    world.settle()
    return world
