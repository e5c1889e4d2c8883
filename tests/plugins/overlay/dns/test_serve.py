"""Questions over real sockets are answered, passed on, or dropped, and nothing piles up.

Time passes while nobody has anything to do, so silence is one that no processor was waited for.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import msgspec
import pytest
import trio
import trio.testing

from swarmctl.core.agent.network import Sandbox
from swarmctl.plugins.overlay.dns import resolvconf, serve
from swarmctl.plugins.overlay.dns.serve import Desk, HostServers, Room
from swarmctl.plugins.overlay.dns.sockets import Place, call_in, open_pair
from swarmctl.plugins.overlay.dns.state import state_of
from swarmctl.plugins.overlay.dns.upstream import Upstreams
from swarmctl.plugins.overlay.dns.zone import Zone
from tests.plugins.overlay.dns.asking import (
    GATEWAY,
    TASK,
    addresses,
    ask,
    loop_network,
    send_datagram,
    send_stream,
    table,
)
from tests.plugins.overlay.dns.servers import address, code, free_port, ip, serving, silence

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from swarmctl.core.model.endpoints import EndpointTable

pytestmark = pytest.mark.hurried

QUERY = dns.message.make_query("web", "A", use_edns=False).to_wire()
OTHER = dns.message.make_query("example.com", "A", use_edns=False).to_wire()


class Counter:
    """A desk at work.

    Attributes:
        port: where it answers at the gateway.
        upstream: where it asks others.
        resolv_conf: the host's file.
    """

    def __init__(self, desk: Desk, port: int, upstream: int, resolv_conf: Path) -> None:
        self.desk = desk
        self.port = port
        self.upstream = upstream
        self.resolv_conf = resolv_conf

    def know(self, known: EndpointTable, sandboxes: Sequence[Sandbox] = ()) -> None:
        """Answer from a table."""
        state = state_of(known, sandboxes, number=1, boot="", start_of=lambda _: 0)
        self.desk.zone = Zone(state)


@contextlib.asynccontextmanager
async def at_work(tmp_path: Path) -> AsyncIterator[Counter]:
    """Run a desk at network 1's gateway."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver {ip('a1')}\n")
    place = Place("n1", GATEWAY, free_port())
    pair = open_pair(place)
    try:
        async with trio.open_nursery() as nursery:
            upstream = free_port()
            desk = Desk(Upstreams(port=upstream), HostServers(resolv_conf), nursery)
            counter = Counter(desk, place.port, upstream, resolv_conf)
            counter.know(table())
            datagram = trio.socket.from_stdlib_socket(pair.datagram)
            stream = trio.socket.from_stdlib_socket(pair.stream)
            nursery.start_soon(desk.serve_datagrams, place, datagram)
            nursery.start_soon(desk.serve_streams, place, stream)
            yield counter
            nursery.cancel_scope.cancel()
    finally:
        pair.close()


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    """A desk at network 1's gateway."""
    async with at_work(tmp_path) as one:
        yield one


@pytest.mark.parametrize("stream", [False, True])
async def test_names_of_ours_are_answered(counter: Counter, stream: bool) -> None:
    """Over both transports."""
    assert addresses(await ask(port=counter.port, stream=stream)) == ["127.9.1.2"]


async def test_what_did_not_fit_is_had_over_tcp(counter: Counter) -> None:
    """A program that is told of a cut answer asks again, and has all of it."""
    cut = await ask("db", port=counter.port)
    assert cut.flags & dns.flags.TC
    assert len(addresses(await ask("db", port=counter.port, stream=True))) == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_other_names_come_from_the_hosts_servers(counter: Counter, stream: bool) -> None:
    """As those answer, by the transport that was asked by."""
    async with serving(counter.upstream, a1=address()) as known:
        response = await ask("example.com", port=counter.port, stream=stream)
    assert addresses(response) == ["192.0.2.1"]
    assert known["a1"].asked == [("tcp" if stream else "udp", "example.com.")]


async def test_names_of_ours_are_never_asked_elsewhere(counter: Counter) -> None:
    """Not for a family that they lack either."""
    async with serving(counter.upstream, a1=address()) as known:
        response = await ask("web", "AAAA", port=counter.port)
        assert (response.rcode(), response.answer) == (dns.rcode.NOERROR, [])
    assert known["a1"].asked == []


