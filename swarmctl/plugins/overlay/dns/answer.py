"""From the bytes of a question to what is done about it: answer, pass on, or keep silent.

Pure, and total: whatever bytes come in, the outcome is one of the three (``test_answer`` throws
everything at it). This is the one module that knows dnspython.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.PTR
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.reversename
import dns.rrset

from .zone import MEMBER_TTL_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from .zone import Asker, Zone

HEADER_BYTES = 12
OLD_UDP_BYTES = 512  # what an answer may have when the question says nothing (RFC 1035)
UDP_BYTES = 1232  # fits into any path unfragmented (DNS flag day 2020)
STREAM_BYTES = 65_535
MAX_ADDRESSES = 1_000
"""Of one answer, over a stream: what any program reads, and far below what a message holds."""

QR = 0x80  # of the third byte: this is an answer
_ADDRESS_TYPES = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6, dns.rdatatype.ANY: 0}
_RECORDS: dict[dns.rdatatype.RdataType, Callable[..., dns.rdata.Rdata]] = {
    dns.rdatatype.A: dns.rdtypes.IN.A.A,
    dns.rdatatype.AAAA: dns.rdtypes.IN.AAAA.AAAA,
    dns.rdatatype.PTR: dns.rdtypes.ANY.PTR.PTR,
}
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
# What dnspython raises on bytes that are no message: its own errors, and those of what it uses.
_MALFORMED = (dns.exception.DNSException, ValueError, IndexError, OverflowError)


class Reply(NamedTuple):
    """The bytes of an answer."""

    wire: bytes


class Forward(NamedTuple):
    """A question that others have to answer.

    Attributes:
        wire: the question, as it came.
        failure: what to answer when nobody does.
    """

    wire: bytes
    failure: bytes


def decide(
    wire: bytes, asker: Asker, zone: Zone, rng: Random, *, stream: bool
) -> Reply | Forward | None:
    """Return what to do about a question; None for silence.

    Args:
        rng: shuffles the order of addresses, so that callers spread over them.
        stream: it came over TCP.
    """
    if len(wire) < HEADER_BYTES or wire[2] & QR:
        return None  # answering answers would let two servers talk for ever
    if dns.opcode.from_flags(int.from_bytes(wire[2:4], "big")) != dns.opcode.QUERY:
        return Reply(_bare(wire, dns.rcode.NOTIMP))
    try:
        query = dns.message.from_wire(wire)
    except _MALFORMED:
        return Reply(_bare(wire, dns.rcode.FORMERR))
    try:
        return _decide(query, wire, asker, zone, rng, stream=stream)
    except _MALFORMED:
        return Reply(_bare(wire, dns.rcode.SERVFAIL))


def _decide(
    query: dns.message.Message, wire: bytes, asker: Asker, zone: Zone, rng: Random, *, stream: bool
) -> Reply | Forward:
    if query.edns > 0:
        return _plain(query, dns.rcode.BADVERS)
    if len(query.question) != 1:
        return Reply(_bare(wire, dns.rcode.FORMERR))
    question = query.question[0]
    name = question.name.to_wire()
    assert name is not None  # it is given back unless it is written somewhere
    if not wire[HEADER_BYTES:].lower().startswith(name.lower()):
        return Reply(_bare(wire, dns.rcode.FORMERR))  # a name that points into the header
    if question.rdclass != dns.rdataclass.IN or question.rdtype in _TRANSFERS:
        return _plain(query, dns.rcode.REFUSED)
    answers = _ours(question, asker, zone, rng)
    if answers is not None:
        return Reply(_render(query, answers, stream=stream))
    reverse = _reversed(question)
    if reverse is not None and zone.reverse(reverse, asker.networks) == "":
        return _plain(query, dns.rcode.NXDOMAIN)  # in our subnets, and nobody's
    if asker.forwards:
        return Forward(wire, _plain(query, dns.rcode.SERVFAIL).wire)
    # The host asks us and would be asked by us: refuse. For a task on internal networks alone there
    # is nothing beyond; "no such name" is what every resolver takes for an end, while musl waits
    # five seconds for something better than REFUSED or SERVFAIL.
    return _plain(query, dns.rcode.REFUSED if asker.is_host else dns.rcode.NXDOMAIN)


def _ours(
    question: dns.rrset.RRset, asker: Asker, zone: Zone, rng: Random
) -> dns.rrset.RRset | None:
    """Return the answer about a name of ours, maybe empty; None for others' names."""
    answers = dns.rrset.RRset(question.name, question.rdclass, question.rdtype)
    reverse = _reversed(question)
    if reverse is not None:
        name = zone.reverse(reverse, asker.networks)
        if not name:
            return None
        answers.add(_record(dns.rdatatype.PTR, dns.name.from_text(name)), MEMBER_TTL_S)
        return answers
    asked = _ADDRESS_TYPES.get(question.rdtype)
    found = zone.find(_text(question.name), asker.networks, asked or 0)
    if found is None:
        return None
    if asked is None:
        return answers  # a name of ours has addresses and nothing else: MX, SRV, HTTPS... are none
    addresses = list(found.of_family(asked) if asked else _one_family(found.addresses))
    rng.shuffle(addresses)
    if asked == 0 and addresses:
        version = dns.rdatatype.AAAA if ":" in addresses[0] else dns.rdatatype.A
        answers = dns.rrset.RRset(question.name, question.rdclass, version)
    for address in addresses[:MAX_ADDRESSES]:
        answers.add(_record(answers.rdtype, address), found.ttl_s)
    return answers


