"""Traffic between containers of real engines on three hosts: addresses, virtual ones, the mesh."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from benchmarks.damage import Damage, tables
from tests.e2e.answering import Traffic, call, is_answered, is_answered_udp, load, look_up, port
from tests.e2e.lab import eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab
    from tests.plugins.overlay.inside import Inside

pytestmark = [pytest.mark.lab, pytest.mark.engine]

FRONT = {"Target": "net", "Aliases": ["front"]}
_KILL_RESPONDER = "kill -KILL $(grep -l overlay[.]dns /proc/[0-9]*/cmdline | cut -d/ -f3)"
IN_STACK = {"Labels": {"com.docker.stack.namespace": "shop"}}


@pytest.fixture
def traffic(lab3: Lab) -> Iterator[Traffic]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm, ExitStack() as stack:
        yield Traffic(swarm, stack)


def test_containers_on_three_hosts(traffic: Traffic) -> None:
    """They reach each other by address, by each name of a service, and by its virtual address,
    which is shared within 10 % of even over 3,000 connections; a service without one is its
    members; of another network nobody is reached, and nothing known."""
    traffic.network("net")
    traffic.network("apart")
    members = traffic.service("shop_web", 3, FRONT, **IN_STACK)
    traffic.service("plain", 3, "net", EndpointSpec={"Mode": "dnsrr"})
    (stranger,) = traffic.service("stranger", 1, "apart")
    clients = traffic.service("client", 3, "net")
    names = {member.called for member in members}
    for task_id, address in traffic.addresses("shop_web", "net").items():
        assert clients[0].ask(address).split()[0] == task_id
    vip = traffic.vip("shop_web")
    eventually(lambda: is_answered(clients[0], vip), 10)
    answers = Counter(clients[0].ask(vip).split()[0] for _ in range(3000))
    assert answers.keys() == names
    assert all(900 <= count <= 1100 for count in answers.values()), answers
    assert len({clients[0].ask_udp(vip).split()[0] for _ in range(9)}) == 3
    web, plain = (set(traffic.addresses(name, "net").values()) for name in ("shop_web", "plain"))
    for client in clients:
        for name in ("shop_web", "front", "web", "web.shop"):
            assert look_up(client, name) == {vip}
            assert {call(client, name) for _ in range(3)} == names
        assert look_up(client, "tasks.web") == web
        assert call(client, "tasks.web") in names
        assert look_up(client, "plain") == plain
        assert call(client, "plain") in traffic.addresses("plain", "net")
    assert look_up(stranger, "web") == look_up(stranger, "tasks.web") == set()
    assert not is_answered(stranger, vip)
    for address in web:
        assert not is_answered(stranger, address)


def test_addresses_that_were_asked_for(traffic: Traffic) -> None:
    """On an internal network of two families: a service and its slots have the addresses of their
    labels, by which they are reached from other hosts; beyond it nobody is reached, as from other
    networks."""
    subnets = [{"Subnet": "10.90.0.0/24"}, {"Subnet": "fd00:90::/64"}]
    inward = {"Internal": True, "EnableIPv6": True, "IPAM": {"Config": subnets}}
    traffic.network("inward", **inward)
    traffic.network("net")
    labels = {
        "swarmctl.vip.inward": "10.90.0.5,fd00:90::5",
        "swarmctl.ip.inward": "10.90.0.11,10.90.0.12,10.90.0.13,fd00:90::b,fd00:90::c,fd00:90::d",
    }
    traffic.service("db", 3, "inward", Labels=labels)
    slots = {task["Slot"]: task["ID"] for task in traffic.swarm.running("db")}
    clients = traffic.service("client", 3, "inward")
    for client in clients:
        for address in ("10.90.0.5", "fd00:90::5"):
            eventually(lambda: is_answered(client, address), 10)  # noqa: B023
            assert {client.ask(address).split()[0] for _ in range(6)} == set(slots.values())
        for slot, task_id in slots.items():
            assert client.ask(f"10.90.0.{10 + slot}").split()[0] == task_id
            assert client.ask(f"fd00:90::{10 + slot:x}").split()[0] == task_id
        assert look_up(client, "db") == {"10.90.0.5", "fd00:90::5"}
    (other,) = traffic.service("outward", 1, "net")
    hosts = [traffic.enter(host.pid, host.name) for host in traffic.swarm.hosts]
    for host, lab_host in zip(hosts, traffic.swarm.hosts, strict=True):
        assert other.ask(lab_host.address).split()[0] == host.called
    for lab_host in traffic.swarm.hosts[1:]:
        assert not is_answered(clients[0], lab_host.address)


def test_published_ports_on_every_host(traffic: Traffic) -> None:
    """Each host leads to the one task on another, from the host itself and over loopback too;
    datagrams to any host reach members on all; a removed service answers no more."""
    (member,) = traffic.service("web", 1, **port(8080))
    traffic.service("dns", 3, **port(5353, Protocol="udp"))
    for host in traffic.hosts:
        for other in traffic.swarm.hosts:
            eventually(lambda: is_answered(host, other.address, 8080), 10)  # noqa: B023
            assert host.ask(other.address, 8080).split()[0] == member.called
        assert host.ask("127.0.0.1", 8080).split()[0] == member.called
    host = traffic.hosts[0]
    for other in traffic.swarm.hosts:
        eventually(lambda: is_answered_udp(host, other.address, 5353), 10)  # noqa: B023
        assert len({host.ask_udp(other.address, 5353).split()[0] for _ in range(9)}) == 3
    traffic.swarm.api("DELETE", "/services/web")
    eventually(lambda: not is_answered(traffic.hosts[0], "127.0.0.1", 8080), 10)


def test_published_ports_as_labels_and_modes_say(traffic: Traffic) -> None:
    """Members on the host that is reached see the client itself; a port of one interface is closed
    on others; one in host mode is its task's. All the same over another ingress network."""
    here = {"Constraints": ["node.hostname!=h3"]}
    first, second, third = traffic.swarm.hosts
    client = traffic.hosts[2]

    def check() -> None:
        keep = {"swarmctl.publish.8081.source": "keep"}
        members = traffic.service("keep", 2, task={"Placement": here}, **port(8081), Labels=keep)
        bound = {"swarmctl.publish.8082.ip": "eth0"}
        (one,) = traffic.service("bound", 1, **port(8082), Labels=bound)
        own = traffic.service("own", 2, task={"Placement": here}, **port(8083, PublishMode="host"))
        for host, member, at in ((first, members[0], own[0]), (second, members[1], own[1])):
            eventually(lambda: is_answered(client, host.address, 8081), 10)  # noqa: B023
            for _ in range(3):
                assert client.ask(host.address, 8081) == f"{member.called} {third.address}"
                assert client.ask(host.address, 8083).split()[0] == at.called
        assert not is_answered(client, third.address, 8081)
        assert not is_answered(client, third.address, 8083)
        for host in traffic.swarm.hosts:
            eventually(lambda: is_answered(client, host.address, 8082), 10)  # noqa: B023
            assert client.ask(host.address, 8082).split()[0] == one.called
        assert not is_answered(client, "127.0.0.1", 8082)

    check()
    for service in ("keep", "bound", "own"):
        traffic.swarm.api("DELETE", f"/services/{service}")
    eventually(lambda: not traffic.swarm.api("GET", "/tasks"), 20, what="the tasks to go")
    traffic.swarm.api("DELETE", "/networks/ingress")
    config = {"Config": [{"Subnet": "10.11.0.0/16"}]}
    traffic.network("doors", Ingress=True, IPAM=config)
    check()
    for host in traffic.swarm.hosts:
        eventually(lambda: "inet 10.0.0." not in host.run(["ip", "-4", "addr"]).stdout, 10)  # noqa: B023


