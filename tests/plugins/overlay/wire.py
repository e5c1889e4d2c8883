"""Hosts and containers as plain network namespaces, and the driver as a process on each host.

No engine is needed: a container is a namespace with a sleeping process, and its place on a bridge
is made here the way an engine makes it. Nothing of the machine's own namespace is touched.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_interface
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

from swarmctl.plugins import mac_address
from swarmctl.plugins.model import EndpointTable, Member
from tests.plugins.overlay.inside import Inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPO = Path(__file__).resolve().parents[3]
_numbers = itertools.count(os.getpid() % 10_000 * 10)


_MASQUERADE = """
add table ip engine
add chain ip engine postrouting {{ type nat hook postrouting priority 100; }}
add rule ip engine postrouting ip saddr {subnet} oifname != "{bridge}" masquerade
"""


def ip(*words: str) -> str:
    """Run ``ip``."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def eventually(
    check: Callable[[], object], *, timeout_s: float = 10, every_s: float = 0.02
) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(every_s)


class Netns(Inside):
    """A network namespace with a process in it."""

    def __init__(self, stack: ExitStack, kind: str, called: str = "") -> None:
        self.name = f"ov{kind}{next(_numbers)}"
        ip("netns", "add", self.name)
        stack.callback(ip, "netns", "del", self.name)
        self.path = f"/run/netns/{self.name}"
        self._process = subprocess.Popen(["nsenter", f"--net={self.path}", "sleep", "600"])
        stack.callback(self.kill)
        ip("-n", self.name, "link", "set", "lo", "up")
        eventually(self._is_entered)
        super().__init__(stack, self._process.pid, called)
        # Until an interface's own address is found to be nobody else's, which takes up to two
        # seconds, no router asks for its neighbours there.
        self.run(
            "sysctl", "-qw", *(f"net.ipv6.conf.{of}.dad_transmits=0" for of in ("all", "default"))
        )

    def _is_entered(self) -> bool:
        its_own = Path(f"/proc/{self._process.pid}/ns/net").stat().st_ino
        return its_own == Path(self.path).stat().st_ino

    def kill(self) -> None:
        """End the process in it; the namespace stays until the test is over."""
        self._process.kill()
        self._process.wait()

    def run(self, *command: str, text: str = "") -> str:
        """Run a program in it."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command],
            check=False,
            capture_output=True,
            text=True,
            input=text,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def ip(self, *words: str) -> str:
        """Run ``ip`` on it."""
        return ip("-n", self.name, *words)


class Container(Netns):
    """A task: a namespace on one or more bridges, with a server on every address."""

    def __init__(self, stack: ExitStack, name: str, host: Host) -> None:
        super().__init__(stack, "c", name)
        self.task = name
        self.host = host
        self.networks: list[str] = []
        self.addresses: dict[str, tuple[str, ...]] = {}

    def join(self, network_id: str, *addresses: str, gateway: str = "") -> None:
        """Put it on a bridge of its host, as an engine does."""
        bridge, eth = f"sw-{network_id[:12]}", f"eth{len(self.networks)}"
        port = f"v{next(_numbers)}"
        mac = mac_address(*addresses)
        made = ("mtu", "1450", "address", mac, "type", "veth", "peer", "name", port)
        self.ip("link", "add", eth, *made)
        self.ip("link", "set", port, "netns", self.host.name)
        self.host.ip("link", "set", port, "mtu", "1450", "master", bridge, "up")
        self.ip("link", "set", eth, "up")
        for address in addresses:
            width = "64" if ":" in address else "24"
            extra = ("nodad",) if ":" in address else ()
            self.ip("addr", "add", f"{address}/{width}", "dev", eth, *extra)
        if gateway:
            self.ip("route", "add", "default", "via", gateway)
        self.networks.append(network_id)
        self.addresses[network_id] = addresses

    def member(self, network_id: str, *, ready: bool = True) -> Member:
        """What the table says of it."""
        return Member(
            task_id=self.task,
            node_id=self.host.node,
            addresses=self.addresses[network_id],
            ready=ready,
        )


class Host(Netns):
    """A host on the wire, with a driver."""

    def __init__(self, stack: ExitStack, wire: Netns, number: int) -> None:
        super().__init__(stack, "h")
        self.node = f"node{number}"
        self.address = f"10.77.0.{number}"
        self._stack = stack
        port = f"w{number}"
        wire.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        wire.ip("link", "set", port, "master", "lab0", "up")
        self.wire, self.port = wire, port
        self.state_dir = stack.enter_context(TemporaryDirectory())
        self.ip("addr", "add", f"{self.address}/24", "dev", "eth0")
        self.ip("addr", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
        self.ip("link", "set", "eth0", "up")
        self.driver: Driver | None = None
        stack.callback(self._leave)

    def _leave(self) -> None:
        """Take away what outlives drivers."""
        if self.driver is not None:
            driver = Driver(self)
            driver.call(do="leave")
            driver.kill()

    def bridge(self, network_id: str, *gateways: str) -> None:
        """Make a network's bridge, as an engine does."""
        name = f"sw-{network_id[:12]}"
        self.ip("link", "add", name, "mtu", "1450", "type", "bridge")
        for cidr in gateways:
            self.ip("addr", "add", cidr, "dev", name, *(("nodad",) if ":" in cidr else ()))
        self.ip("link", "set", name, "up")
        subnet = ip_interface(gateways[0]).network
        self.run("nft", "-f", "-", text=_MASQUERADE.format(subnet=subnet, bridge=name))
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    def container(self, name: str) -> Container:
        """Make a container without networks."""
        return Container(self._stack, name, self)

    def start_driver(self, *, programs: str = "") -> Driver:
        """Start the driver on it.

        Args:
            programs: a directory in which programs are found before all others.
        """
        self.driver = Driver(self, programs=programs)
        self._stack.callback(self.driver.kill)
        return self.driver


class Driver:
    """A process that runs the driver in its host's namespace."""

    def __init__(self, host: Host, *, programs: str = "") -> None:
        program = Path(__file__).with_name("program.py")
        path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [
                *("nsenter", f"--net={host.path}", sys.executable, str(program)),
                *(host.node, host.state_dir),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "PATH": os.pathsep.join([*filter(None, [programs]), os.environ["PATH"]]),
            },
        )
        self.pid = self._process.pid
        self._version = 0

    def call(self, **words: Any) -> dict[str, Any]:
        """Have the program do something, and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the driver's process has ended"
        found: dict[str, Any] = json.loads(answer)
        return found

    def want(
        self, table: EndpointTable, *containers: Container, wait: bool = True
    ) -> dict[str, Any]:
        """Want a table, wait until the kernel agrees, and return the driver's state."""
        self._version += 1
        table = msgspec.structs.replace(table, version=self._version)
        sandboxes = [
            {"id": one.task, "pid": one.pid, "networks": one.networks} for one in containers
        ]
        return self.call(
            do="want", table=msgspec.to_builtins(table), sandboxes=sandboxes, wait=wait
        )

    def state(self) -> dict[str, Any]:
        """Return the driver's state now."""
        return self.call(do="state")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it stand still for the length of a block: it sees and mends nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


@contextmanager
def wired(count: int) -> Iterator[tuple[ExitStack, list[Host]]]:
    """Give so many hosts on one wire."""
    with ExitStack() as stack:
        wire = Netns(stack, "w")
        wire.ip("link", "add", "lab0", "type", "bridge")
        wire.ip("link", "set", "lab0", "up")
        hosts = [Host(stack, wire, number + 1) for number in range(count)]
        yield stack, hosts
