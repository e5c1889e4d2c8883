"""The responder's process: it outlives daemons, follows and is followed, and loses no question."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from typing import TYPE_CHECKING

import dns.message
import msgspec
import pytest
import trio

from swarmctl.core.model.endpoints import NetworkTable
from swarmctl.core.model.task import HostNetwork
from swarmctl.plugins.overlay.dns import link as link_module
from swarmctl.plugins.overlay.dns import spawn
from swarmctl.plugins.overlay.dns.control import (
    HANDOVER,
    MAX_PACKET_BYTES,
    STATE,
    Sockets,
    Status,
    connect,
    decode_packet,
)
from swarmctl.plugins.overlay.dns.link import ResponderLink
from swarmctl.plugins.overlay.dns.responder import Settings
from swarmctl.plugins.overlay.dns.spawn import ResponderUnavailable, spawn_responder
from tests.plugins.overlay.dns.asking import GATEWAY, TASK, addresses, ask, loop_network, table
from tests.plugins.overlay.dns.servers import address, free_port, ip, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE_S = 20.0


class Node:
    """A state directory, and the daemons that come and go over it."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.root = state_dir / "dns"
        self.port = free_port()
        resolv_conf = state_dir / "resolv.conf"
        resolv_conf.write_text(f"nameserver {ip('a1')}\n")
        self.settings = Settings(
            gateway_port=self.port,
            upstream_port=free_port(),
            resolv_conf=str(resolv_conf),
            tend_s=0.2,
            retry_s=0.1,
        )

    @contextlib.asynccontextmanager
    async def daemon(self) -> AsyncIterator[ResponderLink]:
        """Run a daemon's link; it ends as a daemon that is killed, and the responder lives on."""
        link = ResponderLink(self.state_dir, settings=self.settings)
        async with trio.open_nursery() as nursery:
            await nursery.start(link.run)
            yield link
            nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[ResponderLink]:
        """Run a daemon that has a network, answered for."""
        async with self.daemon() as link:
            link.want(table(), ())
            await current(link)
            yield link

    def status(self) -> Status:
        """Return how the responder says it is."""
        with connect(self.root, 5) as sock:
            status = decode_packet(sock.recv(MAX_PACKET_BYTES))
            assert isinstance(status, Status)
            return status

    async def answer(self) -> list[str]:
        """Return what ``web`` stands for."""
        return list(addresses(await ask(port=self.port)))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node whose responder, if there is one, is ended with the test."""
    made = Node(tmp_path)
    yield made
    with contextlib.suppress(OSError):
        pid = made.status().pid
        os.kill(pid, signal.SIGKILL)
        await wait_gone(pid)


async def wait_gone(pid: int) -> None:
    """Wait until a process is gone; it is no child of ours, so the kernel tells us by pidfd."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            with trio.fail_after(PATIENCE_S):
                await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)


async def current(link: ResponderLink) -> None:
    with trio.fail_after(PATIENCE_S):
        await link.wait_current()


async def test_what_is_wanted_is_answered(node: Node) -> None:
    """A responder starts with the first network, and answers from each newer table."""
    async with node.daemon() as link:
        assert not node.root.exists()
        link.want(table(), ())
        await current(link)
        assert await node.answer() == ["127.9.1.2"]
        link.want(table(vip="127.9.1.3"), ())
        await current(link)
        assert await node.answer() == ["127.9.1.3"]
        assert link.problems == ()


async def test_a_node_without_networks_has_no_responder(node: Node) -> None:
    """What has no names costs nothing; the ingress network has none."""
    ingress = NetworkTable(network=HostNetwork(id="i", name="ingress", ingress=True))
    async with node.daemon() as link:
        link.want(table(ingress), ())
        await current(link)
        assert not node.root.exists()


async def test_names_are_answered_while_no_daemon_runs(node: Node) -> None:
    """The responder goes on without one, and the next daemon finds that very process."""
    async with node.answering() as link:
        pid = node.status().pid
    assert await node.answer() == ["127.9.1.2"]
    async with node.daemon() as link:
        await current(link)
        assert node.status().pid == pid
        link.want(table(vip="127.9.1.4"), ())
        await current(link)
        assert (node.status().pid, await node.answer()) == (pid, ["127.9.1.4"])


async def test_a_responder_that_is_killed_is_followed_at_once(node: Node) -> None:
    """With the same answers; that it happened is a problem only until then."""
    async with node.answering() as link:
        pid = node.status().pid
        os.kill(pid, signal.SIGKILL)
        await wait_gone(pid)
        with trio.fail_after(PATIENCE_S):
            while node_pid(node) in (0, pid):
                await link._changed.wait()
        await current(link)
        assert await node.answer() == ["127.9.1.2"]
        assert link.problems == ()


def node_pid(node: Node) -> int:
    try:
        return node.status().pid
    except OSError:
        return 0


