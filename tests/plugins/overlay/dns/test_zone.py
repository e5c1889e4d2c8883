"""Which names there are, what they stand for, and who may ask for them."""

from __future__ import annotations

import msgspec
import pytest

from swarmctl.plugins.overlay.dns.state import ResponderState
from swarmctl.plugins.overlay.dns.zone import MEMBER_TTL_S, VIP_TTL_S, Asker, Zone
from tests.plugins.overlay.dns.tables import BACK, FRONT, STATE, member, network, service

ZONE = Zone(STATE)


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web", ["10.0.1.2", "fd00:1::2"]),
        ("WeB", ["10.0.1.2", "fd00:1::2"]),
        ("www", ["10.0.1.2", "fd00:1::2"]),
        ("shop.web", ["10.0.1.2", "fd00:1::2"]),
        ("web.back", ["10.0.1.2", "fd00:1::2"]),
        ("tasks.web", ["10.0.1.11", "fd00:1::11"]),
        ("tasks.www", ["10.0.1.11", "fd00:1::11"]),
        ("tasks.web.back", ["10.0.1.11", "fd00:1::11"]),
        ("web.1.t1", ["10.0.1.11", "fd00:1::11"]),
        ("web.2.t2", ["10.0.1.12"]),
        ("web.2.t2.back", ["10.0.1.12"]),
        ("db", ["10.0.1.13"]),
        ("tasks.db", ["10.0.1.13"]),
        ("idle", []),
        ("probe", ["192.0.2.7"]),
        ("probe.n1.t0", ["192.0.2.7"]),
        ("tasks.old", []),
        ("guest", ["10.0.1.241"]),
        ("printer.back", ["10.0.1.241", "10.0.1.242"]),
    ],
)
def test_what_a_name_stands_for(name: str, addresses: list[str]) -> None:
    """Virtual addresses, ready members, one member: as the name says."""
    found = ZONE.find(name, ["net-back"], 0)
    assert found is not None
    assert list(found.addresses) == addresses


def test_containers_of_users_are_named_in_their_networks() -> None:
    """By their own names, unless a service has it; in each with the address that they have there;
    those of one alias answer together; one that goes takes its names along."""
    inner = ZONE.find("guest", ["net-inner"], 0)
    assert inner is not None
    assert inner.addresses == ("10.0.3.241",)
    assert ZONE.find("guest", ["net-front"], 0) is None
    shared = ZONE.find("printer", ["net-back"], 0)
    assert shared is not None
    assert shared.addresses == ("10.0.1.241", "10.0.1.242")
    assert ZONE.reverse("10.0.1.241", ["net-back"]) == "guest.back"
    gone = msgspec.structs.replace(STATE, clients=STATE.clients[:1])
    assert Zone(gone, ZONE).find("guest", ["net-back"], 0) is None
    assert Zone(gone, ZONE).networks["net-front"] is ZONE.networks["net-front"]


@pytest.mark.parametrize("name", ["", "vault", "edge", "web.front", "tasks", "tasks.", "web.3.t1"])
def test_other_names_are_not_known(name: str) -> None:
    """Names of networks that one is not on, and names of nothing, are others' to answer."""
    assert ZONE.find(name, ["net-back"], 0) is None


def test_members_are_believed_for_a_moment_only() -> None:
    """What a task's stopping changes has a short life; a virtual address has a longer one."""
    lives = {name: ZONE.find(name, ["net-back"], 4) for name in ("web", "tasks.web", "db")}
    assert [found and found.ttl_s for found in lives.values()] == [
        VIP_TTL_S,
        MEMBER_TTL_S,
        MEMBER_TTL_S,
    ]


def test_the_first_network_with_such_an_address_answers() -> None:
    """A task on two networks gets a name's addresses in one of them, the preferred if it can be."""
    both = ["net-front", "net-back"]
    assert ZONE.find("web", both, 4) == (("10.0.2.2",), VIP_TTL_S)
    assert ZONE.find("web", both[::-1], 4) == (("10.0.1.2",), VIP_TTL_S)
    assert ZONE.find("web", both, 6) == (("fd00:1::2",), VIP_TTL_S)
    assert ZONE.find("web.back", both, 4) == (("10.0.1.2",), VIP_TTL_S)


