"""The host's servers are read out of its file as C libraries read them."""

from __future__ import annotations

import pytest

from swarmctl.plugins.overlay.dns.resolvconf import chosen, parse_servers


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 10.1.1.1\n", ("10.1.1.1",)),
        ("# nameserver 1.1.1.1\n; nameserver 2.2.2.2\nnameserver 3.3.3.3 # ours", ("3.3.3.3",)),
        ("nameserver\t127.0.0.53\noptions edns0 trust-ad\nsearch lan", ("127.0.0.53",)),
        ("nameserver fe80::1%eth0\nnameserver 2001:db8::1", ("fe80::1%eth0", "2001:db8::1")),
        ("nameserver a\nnameserver\nnameserver 1.1.1.1\nnameserver 1.1.1.1", ("1.1.1.1",)),
        (
            "\n".join(f"nameserver 10.0.0.{i}" for i in range(9)),
            ("10.0.0.0", "10.0.0.1", "10.0.0.2"),
        ),
        ("", ("127.0.0.1",)),
        ("search lan\n", ("127.0.0.1",)),
    ],
)
def test_servers_are_read_in_order(text: str, servers: tuple[str, ...]) -> None:
    """At most three, comments and nonsense left out, the local machine's where there is none."""
    assert parse_servers(text) == servers


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ((), ("127.0.0.53", "9.9.9.9")),
        (("8.8.8.8",), ("8.8.8.8",)),
        (("127.0.0.1", "8.8.8.8", "::1"), ("8.8.8.8",)),
        (("127.0.0.1",), ()),
        (("10.0.1.250",), ()),
    ],
)
def test_who_is_asked(named: tuple[str, ...], asked: tuple[str, ...]) -> None:
    """Whom the asker names, else the host's; never ourselves, nor what only looks the same."""
    hosts = ("127.0.0.53", "10.0.1.250", "9.9.9.9")
    assert chosen(named, hosts, frozenset({"10.0.1.250"})) == asked