async def test_the_hosts_file_is_followed(counter: Counter) -> None:
    """A host that gets other servers passes on to those; a file that is gone changes nothing."""
    async with serving(counter.upstream, a1=address("192.0.2.1"), a2=address("192.0.2.2")):
        assert addresses(await ask("x.org", port=counter.port)) == ["192.0.2.1"]
        counter.resolv_conf.write_text(f"nameserver {ip('a2')}\n")
        await trio.sleep(serve.LOOK_AFTER_S + 1)
        assert addresses(await ask("x.org", port=counter.port)) == ["192.0.2.2"]
        counter.resolv_conf.unlink()
        await trio.sleep(serve.LOOK_AFTER_S + 1)
        assert addresses(await ask("x.org", port=counter.port)) == ["192.0.2.2"]


async def test_a_task_may_have_servers_of_its_own(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its spec names is asked for it, and for nobody else."""
    # All servers of these tests are on loopback, which a task's servers cannot be.
    monkeypatch.setattr(resolvconf, "is_loopback", lambda _: False)
    sandbox = Sandbox(id="t1", pid=0, networks=("n1",), nameservers=(ip("a2"),))
    counter.know(table(), [sandbox])
    async with serving(counter.upstream, a1=address("192.0.2.1"), a2=address("192.0.2.2")):
        assert addresses(await ask("x.org", port=counter.port)) == ["192.0.2.2"]
        neighbour = await ask("x.org", port=counter.port, source="127.9.1.77")
        assert addresses(neighbour) == ["192.0.2.1"]


@pytest.mark.parametrize("servers", [("127.0.0.1", "::1"), (GATEWAY,)])
async def test_neither_a_loopback_nor_ourselves_is_asked(
    counter: Counter, servers: tuple[str, ...]
) -> None:
    """The host's own loopback is not the task's, and we would ask ourselves for ever."""
    counter.know(table(), [Sandbox(id="t1", pid=0, networks=("n1",), nameservers=servers)])
    response = await ask("x.org", port=counter.port)
    assert response.rcode() == dns.rcode.SERVFAIL


async def test_servers_that_fail_are_told_apart_from_names_that_are_not(counter: Counter) -> None:
    """No answer is a server failure; "no such name" is passed back as such."""
    assert (await ask("x.org", port=counter.port)).rcode() == dns.rcode.SERVFAIL
    async with serving(counter.upstream, a1=code(dns.rcode.NXDOMAIN)):
        assert (await ask("x.org", port=counter.port)).rcode() == dns.rcode.NXDOMAIN
    assert counter.desk.counts["unanswered"] == 1


async def test_strangers_hear_nothing(counter: Counter) -> None:
    """Who is in none of our networks gets no answer, by which nobody can be flooded either."""
    with trio.move_on_after(0.2) as waiting:
        await send_datagram(QUERY, port=counter.port, source="127.8.0.1")
    assert waiting.cancelled_caught
    with pytest.raises((ConnectionError, trio.BrokenResourceError)):
        await send_stream(QUERY, port=counter.port, source="127.8.0.1")
    assert counter.desk.counts["stranger"] == 2


async def test_the_host_may_look_but_is_not_answered_for_others(counter: Counter) -> None:
    """Its own server may pass on to us; what we passed on to it would never end."""
    mine = await ask(port=counter.port, source=GATEWAY)
    assert addresses(mine) == ["127.9.1.2"]
    other = await ask("x.org", port=counter.port, source=GATEWAY)
    assert other.rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("wire", [b"", b"x", QUERY[:-3], bytes(12), b"\xff" * 4096])
async def test_nonsense_stops_nothing(counter: Counter, wire: bytes) -> None:
    """The next question is answered, over both transports."""
    with trio.move_on_after(0.05):
        await send_datagram(wire, port=counter.port)
    with trio.move_on_after(0.05), contextlib.suppress(ConnectionError):
        await send_stream(wire, port=counter.port)
    assert addresses(await ask(port=counter.port)) == ["127.9.1.2"]
    assert addresses(await ask(port=counter.port, stream=True)) == ["127.9.1.2"]


async def test_a_question_that_nobody_foresaw_stops_nothing(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours costs that question its answer; it is logged and counted."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(serve, "decide", fail)
        with trio.move_on_after(0.2):
            await send_datagram(QUERY, port=counter.port)
    assert counter.desk.counts["failed"] == 1
    assert addresses(await ask(port=counter.port)) == ["127.9.1.2"]


async def test_several_questions_share_a_connection(counter: Counter) -> None:
    """They are answered one after the other."""
    last = dns.message.make_query("db", "A").to_wire()
    response = dns.message.from_wire(await send_stream(QUERY, QUERY, last, port=counter.port))
    assert len(addresses(response)) == 200


async def test_an_idle_connection_is_closed(counter: Counter) -> None:
    """Who connects and says nothing, or half a question, keeps a place for a while only."""
    for beginning in (b"", b"\0\x40half"):
        stream = await trio.open_tcp_stream(GATEWAY, counter.port, local_address=TASK)
        async with stream:
            if beginning:
                await stream.send_all(beginning)
            with trio.fail_after(serve.STREAM_IDLE_S + 1):
                assert await stream.receive_some() == b""


async def test_too_many_connections_are_refused(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task may have so many, and a neighbour still gets one."""
    streams = [
        await trio.open_tcp_stream(GATEWAY, counter.port, local_address=TASK)
        for _ in range(serve.MAX_STREAMS_EACH)
    ]
    with pytest.raises((ConnectionError, trio.BrokenResourceError)):
        await send_stream(QUERY, port=counter.port)
    neighbour = await send_stream(QUERY, port=counter.port, source="127.9.1.77")
    assert addresses(dns.message.from_wire(neighbour)) == ["127.9.1.2"]
    for stream in streams:
        await stream.aclose()
    assert addresses(await ask(port=counter.port)) == ["127.9.1.2"]


async def test_too_many_questions_for_others_are_dropped(counter: Counter) -> None:
    """Those beyond a task's share are counted and forgotten; names of ours go on as ever."""
    async with serving(counter.upstream, a1=silence):
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.bind((TASK, 0))
            await sock.connect((GATEWAY, counter.port))
            for _ in range(serve.MAX_FORWARDS_EACH + 20):
                await sock.send(OTHER)
                await trio.lowlevel.checkpoint()
            assert addresses(await ask(port=counter.port)) == ["127.9.1.2"]
        assert counter.desk.counts["dropped"] == 20
        neighbour = await ask(port=counter.port, source="127.9.1.77")
        assert addresses(neighbour) == ["127.9.1.2"]


async def test_what_is_over_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions passed on, and connections, count while they last."""
    monkeypatch.setattr(serve, "MAX_FORWARDS_EACH", 1)
    monkeypatch.setattr(serve, "MAX_STREAMS_EACH", 1)
    async with at_work(tmp_path) as counter, serving(counter.upstream, a1=address()):
        for stream in (False, False, False, True, True, True):
            await trio.testing.wait_all_tasks_blocked()
            response = await ask("x.org", port=counter.port, stream=stream)
            assert addresses(response) == ["192.0.2.1"]
        assert counter.desk.counts["dropped"] == 0


async def test_a_newer_table_counts_at_once(counter: Counter) -> None:
    """The very next question is answered from it; a network that is gone has no askers."""
    counter.know(table(vip="127.9.1.3"))
    assert addresses(await ask(port=counter.port)) == ["127.9.1.3"]
    counter.know(table(loop_network(2)))
    with trio.move_on_after(0.2) as waiting:
        await send_datagram(QUERY, port=counter.port)
    assert waiting.cancelled_caught


def test_room_is_given_back() -> None:
    """So many of each, so many of all, and every place again once it is free."""
    room = Room(3, 2)
    assert [room.enter("a"), room.enter("a"), room.enter("a")] == [True, True, False]
    assert [room.enter("b"), room.enter("c")] == [True, False]
    room.leave("a")
    assert [room.enter("c"), room.enter("a")] == [True, False]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to enter a namespace")
def test_what_is_done_in_a_namespace_comes_back() -> None:
    """What the function gives, or its error; here in our own, which is entered like any other."""
    with Path("/proc/self/ns/net").open() as space:
        assert call_in(space.fileno(), lambda: "made") == "made"
        with pytest.raises(FileNotFoundError):
            call_in(space.fileno(), Path("/nowhere").stat)
    with Path("/dev/null").open() as nothing, pytest.raises(OSError, match="Invalid argument"):
        call_in(nothing.fileno(), lambda: None)


def test_gateways_may_be_ipv6() -> None:
    """Both sockets of such a place are bound, whether the address is there yet or not."""
    network = msgspec.structs.replace(loop_network(1).network, gateways=("fd00:9::250/64",))
    with contextlib.closing(open_pair(Place(network.id, "fd00:9::250", free_port()))) as pair:
        assert pair.datagram.getsockname()[0] == "fd00:9::250"
        assert pair.stream.getsockname()[0] == "fd00:9::250"