def test_services_that_share_a_name_answer_together() -> None:
    """An alias of two services has the addresses of both."""
    table = network(
        "n",
        1,
        service("a", "db", vips=("10.0.1.2",)),
        service("b", "db", vips=("10.0.1.3",)),
        service("c", "log", vips=("10.0.1.4",)),
        service("d", "log", members=(member(1, "10.0.1.9"),)),
    )
    zone = Zone(ResponderState(networks=(table,)))
    assert zone.find("db", ["net-n"], 4) == (("10.0.1.2", "10.0.1.3"), VIP_TTL_S)
    assert zone.find("log", ["net-n"], 4) == (("10.0.1.4", "10.0.1.9"), MEMBER_TTL_S)


def test_a_service_without_names_is_only_not_found() -> None:
    """One that was removed while its tasks stop has members and nothing else."""
    table = network("n", 1, service(members=(member(1, "10.0.1.9"),)))
    zone = Zone(ResponderState(networks=(table,)))
    assert zone.find("tasks.", ["net-n"], 4) is None
    assert zone.reverse("10.0.1.9", ["net-n"]) == ""


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.0.1.2", "web.back"),
        ("fd00:1::2", "web.back"),
        ("10.0.1.12", "web.2.t2.back"),
        ("10.0.1.13", "db.3.t3.back"),
        ("10.0.1.99", ""),
        ("10.0.1.250", ""),
        ("10.0.2.2", None),
        ("192.0.2.7", None),
        ("8.8.8.8", None),
        ("nonsense", None),
    ],
)
def test_addresses_lead_back_to_names(address: str, name: str | None) -> None:
    """To the task or service that has one; those outside of the asker's networks to nobody."""
    assert ZONE.reverse(address, ["net-back"]) == name
    if name:
        found = ZONE.find(name, ["net-back"], 0)
        assert found is not None
        assert address in found.addresses


@pytest.mark.parametrize(
    ("at", "source", "asker"),
    [
        ("net-back", "10.0.1.11", Asker("t1", ("net-back", "net-front"))),
        ("net-front", "10.0.2.11", Asker("t1", ("net-front", "net-back"))),
        ("net-back", "10.0.1.19", Asker("t9", ("net-back",), nameservers=("9.9.9.9",))),
        ("net-back", "10.0.1.77", Asker("net-back 10.0.1.77", ("net-back",))),
        ("net-inner", "10.0.3.18", Asker("t8", ("net-inner",), forwards=False)),
        ("net-inner", "10.0.3.99", Asker("net-inner 10.0.3.99", ("net-inner",), forwards=False)),
        ("net-inner", "10.0.3.17", Asker("t7", ("net-inner", "net-back"))),
        ("net-back", "fd00:1::77", Asker("net-back fd00:1::77", ("net-back",))),
        ("net-back", "10.0.1.250", Asker("host net-back", ("net-back",), False, (), True)),
        ("net-back", "10.0.2.12", None),
        ("net-back", "8.8.8.8", None),
        ("net-gone", "10.0.1.11", None),
    ],
)
def test_who_asks_at_a_gateway_is_known_by_address(
    at: str, source: str, asker: Asker | None
) -> None:
    """A task by its own, anybody in the network as such, this host; strangers get no answer."""
    assert ZONE.at_gateway(at, source) == asker


def test_who_asks_inside_is_known_by_the_socket() -> None:
    """A task sees all of its networks; one that is on none any more gets no answer."""
    assert ZONE.inside("t1") == Asker("t1", ("net-back", "net-front"))
    assert ZONE.inside("t0") is None


def test_what_did_not_change_is_not_built_again() -> None:
    """With 1,000 services a change of one network costs that network."""
    changed = network("front", 2)
    state = ResponderState(networks=(BACK, changed), clients=STATE.clients)
    zone = Zone(state, ZONE)
    assert zone.networks["net-back"] is ZONE.networks["net-back"]
    assert zone.networks["net-front"] is not ZONE.networks["net-front"]
    assert FRONT.services
    assert zone.find("edge", ["net-front"], 4) is None
