"""The driver on hosts that are network namespaces: what clients see, and what is repaired."""

from __future__ import annotations

import shutil
import socket
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from swarmctl.plugins.overlay.conntrack import Lead, forget_strays
from swarmctl.plugins.overlay.namespaces import Namespace
from swarmctl.plugins.overlay.netlink import DUMP
from tests.plugins.overlay.scene import NET, VIP, VIP6
from tests.plugins.overlay.wire import eventually, ip

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarmctl.plugins.overlay.netlink import NetlinkSocket, Request
    from tests.plugins.overlay.scene import Scene
    from tests.plugins.overlay.wire import Netns

pytestmark = pytest.mark.lab
DEVICE, INGRESS_BRIDGE = "sx-netaaaaaaaaa", "sw-ingressaaaaa"


def _answers(client: Netns, address: str, count: int, port: int = 80) -> Counter[str]:
    """Who answered so many connections."""
    return Counter(client.ask(address, port).split()[0] for _ in range(count))


def _is_refused_at_once(client: Netns, address: str, port: int = 80) -> bool:
    """Is a connection refused long before its first packet is sent again, after a second?"""
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        client.ask(address, port)
    return time.monotonic() - began < 0.5


def test_containers_reach_each_other_across_hosts(scene: Scene) -> None:
    """By address, on both families, and at once: nothing has to be asked for on the wire."""
    scene.agree()
    assert scene.client.ask("10.0.1.12") == "b1 10.0.1.20"
    assert scene.client.ask("fd00:1::c") == "b1 fd00:1::14"
    assert scene.client.ask("10.0.1.11") == "a1 10.0.1.20"


def test_a_virtual_address_is_shared_evenly(scene: Scene) -> None:
    """Connections go to the three members in turn, over either family and over UDP."""
    scene.agree()
    assert set(_answers(scene.client, VIP, 300).values()) == {100}
    assert set(_answers(scene.client, VIP6, 30).values()) == {10}
    udp = Counter(scene.client.ask_udp(VIP).split()[0] for _ in range(30))
    assert set(udp.values()) == {10}
    scene.client.run("busybox", "ping", "-c", "1", "-W", "1", VIP)


def test_a_member_reaches_itself_by_its_own_virtual_address(scene: Scene) -> None:
    """A task that calls its own service may be given itself."""
    scene.agree()
    assert _answers(scene.members[0], VIP, 30) == {"a1": 10, "b1": 10, "b2": 10}
    assert _answers(scene.members[0], VIP6, 30) == {"a1": 10, "b1": 10, "b2": 10}


def test_without_ready_members_it_refuses_at_once(scene: Scene) -> None:
    """Nobody waits for a service that has nobody."""
    scene.unready = {"a1", "b1", "b2"}
    scene.publish()
    scene.agree()
    assert _is_refused_at_once(scene.client, VIP)
    assert _is_refused_at_once(scene.client, VIP6)
    assert _is_refused_at_once(scene.client, scene.hosts[0].address, 8080)
    with pytest.raises((ConnectionRefusedError, PermissionError)):  # told by the send itself
        scene.client.ask_udp(VIP)


def test_who_comes_past_the_rules_is_led_when_they_are_there(scene: Scene) -> None:
    """As a packet does now and then while they are replaced: it is neither refused nor lost."""
    scene.publish()
    scene.agree()
    with ThreadPoolExecutor() as pool:
        with scene.drivers[0].stopped():
            scene.client.run("nft", "flush", "chain", "ip", "swarmctl", f"vip-{VIP}")
            scene.hosts[0].run("nft", "flush", "chain", "ip", "swarmctl", "port-tcp-8080")
            asked = [
                pool.submit(_ask_patiently, scene.client, VIP, 80),
                *(
                    pool.submit(_ask_patiently, host, scene.hosts[0].address, 8080)
                    for host in scene.hosts
                ),
            ]
            time.sleep(0.2)  # they are on their way
            assert not any(one.done() for one in asked)
        scene.agree()
        for one in asked:
            assert one.result().split()[0] in {"a1", "b1", "b2"}


