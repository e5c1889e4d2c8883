"""Networks get subnets and numbers: those asked for, else the next free ones; never one twice."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.change import Update
from swarmctl.core.model.network import VNI_OPTION, first_networks, problem_of
from tests.core.allocator.joined import add_network, drop_network, network_of, subnets
from tests.core.pipeline.world import World


def pools(world: World, *texts: str, size: int = 24) -> None:
    """Give the cluster other address pools, as init does."""
    row = world.view.cluster()
    assert row is not None
    api = replace(row.api, DefaultAddrPool=texts, SubnetSize=size)
    world.write(Update(row=replace(row, api=api)))


def test_networks_get_the_next_subnet_and_number() -> None:
    """/24s from the start of 10.0.0.0/8, numbers from 4096, the first address as gateway."""
    world = World()
    for name in ("a", "b"):
        add_network(world, name)
    world.settle()
    a, b = network_of(world, "a"), network_of(world, "b")
    assert (subnets(world, "a"), subnets(world, "b")) == (["10.0.0.0/24"], ["10.0.1.0/24"])
    assert (a.private.vni, b.private.vni) == (4096, 4097)
    assert [config.Gateway for config in b.api.IPAM.Config or ()] == ["10.0.1.1"]
    assert b.api.Options == {VNI_OPTION: "4097"}
    assert world.wishes() == []


def test_what_was_given_back_is_not_given_again_at_once() -> None:
    """Subnet and number of a network that went are skipped until the pools were gone through."""
    world = World()
    pools(world, "10.9.0.0/22")
    for name in ("a", "b"):
        add_network(world, name)
        world.settle()
    drop_network(world, "b")
    add_network(world, "c")
    world.lead()  # whoever leads goes on from there
    world.settle()
    assert (subnets(world, "c"), network_of(world, "c").private.vni) == (["10.9.2.0/24"], 4098)
    for name, subnet in (("d", "10.9.3.0/24"), ("e", "10.9.1.0/24")):
        add_network(world, name)
        world.settle()
        assert subnets(world, name) == [subnet]


def test_pools_are_used_one_after_the_other_and_run_out_in_words() -> None:
    """A network beyond the last subnet says so, and gets the first one that is given back."""
    world = World()
    pools(world, "10.9.0.0/24", "10.8.0.0/24", size=25)
    for name in "abcde":
        add_network(world, name)
    world.settle()
    found = [subnets(world, name) for name in "abcde"]
    assert found[1:3] == [["10.9.0.128/25"], ["10.8.0.0/25"]]
    assert found[4] == []
    assert problem_of(network_of(world, "e")) == (
        "no free subnet of size /25 is left in the address pools (10.9.0.0/24, 10.8.0.0/24)"
    )
    assert world.wishes() == []
    drop_network(world, "b")
    world.settle()
    assert subnets(world, "e") == ["10.9.0.128/25"]
    assert problem_of(network_of(world, "e")) == ""


def test_a_subnet_that_the_user_named_is_taken_as_it_is() -> None:
    """With its range and gateway; the pools go around it."""
    world = World()
    add_network(world, "mine", "10.0.1.0/24", gateway="10.0.1.254", ip_range="10.0.1.128/25")
    for name in ("a", "b"):
        add_network(world, name)
    world.settle()
    (config,) = network_of(world, "mine").api.IPAM.Config or ()
    assert (config.Gateway, config.IPRange) == ("10.0.1.254", "10.0.1.128/25")
    assert (subnets(world, "a"), subnets(world, "b")) == (["10.0.0.0/24"], ["10.0.2.0/24"])


@pytest.mark.parametrize("wanted", ["10.5.0.0/16", "10.5.5.0/24", "10.0.0.0/8", "10.5.5.128/25"])
def test_an_overlapping_subnet_waits_for_the_other_to_go(wanted: str) -> None:
    """Scenario 75: the second network stays without addresses, says why, and is retried."""
    world = World()
    add_network(world, "first", "10.5.5.0/24")
    world.settle()
    add_network(world, "second", wanted)
    world.settle()
    second = network_of(world, "second")
    assert second.private.vni == 0
    assert problem_of(second) == (
        f"pool overlaps with other one on this address space: {wanted} and 10.5.5.0/24 of network "
        "first"
    )
    drop_network(world, "first")
    world.settle()
    assert network_of(world, "second").private.vni
    assert world.wishes() == []


def test_no_subnet_is_chosen_that_a_node_lives_in() -> None:
    """The subnet of a node's own address would cut its host off."""
    world = World()
    world.node("n0")  # at 10.1.0.1
    pools(world, "10.1.0.0/23")
    add_network(world)
    world.settle()
    assert subnets(world) == ["10.1.1.0/24"]


