"""Every manager is a front door: what is asked of one that does not lead, the leader answers."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

from swarmctl.core.api import server
from swarmctl.core.api.forward import Origin, forward
from swarmctl.core.api.route import ROUTES, By
from swarmctl.core.errors import NoLeader
from swarmctl.core.manager.forward import LEADER_WAIT_S
from swarmctl.core.model.change import Create, Transaction
from swarmctl.core.model.objects import ServiceRow
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import ServiceSpec
from swarmctl.core.wire.calls import STREAM_WINDOW_BYTES
from swarmctl.core.wire.http1 import Fields, Request
from swarmctl.core.wire.http_server import StreamedResponse

from .running import service_body
from .several import Answer, Several, several

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from swarmctl.core.api.call import Call
    from swarmctl.core.api.server import ApiServer
    from swarmctl.core.wire.http_server import Reply, SendChunk

    from .several import Seat

NO_LEADER = (
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few "
    "managers are online. Make sure more than half of the managers are online."
)


@pytest.fixture
async def managers() -> AsyncIterator[Several]:
    async with several() as running:
        yield running


async def create(seat: Seat, name: str, **spec: object) -> Answer:
    return await seat.request("POST", "/services/create", service_body(name, **spec))


# --- which answers -------------------------------------------------------------------------------


async def test_a_follower_answers_as_the_leader_does(
    autojump_clock: MockClock, managers: Several
) -> None:
    """Status, headers and body of every route, of refusals and of old API versions are the same
    wherever they are asked, but for the hour."""
    await create(managers[0], "web")
    asked: list[tuple[str, str, Any]] = [
        (route.method, route.pattern.replace("{id}", "web"), None)
        for route in ROUTES
        if route.by is not By.NODE and route.method == "GET"
    ]
    asked += [
        ("POST", "/services/create", service_body("web")),
        ("POST", "/services/create", {"Name": "-"}),
        ("POST", "/services/create", "no spec"),
        ("POST", "/services/web/update", service_body("web")),
        ("POST", "/services/nobody/update?version=1", service_body("nobody")),
        ("DELETE", "/services/nobody", None),
        ("DELETE", "/nodes/m2", None),
        ("GET", "/services?filters=%7B%22bad%22%3A1%7D", None),
        ("GET", "/v1.24/services", None),
        ("GET", "/v1.41/services/web/logs?stdout=1", None),
        ("GET", "/v1.44/services/web/logs?stdout=1", None),
        ("GET", "/v1.99/services", None),
        ("GET", "/services?status=2", None),
        ("POST", "/swarm/update?version=x", {}),
        ("GET", "/nothing", None),
        ("POST", "/networks/prune", None),
        ("POST", "/networks/create", {"Name": "x", "Driver": "overlay", "ConfigOnly": True}),
    ]
    statuses = set()
    for method, path, body in asked:
        there = await managers[0].request(method, path, body)
        here = await managers[1].request(method, path, body)
        hours = [each.headers.pop("Date") for each in (there, here)]
        assert all(hours)
        assert here == there, path
        statuses.add(here.status)
    assert statuses >= {200, 400, 404, 409, 500, 501}


async def test_a_write_through_a_follower_is_read_everywhere_at_once(
    autojump_clock: MockClock, managers: Several
) -> None:
    """A read sees every write that was answered before, also at a manager that lags behind."""
    managers[2].manager.lagging = True
    for writer, reader in ((1, 2), (2, 1), (0, 2), (2, 0)):
        name = f"from-{writer}-{reader}"
        assert (await create(managers[writer], name)).status == 201
        found = await managers[reader].request("GET", f"/services/{name}")
        assert found.status == 200, found
    assert managers[2].manager.view.by_name is not None
    assert not list(managers[2].manager.view.services())


async def test_self_is_the_node_that_was_asked(
    autojump_clock: MockClock, managers: Several
) -> None:
    """`self` means the node whose API the client uses, whoever answers."""
    for number, name in enumerate(("m1", "m2", "m3")):
        found = await managers[number].request("GET", "/nodes/self")
        assert found.json["ID"] == name


async def test_the_leaders_log_says_who_asked(
    autojump_clock: MockClock, managers: Several, caplog: pytest.LogCaptureFixture
) -> None:
    """A write that came in elsewhere names client and node in the leader's log."""
    caplog.set_level(logging.INFO)
    await create(managers[2], "web")
    assert "POST /services/create for in-memory peer at node m3" in caplog.text


async def test_networks_are_the_leaders_where_there_is_one_to_ask(
    autojump_clock: MockClock, managers: Several
) -> None:
    """A follower shows the leader's networks; a node that is no manager shows none by itself."""
    shown = (await managers[1].request("GET", "/networks")).json
    assert [network["Name"] for network in shown] == ["ingress"]
    assert managers.opened == [("m2", "m1")]
    managers[1].node.manager = None
    assert (await managers[1].request("GET", "/networks")).json == []
    assert managers.opened == [("m2", "m1")]