async def test_one_that_died_with_the_daemon_is_started_with_what_it_knew(node: Node) -> None:
    """A daemon that has not heard of its networks yet still brings the last names back."""
    async with node.answering():
        pass
    pid = node.status().pid
    os.kill(pid, signal.SIGKILL)
    await wait_gone(pid)
    async with node.daemon() as link:
        await current(link)
        assert await node.answer() == ["127.9.1.2"]


async def test_what_is_wanted_before_the_link_runs_counts(node: Node) -> None:
    """What the last daemon wrote is older, whatever was read first."""
    async with node.answering():
        pass
    link = ResponderLink(node.state_dir, settings=node.settings)
    link.want(table(vip="127.9.1.8"), ())
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        await current(link)
        assert await node.answer() == ["127.9.1.8"]
        nursery.cancel_scope.cancel()


async def test_a_newer_build_follows_without_losing_a_question(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the questions asked while one responder follows another is answered in time."""
    async with node.answering():
        pass
    old = node.status()
    monkeypatch.setattr(link_module, "build", lambda: "newer")
    monkeypatch.setattr(spawn, "build", lambda: "newer")
    answered = 0
    enough = trio.Event()
    progress = trio.Event()

    async def keep_asking(number: int) -> None:
        nonlocal answered, progress
        while not enough.is_set():
            # Within the patience of ask(): far less than a program's own repeat would save.
            with trio.fail_after(2):
                response = await ask(port=node.port, stream=number % 4 == 0)
            assert addresses(response) == ["127.9.1.2"]
            answered += 1
            progress.set()
            progress = trio.Event()

    async with trio.open_nursery() as asking:
        for number in range(8):
            asking.start_soon(keep_asking, number)
        async with node.daemon() as link:
            await current(link)
            new = node.status()
            before = answered
            with trio.fail_after(PATIENCE_S):
                while answered < before + 50:
                    await progress.wait()
            enough.set()
    assert (old.build != "newer", new.build, new.pid != old.pid) == (True, "newer", True)
    await wait_gone(old.pid)
    assert answered > 50


async def test_what_was_passed_on_is_answered_by_the_one_that_read_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A responder that is followed waits for the answers that others owe it."""
    asked = trio.Event()
    give = trio.Event()
    arrived = trio.Event()
    async with node.answering():
        pass
    old = node.status()
    monkeypatch.setattr(link_module, "build", lambda: "newer")
    monkeypatch.setattr(spawn, "build", lambda: "newer")
    answers: list[dns.message.Message] = []

    async def ask_other() -> None:
        answers.append(await ask("example.com", port=node.port))
        arrived.set()

    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        await upstream.bind((ip("a1"), node.settings.upstream_port))

        async def slow() -> None:
            wire, source = await upstream.recvfrom(4096)
            asked.set()
            await give.wait()
            response = address()(dns.message.from_wire(wire))
            assert isinstance(response, dns.message.Message)
            await upstream.sendto(response.to_wire(), source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            nursery.start_soon(ask_other)
            await asked.wait()
            async with node.daemon() as link:
                await current(link)
                assert node.status().pid != old.pid
                give.set()
                with trio.fail_after(PATIENCE_S):
                    await arrived.wait()
    assert addresses(answers[0]) == ["192.0.2.1"]
    await wait_gone(old.pid)


async def test_sockets_that_nobody_took_are_kept(node: Node) -> None:
    """A follower that dies half-way leaves everything as it was."""
    async with node.answering():
        pass
    pid = node.status().pid
    with connect(node.root, 5) as sock:
        decode_packet(sock.recv(MAX_PACKET_BYTES))
        sock.send(HANDOVER)
        packet = None
        while not isinstance(packet, Sockets):
            packet = decode_packet(sock.recv(MAX_PACKET_BYTES))
        assert packet.last
        assert [place.address for place in packet.places] == [GATEWAY]
    assert await node.answer() == ["127.9.1.2"]
    assert node.status().pid == pid


async def test_one_whose_follower_cannot_start_hears_what_is_new(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that fails leaves the responder of before, and it answers from newer tables."""
    async with node.answering():
        pass
    pid = node.status().pid
    monkeypatch.setattr(link_module, "build", lambda: "newer")
    monkeypatch.setattr(spawn, "build", lambda: "newer")
    monkeypatch.setattr(spawn, "PROGRAM", "raise SystemExit('no')")
    async with node.daemon() as link:
        link.want(table(vip="127.9.1.9"), ())
        with trio.fail_after(PATIENCE_S):
            while await node.answer() != ["127.9.1.9"]:
                await link._changed.wait()
        assert "cannot start" in link.problems[0]
    assert node.status().pid == pid


async def test_a_responder_that_hangs_is_replaced(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes the connection and says nothing is killed, by whom we are connected to."""
    async with node.answering():
        pass
    pid = node.status().pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(link_module, "CONNECT_S", 0.2)
    async with node.daemon() as link:
        link.want(table(vip="127.9.1.5"), ())
        await current(link)
        assert await node.answer() == ["127.9.1.5"]
    await wait_gone(pid)


async def test_a_second_one_of_the_same_build_does_not_start(node: Node) -> None:
    """Two daemons of one directory share its responder."""
    async with node.answering():
        pid = node.status().pid
        await spawn_responder(node.root, node.settings)
        assert node.status().pid == pid
        assert await node.answer() == ["127.9.1.2"]


async def test_a_port_that_somebody_else_has_is_named_and_taken_when_free(node: Node) -> None:
    """The rest is answered all the same."""
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.9.2.250", node.port))
    async with node.daemon() as link:
        web = table().networks[0]
        link.want(table(web, loop_network(2, *web.services)), ())
        await current(link)
        (problem,) = link.problems
        assert f"127.9.2.250:{node.port}: Address already in use" in problem
        assert await node.answer() == ["127.9.1.2"]
        other.close()
        with trio.fail_after(PATIENCE_S):
            while link.problems:
                await link._changed.wait()
        second = await ask(port=node.port, at="127.9.2.250", source="127.9.2.11")
        assert addresses(second) == ["127.9.1.2"]


async def test_a_network_that_is_gone_is_not_listened_for(node: Node) -> None:
    """Its gateway's port is free for others."""
    async with node.daemon() as link:
        link.want(table(loop_network(1), loop_network(2)), ())
        await current(link)
        link.want(table(loop_network(2)), ())
        await current(link)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((GATEWAY, node.port))


async def test_the_same_gateway_in_a_new_network_is_listened_at(node: Node) -> None:
    """A network that was removed and made anew has another id and perhaps the same address."""
    async with node.answering() as link:
        web = table().networks[0]
        anew = msgspec.structs.replace(web.network, id="n1-new")
        link.want(table(msgspec.structs.replace(web, network=anew)), ())
        await current(link)
        assert link.problems == ()
        assert await node.answer() == ["127.9.1.2"]


async def test_a_host_that_leaves_keeps_nothing(node: Node) -> None:
    """The process ends and its files go; a network that comes later begins anew."""
    async with node.answering() as link:
        pid = node.status().pid
        await link.remove()
        await wait_gone(pid)
        assert not node.root.exists()
        assert link.problems == ()
        link.want(table(vip="127.9.1.6"), ())
        await current(link)
        assert await node.answer() == ["127.9.1.6"]


async def test_a_responder_whose_directory_is_gone_ends(node: Node) -> None:
    """Nobody could tell it anything any more."""
    async with node.answering():
        pass
    pid = node.status().pid
    node.root.rename(node.state_dir / "gone")
    await wait_gone(pid)


async def test_a_directory_that_was_wiped_and_is_there_again(node: Node) -> None:
    """The responder of before ends, though there is a directory of its name; and the new one of
    the next daemon answers."""
    async with node.answering():
        before = node.status().pid
    shutil.rmtree(node.root)
    async with node.daemon() as link:
        link.want(table(vip="127.9.1.9"), ())
        await wait_gone(before)
        with trio.fail_after(PATIENCE_S):
            while link.problems or not link.is_current:
                await link.wait_news()
        assert await node.answer() == ["127.9.1.9"]


async def test_a_directory_that_was_wiped_under_a_daemon_is_made_anew(node: Node) -> None:
    """Without waiting for a change in the swarm: what was wanted last is written once more."""
    async with node.answering() as link:
        before = node.status().pid
        shutil.rmtree(node.root)
        await wait_gone(before)
        with trio.fail_after(PATIENCE_S):
            while node_pid(node) == 0:
                await link.wait_news()
        await current(link)
        assert await node.answer() == ["127.9.1.2"]


async def test_a_damaged_state_changes_nothing(node: Node) -> None:
    """What was known is answered until something whole arrives."""
    async with node.answering() as link:
        (node.root / STATE).write_bytes(b'{"networks": [')
        with connect(node.root, 5) as sock:
            sock.send(b"load")
            assert await node.answer() == ["127.9.1.2"]
        link.want(table(vip="127.9.1.7"), ())
        await current(link)
        assert await node.answer() == ["127.9.1.7"]


async def test_other_names_are_passed_on(node: Node) -> None:
    """As the settings of the process say, which are the host's in earnest."""
    async with node.daemon() as link, serving(node.settings.upstream_port, a1=address()):
        link.want(table(), ())
        await current(link)
        assert addresses(await ask("example.com", port=node.port, source=TASK)) == ["192.0.2.1"]


async def test_a_start_that_fails_says_why(node: Node) -> None:
    """The link goes on trying, and its problem is the sentence to read."""
    node.root.mkdir()
    (node.root / "lock").mkdir()
    with pytest.raises(ResponderUnavailable, match=r"cannot start: .*Is a directory"):
        await spawn_responder(node.root, node.settings)
    async with node.daemon() as link:
        link.want(table(), ())
        with trio.fail_after(PATIENCE_S):
            while not link.problems:
                await link._changed.wait()
        assert "cannot start" in link.problems[0]
        (node.root / "lock").rmdir()
        await current(link)
        assert await node.answer() == ["127.9.1.2"]