def test_traffic_while_daemons_are_killed(traffic: Traffic) -> None:
    """Over a virtual address and the mesh: every daemon dies and comes back, nothing fails, and
    not one datagram between containers is lost. Where the process that answers names died too,
    names are answered again by the next daemon's."""
    traffic.network("net")
    traffic.service("web", 3, "net", **port(8080))
    (client,) = traffic.service("client", 1, "net")
    host, vip = traffic.hosts[1], traffic.vip("web")
    (place,) = traffic.swarm.nodes_of(traffic.swarm.running("client"))
    eventually(lambda: is_answered(client, vip), 10)
    eventually(lambda: is_answered(host, "127.0.0.1", 8080), 10)
    with (
        load(client, vip) as inside,
        load(host, "127.0.0.1", 8080) as outside,
        load(client, vip, udp=True) as datagrams,
    ):
        for lab_host in traffic.swarm.hosts:
            assert lab_host.daemon is not None
            lab_host.daemon.kill()
        traffic.swarm.hosts[place].run(["sh", "-c", _KILL_RESPONDER])
        time.sleep(1)
        for lab_host in traffic.swarm.hosts:
            lab_host.start_daemon()
        traffic.swarm.wait_ready(3, timeout_s=60)
        time.sleep(2)
    assert (inside.failures, outside.failures, datagrams.failures) == ([], [], [])
    assert min(inside.count, outside.count, datagrams.count) > 100
    eventually(lambda: look_up(client, "web") == {vip}, 10, what="names")


