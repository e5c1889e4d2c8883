"""Forgets connections that lead to nobody, so that their next packet finds a member.

A connection stays with the member that it was given. Once that member is gone it would lead
nowhere for as long as its client goes on sending, which matters for UDP above all; and so would
what was sent before there was any member. Whether an entry leads somewhere is told by the entry and
the table alone, so it does not matter when a member left, or whether a daemon saw it.

The kernel is asked for the entries that match; an old one that does not know how gives all, so each
is looked at before it is forgotten.

TCP connections that are over stay as they are: a new one from the same port is given a member anew.
And the kernel may know that new one by the very number of the old: it would be cut off if it began
between the look and the deletion, as some do that open many.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from .netlink import DUMP, Request, address_bytes, attribute, attributes, nested, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .netlink import NetlinkSocket

# linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_internals.h
_GET, _DELETE, _GET_STATISTICS = (1 << 8) | 1, (1 << 8) | 2, (1 << 8) | 5
_ENTRIES = 1
_ORIGINAL, _REPLY, _DETAILS, _ID, _FILTER = 1, 2, 4, 12, 25
_OF_TCP, _STATE = 1, 1
_OVER = (b"\7", b"\10")  # TIME_WAIT, CLOSE
_FILTER_ORIGINAL = 1
_BY_TARGET, _BY_PROTOCOL, _BY_TARGET_PORT = 1 << 1, 1 << 3, 1 << 5
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_SOURCE, _TARGET = {4: 1, 16: 3}, {4: 2, 16: 4}  # by length of the address
_PROTOCOL, _TARGET_PORT = 1, 3
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_FAMILY = {4: 2, 16: 10}
_HEAD = 4
_FEW = 4
"""Up to so many leads are asked for one by one; for more, all connections are looked at once."""


class Lead(NamedTuple):
    """What clients call, and who answers, in one family.

    Attributes:
        targets: the addresses that they call.
        members: addresses of whom they may be connected to.
        protocol, port: what they call there; "" for everything.
    """

    targets: frozenset[str]
    members: frozenset[str]
    protocol: str = ""
    port: int = 0


class Leads:
    """Where connections of one namespace may lead; the same for all that are on the same networks.

    Attributes:
        by_call: each lead by what clients call, whoever answers.
    """

    def __init__(self, leads: Iterable[Lead]) -> None:
        self.by_call = {lead._replace(members=frozenset()): lead for lead in leads}


NOWHERE = Leads(())


class Follower:
    """Remembers where the connections of a namespace lead, to look only where that became less."""

    def __init__(self) -> None:
        self._followed = NOWHERE

    def follows(self, leads: Leads) -> bool:
        """Return whether these were followed last."""
        return leads is self._followed or leads.by_call == self._followed.by_call

    def lessened(self, leads: Leads) -> list[Lead]:
        """Return those that lost members since the last :meth:`follow`, or are new."""
        before = self._followed.by_call
        return [
            lead
            for call, lead in leads.by_call.items()
            if call not in before or before[call].members - lead.members
        ]

    def follow(self, netfilter: NetlinkSocket, leads: Leads) -> None:
        """Forget the connections that lead to nobody who is in these. Blocks if there is less.

        Raises:
            OSError: what the kernel says.
        """
        if less := self.lessened(leads):
            forget_strays(netfilter, less)
        self._followed = leads


def forget_strays(netfilter: NetlinkSocket, leads: Iterable[Lead]) -> None:
    """Forget every connection to a target that somebody else than its members would answer.

    Raises:
        OSError: what the kernel says.
    """
    if not _count(netfilter):
        return  # each look goes through the connections of the whole host
    packed = [_Packed(lead) for lead in leads if lead.targets]
    if len(packed) <= _FEW:
        requests = [request for one in packed for request in one.requests()]
    else:
        requests = [_dump(length) for length in sorted({one.length for one in packed})]
    index = {key: one for one in packed for key in one.found_by()}
    for request in requests:
        netfilter.tell(list(_deletions(netfilter.ask(request), index)))


def _count(netfilter: NetlinkSocket) -> int:
    """Return how many connections a namespace has."""
    answer = netfilter.ask(Request(_GET_STATISTICS, 0, struct.pack("=BBH", 0, 0, 0)))
    entries = attributes(answer[0], _HEAD).get(_ENTRIES)
    return int(struct.unpack("!I", entries)[0]) if entries else 1


class _Packed:
    """A lead as the kernel writes addresses and ports."""

    def __init__(self, lead: Lead) -> None:
        self.targets = {address_bytes(target) for target in lead.targets}
        self.members = {address_bytes(member) for member in lead.members}
        self.length = len(next(iter(self.targets)))
        self.service = b""
        if lead.protocol:
            self.service = bytes([_NUMBERS[lead.protocol]]) + struct.pack("!H", lead.port)

    def found_by(self) -> Iterator[bytes]:
        """Yield what an entry of it is found by; see :func:`_deletions`."""
        for target in self.targets:
            yield target + self.service

    def requests(self) -> Iterator[Request]:
        """Yield requests for its entries."""
        if self.service:
            protocol = attribute(_PROTOCOL, self.service[:1])
            port = attribute(_TARGET_PORT, self.service[1:])
            which = nested(_TUPLE_PROTOCOL, protocol, port)
            yield _dump(self.length, _BY_PROTOCOL | _BY_TARGET_PORT, which)
            return
        for target in sorted(self.targets):
            which = nested(_TUPLE_IP, attribute(_TARGET[self.length], target))
            yield _dump(self.length, _BY_TARGET, which)


def _dump(length: int, by: int = 0, which: bytes = b"") -> Request:
    body = struct.pack("=BBH", _FAMILY[length], 0, 0)
    if by:
        body += nested(_FILTER, number(_FILTER_ORIGINAL, by)) + nested(_ORIGINAL, which)
    return Request(_GET, DUMP, body)


def _deletions(answers: Iterable[bytes], index: dict[bytes, _Packed]) -> Iterator[Request]:
    for answer in answers:
        entry = attributes(answer, _HEAD)
        if _is_over(entry):
            continue
        original, reply = attributes(entry[_ORIGINAL]), attributes(entry[_REPLY])
        to, back = attributes(original[_TUPLE_IP]), attributes(reply[_TUPLE_IP])
        length = 16 if _TARGET[16] in to else 4
        protocol = attributes(original[_TUPLE_PROTOCOL])
        target = to[_TARGET[length]]
        service = protocol.get(_PROTOCOL, b"") + protocol.get(_TARGET_PORT, b"")
        lead = index.get(target + service) or index.get(target)
        if lead is not None and back[_SOURCE[length]] not in lead.members:
            which = nested(_ORIGINAL, entry[_ORIGINAL]) + attribute(_ID, entry[_ID])
            yield Request(_DELETE, 0, answer[:_HEAD] + which)


def _is_over(entry: dict[int, bytes]) -> bool:
    """Return whether an entry is of a TCP connection that has ended on both sides, or was reset."""
    of_tcp = attributes(attributes(entry.get(_DETAILS, b"")).get(_OF_TCP, b""))
    return of_tcp.get(_STATE) in _OVER
