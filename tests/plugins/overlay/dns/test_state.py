"""What the driver was told becomes what the responder needs, and nothing else."""

from __future__ import annotations

import msgspec

from swarmctl.core.agent.network import Sandbox
from swarmctl.core.model.endpoints import EndpointTable, NetworkTable, Peer
from swarmctl.core.model.task import HostNetwork
from swarmctl.plugins.overlay.dns.sockets import INSIDE_ADDRESS, INSIDE_PORT, Place, places_of
from swarmctl.plugins.overlay.dns.state import Client, ResponderState, decode, encode, state_of
from tests.plugins.overlay.dns.tables import BACK, FRONT, STATE

INGRESS = NetworkTable(network=HostNetwork(id="net-ingress", name="ingress", ingress=True))
TABLE = EndpointTable(
    version=7,
    networks=(
        msgspec.structs.replace(BACK, peers=(Peer(node_id="n2", addr="192.0.2.2"),)),
        FRONT,
        INGRESS,
    ),
)


def made(*sandboxes: Sandbox) -> ResponderState:
    """Return the state for some sandboxes, of whose processes only 101 lives."""
    return state_of(
        TABLE, sandboxes, number=3, boot="b", start_of=lambda pid: {101: 55}.get(pid, 0)
    )


def test_networks_come_without_what_has_no_names() -> None:
    """No ingress network, no peers."""
    assert made().networks == (BACK, FRONT)


def test_a_sandbox_becomes_a_client_of_its_networks() -> None:
    """With its process's start, its addresses, and whom it wants asked."""
    sandbox = Sandbox(
        id="t1",
        pid=101,
        networks=("net-back", "net-ingress"),
        addresses=("10.0.1.11",),
        nameservers=("9.9.9.9",),
    )
    assert made(sandbox).clients == (
        Client(
            id="t1",
            pid=101,
            start=55,
            addresses=("10.0.1.11",),
            networks=("net-back",),
            nameservers=("9.9.9.9",),
        ),
    )


def test_a_visitor_comes_with_its_names() -> None:
    """The table has none of them."""
    (client,) = made(Sandbox(id="c1", pid=101, networks=("net-back",), names=("guest",))).clients
    assert client.names == ("guest",)


def test_addresses_that_nobody_said_are_looked_up() -> None:
    """A task is a member of its service, whose addresses the table has."""
    (client,) = made(Sandbox(id="t1", pid=101, networks=("net-front", "net-back"))).clients
    assert client.addresses == ("10.0.1.11", "fd00:1::11", "10.0.2.11")


def test_the_hosts_address_is_nobodys_own() -> None:
    """A task on the host's network is a member by its node's address, which many share."""
    (client,) = made(Sandbox(id="t0", pid=101, networks=("net-back",))).clients
    assert client.addresses == ()


def test_a_process_that_is_gone_is_not_entered() -> None:
    """Its pid may be another's soon; the task is still known at gateways."""
    (client,) = made(Sandbox(id="t1", pid=102, networks=("net-back",))).clients
    assert (client.pid, client.start) == (0, 0)
    assert client.addresses


def test_a_sandbox_on_none_of_our_networks_is_no_client() -> None:
    """One on the ingress network alone asks its engine's resolver."""
    assert made(Sandbox(id="t1", pid=101, networks=("net-ingress",))).clients == ()


def test_the_file_holds_it_all() -> None:
    """What is read back equals what was written."""
    assert decode(encode(STATE)) == STATE


def test_gateways_and_namespaces_are_listened_at() -> None:
    """Each gateway address of each network, and one address in each client's namespace."""
    state = made(Sandbox(id="t1", pid=101, networks=("net-back",)))
    assert list(places_of(state)) == [
        Place("net-back", "10.0.1.250", 53),
        Place("net-back", "fd00:1::250", 53),
        Place("net-front", "10.0.2.250", 53),
        Place("net-front", "fd00:2::250", 53),
        Place("t1", INSIDE_ADDRESS, INSIDE_PORT, 101, 55),
    ]
