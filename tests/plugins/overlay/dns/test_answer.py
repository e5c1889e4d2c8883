"""Whatever is asked, the answer is right, or a refusal in the protocol's words, or silence."""

from __future__ import annotations

from collections import Counter
from random import Random

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.plugins.overlay.dns.answer import Forward, Reply, decide
from swarmctl.plugins.overlay.dns.state import ResponderState
from swarmctl.plugins.overlay.dns.zone import MEMBER_TTL_S, VIP_TTL_S, Asker, Zone
from tests.plugins.overlay.dns.tables import STATE, member, network, service

ZONE = Zone(STATE)
BACK = Asker("t9", ("net-back",))
MANY = Zone(
    ResponderState(
        networks=(
            network(
                "n",
                1,
                service("db", members=tuple(member(i, f"10.0.1.{i}") for i in range(1, 200))),
                service("six", members=tuple(member(i, f"fd00:1::{i}") for i in range(1, 200))),
                service(
                    "huge",
                    members=tuple(member(i, f"10.1.{i // 250}.{i % 250}") for i in range(5000)),
                ),
            ),
        )
    )
)
MANY_ASKER = Asker("x", ("net-n",))


def ask(
    name: str, kind: str = "A", *, asker: Asker = BACK, zone: Zone = ZONE, stream: bool = False
) -> dns.message.Message:
    """Ask, and return the answer."""
    query = dns.message.make_query(name, kind, use_edns=False)
    return send(query, asker=asker, zone=zone, stream=stream)


def send(
    query: dns.message.Message,
    *,
    asker: Asker = BACK,
    zone: Zone = ZONE,
    stream: bool = False,
    rng: Random | None = None,
) -> dns.message.Message:
    outcome = decide(query.to_wire(), asker, zone, rng or Random(1), stream=stream)
    assert isinstance(outcome, Reply)
    response = dns.message.from_wire(outcome.wire)
    assert response.id == query.id
    assert response.flags & dns.flags.QR
    return response


def addresses(response: dns.message.Message) -> list[str]:
    return sorted(str(record) for rrset in response.answer for record in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "expected", "ttl_s"),
    [
        ("web", "A", ["10.0.1.2"], VIP_TTL_S),
        ("web", "AAAA", ["fd00:1::2"], VIP_TTL_S),
        ("WEB.", "A", ["10.0.1.2"], VIP_TTL_S),
        ("tasks.web", "A", ["10.0.1.11"], MEMBER_TTL_S),
        ("web", "ANY", ["10.0.1.2"], VIP_TTL_S),
        ("db.back", "A", ["10.0.1.13"], MEMBER_TTL_S),
        ("2.1.0.10.in-addr.arpa", "PTR", ["web.back."], MEMBER_TTL_S),
        ("13.1.0.10.in-addr.arpa", "PTR", ["db.3.t3.back."], MEMBER_TTL_S),
    ],
)
def test_names_of_ours_are_answered(name: str, kind: str, expected: list[str], ttl_s: int) -> None:
    """With their addresses, under the name as it was asked, for the time they hold."""
    response = ask(name, kind)
    assert response.rcode() == dns.rcode.NOERROR
    assert addresses(response) == expected
    assert response.answer[0].ttl == ttl_s
    assert response.answer[0].name.to_text() == f"{name.rstrip('.')}."
    assert response.flags & dns.flags.RA


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("old", "AAAA"), ("idle", "A"), ("idle", "AAAA"), ("tasks.old", "A"), ("db", "ANY6")),
        *(("web", "MX"), ("web", "SRV"), ("web", "HTTPS"), ("web", "TXT"), ("web", "PTR")),
    ],
)
def test_a_name_of_ours_without_such_an_address_exists_all_the_same(name: str, kind: str) -> None:
    """No error and no answer: "no such name", or an answer from elsewhere, breaks musl."""
    response = ask(name, "AAAA" if kind == "ANY6" else kind)
    assert response.rcode() == dns.rcode.NOERROR
    assert response.answer == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("example.com", "A"), ("edge", "A"), ("web.example.com", "AAAA"), (".", "NS")),
        *(("8.8.8.8.in-addr.arpa", "PTR"), ("nonsense.in-addr.arpa", "PTR"), ("x", "TYPE65280")),
        *(("2.2.0.10.in-addr.arpa", "PTR"), ("_dns.resolver.arpa", "SVCB")),
    ],
)
def test_other_names_are_passed_on_as_they_came(name: str, kind: str) -> None:
    """Byte by byte; if nobody answers, the asker hears that the server failed."""
    query = dns.message.make_query(name, kind, want_dnssec=True)
    outcome = decide(query.to_wire(), BACK, ZONE, Random(1), stream=False)
    assert isinstance(outcome, Forward)
    assert outcome.wire == query.to_wire()
    failure = dns.message.from_wire(outcome.failure)
    assert (failure.id, failure.rcode()) == (query.id, dns.rcode.SERVFAIL)
    assert failure.question == query.question