def _ask_patiently(client: Netns, address: str, port: int) -> str:
    with client.socket(socket.SOCK_STREAM) as asking:
        asking.settimeout(15)
        asking.connect((address, port))
        return asking.recv(200).decode()


def test_a_member_that_is_to_stop_keeps_its_connections(scene: Scene) -> None:
    """Established connections stay with their member, new ones go to the others."""
    scene.agree()
    clients = []
    for _ in range(3):
        client = scene.client.socket(socket.SOCK_STREAM)
        client.connect((VIP, 80))
        clients.append((client.recv(200).decode().split()[0], client))
    scene.unready = {"b1"}
    scene.agree()
    assert "b1" not in _answers(scene.client, VIP, 20)
    for _, client in clients:
        client.sendall(b"still there")
        assert client.recv(200) == b"still there"
        client.close()


@pytest.mark.parametrize("warned", [False, True])
def test_datagrams_leave_a_member_that_is_gone(scene: Scene, warned: bool) -> None:
    """A client that goes on sending from one port is moved to a member that is there.

    Also when the member was not ready any more before, so that no rule changes when it goes.
    """
    scene.agree()
    with scene.client.socket(socket.SOCK_DGRAM) as client:
        client.connect((VIP, 80))
        client.send(b"?")
        first = client.recv(200).decode().split()[0]
        if warned:
            scene.unready = {first}
            scene.agree()
        scene.gone = {first}
        scene.agree()
        client.send(b"?")
        assert client.recv(200).decode().split()[0] != first


class _Meanwhile:
    """A socket to the kernel; something happens after each look."""

    def __init__(self, kernel: NetlinkSocket, happen: Callable[[], None]) -> None:
        self._kernel = kernel
        self._happen = happen

    def ask(self, request: Request) -> list[bytes]:
        found = self._kernel.ask(request)
        if request.flags == DUMP:
            self._happen()
        return found

    def tell(self, requests: list[Request]) -> list[int]:
        return self._kernel.tell(requests)


def test_a_port_that_is_used_again_keeps_its_new_connection(scene: Scene) -> None:
    """It may begin while the connections of a member that is gone are looked for."""
    scene.agree()
    ports = range(40_000, 40_030)
    of_b1 = []
    for port in ports:
        with _from(scene.client, port) as client:
            if client.recv(200).startswith(b"b1"):
                of_b1.append(port)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    scene.unready = {"b1"}
    scene.agree()
    clients: list[socket.socket] = []

    def use_again() -> None:
        clients.extend(_from(scene.client, port) for port in of_b1)
        for client in clients:
            assert not client.recv(200).startswith(b"b1")

    with ExitStack() as stack:
        space = Namespace(scene.client.pid)
        stack.callback(space.close)
        others = frozenset({"10.0.1.11", "10.0.1.13"})
        kernel = _Meanwhile(space.netfilter, use_again)
        forget_strays(kernel, [Lead(frozenset({VIP}), others)])  # type: ignore[arg-type]
        assert len(clients) == 10
        for client in map(stack.enter_context, clients):
            client.sendall(b"still there")
            assert client.recv(200) == b"still there"


def _from(place: Netns, port: int) -> socket.socket:
    """A connection to the service from one port."""
    client = place.socket(socket.SOCK_STREAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("0.0.0.0", port))
    client.connect((VIP, 80))
    return client


def test_a_published_port_answers_on_every_host(scene: Scene) -> None:
    """From elsewhere, from the host itself, over loopback, and from a container on it."""
    scene.publish()
    scene.agree()
    a, b = scene.hosts
    everybody = {"a1", "b1", "b2"}
    scene.wire.ip("addr", "add", "10.77.0.200/24", "dev", "lab0")
    for host in (a, b):
        assert set(_answers(scene.wire, host.address, 9, 8080)) == everybody
        assert set(_answers(host, host.address, 9, 8080)) == everybody
        assert set(_answers(host, "127.0.0.1", 9, 8080)) == everybody
    assert set(_answers(a, b.address, 9, 8080)) == everybody
    assert set(_answers(scene.client, b.address, 9, 8080)) == everybody
    assert set(_answers(scene.client, a.address, 9, 8080)) == everybody


