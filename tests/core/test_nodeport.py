"""Where a node is that starts again: its host may have another address, its daemon other flags."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.agent.network import bridge_name
from swarmctl.core.membership import Membership
from swarmctl.core.nodeport import NodePort
from swarmctl.core.wire import address
from swarmctl.core.wire.address import InterfaceAddress


class Host:
    """A host with one interface, whose address may change, and a bridge of a swarm's network."""

    def __init__(self) -> None:
        self.address = "10.0.0.5"

    def interfaces(self) -> list[InterfaceAddress]:
        return [
            InterfaceAddress("lo", "127.0.0.1"),
            InterfaceAddress("eth0", self.address),
            InterfaceAddress(bridge_name("network"), "10.0.1.1"),
        ]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(address, "interface_addresses", host.interfaces)
    return host


@pytest.mark.parametrize("advertise", ["", "eth0", "eth0:4000", "10.0.0.5", "192.0.2.7:99"])
@pytest.mark.parametrize("flag", ["", "eth0", "198.51.100.1"])
def test_a_host_that_did_not_move_is_where_it_was(host: Host, flag: str, advertise: str) -> None:
    """Whatever decided before, a restart with the same flags changes nothing."""
    assert host.address == "10.0.0.5"
    port = NodePort("", flag)
    place = port.place("", advertise)
    assert NodePort("", flag).moved(place) == place


@pytest.mark.parametrize(
    ("advertise", "after"),
    [
        ("", "10.0.0.9:2377"),
        ("eth0", "10.0.0.9:2377"),
        ("eth0:4000", "10.0.0.9:4000"),
        ("10.0.0.5", "10.0.0.5:2377"),  # a user's own word; it may be a router's address
    ],
)
def test_a_host_with_another_address_tells_it(host: Host, advertise: str, after: str) -> None:
    """An address that was found or an interface's is looked up again; one that was named is not."""
    port = NodePort("", "")
    place = port.place("", advertise)
    host.address = "10.0.0.9"
    moved = port.moved(place)
    assert moved == replace(place, advertise_addr=after)
    assert port.moved(moved) == moved


def test_a_new_flag_moves_the_node_and_an_old_one_does_not(host: Host) -> None:
    """A flag that the daemon had when init named another address does not take over later."""
    assert host.address == "10.0.0.5"
    place = NodePort("", "10.0.0.5").place("", "192.0.2.7")
    assert NodePort("", "10.0.0.5").moved(place) == place
    assert NodePort("", "").moved(place).advertise_addr == place.advertise_addr
    moved = NodePort("127.0.0.1:5000", "198.51.100.1").moved(place)
    assert (moved.listen_addr, moved.advertise_addr) == ("127.0.0.1:5000", "198.51.100.1:5000")
    listens = NodePort("127.0.0.1:5000", "10.0.0.5").moved(place)
    assert (listens.listen_addr, listens.advertise_addr) == ("127.0.0.1:5000", "192.0.2.7:5000")


def test_an_address_that_cannot_be_found_stays(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """The interface is not there yet: the node goes on with what it told before, and says so."""
    port = NodePort("", "")
    place = port.place("", "eth0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(address, "interface_addresses", list)
        assert port.moved(place) == place
    assert "others go on being told 10.0.0.5:2377" in caplog.text


def test_a_worker_without_an_address_and_an_older_file_are_left_alone(host: Host) -> None:
    """What nobody knows the reason of is not changed."""
    host.address = "10.0.0.9"
    for place in (
        Membership(listen_addr="0.0.0.0:2377", advertise_addr="", advertised_as=""),
        Membership(listen_addr="0.0.0.0:2377", advertise_addr="10.0.0.5:2377"),
    ):
        assert NodePort("", "").moved(place) == place


@pytest.mark.parametrize("named", ["", "0.0.0.0:2377"])
def test_the_daemons_flag_counts_where_a_client_names_dockers_default(
    host: Host, named: str
) -> None:
    """Docker's command line sends the default when its user gave no address."""
    assert host.address == "10.0.0.5"
    port = NodePort("127.0.0.1:5000", "")
    assert port.place(named, "").listen_addr == "127.0.0.1:5000"
    assert port.place("10.0.0.5:2377", "").listen_addr == "10.0.0.5:2377"
    assert NodePort("", "").place(named, "").listen_addr == "0.0.0.0:2377"


@pytest.mark.parametrize("listen", ["", "0.0.0.0:2377"])
def test_a_node_that_goes_on_stays_where_it_is(host: Host, listen: str) -> None:
    """Neither the daemon's flags nor what the host has now count where a user names nothing."""
    assert host.address == "10.0.0.5"
    place = NodePort("", "").place("127.0.0.1:5000", "192.0.2.7")
    assert NodePort("", "").again(place, listen, "") == place
    assert NodePort("10.0.0.5:6000", "10.0.0.5").again(place, listen, "") == place


@pytest.mark.parametrize(
    ("listen", "advertise", "listens", "advertised"),
    [
        ("10.0.0.5:2400", "", "10.0.0.5:2400", "192.0.2.7:2400"),
        ("", "10.0.0.5", "127.0.0.1:5000", "10.0.0.5:5000"),
        ("0.0.0.0:2377", "eth0:99", "127.0.0.1:5000", "10.0.0.5:99"),
        ("10.0.0.5", "10.0.0.5", "10.0.0.5:2377", "10.0.0.5:2377"),
    ],
)
def test_a_node_that_goes_on_elsewhere(
    host: Host, listen: str, advertise: str, listens: str, advertised: str
) -> None:
    """What is named changes, and nothing else; its data path and its number stay."""
    assert host.address == "10.0.0.5"
    first = NodePort("", "").place("127.0.0.1:5000", "192.0.2.7")
    for advertised_as in (first.advertised_as, None):  # an older file does not say
        place = replace(first, advertised_as=advertised_as, raft_id=7, data_path_addr="eth0")
        moved = NodePort("", "").again(place, listen, advertise)
        assert (moved.listen_addr, moved.advertise_addr) == (listens, advertised)
        assert (moved.raft_id, moved.data_path_addr) == (7, "eth0")