async def test_what_is_the_nodes_own_is_answered_without_a_leader(
    autojump_clock: MockClock, managers: Several
) -> None:
    """Ping, version and info of a follower come from itself, at once, and info tells the truth."""
    info = (await managers[1].request("GET", "/info")).json["Swarm"]
    managers.elect(None)
    leaderless = (await managers[1].request("GET", "/info")).json["Swarm"]
    assert (info["Error"], leaderless.pop("Error")) == ("", NO_LEADER)
    assert leaderless.items() <= info.items()
    assert info["NodeID"] == "m2"
    assert info["ControlAvailable"] is True
    assert (info["Nodes"], info["Managers"]) == (3, 3)
    assert info["RemoteManagers"] == [
        {"NodeID": f"m{number}", "Addr": f"10.0.0.{number}:2377"} for number in (1, 2, 3)
    ]
    before = trio.current_time()  # a thread read the name of the system: time may have jumped
    assert (await managers[1].request("GET", "/_ping")).headers["Swarm"] == "active/manager"
    assert (await managers[1].request("GET", "/version")).status == 200
    assert trio.current_time() - before < 0.1
    assert managers.opened == []


async def test_what_a_leader_warned_of_ends_with_its_time(
    autojump_clock: MockClock, managers: Several
) -> None:
    """Once another manager leads, the one before no longer says what it had found as the leader;
    what is the matter with its own disk it says still."""
    seat = managers[0]
    seat.manager.disk_complaint = "the disk is full"
    seat.manager.alarms.texts["scheduler"] = "scheduler is off"
    seat.manager.dispatcher.warning = "most nodes fell silent"
    seat.manager.membership.waiting = ("a manager is to be removed",)
    found = ["scheduler is off"] + [
        f"WARNING: {text}"
        for text in ("the disk is full", "most nodes fell silent", "a manager is to be removed")
    ]
    assert (await seat.request("GET", "/info")).json["Swarm"]["Warnings"] == found
    managers.elect(1)
    own = ["WARNING: the disk is full"]
    assert (await seat.request("GET", "/info")).json["Swarm"]["Warnings"] == own


async def test_a_manager_that_is_being_prepared_says_so(
    autojump_clock: MockClock, managers: Several
) -> None:
    """Between joining and taking part, a manager neither answers nor passes on."""
    managers[1].node.manager = None
    refused = await managers[1].request("GET", "/services")
    assert refused.status == 503
    assert refused.json["message"] == (
        "This node is not a swarm manager. Manager is being prepared or has trouble connecting to "
        "the cluster."
    )


# --- large and long ------------------------------------------------------------------------------


async def test_a_large_request_and_a_long_list_arrive_whole(
    autojump_clock: MockClock, managers: Several
) -> None:
    """A body of several chunks goes one way, a list that is encoded in pieces the other."""
    labels = {f"key-{number}": "x" * 1000 for number in range(1000)}
    made = await create(managers[1], "large", Labels=labels)
    assert made.status == 201
    found = await managers[1].request("GET", "/services/large")
    assert found.json["Spec"]["Labels"] == labels
    rows = [
        ServiceRow(api=Service(ID=f"s{number:024d}", Spec=ServiceSpec(Name=f"s{number}")))
        for number in range(600)
    ]
    managers.commit(Transaction(changes=tuple(Create(row=row) for row in rows)))
    there, here = [await managers[at].request("GET", "/services") for at in (0, 1)]
    assert here.body == there.body
    assert len(here.json) == 601


class Output:
    """A handler whose answer has no end, and whose lines the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines, self._lines = trio.open_memory_channel[bytes](0)
        self.sent = 0
        self.over = trio.Event()
        monkeypatch.setitem(server.HANDLERS, "services.inspect", self.handle)

    async def handle(self, _server: ApiServer, _call: Call) -> Reply:
        async def write(send: SendChunk) -> None:
            try:
                async for line in self._lines:
                    await send(line)
                    self.sent += len(line)
            finally:
                self.over.set()

        await trio.lowlevel.checkpoint()
        return StreamedResponse(200, (("Content-Type", "text/plain"),), write)


async def test_output_is_followed_line_by_line(
    autojump_clock: MockClock, managers: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line is with the client as soon as it is written, and the end is the end."""
    output = Output(monkeypatch)
    client = managers[1].client()
    head = await client.begin("GET", "/services/web")
    assert (head[0], head[1]["Content-Type"]) == (200, "text/plain")
    for line in (b"one\n", b"two\n"):
        await output.lines.send(line)
        assert await client.piece() == line
    output.lines.close()
    assert await client.piece() == b""


