"""What links, forwarding entries and neighbours a table asks for, and what is changed for it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.plugins import mac_address
from swarmctl.plugins.overlay.names import owner_alias
from swarmctl.plugins.overlay.topology import (
    FLOOD_MAC,
    Forwarding,
    InterfaceAddress,
    Link,
    Neighbour,
    Site,
    Topology,
    apply_steps,
    difference,
    topology_problems,
    wanted_topology,
)
from tests.plugins.overlay.tables import (
    BRIDGE,
    DEVICE,
    ingress,
    member,
    network,
    published,
    service,
    table,
    tables,
)

HERE = Site("node1", bridges={BRIDGE})
OURS = owner_alias("node1")


def test_a_mac_address_is_the_ipv4_address_as_docker_derives_it() -> None:
    """An interface has 02:42 and its IPv4 address as MAC, or the end of its IPv6 address."""
    assert mac_address("10.0.1.5") == "02:42:0a:00:01:05"
    assert mac_address("fd00::1:5", "10.0.1.5") == "02:42:0a:00:01:05"
    assert mac_address("fd00::1:5") == "02:42:00:01:00:05"


def test_a_member_elsewhere_has_its_three_entries() -> None:
    """What is on another host is behind the VXLAN port, at that host, and a neighbour."""
    wanted = wanted_topology(table(network(service(member(7, "node2")))), HERE)
    mac = "02:42:0a:00:01:07"
    assert Forwarding(DEVICE, mac) in wanted.forwarding
    assert Forwarding(DEVICE, mac, "10.77.0.2") in wanted.forwarding
    assert Neighbour(BRIDGE, "10.0.1.7", mac) in wanted.neighbours


def test_a_gateway_elsewhere_has_its_entries_too() -> None:
    """Replies of members to another host's mesh find that host."""
    wanted = wanted_topology(table(network()), HERE)
    mac = "02:42:0a:00:01:fb"
    assert Forwarding(DEVICE, mac, "10.77.0.2") in wanted.forwarding
    assert Neighbour(BRIDGE, "10.0.1.251", mac) in wanted.neighbours


def test_floods_go_to_every_peer() -> None:
    """What no entry knows, a container that a user started by hand, is asked of every peer."""
    wanted = wanted_topology(table(network()), HERE)
    floods = {entry.peer for entry in wanted.forwarding if entry.mac == FLOOD_MAC}
    assert floods == {"10.77.0.2", "10.77.0.3"}


def test_members_here_or_on_a_hosts_own_network_have_no_entries() -> None:
    """The bridge finds who is on it by itself; who is not in the overlay needs no entry."""
    alone = wanted_topology(table(network()), HERE)
    here = service(member(7, "node1"), member(8, "node2", on_host=True))
    assert wanted_topology(table(network(here)), HERE) == alone


def test_members_that_are_not_ready_keep_their_entries() -> None:
    """Established connections of a member that is to stop go on."""
    wanted = wanted_topology(table(network(service(member(7, ready=False)))), HERE)
    assert Forwarding(DEVICE, "02:42:0a:00:01:07", "10.77.0.2") in wanted.forwarding


def test_a_network_whose_bridge_is_not_here_asks_for_nothing() -> None:
    """Only hosts with an engine's bridge carry a network."""
    assert wanted_topology(table(network()), Site("node1")) == Topology()


def test_the_bridge_of_ingress_is_made_once_something_is_published() -> None:
    """Where no engine made it, the driver makes ingress's bridge, with this node's address."""
    assert wanted_topology(table(ingress()), Site("node1")) == Topology()
    wanted = wanted_topology(table(ingress(), ports=(published(),)), Site("node1"))
    assert wanted.links["sw-ingressaaaaa"].alias == OURS
    assert InterfaceAddress("sw-ingressaaaaa", "10.0.0.250/24") in wanted.addresses


def test_an_address_that_a_node_has_no_more_goes_from_the_bridge_it_made() -> None:
    """It may be another's by now. What a kernel takes along with it is put after it; the address of
    the link alone stays."""
    shown = table(ingress(), ports=(published(),))
    bridge = "sw-ingressaaaaa"
    wanted = wanted_topology(shown, Site("node1"))
    old, own = (InterfaceAddress(bridge, f"10.0.0.{last}/24") for last in (77, 250))
    of_link = InterfaceAddress(bridge, "fe80::1/64")
    found = wanted._replace(addresses=wanted.addresses | {old, of_link})
    site = Site("node1", bridges={bridge}, own_bridges={bridge})
    assert [(step.put, step.value) for step in difference(wanted, found, site)] == [
        (False, old),
        (True, own),
    ]
    engines = found._replace(links={**found.links, bridge: Link(bridge, "bridge")})
    of_engine = Site("node1", bridges={bridge})
    steps = difference(wanted_topology(shown, of_engine), engines, of_engine)
    assert not any(isinstance(step.value, InterfaceAddress) for step in steps)


def test_an_engines_bridge_keeps_its_own_addresses_and_size() -> None:
    """Of a bridge that an engine made, only the MAC address is set."""
    wanted = wanted_topology(table(network()), HERE)
    assert wanted.links[BRIDGE] == Link(BRIDGE, "bridge", mac="02:42:0a:00:01:fa")
    assert not wanted.addresses


def test_a_peers_new_address_is_put_over_the_old_one() -> None:
    """A host that moved costs one entry for each address on it, and no gap."""
    before = table(network(service(member(7, "node2"))))
    part = before.networks[0]
    moved = msgspec.structs.replace(part.peers[0], addr="10.77.0.99")
    after = msgspec.structs.replace(
        before, networks=(msgspec.structs.replace(part, peers=(moved, *part.peers[1:])),)
    )
    found = wanted_topology(before, HERE)
    steps = difference(wanted_topology(after, HERE), found, HERE)
    assert {step.value for step in steps if not step.put} == {
        Forwarding(DEVICE, FLOOD_MAC, "10.77.0.2")
    }
    assert Forwarding(DEVICE, "02:42:0a:00:01:07", "10.77.0.99") in {
        step.value for step in steps if step.put
    }


