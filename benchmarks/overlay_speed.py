"""What a connection across hosts costs: our overlay, Docker's, and a plain bridge, in one run.

    python -m benchmarks.overlay_speed [--rounds 4] [--seconds 5] [--only swarm|swarmctl]

Two containers on two hosts of the lab; client and server run in their network namespaces, and only
the address differs that is asked. Needs iperf3, wrk and nginx.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cluster import Cluster
from benchmarks.figures import aligned
from benchmarks.lab_vs_swarm import machine_line
from benchmarks.rounds import add_options, run_rounds
from benchmarks.sides import SWARM
from benchmarks.web import NETWORK, make_network, vip_of
from tests.e2e.lab import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.managers import Managers
    from benchmarks.sides import Side
    from tests.e2e.lab import Host

PROGRAMS = ("iperf3", "wrk", "nginx")
PLAIN, VIP, DIRECT, DOCKER = "plain bridge", "swarmctl, VIP", "swarmctl, task", "Swarm, task"
_PORT = 8000
_SUBNET = "10.99.0"
_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
_NGINX = """
daemon off; worker_processes 1; error_log stderr crit; pid {where}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {where}; proxy_temp_path {where}; fastcgi_temp_path {where};
  uwsgi_temp_path {where}; scgi_temp_path {where};
  server {{ listen {port} backlog=4096; location / {{ return 200 "ok"; }} }}
}}
"""


def main() -> int:
    """Run the rounds and print the table; exit statuses are those of ``run_rounds``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlay_speed")
    add_options(parser, rounds=4)
    parser.add_argument("--seconds", type=int, default=5, help="each measure lasts; default 5")
    options = parser.parse_args()
    missing = [one for one in PROGRAMS if shutil.which(one) is None]
    if missing:
        print(f"cannot measure here: {', '.join(missing)} missing", file=sys.stderr)
        return 2
    machine = machine_line(f"{options.rounds} rounds, {options.seconds} s for each measure")
    samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def measure(side: Side, managers: Managers, number: int) -> None:
        with _paths(side, managers) as (pid, paths):
            for what, ask in MEASURES.items():
                for who, address in paths if number % 2 == 0 else paths[::-1]:
                    samples[what][who].append(ask(Client(pid, options.seconds), address))

    status = run_rounds(1, options.rounds, options.only, measure, workers=1)
    print(machine)
    print(_table(samples))
    return status


# --- what is measured -------------------------------------------------------------------------


@dataclass(frozen=True)
class Client:
    """Runs programs in the namespace of the process ``pid`` that ask for so many seconds."""

    pid: int
    seconds: int

    def run(self, *command: str) -> str:
        """What a program printed."""
        inside = ["nsenter", f"--target={self.pid}", "--net", "--", *command]
        limit_s = 3 * self.seconds + 20
        done = subprocess.run(inside, capture_output=True, text=True, timeout=limit_s, check=True)
        return done.stdout

    def is_answered(self, address: str) -> bool:
        """Whether the server can be reached by now."""
        try:
            self.wrk(address, 1)
        except subprocess.CalledProcessError:
            return False
        return True

    def gbits(self, address: str, streams: int) -> float:
        """What gets through over so many TCP connections."""
        options = ["--json", f"--parallel={streams}", f"--time={self.seconds}"]

        def measured() -> dict[str, Any]:
            said: dict[str, Any] = json.loads(self.run("iperf3", f"--client={address}", *options))
            error = said.get("error", "")
            assert "busy" not in error, error  # the server ends the test before
            if error:
                raise RuntimeError(error)
            return said

        ended = eventually(measured, 10, every_s=0.5, what="iperf3's server")["end"]
        return float(ended["sum_received"]["bits_per_second"]) / 1e9

    def wrk(self, address: str, connections: int, *more: str) -> str:
        """What wrk says that asked over so many connections."""
        options = ["-t1", f"-c{connections}", f"-d{self.seconds}s", "--latency", *more]
        said = self.run("wrk", *options, f"http://{address}:{_PORT}/")
        if "Socket errors" in said and not more:
            raise RuntimeError(said)
        return said


def _per_s(said: str) -> float:
    (found,) = re.findall(r"Requests/sec:\s+([\d.]+)", said)
    return float(found)


def _median_us(said: str) -> float:
    ((number, unit),) = re.findall(r"50%\s+([\d.]+)(us|ms|s)", said)
    return float(number) * _UNITS_US[unit]