async def test_a_client_that_hangs_up_ends_the_leaders_work(
    autojump_clock: MockClock, managers: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader's handler is cancelled when the follower's client goes."""
    output = Output(monkeypatch)
    client = managers[1].client()
    await client.begin("GET", "/services/web")
    await output.lines.send(b"one\n")
    assert not output.over.is_set()
    await client.stream.aclose()
    with trio.fail_after(1):
        await output.over.wait()


async def test_a_client_that_is_gone_before_the_first_byte_ends_it_too(
    autojump_clock: MockClock, managers: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer whose head could not be sent is let go of: the leader does not wait for ever."""
    output = Output(monkeypatch)
    client = managers[1].client()

    async def broken() -> None:
        raise trio.BrokenResourceError

    client.peer.send_stream.send_all_hook = broken
    await client.ask("GET", "/services/web")
    with trio.fail_after(1):
        await output.over.wait()


async def test_a_client_that_reads_slowly_makes_the_leader_wait(
    autojump_clock: MockClock, managers: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way of a stream is bounded by its window, however much there is to send."""
    output = Output(monkeypatch)
    client = managers[1].client()
    await client.begin("GET", "/services/web")
    gate = trio.Event()
    client.peer.send_stream.send_all_hook = gate.wait
    line = b"x" * 65536
    lines = 64

    async def talk() -> None:
        for _ in range(lines):
            await output.lines.send(line)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        await trio.sleep(30)
        stuck = output.sent
        assert stuck <= STREAM_WINDOW_BYTES + 4 * len(line)
        gate.set()
    assert output.sent >= (lines - 1) * len(line)


async def test_output_breaks_off_when_the_leader_is_deposed(
    autojump_clock: MockClock, managers: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a manager followed as the leader it does not follow on when it leads no longer: here
    and at the leader itself, the client sees a broken answer and not an end."""
    for number in (0, 1):
        managers.elect(0)
        output = Output(monkeypatch)
        client = managers[number].client()
        await client.begin("GET", "/services/web")
        await output.lines.send(b"one\n")
        assert await client.piece() == b"one\n"
        managers.fail_over()
        with trio.fail_after(1):
            await output.over.wait()
        with pytest.raises(Exception, match="peer closed connection"):
            await client.piece()


# --- who leads -----------------------------------------------------------------------------------


async def test_without_a_leader_a_call_waits_so_long_and_says_so(
    autojump_clock: MockClock, managers: Several
) -> None:
    """A read and a write, at each manager, are answered in Docker's words after ten seconds."""
    managers.elect(None)
    for number in (0, 1):
        for method, path in (("GET", "/services"), ("DELETE", "/services/web")):
            before = trio.current_time()
            refused = await managers[number].request(method, path)
            assert (refused.status, refused.json["message"]) == (500, NO_LEADER)
            waited = trio.current_time() - before
            assert LEADER_WAIT_S - 1 <= waited <= LEADER_WAIT_S + 1


async def test_a_call_during_an_election_is_answered_by_whom_it_elects(
    autojump_clock: MockClock, managers: Several
) -> None:
    """Calls that come while nobody leads wait, and get the new leader's answer right away: also
    where the new leader is the manager that was asked."""
    await create(managers[0], "web")
    for number in (1, 2, 0, 2):
        managers.fail_over()
        before = trio.current_time()
        found = await managers[number].request("GET", "/services/web")
        assert found.status == 200
        assert trio.current_time() - before < 0.7


async def test_a_leader_that_hangs_is_not_waited_for(
    autojump_clock: MockClock, managers: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When another takes over while a leader does not answer, the call goes to the new one."""

    async def hang(_server: ApiServer, _call: Call) -> Reply:
        monkeypatch.undo()
        managers.later(1.0, lambda: managers.elect(2))
        await trio.sleep_forever()
        raise AssertionError

    await create(managers[0], "web")
    monkeypatch.setitem(server.HANDLERS, "services.inspect", hang)
    before = trio.current_time()
    assert (await managers[1].request("GET", "/services/web")).status == 200
    assert trio.current_time() - before < 1.2
    assert managers.opened[0] == ("m2", "m1")
    assert set(managers.opened[1:]) == {("m2", "m3")}


async def test_a_request_is_passed_on_once(autojump_clock: MockClock, managers: Several) -> None:
    """A manager that does not lead refuses what another one passes on, and does not pass it on; a
    route of the node's own is not for others to ask."""
    link = await managers.link(managers[1].manager, managers[2].manager)
    request = Request("GET", "/services", "/services", Fields(), Fields())
    origin = Origin("m2", "", "a test")
    async with AsyncExitStack() as stack:
        with pytest.raises(NoLeader):
            await forward(stack, link, request, origin)
    assert managers.opened == [("m2", "m3")]
    link = await managers.link(managers[1].manager, managers[0].manager)
    request = request._replace(method="POST", target="/swarm/leave", path="/swarm/leave")
    async with AsyncExitStack() as stack:
        reply = await forward(stack, link, request, origin)
    assert reply.status == 404


async def test_a_follower_that_is_cut_off_asks_again(
    autojump_clock: MockClock, managers: Several
) -> None:
    """Reads go on over a connection that breaks under them."""
    await create(managers[1], "web")
    managers.cut(managers[0].manager)
    assert (await managers[1].request("GET", "/services/web")).status == 200