def test_dual_stack() -> None:
    """A network with IPv6 gets a /64 out of the cluster's own private prefix; IPv4 comes first."""
    world = World()
    add_network(world, "a", EnableIPv6=True)
    add_network(world, "b", EnableIPv6=True, EnableIPv4=False)
    world.settle()
    add_network(world, "c", "fd00:1::/64", EnableIPv6=True)
    world.settle()
    four, six = (ipaddress.ip_network(text) for text in subnets(world, "a"))
    assert (str(four), six.prefixlen) == ("10.0.0.0/24", 64)
    assert six.subnet_of(ipaddress.ip_network("fd00::/8"))  # type: ignore[arg-type]
    (alone,) = (ipaddress.ip_network(text) for text in subnets(world, "b"))
    assert alone.version == 6
    assert alone != six
    assert subnets(world, "c") == ["10.0.1.0/24", "fd00:1::/64"]
    (_, config) = network_of(world, "c").api.IPAM.Config or ()
    assert config.Gateway == "fd00:1::1"


def test_a_reserved_address_is_no_gateway() -> None:
    """However it is written."""
    world = World()
    add_network(world, "net", "fd00:1::/64", aux={"router": "FD00:1::1"}, EnableIPv6=True)
    world.settle()
    (_, config) = network_of(world).api.IPAM.Config or ()
    assert config.Gateway == "fd00:1::2"


def test_a_number_that_was_asked_for() -> None:
    """It is given if it is free; who asks for a taken one waits and says so."""
    world = World()
    add_network(world, "a", Options={VNI_OPTION: "4097"})
    add_network(world, "b")
    add_network(world, "c")
    add_network(world, "d", Options={VNI_OPTION: "4097"})
    world.settle()
    assert [network_of(world, name).private.vni for name in "abcd"] == [4097, 4096, 4098, 0]
    problem = problem_of(network_of(world, "d"))
    assert problem == "vxlan id 4097 is in use by another network"


def test_the_engines_own_networks_get_nothing() -> None:
    """Ingress is the first of the overlays; bridge and host are only named."""
    world = World()
    from swarmctl.core.model.change import Create

    rows = first_networks("i", "b", "h")
    world.write(*(Create(row=row) for row in reversed(rows)))
    add_network(world, "a")
    world.settle()
    assert (subnets(world, "i"), network_of(world, "i").private.vni) == (["10.0.0.0/24"], 4096)
    assert [network_of(world, name).private.vni for name in "bh"] == [0, 0]
    assert subnets(world, "a") == ["10.0.1.0/24"]


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.sampled_from("abcdef"),
            st.sampled_from(["", "", "10.9.0.0/24", "10.9.1.0/25", "10.9.0.0/23", "10.9.2.0/26"]),
        ),
        st.tuples(st.just("drop"), st.sampled_from("abcdef"), st.just("")),
        st.tuples(st.just("lead"), st.just(""), st.just("")),
    ),
    max_size=20,
)


@given(STEPS)
def test_no_two_networks_share_anything(steps: list[tuple[str, str, str]]) -> None:
    """Whatever comes and goes: subnets apart, numbers unique, and nothing is wanted at rest."""
    world = World()
    pools(world, "10.9.0.0/22")
    for step, name, subnet in steps:
        if step == "lead":
            world.lead()
        elif step == "add" and world.view.network(name) is None:
            add_network(world, name, *([subnet] if subnet else []))
        elif step == "drop" and world.view.network(name) is not None:
            drop_network(world, name)
        world.settle()
        rows = [row for row in world.view.networks() if row.private.vni]
        nets = [ipaddress.ip_network(text) for row in rows for text in subnets(world, row.api.ID)]
        assert not any(one.overlaps(other) for at, one in enumerate(nets) for other in nets[:at])
        assert len({row.private.vni for row in rows}) == len(rows)
        assert world.wishes() == []
