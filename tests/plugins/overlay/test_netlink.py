"""Netlink's bytes."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from swarmctl.plugins.overlay.conntrack import Follower, Lead, Leads
from swarmctl.plugins.overlay.netlink import (
    DUMP,
    ROUTE,
    NetlinkSocket,
    Request,
    address_bytes,
    attribute,
    attributes,
    nested,
    string_of,
    text,
)


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40)))
def test_attributes_are_read_as_they_were_written(wanted: dict[int, bytes]) -> None:
    """Padding and the flag of nesting do not show."""
    data = b"head" + b"".join(attribute(kind, value) for kind, value in wanted.items())
    assert attributes(data, 4) == wanted
    assert attributes(attributes(nested(7, data[4:]))[7]) == wanted


@given(st.binary(max_size=60))
def test_any_bytes_are_read_to_their_end(data: bytes) -> None:
    """A kernel that sends nonsense stops nobody."""
    for kind, value in attributes(data).items():
        assert 0 <= kind <= 0x3FFF
        assert len(value) < len(data)


def test_strings_end_with_a_zero_byte() -> None:
    """Names come back as they were."""
    assert string_of(attributes(text(3, "eth0"))[3]) == "eth0"


class Lists:
    """A kernel's side of a socket: answers each request with the next list, and a last message.

    Args:
        answers: what is listed, and the flags of the last message.
    """

    def __init__(self, *answers: tuple[list[bytes], int]) -> None:
        self._answers = iter(answers)
        self._pending = b""

    def sendto(self, data: bytes, _address: tuple[int, int]) -> None:
        """See ``socket.socket``."""
        number = struct.unpack_from("=IHHII", data)[3]
        bodies, last_flags = next(self._answers)
        messages = [(16, 2, body) for body in bodies]
        for kind, flags, body in [*messages, (3, last_flags, bytes(4))]:
            self._pending += struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body

    def recv(self, _size: int) -> bytes:
        """See ``socket.socket``."""
        pending, self._pending = self._pending, b""
        return pending


def test_a_list_that_changed_while_it_was_read_is_read_again() -> None:
    """Though nothing follows what was left out, and only the end says so."""
    kernel = NetlinkSocket(ROUTE)
    kernel.close()
    kernel._socket = Lists(([b"one."], 0x10), ([b"one.", b"two."], 0))  # type: ignore[assignment]
    assert kernel.ask(Request(18, DUMP, b"")) == [b"one.", b"two."]


class Kernel:
    """Gives the same connections to whoever asks, and notes what it is told."""

    def __init__(self, *entries: bytes) -> None:
        self.entries = entries
        self.asked: list[Request] = []
        self.told: list[Request] = []

    def ask(self, request: Request) -> list[bytes]:
        """See ``NetlinkSocket``."""
        if request.flags != DUMP:  # how many there are
            count = struct.pack("!I", len(self.entries))
            return [struct.pack("=BBH", 0, 0, 0) + attribute(1, count)]
        self.asked.append(request)
        return list(self.entries)

    def tell(self, requests: list[Request]) -> list[int]:
        """See ``NetlinkSocket``."""
        self.told += requests
        return [0] * len(requests)


def _entry(number: int, to: str, answered_by: str, *, protocol: int = 17, port: int = 53) -> bytes:
    service = nested(2, attribute(1, bytes([protocol])), attribute(3, struct.pack("!H", port)))
    original = nested(1, nested(1, attribute(2, address_bytes(to))), service)
    reply = nested(2, nested(1, attribute(1, address_bytes(answered_by))))
    return struct.pack("=BBH", 2, 0, 0) + original + reply + attribute(12, bytes([0, 0, 0, number]))


def _forgotten(kernel: Kernel) -> list[int]:
    return [attributes(request.body, 4)[12][3] for request in kernel.told]


VIP, OTHER = "10.0.1.2", "10.0.1.9"
ENTRIES = (
    _entry(1, VIP, "10.0.1.7"),
    _entry(2, VIP, "10.0.1.8"),
    _entry(3, VIP, VIP),
    _entry(4, OTHER, "10.0.1.8"),
)


def follow(follower: Follower, kernel: Kernel, *leads: Lead) -> None:
    follower.follow(kernel, Leads(leads))  # type: ignore[arg-type]


def test_what_leads_to_nobody_is_forgotten() -> None:
    """Members that are gone, and what was sent before there were any; nothing of other targets."""
    kernel = Kernel(*ENTRIES)
    follow(Follower(), kernel, Lead(frozenset({VIP}), frozenset({"10.0.1.7"})))
    assert _forgotten(kernel) == [2, 3]


def test_it_is_looked_only_where_members_became_less() -> None:
    """Another member costs nothing; one that left costs a look."""
    kernel, follower = Kernel(*ENTRIES), Follower()
    for members, looks in ((("7", "8"), 1), (("7", "8", "9"), 1), (("7", "9"), 2)):
        known = frozenset(f"10.0.1.{last}" for last in members)
        follow(follower, kernel, Lead(frozenset({VIP}), known))
        assert len(kernel.asked) == looks


def test_many_leads_are_one_look() -> None:
    """A table of hundred services is compared with all connections at once."""
    kernel = Kernel(*ENTRIES)
    many = [Lead(frozenset({f"10.0.2.{n}"}), frozenset()) for n in range(100)]
    follow(Follower(), kernel, *many, Lead(frozenset({OTHER}), frozenset()))
    assert len(kernel.asked) == 1
    assert _forgotten(kernel) == [4]


def test_without_connections_there_is_no_look() -> None:
    """A look goes through those of the whole host, of which a fresh namespace has none."""
    kernel = Kernel()
    follow(Follower(), kernel, Lead(frozenset({VIP}), frozenset()))
    assert kernel.asked == []


def test_a_port_is_told_from_others() -> None:
    """A published port's connections are those to it, of its protocol, on this host."""
    kernel = Kernel(_entry(1, VIP, VIP), _entry(2, VIP, VIP, port=54), _entry(3, OTHER, VIP))
    lead = Lead(frozenset({VIP}), frozenset(), "udp", 53)
    follow(Follower(), kernel, lead)
    assert _forgotten(kernel) == [1]


def test_what_is_over_is_left_alone() -> None:
    """TCP connections in TIME_WAIT or CLOSE begin anew by themselves; others of nobody do not."""
    states = {1: 1, 3: 3, 4: 4, 7: 7, 8: 8}
    entries = [
        _entry(number, VIP, "10.0.1.8", protocol=6)
        + nested(4, nested(1, attribute(1, bytes([state]))))
        for number, state in states.items()
    ]
    kernel = Kernel(*entries)
    follow(Follower(), kernel, Lead(frozenset({VIP}), frozenset()))
    assert _forgotten(kernel) == [1, 3, 4]
