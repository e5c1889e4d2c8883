"""What is asked elsewhere is answered, whichever servers are slow, down, lying or in two minds.

Real servers on loopback. Time passes while nobody has anything to do, so that patience ends for
want of an answer and never for want of a processor.
"""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.plugins.overlay.dns import upstream
from swarmctl.plugins.overlay.dns.upstream import Upstreams, fits, question_end
from tests.plugins.overlay.dns import servers
from tests.plugins.overlay.dns.servers import address, code, ip, serving, silence

pytestmark = pytest.mark.hurried

ASKED_AGAIN_S = 5.0  # when a program asks again, or gives up
QUERY = dns.message.make_query("Example.com", "A")


@pytest.fixture
def port() -> int:
    """A port for the test's servers."""
    return servers.free_port()


async def ask(
    asker: Upstreams, *names: str, stream: bool = False, query: dns.message.Message = QUERY
) -> dns.message.Message | None:
    answer = await asker.ask(query.to_wire(), [ip(name) for name in names], stream=stream)
    return None if answer is None else dns.message.from_wire(answer)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_comes_back(port: int, stream: bool) -> None:
    """With the asker's own number and letters, over the asker's transport."""
    async with serving(port, a1=address()) as known:
        response = await ask(Upstreams(port=port), "a1", stream=stream)
    assert response is not None
    assert response.id == QUERY.id
    assert response.question == QUERY.question
    assert response.question[0].name.to_text() == "Example.com."
    assert str(response.answer[0][0]) == "192.0.2.1"
    assert known["a1"].asked == [("tcp" if stream else "udp", "Example.com.")]


async def test_a_cut_answer_comes_back_cut(port: int) -> None:
    """Who can asks again over TCP; who cannot has a part at least."""
    async with serving(port, a1=address(cut=True)):
        response = await ask(Upstreams(port=port), "a1")
    assert response is not None
    assert response.flags & dns.flags.TC
    assert response.answer


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_is_down_is_passed_over_at_once(port: int, stream: bool) -> None:
    """Where nobody listens, the kernel says so; nothing is waited for."""
    asker = Upstreams(port=port)
    async with serving(port, a2=address()):
        with trio.fail_after(20):
            assert await ask(asker, "a1", "a2", stream=stream) is not None


@pytest.mark.parametrize(
    "bad", [code(dns.rcode.SERVFAIL), code(dns.rcode.REFUSED), code(dns.rcode.NOTIMP)]
)
async def test_a_server_that_cannot_answer_is_passed_over(port: int, bad: servers.Respond) -> None:
    """The next may know; when none does, what the last said is the answer."""
    async with serving(port, a1=bad, a2=address(), a3=bad):
        good = await ask(Upstreams(port=port), "a1", "a2")
        assert good is not None
        assert good.rcode() == dns.rcode.NOERROR
        worse = await ask(Upstreams(port=port), "a1", "a3")
        assert worse is not None
        assert worse.rcode() != dns.rcode.NOERROR


async def test_a_name_that_does_not_exist_is_an_answer(port: int) -> None:
    """No other server is asked for a better one."""
    async with serving(port, a1=code(dns.rcode.NXDOMAIN), a2=address()) as known:
        response = await ask(Upstreams(port=port), "a1", "a2")
    assert response is not None
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert known["a2"].asked == []


async def test_a_silent_server_is_asked_last_for_a_while(port: int) -> None:
    """The first question waits a moment for it; those after do not."""
    asker = Upstreams(port=port)
    async with serving(port, a1=silence, a2=address()) as known:
        for _ in range(5):
            assert await ask(asker, "a1", "a2") is not None
    assert len(known["a1"].asked) == 1
    assert len(known["a2"].asked) == 5


async def test_a_lost_question_is_asked_again(port: int) -> None:
    """A single server is asked a second time, by another datagram."""
    lost = []

    def forgetful(query: dns.message.Message) -> dns.message.Message | None:
        lost.append(query.id)
        return None if len(lost) == 1 else dns.message.make_response(query)

    async with serving(port, a1=forgetful):
        assert await ask(Upstreams(port=port), "a1") is not None
    assert len(set(lost)) == 2