MEASURES: dict[str, Callable[[Client, str], float]] = {
    "Gbit/s, one connection": lambda client, to: client.gbits(to, 1),
    "Gbit/s, four connections": lambda client, to: client.gbits(to, 4),
    "us a request, one connection, median": lambda client, to: _median_us(client.wrk(to, 1)),
    "requests/s, 32 connections": lambda client, to: _per_s(client.wrk(to, 32)),
    "requests/s, 8 clients, each in a new connection": lambda client, to: _per_s(
        client.wrk(to, 8, "-H", "Connection: close")
    ),
}


# --- the ways from one container to the other --------------------------------------------------


@contextmanager
def _paths(side: Side, managers: Managers) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Two containers with servers in one; gives a process of the other, and addresses by way."""
    here, there = managers.hosts[0].host.lab.hosts
    make_network(managers)
    cluster = Cluster([here, there], [], manager=managers)
    _, client = cluster.run_sleeper("client", here, NETWORK)
    mode = {"EndpointSpec": {"Mode": "dnsrr"}} if side is SWARM else {}
    service, server = cluster.run_sleeper("server", there, NETWORK, **mode)
    (task,) = cluster.running(service)
    (cidr,) = task["NetworksAttachments"][0]["Addresses"]
    direct = cidr.partition("/")[0]
    paths = [(DOCKER, direct)]
    if side is not SWARM:
        paths = [(DIRECT, direct), (VIP, vip_of(managers, service))]
    with _bridge(here, client, server) as plain, _servers(server):
        paths.append((PLAIN, plain))
        for _, address in paths:
            eventually(partial(Client(client, 1).is_answered, address), 10, what=address)
        yield client, paths


@contextmanager
def _bridge(host: Host, client: int, server: int) -> Iterator[str]:
    """Join two namespaces by a bridge in a host's, as Docker's is; gives the second one's address.

    What is in the namespaces goes with them.
    """
    accept = ["FORWARD", "-i", "plain0", "-o", "plain0", "-j", "ACCEPT"]
    host.run(["ip", "link", "add", "plain0", "type", "bridge"])
    host.run(["ip", "link", "set", "plain0", "up"])
    host.run(["iptables", "-w", "-I", *accept])
    for number, pid in enumerate((client, server), start=1):
        name = f"plain{number}"
        peer = ["peer", "name", "plain0", "netns", str(pid)]
        _ip(host.pid, "link", "add", name, "type", "veth", *peer)
        _ip(host.pid, "link", "set", name, "master", "plain0", "up")
        _ip(pid, "address", "add", f"{_SUBNET}.{number}/24", "dev", "plain0")
        _ip(pid, "link", "set", "plain0", "up")
    try:
        yield f"{_SUBNET}.2"
    finally:
        host.run(["iptables", "-w", "-D", *accept])
        host.run(["ip", "link", "del", "plain0"])


def _ip(pid: int, *command: str) -> None:
    """Run ip in a process's network namespace; ids of others are as seen from here."""
    subprocess.run(["nsenter", f"--target={pid}", "--net", "--", "ip", *command], check=True)


@contextmanager
def _servers(pid: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="overlay-speed-") as where:
        config = Path(where) / "nginx.conf"
        config.write_text(_NGINX.format(where=where, port=_PORT))
        inside = ["nsenter", f"--target={pid}", "--net", "--"]
        commands = [["iperf3", "--server"], ["nginx", "-p", where, "-c", str(config)]]
        running = [
            subprocess.Popen([*inside, *command], stdout=subprocess.DEVNULL) for command in commands
        ]
        try:
            yield
        finally:
            for process in running:
                process.terminate()
                process.wait(10)


def _table(samples: dict[str, dict[str, list[float]]]) -> str:
    ways = (PLAIN, DOCKER, DIRECT, VIP)
    head = ["median (least-most)", *ways, "VIP/plain", "VIP/Swarm", "Swarm/plain"]
    rows = [head]
    for what, by in samples.items():
        middle = {who: statistics.median(found) for who, found in by.items()}
        pairs = ((VIP, PLAIN), (VIP, DOCKER), (DOCKER, PLAIN))
        ratios = [
            f"{middle[one] / middle[other]:.2f}" if one in middle and other in middle else "-"
            for one, other in pairs
        ]
        rows.append([what, *(_spread(by.get(who)) for who in ways), *ratios])
    return aligned(rows)


def _spread(found: list[float] | None) -> str:
    if not found:
        return "-"
    digits = 2 if max(found) < 100 else 0
    low, middle, high = min(found), statistics.median(found), max(found)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