@pytest.mark.parametrize(
    ("asker", "code"),
    [
        (Asker("t8", ("net-inner",), forwards=False), dns.rcode.NXDOMAIN),
        (Asker("host", ("net-back",), forwards=False, is_host=True), dns.rcode.REFUSED),
    ],
)
def test_nothing_is_passed_on_for_those_who_may_not(asker: Asker, code: dns.rcode.Rcode) -> None:
    """For internal networks nothing else exists; what the host asks could come back to us."""
    assert ask("example.com", asker=asker).rcode() == code
    own = "vault" if "net-inner" in asker.networks else "web"
    assert addresses(ask(own, asker=asker)) == [f"10.0.{3 if own == 'vault' else 1}.2"]


def test_addresses_of_ours_that_nobody_has_are_not_asked_elsewhere() -> None:
    """Who asks for the name of one learns that there is none, and nobody else that it was asked."""
    assert ask("99.1.0.10.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN


def test_callers_spread_over_members() -> None:
    """Each member comes first about as often as any other."""
    rng = Random(7)
    query = dns.message.make_query("db", "A", use_edns=False)
    firsts: Counter[str] = Counter()
    for _ in range(1990):
        firsts[
            str(send(query, asker=MANY_ASKER, zone=MANY, rng=rng, stream=True).answer[0][0])
        ] += 1
    assert len(firsts) == 199
    assert max(firsts.values()) < 30


@pytest.mark.parametrize(
    ("name", "kind", "payload", "limit", "at_least"),
    [
        ("db", "A", None, 512, 29),
        ("db", "A", 1232, 1232, 70),
        ("db", "A", 4096, 1232, 70),
        ("db", "A", 100, 512, 25),
        ("six", "AAAA", None, 512, 15),
    ],
)
def test_an_answer_too_large_for_a_packet_is_cut_and_says_so(
    name: str, kind: str, payload: int | None, limit: int, at_least: int
) -> None:
    """What fits comes along, for those who cannot ask again over TCP."""
    query = dns.message.make_query(name, kind, use_edns=payload is not None, payload=payload or 0)
    outcome = decide(query.to_wire(), MANY_ASKER, MANY, Random(1), stream=False)
    assert isinstance(outcome, Reply)
    assert len(outcome.wire) <= limit
    response = dns.message.from_wire(outcome.wire)
    assert response.flags & dns.flags.TC
    assert len(addresses(response)) >= at_least
    assert len(addresses(response)) <= 199


def test_each_member_is_in_some_of_the_cut_answers() -> None:
    """Who reads only what fits still spreads over all."""
    rng = Random(7)
    query = dns.message.make_query("db", "A", use_edns=False)
    seen: set[str] = set()
    for _ in range(100):
        seen.update(addresses(send(query, asker=MANY_ASKER, zone=MANY, rng=rng)))
    assert len(seen) == 199


def test_over_tcp_the_answer_is_whole() -> None:
    """All 199 members, and of thousands as many as anybody reads."""
    response = ask("db", asker=MANY_ASKER, zone=MANY, stream=True)
    assert len(addresses(response)) == 199
    assert not response.flags & dns.flags.TC
    assert len(addresses(ask("huge", asker=MANY_ASKER, zone=MANY, stream=True))) == 1000


def test_edns_is_spoken() -> None:
    """An OPT record is answered with one; a version nobody knows is refused as such."""
    query = dns.message.make_query("web", "A", use_edns=0, payload=4096)
    assert send(query).edns == 0
    query.use_edns(1)
    response = send(query)
    assert response.rcode() == dns.rcode.BADVERS
    assert response.answer == []
    assert ask("web").edns == -1


@pytest.mark.parametrize(
    ("opcode", "code"),
    [
        (dns.opcode.STATUS, dns.rcode.NOTIMP),
        (dns.opcode.NOTIFY, dns.rcode.NOTIMP),
        (dns.opcode.UPDATE, dns.rcode.NOTIMP),
    ],
)
def test_only_questions_are_answered(opcode: dns.opcode.Opcode, code: dns.rcode.Rcode) -> None:
    """Updates, notifications and the like are nothing that we do."""
    wire = bytearray(dns.message.make_query("web", "A", use_edns=False).to_wire())
    wire[2] = (wire[2] & 0x87) | (opcode << 3)
    outcome = decide(bytes(wire), BACK, ZONE, Random(1), stream=False)
    assert isinstance(outcome, Reply)
    assert outcome.wire[3] & 0xF == code
    assert outcome.wire[:2] == wire[:2]


@pytest.mark.parametrize(("name", "kind", "rdclass"), [("web", "AXFR", "IN"), ("web", "A", "CH")])
def test_transfers_and_other_classes_are_refused(name: str, kind: str, rdclass: str) -> None:
    """Ours are names of the Internet class, one at a time."""
    query = dns.message.make_query(name, kind, rdclass, use_edns=False)
    assert send(query).rcode() == dns.rcode.REFUSED


def test_answers_are_not_answered() -> None:
    """Two servers must not talk to each other for ever."""
    wire = dns.message.make_response(dns.message.make_query("web", "A")).to_wire()
    assert decide(wire, BACK, ZONE, Random(1), stream=False) is None


@pytest.mark.parametrize("count", [0, 2])
def test_a_message_asks_one_question(count: int) -> None:
    """None, or two, is a malformed message, and is told so."""
    query = dns.message.make_query("web", "A", use_edns=False)
    query.question = query.question * count
    assert send(query).rcode() == dns.rcode.FORMERR


def test_a_question_says_its_name_itself() -> None:
    """One that points to other bytes of the message could not be found again in an answer."""
    wire = bytes.fromhex("123401000001000000000000") + b"\xc0\x04" + bytes([0, 1, 0, 1])
    outcome = decide(wire, BACK, ZONE, Random(1), stream=False)
    assert isinstance(outcome, Reply)
    assert dns.message.from_wire(outcome.wire).rcode() == dns.rcode.FORMERR


def check_outcome(wire: bytes, *, stream: bool) -> None:
    """An outcome is a message with the question's number, or the question itself, or nothing."""
    outcome = decide(wire, BACK, ZONE, Random(1), stream=stream)
    if outcome is None:
        assert len(wire) < 12 or wire[2] & 0x80
        return
    assert outcome.wire[:2] == wire[:2]
    if isinstance(outcome, Forward):
        assert outcome.wire == wire
        return
    dns.message.from_wire(outcome.wire)
    assert outcome.wire[2] & 0x80
    assert len(outcome.wire) <= (65_535 if stream else 1232)


@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_give_an_answer_or_silence(wire: bytes, stream: bool) -> None:
    """Nothing that arrives is too strange."""
    check_outcome(wire, stream=stream)


QUESTIONS = [
    dns.message.make_query("web", "A", use_edns=False).to_wire(),
    dns.message.make_query("2.1.0.10.in-addr.arpa", "PTR", use_edns=0, payload=1232).to_wire(),
    dns.message.make_query("x" * 63 + ".example.com", "HTTPS", want_dnssec=True).to_wire(),
]


@given(
    st.sampled_from(QUESTIONS),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    st.integers(0, 80),
    st.binary(max_size=12),
)
def test_a_damaged_question_gives_an_answer_or_silence(
    wire: bytes, changes: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    """Bytes changed, lost or added at the end of a good one find every corner of the reader."""
    damaged = bytearray(wire)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    check_outcome(bytes(damaged[: len(damaged) - min(cut, 40)]) + more, stream=False)


@given(st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=3))
def test_any_name_can_be_asked_for(labels: list[bytes]) -> None:
    """Labels may hold any bytes; one that looks like ours when printed is not ours."""
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    wire = bytes.fromhex("123401000001000000000000") + name + bytes([0, 1, 0, 1])
    outcome = decide(wire, BACK, ZONE, Random(1), stream=False)
    known = ZONE.find(".".join(label.decode("latin-1") for label in labels), BACK.networks, 0)
    assert isinstance(outcome, Forward if known is None else Reply)
