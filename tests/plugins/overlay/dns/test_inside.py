"""In its own namespace each task is answered as itself, at 127.0.0.11, whoever else is there."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import dns.message
import pytest
import trio

from swarmctl.core.agent.network import Sandbox
from swarmctl.plugins.overlay.dns import link as link_module
from swarmctl.plugins.overlay.dns import spawn
from swarmctl.plugins.overlay.dns.sockets import INSIDE_ADDRESS, INSIDE_PORT
from tests.plugins.overlay.dns.asking import addresses, loop_network, table
from tests.plugins.overlay.dns.namespaces import MISSING, add_interface, inside, namespace, nft
from tests.plugins.overlay.dns.tables import service
from tests.plugins.overlay.dns.test_responder import Node, current, node, node_pid, wait_gone

if TYPE_CHECKING:
    from swarmctl.core.model.endpoints import EndpointTable

__all__ = ["node"]  # the fixture

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
PATIENCE_S = 5.0

# What the driver makes in each sandbox, beside what Docker made before it.
RULES = """
table ip docker {
    chain output {
        type nat hook output priority -100
        ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:9
        ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:9
    }
}
table ip swarmctl {
    chain output {
        type nat hook output priority -110
        ip daddr { 127.0.0.11, 10.9.1.250 } udp dport 53 dnat to 127.0.0.11:61053
        ip daddr { 127.0.0.11, 10.9.1.250 } tcp dport 53 dnat to 127.0.0.11:61053
    }
}
"""


def two_networks() -> EndpointTable:
    """Return two networks that have the name ``web`` both."""
    return table(
        loop_network(1, service("web", vips=("127.9.1.2",))),
        loop_network(2, service("web", vips=("127.9.2.2",))),
    )


def sandbox(name: str, pid: int, *networks: str) -> Sandbox:
    return Sandbox(id=name, pid=pid, networks=networks)


async def look_up(
    pid: int, *, at: str = INSIDE_ADDRESS, port: int = INSIDE_PORT, stream: bool = False
) -> list[str]:
    """Return what ``web`` stands for to a program in a namespace."""
    query = dns.message.make_query("web", "A", use_edns=False)
    wire = query.to_wire()

    def exchange() -> bytes:
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect((at, port))
            if not stream:
                sock.send(wire)
                return sock.recv(65_535)
            sock.sendall(len(wire).to_bytes(2, "big") + wire)
            with sock.makefile("rb") as file:
                return file.read(int.from_bytes(file.read(2), "big"))

    return list(addresses(dns.message.from_wire(await inside(pid, exchange))))


@pytest.mark.parametrize("stream", [False, True])
async def test_who_asks_is_known_by_its_namespace(node: Node, stream: bool) -> None:
    """Two tasks ask the same address and each hears of its own network."""
    async with node.daemon() as link, namespace() as one, namespace() as two:
        boxes = [sandbox("t1", one, "n1"), sandbox("t2", two, "n2")]
        link.want(two_networks(), boxes)
        with trio.fail_after(10):
            await link.wait_served("t1")
            await link.wait_served("t2")
        assert await look_up(one, stream=stream) == ["127.9.1.2"]
        assert await look_up(two, stream=stream) == ["127.9.2.2"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at", [INSIDE_ADDRESS, "10.9.1.250"])
async def test_the_usual_address_leads_to_us(node: Node, at: str, stream: bool) -> None:
    """The driver's rule comes before Docker's, and the answer comes from where it was asked.

    So may a gateway, which Podman's containers ask: the packet never leaves the namespace.
    """
    async with node.daemon() as link, namespace() as pid:
        link.want(two_networks(), [sandbox("t1", pid, "n1")])
        with trio.fail_after(10):
            await link.wait_served("t1")
        await add_interface(pid, "10.9.1.11/24")
        await nft(pid, RULES)
        assert await look_up(pid, at=at, port=53, stream=stream) == ["127.9.1.2"]


async def test_a_name_server_of_its_own_does_not_disturb(node: Node) -> None:
    """A task may listen at port 53 of all its addresses itself, before us or after."""
    async with node.daemon() as link, namespace() as pid:

        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("0.0.0.0", 53))
            return sock

        with await inside(pid, listen):
            link.want(two_networks(), [sandbox("t1", pid, "n1")])
            with trio.fail_after(10):
                await link.wait_served("t1")
            assert await look_up(pid) == ["127.9.1.2"]


async def test_sockets_inside_are_handed_on_too(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A responder that follows has them without entering: with a rule, nobody notices."""
    async with namespace() as pid:
        async with node.daemon() as link:
            link.want(two_networks(), [sandbox("t1", pid, "n1")])
            with trio.fail_after(10):
                await link.wait_served("t1")
            old = node.status()
        monkeypatch.setattr(link_module, "build", lambda: "newer")
        monkeypatch.setattr(spawn, "build", lambda: "newer")
        async with node.daemon() as link:
            await current(link)
            assert link.served == {"t1"}
            assert node.status().pid != old.pid
            assert await look_up(pid) == ["127.9.1.2"]
        log = (node.root / "responder.log").read_text()
        assert "3 sockets inherited" in log
        await wait_gone(old.pid)


async def test_one_that_starts_anew_enters_again(node: Node) -> None:
    """After a responder was killed, namespaces are listened in as before."""
    async with namespace() as pid, node.daemon() as link:
        link.want(two_networks(), [sandbox("t1", pid, "n1")])
        with trio.fail_after(10):
            await link.wait_served("t1")
        old = node.status().pid
        os.kill(old, signal.SIGKILL)
        await wait_gone(old)
        with trio.fail_after(10):
            while node_pid(node) in (0, old):
                await link._changed.wait()
        await current(link)
        assert await look_up(pid) == ["127.9.1.2"]


async def test_a_namespace_without_its_process_is_left(node: Node) -> None:
    """Sockets of ours must not keep alive what everybody else has left."""
    async with node.daemon() as link:
        async with namespace() as pid:
            link.want(two_networks(), [sandbox("t1", pid, "n1")])
            with trio.fail_after(10):
                await link.wait_served("t1")
        with trio.fail_after(10):
            while "t1" in link.served:
                await link._changed.wait()
        assert link.problems == ()


async def test_the_hosts_own_namespace_is_not_taken_for_a_tasks(node: Node) -> None:
    """A task on the host's network has the host's resolver; we would answer for everybody."""
    async with node.daemon() as link:
        link.want(two_networks(), [sandbox("t1", os.getpid(), "n1")])
        await current(link)
        assert link.served == frozenset()
        assert "it has the host's network" in link.problems[0]