@pytest.mark.parametrize("names", [["a1"], ["a1", "a2"], []])
async def test_patience_has_an_end(port: int, names: list[str]) -> None:
    """When nobody answers, that is said before the asker gives up."""
    async with serving(port, a1=silence, a2=silence):
        with trio.fail_after(ASKED_AGAIN_S):
            assert await ask(Upstreams(port=port), *names) is None


async def test_a_late_answer_counts_while_others_are_asked(port: int) -> None:
    """A slow server that answers after the next was asked has answered all the same."""
    async with trio.open_nursery() as nursery:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((ip("a1"), port))

            async def slow() -> None:
                wire, source = await sock.recvfrom(4096)
                await trio.sleep(upstream.NEXT_AFTER_S + 0.5)
                response = dns.message.make_response(dns.message.from_wire(wire))
                await sock.sendto(response.to_wire(), source)

            nursery.start_soon(slow)
            async with serving(port, a2=silence) as known:
                assert await ask(Upstreams(port=port), "a1", "a2") is not None
            assert len(known["a2"].asked) == 1


async def test_only_the_answer_to_what_was_asked_is_taken(port: int) -> None:
    """Another number, another name, a question, a fragment: each is ignored, whoever sent it."""

    async def liar() -> None:
        wire, source = await sock.recvfrom(4096)
        query = dns.message.from_wire(wire)
        other = dns.message.make_query("evil.com", "A", id=query.id)
        number = dns.message.make_query("example.com", "A", id=query.id ^ 1)
        for lie in (dns.message.make_response(other), dns.message.make_response(number)):
            await sock.sendto(lie.to_wire(), source)
        await sock.sendto(wire, source)
        await sock.sendto(wire[:7], source)
        await sock.sendto(b"", source)
        truth = address("192.0.2.9")(query)
        assert isinstance(truth, dns.message.Message)
        await sock.sendto(truth.to_wire(), source)

    async with trio.open_nursery() as nursery:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((ip("a1"), port))
            nursery.start_soon(liar)
            response = await ask(Upstreams(port=port), "a1")
    assert response is not None
    assert str(response.answer[0][0]) == "192.0.2.9"


async def test_every_question_has_a_number_and_a_port_of_its_own(port: int) -> None:
    """Neither follows from the last: both are drawn anew, so that two may be the same by chance."""
    seen: list[tuple[int, int]] = []
    async with trio.open_nursery() as nursery:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((ip("a1"), port))

            async def note() -> None:
                while True:
                    wire, source = await sock.recvfrom(4096)
                    query = dns.message.from_wire(wire)
                    seen.append((query.id, source[1]))
                    await sock.sendto(dns.message.make_response(query).to_wire(), source)

            nursery.start_soon(note)
            for _ in range(20):
                assert await ask(Upstreams(port=port), "a1") is not None
            nursery.cancel_scope.cancel()
    numbers = [number for number, _ in seen]
    assert len(numbers) == 20
    assert len(set(numbers)) > 16
    assert len({source for _, source in seen}) > 10
    assert numbers.count(QUERY.id) <= 1


async def test_what_is_no_address_is_no_server() -> None:
    """A zone that is not there, or nonsense, fails that server and nothing else."""
    assert (
        await Upstreams(port=1).ask(QUERY.to_wire(), ["fe80::1%none0", "::x"], stream=False) is None
    )


def test_a_refusal_may_lack_the_question() -> None:
    """Some servers refuse what they do not understand without repeating it."""
    wire = QUERY.to_wire()
    refusal = wire[:2] + b"\x81\x81" + bytes(8)
    assert fits(wire, refusal)
    assert not fits(wire, wire[:2] + b"\x81\x80" + bytes(8))
    assert question_end(wire) == 12 + len(b"\x07example\x03com\x00") + 4


@given(st.binary(max_size=80), st.sampled_from([0, 2, 6, 12, 29]))
def test_any_bytes_are_an_answer_or_not(data: bytes, known: int) -> None:
    """What a server sends, or who pretends to be one, is judged and never trips us."""
    wire = QUERY.to_wire()
    answer = wire[:known] + data
    if fits(wire, answer):
        assert answer[:2] == wire[:2]
        assert answer[2] & 0x80


def test_a_server_that_folds_letters_is_believed() -> None:
    """Its answer names the same name."""
    answer = dns.message.make_response(dns.message.make_query("example.com", "A", id=QUERY.id))
    assert fits(QUERY.to_wire(), answer.to_wire())