def test_a_device_of_another_number_is_made_anew() -> None:
    """A VXLAN device keeps its number for life, so it goes, and its entries are all put again."""
    found = wanted_topology(table(network(service(member(7)))), HERE)
    wanted = wanted_topology(table(network(service(member(7)), vni=5000)), HERE)
    steps = difference(wanted, found, HERE)
    assert not steps[0].put
    assert {step.value for step in steps if step.put} >= wanted.forwarding
    assert apply_steps(found, steps) == wanted


def test_a_foreign_interface_in_the_way_is_told_and_left() -> None:
    """An interface of the name that we need, made by somebody else, is a problem in words."""
    foreign = Topology({DEVICE: Link(DEVICE, "vxlan", vni=9)})
    wanted = wanted_topology(table(network()), HERE)
    steps = difference(wanted, foreign, HERE)
    assert not any(step.value[0] == DEVICE for step in steps)
    assert "is not this node's" in next(topology_problems(table(network()), HERE, foreign))


def test_a_peer_of_the_other_family_is_told() -> None:
    """A peer that is known by IPv6 alone cannot be reached from an IPv4 address."""
    part = network()
    peers = (msgspec.structs.replace(part.peers[0], addr="fd77::2"),)
    strange = table(msgspec.structs.replace(part, peers=peers))
    assert "cannot be reached" in next(topology_problems(strange, HERE, Topology()))
    assert not wanted_topology(strange, HERE).forwarding


@st.composite
def kernels(draw: st.DrawFn) -> Topology:
    """What another table left, with losses, and with things of others."""
    own = draw(st.sets(st.sampled_from(sorted(_all_bridges()))))
    site = Site("node1", bridges=_all_bridges(), own_bridges=own)
    left = wanted_topology(draw(tables()), site)
    links = {
        name: link._replace(is_up=draw(st.booleans()), mtu=draw(st.sampled_from((link.mtu, 900))))
        for name, link in left.links.items()
        if draw(st.integers(0, 4))
    }
    links |= {
        "eth0": Link("eth0", "", mac="02:00:00:00:00:01"),
        "docker0": Link("docker0", "bridge"),
        "vx9": Link("vx9", "vxlan", vni=9, alias="swarmctl node7"),
    }
    kept = frozenset(entry for entry in left.forwarding if draw(st.booleans()))
    return Topology(
        links,
        frozenset(entry for entry in kept if entry.device in links) | {_FOREIGN_ENTRY},
        frozenset(entry for entry in left.neighbours if entry.device in links)
        | {_FOREIGN_NEIGHBOUR},
        frozenset(entry for entry in left.addresses if entry.device in links)
        | {InterfaceAddress("eth0", "10.77.0.1/24")}
        | {InterfaceAddress(name, "10.0.9.9/24") for name in links if draw(st.booleans())},
    )


_FOREIGN_ENTRY = Forwarding("vx9", "02:42:00:00:00:09", "10.77.0.2")
_FOREIGN_NEIGHBOUR = Neighbour("docker0", "172.17.0.9", "02:42:00:00:00:09")


def _all_bridges() -> frozenset[str]:
    return frozenset({"sw-net0aaaaaaaa", "sw-net1aaaaaaaa", "sw-ingressaaaaa"})


def _of_kernel(found: Topology) -> Site:
    bridges = {name for name, link in found.links.items() if link.kind == "bridge"}
    own = {name for name in bridges if found.links[name].alias == OURS}
    return Site("node1", bridges=bridges, own_bridges=own)


@given(tables(), kernels())
def test_whatever_was_there_the_steps_lead_to_what_is_wanted(any_table, found) -> None:
    """Differences carried out give what is wanted, and then there are none."""
    site = _of_kernel(found)
    wanted = wanted_topology(any_table, site)
    after = apply_steps(found, difference(wanted, found, site))
    assert not difference(wanted, after, site)
    assert wanted.addresses <= after.addresses
    made_here = {name for name in site.own_bridges if name in wanted.links}
    assert {one for one in after.addresses if one.device in made_here} == {
        one for one in wanted.addresses if one.device in made_here
    }
    for name, link in wanted.links.items():
        assert after.links[name].kind == link.kind
    ours = {name for name, link in after.links.items() if link.alias == OURS}
    assert ours == {name for name, link in wanted.links.items() if link.alias == OURS}
    assert {e for e in after.forwarding if e.device in wanted.links} == wanted.forwarding
    assert {e for e in after.neighbours if e.device in wanted.links} == wanted.neighbours


@given(tables(), kernels())
def test_what_others_made_stays_as_it_is(any_table, found) -> None:
    """Interfaces, entries, neighbours and addresses of others are never changed."""
    site = _of_kernel(found)
    after = apply_steps(found, difference(wanted_topology(any_table, site), found, site))
    for name in ("eth0", "docker0", "vx9"):
        assert after.links[name] == found.links[name]
    assert _FOREIGN_ENTRY in after.forwarding
    assert _FOREIGN_NEIGHBOUR in after.neighbours
    assert InterfaceAddress("eth0", "10.77.0.1/24") in after.addresses


@given(kernels())
def test_an_empty_table_takes_away_all_that_is_ours(found) -> None:
    """A node that leaves keeps no interface that carries its mark."""
    site = _of_kernel(found)
    after = apply_steps(found, difference(Topology(), found, site))
    assert not [link for link in after.links.values() if link.alias == OURS]