def test_a_published_port_answers_over_ipv6_and_udp(scene: Scene) -> None:
    """Both families, both protocols, on each host; a host's own [::1] refuses at once, so that a
    program which says localhost goes on to 127.0.0.1."""
    scene.publish()
    scene.publish(published=5353, protocol="udp")
    scene.agree()
    scene.wire.ip("addr", "add", "10.77.0.200/24", "dev", "lab0")
    scene.wire.ip("addr", "add", "fd77::200/64", "dev", "lab0", "nodad")
    for number, host in enumerate(scene.hosts, start=1):
        assert set(_answers(scene.wire, f"fd77::{number}", 9, 8080)) == {"a1", "b1", "b2"}
        assert set(_answers(host, f"fd77::{number}", 9, 8080)) == {"a1", "b1", "b2"}
        assert {scene.wire.ask_udp(host.address, 5353).split()[0] for _ in range(9)} == {
            *("a1", "b1", "b2")
        }
        assert _is_refused_at_once(host, "::1", 8080)


def _of_the_mesh(host: Netns) -> list[list[str]]:
    """The host's TCP connections to its published port; seconds left and state are 4 and 5."""
    listed = Path(f"/proc/{host.pid}/net/nf_conntrack").read_text().splitlines()
    return [line.split() for line in listed if " tcp " in line and f"dst={host.address} " in line]


def test_the_mesh_forgets_soon_what_is_over(scene: Scene) -> None:
    """A connection that goes on is kept for as long as any; one that has ended for two seconds."""
    scene.publish()
    scene.agree()
    host = scene.hosts[0]
    with scene.hosts[1].socket(socket.SOCK_STREAM) as client:
        client.connect((host.address, 8080))
        assert client.recv(200)
        ((*_, left, state), *_) = [line[:6] for line in _of_the_mesh(host)]
        assert state == "ESTABLISHED"
        assert int(left) > 10_000
    eventually(lambda: all(line[5] != "ESTABLISHED" for line in _of_the_mesh(host)))
    assert all(int(line[4]) <= 2 for line in _of_the_mesh(host) if line[5] == "TIME_WAIT")


def test_a_kernel_that_cannot_forget_soon_has_the_mesh(scene: Scene, tmp_path: Path) -> None:
    """What it refuses is left out; the rest is as everywhere, and an audit finds nothing wrong."""
    scene.publish()
    host = scene.hosts[0]
    scene.drivers[0].kill()
    scene.drivers[0] = host.start_driver(programs=_nft_that_refuses(tmp_path, "ct timeout"))
    assert scene.agree()[0]["problems"] == []
    assert set(_answers(host, host.address, 9, 8080)) == {"a1", "b1", "b2"}
    assert scene.drivers[0].call(do="doctor", brief=True, probe=False)["findings"] == []


def test_tasks_have_their_rules_where_the_host_cannot_have_its_own(
    scene: Scene, tmp_path: Path
) -> None:
    """A kernel that lacks what published ports need still balances virtual addresses."""
    scene.publish()
    scene.drivers[0].kill()
    host = scene.hosts[0]
    scene.drivers[0] = host.start_driver(programs=_nft_that_refuses(tmp_path, "fib daddr"))
    scene.drivers[0].want(scene.table(host), scene.members[0], scene.client, wait=False)
    scene.agree([1])
    eventually(lambda: _is_answered(scene, VIP))
    assert set(_answers(scene.client, VIP, 9)) == {"a1", "b1", "b2"}
    assert "not supported" in scene.drivers[0].state()["problems"]


def _nft_that_refuses(folder: Path, words: str) -> str:
    """Return where there is an ``nft`` that takes no script with some words."""
    nft = folder / "nft"
    nft.write_text(
        f'#!/bin/sh\ntext=$(cat)\ncase $text in *"{words}"*) echo "not supported" >&2; exit 1;; '
        f'esac\nprintf "%s\\n" "$text" | {shutil.which("nft")} "$@"\n'
    )
    nft.chmod(0o755)
    return str(folder)


