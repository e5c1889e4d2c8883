"""Published ports of every kind on hosts that are network namespaces: where, how, and by whom."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import msgspec
import pytest

from swarmctl.plugins.model import Member
from tests.plugins.overlay.wire import eventually

if TYPE_CHECKING:
    from tests.plugins.overlay.scene import Scene
    from tests.plugins.overlay.wire import Host, Netns

pytestmark = pytest.mark.lab
EVERYBODY = {"a1", "b1", "b2"}


def _answers(client: Netns, address: str, port: int = 8080, *, count: int = 9) -> set[str]:
    """Who answered so many connections; "" stands for a refusal."""
    found = set()
    for _ in range(count):
        try:
            found.add(client.ask(address, port).split()[0])
        except ConnectionRefusedError:
            found.add("")
    return found


def _host_member(host: Host) -> Member:
    """A task with its host's network."""
    return Member(
        task_id=host.node, node_id=host.node, addresses=(host.address,), ready=True, on_host=True
    )


def _publish_processes(scene: Scene, hosts: list[Host], *, published: int, target: int) -> None:
    """Publish a port of tasks that have their hosts' network, and serve in these."""
    for host in hosts:
        host.called = host.node
        host.serve(scene.stack, port=target)
    scene.publish(published=published, target=target)
    scene.members_of[published] = tuple(map(_host_member, hosts))


def test_a_port_bound_to_an_interface_follows_its_addresses(scene: Scene) -> None:
    """It answers at those that the interface has, of both families, and nowhere else; at one that
    it is given later, too, and no more at one that was taken away."""
    host = scene.hosts[0]
    scene.publish(ip="eth0")
    scene.agree()
    assert _answers(host, host.address) == EVERYBODY
    assert _answers(host, "fd77::1") == EVERYBODY
    assert _answers(host, "127.0.0.1") == {""}
    host.ip("addr", "add", "10.77.0.101/24", "dev", "eth0")
    eventually(lambda: _answers(host, "10.77.0.101") == EVERYBODY)
    host.ip("addr", "del", "10.77.0.101/24", "dev", "eth0")
    host.ip("addr", "add", "10.77.0.101/32", "dev", "lo")
    eventually(lambda: _answers(host, "10.77.0.101") == {""})
    assert _answers(host, host.address) == EVERYBODY


def test_the_way_back_of_clients_is_mended(scene: Scene) -> None:
    """What shows members their clients lies in the tasks' routes; it goes with the label."""
    scene.publish(keep_source=True)
    scene.agree()
    scene.wire.ip("addr", "add", "10.77.0.200/24", "dev", "lab0")
    a, member = scene.hosts[0], scene.members[0]
    assert scene.wire.ask(a.address, 8080) == "a1 10.77.0.200"
    way = ("a1 10.0.0.11", "over 10.0.0.251", "over 10.0.0.251")
    assert scene.findings("way back") == [
        way,
        ("a1 fd00:9::b", "over fd00:9::fb", "over fd00:9::fb"),
    ]
    member.ip("rule", "del", "pref", "4789")
    eventually(lambda: "lookup 4789" in member.ip("rule"))
    eventually(
        lambda: scene.drivers[0].state()["repaired"] == {"the way back of clients of a task": 1}
    )
    assert scene.wire.ask(a.address, 8080) == "a1 10.77.0.200"
    scene.drivers[0].kill()
    scene.drivers[0] = a.start_driver()
    scene.published = ()
    scene.publish()
    scene.agree()
    eventually(lambda: "4789" not in member.ip("rule"))


def test_sctp_is_published_where_the_kernel_has_it(scene: Scene) -> None:
    """A kernel without it takes the rules all the same, and nothing is amiss."""
    scene.publish(published=9999, protocol="sctp")
    host = scene.hosts[0]
    states = scene.agree()
    assert [state["problems"] for state in states] == [[], []]
    listed = host.run("nft", "list", "chain", "ip", "swarmctl", "port-sctp-9999")
    assert "sctp" in listed or "132" in listed
    assert "10.0.0.12" in listed
    assert scene.drivers[0].call(do="doctor", brief=True, probe=False)["findings"] == []


@pytest.mark.parametrize("target", [9000, 8080])
def test_tasks_with_their_hosts_network_are_published_on_every_host(
    scene: Scene, target: int
) -> None:
    """Whatever host is asked, from wherever; the port may be the very one that they listen on."""
    a, b = scene.hosts
    _publish_processes(scene, [b], published=8080, target=target)
    states = scene.agree()
    assert [state["problems"] for state in states] == [[], []]
    scene.wire.ip("addr", "add", "10.77.0.200/24", "dev", "lab0")
    for client in (scene.wire, a, b, scene.client):
        for host in (a, b):
            assert _answers(client, host.address, count=3) == {b.node}
    assert _answers(a, "127.0.0.1", count=3) == _answers(b, "127.0.0.1", count=3) == {b.node}


def test_a_process_gets_the_port_that_it_publishes(scene: Scene) -> None:
    """Its host holds the port for nobody else, also when another host's process had it before."""
    a, b = scene.hosts
    _publish_processes(scene, [a], published=8080, target=8080)
    scene.agree()
    with b.socket(socket.SOCK_STREAM) as early, pytest.raises(OSError, match="in use"):
        early.bind(("0.0.0.0", 8080))
    starting = msgspec.structs.replace(_host_member(b), ready=False)
    scene.members_of[8080] = (_host_member(a), starting)
    scene.agree()
    b.called = b.node
    b.serve(scene.stack, port=8080)
    scene.members_of[8080] = (_host_member(a), _host_member(b))
    assert [state["problems"] for state in scene.agree()] == [[], []]
    assert _answers(a, a.address) == _answers(a, b.address) == {a.node, b.node}


def test_a_process_that_is_not_ready_is_reached_over_its_hosts_loopback(scene: Scene) -> None:
    """Its health check asks there, and is answered by nobody else; others are refused."""
    a, b = scene.hosts
    _publish_processes(scene, [a, b], published=8080, target=8080)
    ready, starting = scene.members_of[8080]
    starting = msgspec.structs.replace(starting, ready=False)
    scene.members_of[8080] = (starting,)
    scene.agree()
    assert _answers(b, "127.0.0.1") == {b.node}
    assert _answers(b, b.address) == _answers(a, b.address) == {""}
    scene.members_of[8080] = (ready, starting)
    scene.agree()
    assert _answers(b, "127.0.0.1") == {b.node}
    assert _answers(b, b.address) == _answers(a, "127.0.0.1") == {a.node}