def _one_family(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a question for ANY gets: one kind of record is enough (RFC 8482)."""
    old = tuple(one for one in addresses if ":" not in one)
    return old or addresses


def _record(kind: dns.rdatatype.RdataType, value: object) -> dns.rdata.Rdata:
    return _RECORDS[kind](dns.rdataclass.IN, kind, value)


def _reversed(question: dns.rrset.RRset) -> str | None:
    """Return the address that a PTR question is about."""
    if question.rdtype != dns.rdatatype.PTR:
        return None
    try:
        return dns.reversename.to_address(question.name)
    except _MALFORMED:
        return None


def _text(name: dns.name.Name) -> str:
    """Return a name as tables write it; bytes that no name of ours has come out escaped."""
    return name.to_text(omit_final_dot=True)


# --- answers as bytes -----------------------------------------------------------------------------


def _render(query: dns.message.Message, answers: dns.rrset.RRset, *, stream: bool) -> bytes:
    """Return an answer that fits, marked as cut where it was.

    A part of the addresses comes along in a cut answer: old C libraries of musl ask by UDP alone.
    """
    limit = STREAM_BYTES if stream else _udp_limit(query)
    records = list(answers)
    response = _response(query)
    kept = len(records)
    while True:
        response.answer = [_head(answers, records[:kept])] if kept else []
        try:
            # dnspython would shuffle again, what is kept alone and by chance of its own.
            wire = response.to_wire(max_size=limit, want_shuffle=False)  # type: ignore[arg-type]
        except dns.exception.TooBig:
            response.flags |= dns.flags.TC
            kept = _fewer(kept, limit, answers)
            continue
        return wire


def _fewer(kept: int, limit: int, answers: dns.rrset.RRset) -> int:
    """Return how many records to try next: a good guess first, then one less each time."""
    record_bytes = 28 if answers.rdtype == dns.rdatatype.AAAA else 16
    return min(kept - 1, limit // record_bytes)


def _head(answers: dns.rrset.RRset, records: list[dns.rdata.Rdata]) -> dns.rrset.RRset:
    part = dns.rrset.RRset(answers.name, answers.rdclass, answers.rdtype)
    for record in records:
        part.add(record, answers.ttl)
    return part


def _udp_limit(query: dns.message.Message) -> int:
    if query.edns < 0:
        return OLD_UDP_BYTES
    return max(OLD_UDP_BYTES, min(query.payload, UDP_BYTES))


def _response(query: dns.message.Message) -> dns.message.Message:
    return dns.message.make_response(query, recursion_available=True, our_payload=UDP_BYTES, pad=0)


def _plain(query: dns.message.Message, code: dns.rcode.Rcode) -> Reply:
    """Return an answer that has nothing but a code."""
    response = _response(query)
    response.set_rcode(code)
    return Reply(response.to_wire(max_size=STREAM_BYTES))


def _bare(wire: bytes, code: dns.rcode.Rcode) -> bytes:
    """Return an answer to what could not be read: its number and kind, the code, no question."""
    kind = wire[2] & 0x79  # opcode, and whether recursion is desired
    return wire[:2] + bytes([QR | kind, 0x80 | code]) + bytes(8)