def test_a_link_blinks(traffic: Traffic) -> None:
    """After a second, five and thirty, connections get through again and names are answered; on
    the host that is alone they are all the time. After the longest the tasks are elsewhere, after
    five seconds they may be."""
    traffic.network("net")
    traffic.service("web", 3, "net")
    near, _, far = traffic.service("client", 3, "net")
    vip, lost = traffic.vip("web"), traffic.swarm.hosts[2]
    eventually(lambda: is_answered(near, vip), 10)
    for cut_s in (1.0, 5.0, 30.0):
        lost.cut()
        if far.is_there():
            assert look_up(far, "web") == {vip}
        time.sleep(cut_s)
        lost.heal()
        traffic.swarm.wait_ready(3, timeout_s=30)
        eventually(lambda: len(traffic.inside("web")) == 3, 30)
        _assert_all_answer(near, _web(traffic))
        eventually(lambda: look_up(near, "tasks.web") == set(_web(traffic)), 10)
    with load(near, vip) as calls:
        time.sleep(1)
    assert not calls.failures
    assert call(near, "web")


def _web(traffic: Traffic) -> list[str]:
    return list(traffic.addresses("web", "net").values())


def _assert_all_answer(client: Inside, addresses: list[str]) -> None:
    eventually(lambda: all(is_answered(client, one) for one in addresses), 10)


def test_a_host_that_moves(traffic: Traffic) -> None:
    """With another address, found at its daemon's start or while that runs, its tasks are reached
    again, reach others, and its published ports are answered there."""
    traffic.network("net")
    traffic.service("web", 3, "net", **port(8080))
    near, _, far = traffic.service("client", 3, "net")
    targets = _web(traffic)
    _assert_all_answer(near, targets)
    moving = traffic.swarm.hosts[2]
    node = traffic.swarm.node(2)["ID"]
    for number, is_running in ((103, False), (203, True)):
        assert moving.daemon is not None
        if not is_running:
            moving.daemon.kill()
        moving.move(number)
        if not is_running:
            moving.start_daemon()
        eventually(
            lambda: traffic.swarm.node(2)["Status"].get("Addr") == moving.address,
            40,
            what="the new address",
        )
        traffic.swarm.wait_ready(3, timeout_s=30)
        for client in (near, far):
            _assert_all_answer(client, _web(traffic))
        eventually(lambda: is_answered(traffic.hosts[0], moving.address, 8080), 10)
    assert traffic.swarm.node(2)["ID"] == node