def test_keeping_the_source_shows_the_client(scene: Scene) -> None:
    """Members see the client's own address, and only those on the host that was reached answer."""
    scene.publish(keep_source=True)
    scene.agree()
    scene.wire.ip("addr", "add", "10.77.0.200/24", "dev", "lab0")
    a, b = scene.hosts
    assert scene.wire.ask(a.address, 8080) == "a1 10.77.0.200"
    found = {scene.wire.ask(b.address, 8080) for _ in range(4)}
    assert found == {"b1 10.77.0.200", "b2 10.77.0.200"}
    scene.gone = {"a1"}
    scene.agree()
    assert _is_refused_at_once(scene.wire, a.address, 8080)


def test_a_port_bound_to_an_address_answers_there_alone(scene: Scene) -> None:
    """On other addresses of the host the port is closed, or somebody else's."""
    scene.hosts[0].ip("addr", "add", "10.77.0.101/24", "dev", "eth0")
    scene.publish(ip="10.77.0.101")
    scene.agree()
    assert _answers(scene.hosts[0], "10.77.0.101", 3, 8080).keys() == {"a1", "b1", "b2"}
    assert _is_refused_at_once(scene.hosts[0], scene.hosts[0].address, 8080)


def test_a_port_that_another_process_has_is_left_to_it(scene: Scene) -> None:
    """It is told of, the other process goes on, and the port is published once it is free."""
    scene.publish()
    with scene.hosts[0].socket(socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", 8080))
        other.listen()
        states = scene.agree()
        assert "8080/tcp" in states[0]["problems"][0]
        assert not states[1]["problems"]
        with scene.hosts[0].socket(socket.SOCK_STREAM) as client:
            client.connect((scene.hosts[0].address, 8080))
            other.accept()[0].close()
    eventually(lambda: not scene.drivers[0].state()["problems"], timeout_s=12)
    assert scene.hosts[0].ask(scene.hosts[0].address, 8080)


def test_a_published_port_is_taken_for_others(scene: Scene) -> None:
    """A process that wants it is told that it is in use."""
    scene.publish()
    scene.agree()
    with scene.hosts[0].socket(socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("0.0.0.0", 8080))


def test_a_tunnel_that_was_deleted_comes_back(scene: Scene) -> None:
    """Damage by hand is found at once, mended, counted and named."""
    scene.agree()
    scene.hosts[0].ip("link", "del", DEVICE)
    eventually(lambda: f"vxlan {DEVICE}" in scene.drivers[0].state()["repaired"])
    assert scene.client.ask("10.0.1.12") == "b1 10.0.1.20"


def test_entries_and_rules_that_were_changed_are_mended(scene: Scene) -> None:
    """Within an audit's period everything is as the table says again."""
    scene.publish()
    scene.agree()
    host = scene.hosts[0]
    host.run("bridge", "fdb", "del", "02:42:0a:00:01:0c", "dev", DEVICE, "master")
    host.run("ip", "neigh", "flush", "nud", "permanent", "dev", "sw-netaaaaaaaaa")
    host.run("nft", "flush", "chain", "ip", "swarmctl", "port-tcp-8080")
    scene.client.run("nft", "delete", "table", "ip", "swarmctl")

    def mended() -> bool:
        return set(scene.drivers[0].state()["repaired"]) >= {
            f"forwarding of {DEVICE}",
            "neighbours of sw-netaaaaaaaaa",
            "rules ip port-tcp-8080",
            "rules ip output of a task",
        }

    eventually(mended, timeout_s=12)
    assert set(_answers(scene.client, VIP, 9)) == {"a1", "b1", "b2"}
    assert set(_answers(host, host.address, 9, 8080)) == {"a1", "b1", "b2"}


def test_what_others_made_stays(scene: Scene) -> None:
    """Tables, chains, devices and entries of others live through changes and audits."""
    host = scene.hosts[0]
    host.run("nft", "-f", "-", text="add table ip other\nadd chain ip other a\n")
    host.ip("link", "add", "vx9", "type", "vxlan", "id", "9", "dstport", "4789")
    scene.client.run("nft", "-f", "-", text="add table ip nat\nadd chain ip nat x\n")
    scene.agree()
    scene.unready = {"b1"}
    scene.agree()
    scene.drivers[0].call(do="leave")
    assert "chain a" in host.run("nft", "list", "table", "ip", "other")
    assert "vx9" in host.ip("link")
    assert "chain x" in scene.client.run("nft", "list", "table", "ip", "nat")


def test_the_engines_filter_lets_the_mesh_pass(scene: Scene) -> None:
    """Where FORWARD drops, the rules are in DOCKER-USER, and come back after the engine's anew."""
    host = scene.hosts[0]
    for command in ("-P FORWARD DROP", "-N DOCKER-USER", "-I FORWARD -j DOCKER-USER"):
        host.run("iptables", "-w", "5", *command.split())
    scene.publish()
    scene.agree()
    scene.wire.ip("addr", "add", "10.77.0.200/24", "dev", "lab0")
    eventually(lambda: f"-o {INGRESS_BRIDGE}" in host.run("iptables", "-S", "DOCKER-USER"))
    assert not scene.drivers[0].state()["repaired"]
    assert set(_answers(scene.wire, host.address, 9, 8080)) == {"a1", "b1", "b2"}
    words = f"-o {INGRESS_BRIDGE} DNAT, -i {INGRESS_BRIDGE} RELATED,ESTABLISHED"
    assert ("iptables DOCKER-USER", words, words) in scene.findings("filter")
    host.run("iptables", "-w", "5", "-F", "DOCKER-USER")
    eventually(
        lambda: f"-o {INGRESS_BRIDGE}" in host.run("iptables", "-S", "DOCKER-USER"), timeout_s=8
    )
    eventually(
        lambda: scene.drivers[0].state()["repaired"] == {"iptables DOCKER-USER": 1}, timeout_s=2
    )

    def is_seen() -> bool:
        host.run("iptables", "-w", "5", "-F", "DOCKER-USER")
        return ("iptables DOCKER-USER", words, "") in scene.findings("filter")

    eventually(is_seen)  # before it is mended
    scene.drivers[0].call(do="leave")
    assert "swarmctl" not in host.run("iptables", "-S")


def test_a_host_that_lets_no_published_port_pass_says_why(scene: Scene, tmp_path: Path) -> None:
    """A filter that takes no rules, and IPv6 that is not passed on; until that is mended."""
    host = scene.hosts[0]
    for command in ("-P FORWARD DROP", "-N DOCKER-USER", "-I FORWARD -j DOCKER-USER"):
        host.run("iptables", "-w", "5", *command.split())
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
    filters = tmp_path / "iptables"
    filters.write_text(
        f'#!/bin/sh\ncase " $* " in *" -I "*) echo "no such match" >&2; exit 1;; esac\n'
        f'exec {shutil.which("iptables")} "$@"\n'
    )
    filters.chmod(0o755)
    scene.drivers[0].kill()
    scene.drivers[0] = host.start_driver(programs=str(tmp_path))
    scene.publish()
    of_filter, of_forwarding = scene.agree()[0]["problems"]
    assert "iptables DOCKER-USER" in of_filter
    assert "no such match" in of_filter
    assert "net.ipv6.conf.all.forwarding=1" in of_forwarding
    filters.unlink()
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    eventually(lambda: not scene.drivers[0].state()["problems"], timeout_s=12)


def test_a_node_that_leaves_keeps_nothing(scene: Scene) -> None:
    """No device, no rule, no entry of ours is left on the host, nor in a task that lives on."""
    scene.publish()
    scene.agree()
    host = scene.hosts[0]
    scene.drivers[0].call(do="leave")
    assert "sx-" not in host.ip("link")
    assert "swarmctl" not in host.run("nft", "list", "ruleset")
    assert "swarmctl" not in scene.client.run("nft", "list", "ruleset")


def test_traffic_goes_on_while_the_daemon_is_away(scene: Scene) -> None:
    """Killed, absent, back and adopting: no request fails and no packet is lost, as datagrams show,
    which nobody sends again; and nothing is made anew."""
    scene.publish()
    scene.publish(published=5353, protocol="udp")
    scene.agree()
    host = scene.hosts[0]
    before = host.ip("-o", "link", "show", DEVICE).split(":")[0]
    failures: list[str] = []
    stop = threading.Event()
    count = 0

    def request() -> None:
        nonlocal count
        while not stop.is_set():
            try:
                scene.client.ask(VIP)
                host.ask(host.address, 8080)
                scene.client.ask_udp(VIP)
                scene.client.ask_udp("10.0.1.12")
                host.ask_udp(host.address, 5353)
                count += 5
            except OSError as error:
                failures.append(str(error))

    thread = threading.Thread(target=request)
    thread.start()
    try:
        time.sleep(0.3)
        scene.drivers[0].kill()
        time.sleep(0.3)
        scene.drivers[0] = host.start_driver()
        state = scene.agree([0])[0]
        time.sleep(0.3)
    finally:
        stop.set()
        thread.join()
    assert not failures
    assert count > 50
    assert not state["repaired"]
    assert host.ip("-o", "link", "show", DEVICE).split(":")[0] == before


def test_a_hosts_bridge_for_ingress_is_made_where_no_engine_did(scene: Scene) -> None:
    """A host without containers on ingress still passes clients on to other hosts, from the address
    that it has there and from no other that it had before."""
    host = scene.hosts[0]
    for container in (scene.members[0], scene.client):
        container.ip("link", "del", "eth1")
    host.ip("link", "del", INGRESS_BRIDGE)
    scene.gone = {"a1"}
    scene.publish()
    scene.agree()
    assert set(_answers(host, host.address, 6, 8080)) == {"b1", "b2"}
    with scene.drivers[0].stopped():  # as if it had had another address before
        host.ip("addr", "flush", "dev", INGRESS_BRIDGE, "scope", "global")
        for address in ("10.0.0.9/24", "10.0.0.251/24"):
            host.ip("addr", "add", address, "dev", INGRESS_BRIDGE)

    def has_its_own() -> bool:
        shown = host.ip("addr", "show", "dev", INGRESS_BRIDGE)
        return "10.0.0.251/24" in shown and "10.0.0.9/24" not in shown

    eventually(has_its_own)
    assert set(_answers(host, host.address, 6, 8080)) == {"b1", "b2"}
    scene.drivers[0].call(do="leave")
    assert INGRESS_BRIDGE not in host.ip("link")


def test_a_peer_that_moves_is_found_again(scene: Scene) -> None:
    """Another address of a host is another row in the table, and nothing more."""
    scene.agree()
    b = scene.hosts[1]
    b.ip("addr", "del", f"{b.address}/24", "dev", "eth0")
    b.address = "10.77.0.99"
    b.ip("addr", "add", f"{b.address}/24", "dev", "eth0")
    scene.agree()
    assert scene.client.ask("10.0.1.12") == "b1 10.0.1.20"


def test_doctor_names_damage_and_probes_paths(scene: Scene) -> None:
    """Before: nothing differs and every path answers. After damage by hand: it is named."""
    scene.agree()
    report = scene.drivers[0].call(do="doctor", brief=True, probe=True)
    assert report["findings"] == []
    assert report["compared"] > 10
    assert report["probes"]
    assert all(probe["took_ns"] for probe in report["probes"])
    scene.drivers[1].kill()
    scene.hosts[1].ip("link", "del", DEVICE)
    scene.hosts[0].run("bridge", "fdb", "del", "02:42:0a:00:01:0c", "dev", DEVICE, "master")
    report = scene.drivers[0].call(do="doctor", brief=True, probe=True)
    assert [(one["kind"], one["subject"]) for one in report["findings"]] == [
        ("forwarding", "02:42:0a:00:01:0c")
    ]
    assert any(probe["error"] for probe in report["probes"])


def test_a_task_that_ended_holds_nobody_up(scene: Scene) -> None:
    """A process that is gone by the time its namespace is opened counts as done."""
    scene.client.kill()
    began = time.monotonic()
    scene.agree([0])
    assert time.monotonic() - began < 3


def test_large_packets_get_through_a_narrow_path(scene: Scene) -> None:
    """Where less than usual gets through below, tasks send smaller packets; those of the next
    daemon are as large as they can be by then."""
    scene.wire.ip("link", "set", scene.hosts[1].port, "mtu", "1400")
    scene.agree()
    eventually(lambda: "mtu 1350" in scene.client.ip("route", "show", "10.0.1.0/24"))
    eventually(lambda: "mtu 1350" in scene.members[1].ip("route", "show", "10.0.1.0/24"))
    assert ("client 10.0.1.0/24", "1350", "1350") in scene.findings("size")
    with scene.client.socket(socket.SOCK_STREAM) as client:
        client.connect(("10.0.1.12", 80))
        client.recv(200)
        client.sendall(b"x" * 50_000)
        left = 50_000
        while left:
            left -= len(client.recv(65536))
    scene.drivers[0].kill()
    scene.wire.ip("link", "set", scene.hosts[1].port, "mtu", "1500")
    scene.drivers[0] = scene.hosts[0].start_driver()
    scene.agree()
    eventually(lambda: "mtu" not in scene.client.ip("route", "show", "10.0.1.0/24"))


def test_an_internal_network_keeps_to_itself(scene: Scene) -> None:
    """Of either family nobody beyond is reached from it, or reaches it, whatever the engine does
    about that; its members are reached on other hosts as ever."""
    host, wire = scene.hosts[0], scene.wire
    for address in ("10.77.0.200/24", "fd77::200/64"):
        wire.ip("addr", "add", address, "dev", "lab0", *(["nodad"] if ":" in address else []))
    wire.ip("route", "add", "fd00:1::/64", "via", "fd77::1")
    wire.serve(scene.stack, port=81)
    inside = host.container("inside")
    inside.join(NET, "10.0.1.30", "fd00:1::1e", gateway="10.0.1.251")
    inside.ip("route", "add", "default", "via", "fd00:1::fb")
    inside.serve(scene.stack)
    scene.agree()
    assert inside.ask("10.77.0.200", 81)
    assert inside.ask("fd77::200", 81)
    assert wire.ask("fd00:1::1e")
    scene.internal = True
    scene.agree()
    for client, address in ((inside, "10.77.0.200"), (inside, "fd77::200"), (wire, "fd00:1::1e")):
        with pytest.raises(TimeoutError):
            client.ask(address, 80 if client is wire else 81)
    assert inside.ask("10.0.1.12") == "b1 10.0.1.30"
    assert inside.ask("fd00:1::c") == "b1 fd00:1::1e"


def test_a_link_that_was_down_needs_no_help(scene: Scene) -> None:
    """After a cut the same entries serve, and nothing is mended."""
    scene.agree()
    wire, port = scene.wire, scene.hosts[1].port
    wire.ip("link", "set", port, "down")
    with scene.client.socket(socket.SOCK_STREAM) as client, suppress(TimeoutError):
        client.settimeout(0.3)
        client.connect(("10.0.1.12", 80))
    wire.ip("link", "set", port, "up")
    eventually(lambda: _is_answered(scene))
    assert not scene.drivers[0].state()["repaired"]


def _is_answered(scene: Scene, address: str = "10.0.1.12") -> bool:
    try:
        return scene.client.ask(address).endswith(" 10.0.1.20")
    except OSError:
        return False


def test_the_machines_own_namespace_is_left_alone() -> None:
    """No test of this file leaves rules or devices of ours outside its namespaces."""
    assert "sx-" not in ip("-o", "link")
