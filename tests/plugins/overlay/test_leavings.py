"""What a node left that this host was before, and what is done about it."""

from __future__ import annotations

from swarmctl.plugins.overlay.leavings import clear_way, leavings
from swarmctl.plugins.overlay.names import owner_alias
from swarmctl.plugins.overlay.topology import (
    InterfaceAddress,
    Link,
    Site,
    Topology,
    difference,
    topology_problems,
    wanted_topology,
)
from tests.plugins.overlay.tables import BRIDGE, DEVICE, network, table

FORMER = owner_alias("former")
OLD_BRIDGE, OLD_DEVICE = "sw-oldaaaaaaaaa", "sx-oldaaaaaaaaa"
SITE = Site("node1", bridges={BRIDGE})


def tunnel(name: str = DEVICE, *, vni: int = 4097, bridge: str = BRIDGE) -> Link:
    return Link(name, "vxlan", alias=FORMER, master=bridge, vni=vni, local="10.77.0.1", port=4789)


def bridge(name: str = OLD_BRIDGE, alias: str = FORMER) -> Link:
    return Link(name, "bridge", alias=alias)


def kernel(*links: Link, addresses: tuple[tuple[str, str], ...] = ()) -> Topology:
    held = frozenset(InterfaceAddress(*one) for one in addresses)
    return Topology({link.name: link for link in links}, addresses=held)


def removed(found: Topology, site: Site = SITE) -> set[str]:
    steps, after = clear_way(table(network()), found, site)
    assert not any(step.put for step in steps)
    names = {step.value[0] for step in steps}
    assert after.links.keys() == found.links.keys() - names
    return names


def test_what_has_the_name_or_the_number_of_ours_goes() -> None:
    """The host joined the same swarm again, or another one, whose networks are numbered alike."""
    assert removed(kernel(bridge(BRIDGE, ""), tunnel())) == {DEVICE}
    assert removed(kernel(bridge(OLD_BRIDGE, ""), tunnel(OLD_DEVICE, bridge=OLD_BRIDGE))) == {
        OLD_DEVICE
    }


def test_a_bridge_that_has_our_addresses_goes() -> None:
    """Only one that a driver made; an engine's is the engine's to remove."""
    addresses = ((OLD_BRIDGE, "10.0.1.9/24"),)
    assert removed(kernel(bridge(), addresses=addresses)) == {OLD_BRIDGE}
    assert removed(kernel(bridge(alias=""), addresses=addresses)) == set()


def test_what_stands_in_nobodys_way_stays() -> None:
    """It may be a node's that is stopped for a while."""
    found = kernel(bridge(), tunnel(OLD_DEVICE, vni=9, bridge=OLD_BRIDGE))
    assert {link.name for link in leavings(found, SITE)} == {OLD_BRIDGE, OLD_DEVICE}
    assert removed(found) == set()


def test_what_a_container_is_on_stays_and_is_told() -> None:
    """The operator is told which containers."""
    found = kernel(bridge(BRIDGE, ""), tunnel(), Link("veth1", "veth", master=BRIDGE))
    assert removed(found) == set()
    (problem,) = topology_problems(table(network()), SITE, found)
    assert "node former left on this host" in problem
    assert "label swarmctl.node.id=former" in problem


def test_what_is_of_a_node_at_work_here_stays_and_is_told() -> None:
    """Also when nobody is on it now."""
    found = kernel(bridge(BRIDGE, ""), tunnel())
    site = SITE._replace(at_work={"former"})
    assert removed(found, site) == set()
    (problem,) = topology_problems(table(network()), site, found)
    assert "at work on this host, too" in problem


def test_what_is_nobodys_of_ours_stays_and_is_told() -> None:
    """An interface with our number, made by hand."""
    found = kernel(bridge(BRIDGE, ""), tunnel("vx9")._replace(alias="mine"))
    assert removed(found) == set()
    (problem,) = topology_problems(table(network()), SITE, found)
    assert "vx9" in problem


def test_after_that_all_is_made() -> None:
    """With the way clear the difference is as on a new host."""
    found = kernel(bridge(BRIDGE, ""), tunnel())
    _, after = clear_way(table(network()), found, SITE)
    wanted = wanted_topology(table(network()), SITE)
    assert DEVICE in {step.value[0] for step in difference(wanted, after, SITE) if step.put}