def test_a_tunnel_deleted_by_hand(traffic: Traffic) -> None:
    """It is made anew within a second, and the traffic goes on."""
    traffic.network("net")
    traffic.service("web", 3, "net")
    (client,) = traffic.service("client", 1, "net")
    targets = _web(traffic)
    _assert_all_answer(client, targets)
    for host in traffic.swarm.hosts:
        links = host.run(["ip", "-o", "link", "show", "type", "vxlan"]).stdout.splitlines()
        for link in links:
            host.run(["ip", "link", "del", link.split(": ")[1].partition("@")[0]])
    began = time.monotonic()
    _assert_all_answer(client, targets)
    assert time.monotonic() - began < 5


def test_damage_by_hand(traffic: Traffic) -> None:
    """``network doctor`` finds nothing before; then it names what is wrong on which host and which
    paths are closed, and later what was mended. A node that leaves keeps nothing of it all."""
    damage = Damage(traffic.swarm)
    (nodes,) = tables(damage.healthy())
    assert [(row[0], row[1], row[4], row[6]) for row in nodes[1:]] == [
        (host.name, "overlay", "0", "4/4") for host in traffic.swarm.hosts
    ]
    _, findings, paths, *_ = tables(damage.mislead())
    assert [row[:4] for row in findings[1:]] == [
        ["h2", "back", "forwarding", damage.mac],
        ["h2", "ingress", "port", "ip port-tcp-8080"],
    ]
    assert {row[0] for row in paths[1:]} == {"h2", "h3"}
    damage.delete_tunnel()
    *_, mended = tables(damage.healthy(mended=3))
    assert [[row[0], row[2]] for row in mended[1:]] == [
        ["h2", f"forwarding of {damage.tunnel}"],
        ["h2", "rules ip port-tcp-8080"],
        ["h2", f"vxlan {damage.tunnel}"],
    ]
    leaving = traffic.swarm.hosts[2]
    traffic.swarm.daemons[2].api("POST", "/swarm/leave")
    for command in ("ip link", "ip rule", "nft list ruleset", "iptables-save"):
        left = leaving.run(command.split()).stdout
        assert not re.search("sw-|sx-|swarmctl|4789", left), f"{command}: {left}"


def test_a_host_whose_state_was_wiped(traffic: Traffic) -> None:
    """As another node it is told whose containers are in the way; once they are removed the rest
    goes by itself, and its tasks take part in all."""
    swarm = traffic.swarm
    traffic.network("net")
    traffic.service("web", 3, "net", **port(8080))
    near, _, _ = traffic.service("client", 3, "net")
    wiped, engine, former = swarm.hosts[2], swarm.hosts[2].engine, swarm.node(2)["ID"]
    assert engine is not None
    assert wiped.daemon is not None
    wiped.daemon.kill()
    shutil.rmtree(wiped.daemon.state_dir)
    swarm.api("DELETE", f"/nodes/{former}", query={"force": "1"})
    wiped.start_daemon()
    wiped.daemon.api("POST", "/swarm/join", swarm.join_body())
    swarm.wait_ready(3, timeout_s=30)
    there = {"Placement": {"Constraints": [f"node.hostname=={wiped.name}"]}}
    late = swarm.create_spec(
        "late", 1, task={"Networks": [{"Target": "net"}], **there}, **port(8081)
    )
    eventually(
        lambda: any(
            f"node {former} left" in one["Status"].get("Err", "") for one in swarm.tasks(late)
        ),
        30,
        what="a task that says who is in the way",
    )
    for container in engine.containers(label=f"swarmctl.node.id={former}"):
        engine.remove_container(container["Id"])
    swarm.wait_running(late, 1)
    (member,) = traffic.inside("late")
    _assert_all_answer(near, list(traffic.addresses("late", "net").values()))
    eventually(lambda: call(near, "late") == member.called, 10)
    eventually(lambda: len(traffic.inside("web")) == 3, 20)  # the wiped node's was replaced
    eventually(lambda: is_answered(member, traffic.vip("web")), 10)
    eventually(lambda: is_answered(traffic.hosts[0], wiped.address, 8081), 10)
    report = swarm.api("GET", "/swarm/doctor/networks", query={"probe": "0"})
    (own,) = (one for one in report["Nodes"] if one["Name"] == wiped.name)
    assert (own["Err"], own["Problems"], own["Findings"]) == ("", [], [])
