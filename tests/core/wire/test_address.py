"""Which addresses a node listens on and tells others: Docker's forms, and its words."""

from __future__ import annotations

import pytest

from swarmctl.core.errors import BadRequest
from swarmctl.core.wire import address
from swarmctl.core.wire.address import (
    InterfaceAddress,
    NoAddressToAdvertise,
    interface_addresses,
    join_host_port,
    parse_advertise,
    parse_data_path,
    parse_listen,
    parse_remote,
)

INTERFACES = [
    InterfaceAddress("lo", "127.0.0.1"),
    InterfaceAddress("eth0", "10.0.0.5"),
    InterfaceAddress("docker0", "172.17.0.1"),
    InterfaceAddress("br-1234", "172.18.0.1"),
]


@pytest.fixture(autouse=True)
def interfaces(monkeypatch: pytest.MonkeyPatch) -> list[InterfaceAddress]:
    """This host has one address of its own, and bridges of containers."""
    present = list(INTERFACES)
    monkeypatch.setattr(address, "interface_addresses", lambda: present)
    return present


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("0.0.0.0", 2377)),
        ("0.0.0.0:2377", ("0.0.0.0", 2377)),
        ("10.0.0.5", ("10.0.0.5", 2377)),
        ("10.0.0.5:5000", ("10.0.0.5", 5000)),
        ("eth0", ("10.0.0.5", 2377)),
        ("eth0:5000", ("10.0.0.5", 5000)),
        ("::1", ("::1", 2377)),
        ("[::1]", ("::1", 2377)),
        ("[::1]:5000", ("::1", 5000)),
    ],
)
def test_a_listen_address_is_an_address_or_an_interface(
    text: str, expected: tuple[str, int]
) -> None:
    """``<ip|interface>[:port]``; without a port it is 2377."""
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["eth9", "example.com", "10.0.0.256:2377", "eth9:2377"])
def test_what_is_no_listen_address_is_named(text: str) -> None:
    """Neither an address nor an interface of this host: Docker's words, and what was given."""
    with pytest.raises(
        BadRequest, match="listen address must be an IP address or network interface"
    ) as refused:
        parse_listen(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    "text", ["10.0.0.5:0", "10.0.0.5:65536", "eth0:http", "[::1]:", "eth0:\u00b2"]
)
def test_a_bad_port_is_named(text: str) -> None:
    """A port that is no port is said to be none."""
    with pytest.raises(BadRequest, match="is not a number from 1 to 65535"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "listen", "expected"),
    [
        ("10.0.0.9", ("0.0.0.0", 2377), ("10.0.0.9", 2377)),
        ("10.0.0.9:7000", ("0.0.0.0", 2377), ("10.0.0.9", 7000)),
        ("10.0.0.9", ("0.0.0.0", 5000), ("10.0.0.9", 5000)),
        ("eth0", ("0.0.0.0", 2377), ("10.0.0.5", 2377)),
        ("", ("10.0.0.7", 5000), ("10.0.0.7", 5000)),
        ("", ("0.0.0.0", 5000), ("10.0.0.5", 5000)),
        ("", ("::", 5000), ("10.0.0.5", 5000)),
    ],
)
def test_what_others_are_told(
    text: str, listen: tuple[str, int], expected: tuple[str, int]
) -> None:
    """As asked, else where we listen, else this host's only address of its own."""
    assert parse_advertise(text, *listen) == expected


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "eth9", "example.com:2377"])
def test_what_nobody_could_dial_is_refused(text: str) -> None:
    """Others must be able to dial what they are told."""
    with pytest.raises(BadRequest, match="advertise address must be a non-zero IP address"):
        parse_advertise(text, "0.0.0.0", 2377)


def test_several_addresses_are_the_users_choice(interfaces: list[InterfaceAddress]) -> None:
    """With two addresses of its own a host does not guess; it names both."""
    interfaces.append(InterfaceAddress("eth1", "10.1.0.5"))
    with pytest.raises(
        NoAddressToAdvertise, match=r"multiple addresses .*10\.0\.0\.5 on eth0 and 10\.1\.0\.5"
    ):
        parse_advertise("", "0.0.0.0", 2377)


def test_an_interface_that_begins_like_a_loopback_is_none(
    interfaces: list[InterfaceAddress],
) -> None:
    """Only loopback addresses are left out for being local, whatever an interface is called."""
    interfaces[:] = [InterfaceAddress("lo", "127.0.0.1"), InterfaceAddress("lora0", "10.2.0.5")]
    assert parse_advertise("", "0.0.0.0", 2377) == ("10.2.0.5", 2377)


def test_no_address_at_all_is_said(interfaces: list[InterfaceAddress]) -> None:
    """A host with nothing but loopback and bridges has nothing to advertise."""
    del interfaces[1]
    with pytest.raises(NoAddressToAdvertise, match="could not find the system's IP address"):
        parse_advertise("", "0.0.0.0", 2377)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("manager.example.com:2377", "manager.example.com:2377"),
        ("manager", "manager:2377"),
        ("10.0.0.5", "10.0.0.5:2377"),
        (" 10.0.0.5:99 ", "10.0.0.5:99"),
        ("[fd00::1]:99", "[fd00::1]:99"),
        ("fd00::1", "[fd00::1]:2377"),
    ],
)
def test_a_manager_to_join_may_be_a_name(text: str, expected: str) -> None:
    """``HOST[:PORT]``; without a port it is 2377."""
    assert parse_remote(text) == expected


@pytest.mark.parametrize("text", ["", ":2377", "host:", "host:x", "http://host:2377", "a b"])
def test_what_is_no_manager_to_join_is_refused(text: str) -> None:
    """A mistyped address is an error before anybody is dialled."""
    with pytest.raises(BadRequest):
        parse_remote(text)


def test_ipv6_is_bracketed() -> None:
    """Host and port can be told apart again."""
    assert join_host_port("fd00::1", 2377) == "[fd00::1]:2377"
    assert join_host_port("10.0.0.1", 2377) == "10.0.0.1:2377"


def test_the_kernel_is_asked() -> None:
    """Every host has loopback."""
    assert InterfaceAddress("lo", "127.0.0.1") in interface_addresses()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), ("10.0.0.5", "10.0.0.5"), ("eth0", "10.0.0.5"), ("[fd00::1]", "fd00::1")],
)
def test_the_data_path_is_an_address_or_an_interface(text: str, expected: str) -> None:
    """Nothing is no address of its own."""
    assert parse_data_path(text) == expected


@pytest.mark.parametrize("text", ["0.0.0.0", "eth7", "10.0.0.5:4789", "::"])
def test_what_is_no_data_path_is_refused(text: str) -> None:
    """In Docker's words."""
    with pytest.raises(BadRequest, match="data path address must be a non-zero IP address"):
        parse_data_path(text)
