"""A swarm whose containers answer, as the tests of its traffic use it.

Servers and clients are threads of the test with sockets in the containers' namespaces, so that
thousands of connections cost no processes. The containers themselves sleep. Names are looked up by
programs in the containers, with the files that are there.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.plugins.overlay.inside import Inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from tests.e2e.swarm import Swarm

PROGRAM_S = 15


class Traffic:
    """A swarm whose containers answer.

    Attributes:
        hosts: the hosts' own namespaces.
    """

    def __init__(self, swarm: Swarm, stack: ExitStack) -> None:
        self.swarm = swarm
        self._stack = stack
        self._served: dict[str, Inside] = {}
        self.hosts = [Inside(stack, host.pid, host.name) for host in swarm.hosts]

    def network(self, name: str, **more: Any) -> None:
        """Create an overlay network."""
        self.swarm.api("POST", "/networks/create", {"Name": name, "Driver": "overlay", **more})

    def service(
        self, name: str, replicas: int, *networks: str | dict[str, Any], **parts: Any
    ) -> list[Inside]:
        """Run a service and serve in all of its containers; return them.

        Args:
            networks: names, or what a spec says of a place on one.
        """
        targets = [one if isinstance(one, dict) else {"Target": one} for one in networks]
        service = self.swarm.create_spec(
            name, replicas, task={"Networks": targets, **parts.pop("task", {})}, **parts
        )
        self.swarm.wait_running(service, replicas)
        return self.inside(name)

    def inside(self, service: str) -> list[Inside]:
        """The namespaces of a service's running tasks, served in; in the order of their hosts."""
        found = []
        for task in self.swarm.running(service):
            if task["ID"] not in self._served:
                engine, container = self.swarm.container_of(task["ID"])
                pid = engine.container_pid(container["Id"])
                self._served[task["ID"]] = self.enter(pid, task["ID"])
            (place,) = self.swarm.nodes_of([task])
            found.append((place, self._served[task["ID"]]))
        return [made for _, made in sorted(found, key=lambda pair: pair[0])]

    def enter(self, pid: int, called: str) -> Inside:
        """Serve in the namespace of a process."""
        made = Inside(self._stack, pid, called)
        made.serve(self._stack)
        return made

    def vip(self, service: str) -> str:
        """A service's virtual address, in the network that is not ingress."""
        found = self.swarm.api("GET", f"/services/{service}")["Endpoint"]["VirtualIPs"]
        ingress = self.swarm.api("GET", "/networks/ingress")["Id"]
        (address,) = (one["Addr"] for one in found if one["NetworkID"] != ingress)
        return str(address).partition("/")[0]

    def addresses(self, service: str, network: str) -> dict[str, str]:
        """The addresses of a service's running tasks in a network."""
        return {
            task["ID"]: one["Addresses"][0].partition("/")[0]
            for task in self.swarm.running(service)
            for one in task["NetworksAttachments"]
            if one["Network"]["Spec"]["Name"] == network
        }


def look_up(client: Inside, name: str) -> set[str]:
    """The addresses that a program in a container gets for a name."""
    done = _run(client, "nslookup", name)
    _, _, answer = done.stdout.partition("\n\n")
    return set(re.findall(r"^Address(?: \d+)?: (\S+)", answer, re.MULTILINE))


def call(client: Inside, name: str, port: int = 80) -> str:
    """Who answers a program in a container that connects to a name; "" for nobody."""
    done = _run(client, "nc", "-w", "5", name, str(port))
    return done.stdout.partition(" ")[0]


def _run(client: Inside, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a container in it."""
    return subprocess.run(
        ["nsenter", f"--target={client.pid}", "--mount", "--net", "--uts", "--", *words],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PROGRAM_S,
    )


def port(published: int, target: int = 80, **more: Any) -> dict[str, Any]:
    """The parts of a spec that publish a port."""
    ports = [{"PublishedPort": published, "TargetPort": target, "Protocol": "tcp", **more}]
    return {"EndpointSpec": {"Ports": ports}}


def is_answered(client: Inside, address: str, port: int = 80) -> bool:
    """Does anybody answer a connection?"""
    try:
        return bool(client.ask(address, port))
    except OSError:
        return False


def is_answered_udp(client: Inside, address: str, port: int = 80) -> bool:
    """Does anybody answer a datagram?"""
    try:
        return bool(client.ask_udp(address, port))
    except OSError:
        return False


@dataclass
class Load:
    """What became of requests that are made all the time."""

    count: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def load(client: Inside, address: str, port: int = 80, *, udp: bool = False) -> Iterator[Load]:
    """Make requests from a thread, some hundred a second at most.

    Args:
        udp: they are datagrams, which nobody sends again: one that is lost is a failure.
    """
    done, over = Load(), threading.Event()
    ask = client.ask_udp if udp else client.ask

    def run() -> None:
        while not over.wait(0.005):
            done.count += 1
            try:
                ask(address, port)
            except OSError as error:
                done.failures.append(f"{time.time():.3f} {error}")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()
