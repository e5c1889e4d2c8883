"""The product's Raft alone beside etcd's, both as three processes on loopback.

    python -m benchmarks.raft_alone --etcd DIR --grpc-python PATH [--rounds 4] [--seconds 10]
                                    [--clients 1,16,64,256] [--only etcd|swarmctl]
                                    [--peers-plain] [--fsyncs]

Closed-loop clients in a process of their own put 1 KiB under keys of 16 bytes, through the leader;
each put is answered when a majority has it on disk. The sides are measured in the order A B B A.
Prints puts a second, latency, and what each put cost the servers and the client.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks.closed_loop import MEASURING
from benchmarks.figures import Figures
from benchmarks.lab_vs_swarm import machine_line
from swarmctl.core.errors import SwarmError
from swarmctl.core.wire.connect import open_link
from tests.e2e.lab import eventually
from tests.shells.certificates import issue, make_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

MEMBERS = 3
_REPOSITORY = Path(__file__).resolve().parent.parent
_ELECTED_S = 30.0
_COUNTED_CLIENTS = 16
_COUNTED_S = 3.0
_ATTACHED_S = 0.5
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cluster:
    """Three members that run.

    Attributes:
        target: where the leader serves clients.
        pids: of the members.
        client: the command of the clients' process, but for its arguments.
    """

    target: str
    pids: list[int]
    client: list[str]


@dataclass(frozen=True)
class Rival:
    """One side: its name, why it cannot take part, and how to start it in a directory."""

    name: str
    missing: Callable[[argparse.Namespace], str | None]
    open: Callable[[argparse.Namespace, Path], AbstractContextManager[Cluster]]


# --- ours -------------------------------------------------------------------------------------


@contextmanager
def _open_ours(_options: argparse.Namespace, directory: Path) -> Iterator[Cluster]:
    ports, client_ports = _free_ports(MEMBERS), _free_ports(MEMBERS)
    argv = [
        [
            *(sys.executable, "-m", "benchmarks.raft_node", f"--number={number}"),
            f"--ports={','.join(map(str, ports))}",
            f"--client-port={client_ports[number - 1]}",
            f"--keys={directory}",
            f"--dir={_made(directory / str(number))}",
        ]
        for number in range(1, MEMBERS + 1)
    ]
    with _running(argv, directory) as pids:
        leader = eventually(lambda: _our_leader(client_ports), _ELECTED_S, what="a leader of ours")
        client = [sys.executable, "-m", "benchmarks.raft_puts"]
        yield Cluster(f"127.0.0.1:{leader}", pids, client)


def _our_leader(ports: list[int]) -> int | None:
    return next((port for port in ports if trio.run(_leads, port)), None)


async def _leads(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    try:
        link = await open_link(stream, None, dialling=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            leads = bool(await link.call("leads"))
            nursery.cancel_scope.cancel()
    except SwarmError:
        return False
    return leads


# --- etcd -------------------------------------------------------------------------------------


def _etcd_missing(options: argparse.Namespace) -> str | None:
    for command in ("etcd", "etcdctl"):
        if _etcd(options, command) is None:
            return (
                f"no {command}: apt-get download etcd-server etcd-client, dpkg -x both into a"
                " directory, and name its usr/bin with --etcd"
            )
    tried = subprocess.run(
        [options.grpc_python, "-c", "import grpc"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        return (
            f"{options.grpc_python} has no grpcio: make a virtual environment, pip install grpcio"
            " there, and name its python with --grpc-python"
        )
    return None


@contextmanager
def _open_etcd(options: argparse.Namespace, directory: Path) -> Iterator[Cluster]:
    ports, client_ports = _free_ports(MEMBERS), _free_ports(MEMBERS)
    scheme = "http" if options.peers_plain else "https"
    peers = [f"{scheme}://localhost:{port}" for port in ports]
    tls = [
        f"--peer-cert-file={directory / 'node.pem'}",
        f"--peer-key-file={directory / 'node.key'}",
        f"--peer-trusted-ca-file={directory / 'root.pem'}",
        "--peer-client-cert-auth",
    ]
    argv = [
        [
            str(_etcd(options, "etcd")),
            f"--name=m{number}",
            f"--data-dir={_made(directory / str(number))}",
            f"--listen-peer-urls={scheme}://127.0.0.1:{ports[number]}",
            f"--initial-advertise-peer-urls={peers[number]}",
            f"--listen-client-urls=http://127.0.0.1:{client_ports[number]}",
            f"--advertise-client-urls=http://127.0.0.1:{client_ports[number]}",
            "--initial-cluster=" + ",".join(f"m{n}={url}" for n, url in enumerate(peers)),
            "--logger=zap",
            "--log-level=error",
            *([] if options.peers_plain else tls),
        ]
        for number in range(MEMBERS)
    ]
    with _running(argv, directory) as pids:
        leader = eventually(
            lambda: _etcd_leader(options, client_ports), _ELECTED_S, what="a leader of etcd's"
        )
        client = [options.grpc_python, "-m", "benchmarks.etcd_puts"]
        yield Cluster(f"127.0.0.1:{leader}", pids, client)


def _etcd_leader(options: argparse.Namespace, ports: list[int]) -> int | None:
    for port in ports:
        done = subprocess.run(
            [
                *(str(_etcd(options, "etcdctl")), f"--endpoints=127.0.0.1:{port}"),
                *("endpoint", "status", "-w", "json"),
            ],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            status = json.loads(done.stdout)[0]["Status"]
            if status["leader"] and status["leader"] == status["header"]["member_id"]:
                return port
    return None


def _etcd(options: argparse.Namespace, command: str) -> Path | None:
    found = shutil.which(command, path=str(options.etcd) if options.etcd else None)
    return Path(found) if found else None


ETCD = Rival("etcd", _etcd_missing, _open_etcd)
OURS = Rival("swarmctl", lambda _options: None, _open_ours)


# --- measuring --------------------------------------------------------------------------------


def main() -> int:
    """Run the rounds and print the tables; the exit status is 2 when a side is missing."""
    options = _parse()
    machine = machine_line(f"{MEMBERS} members on loopback, {options.seconds:g} s each")
    rivals = []
    for rival in (ETCD, OURS):
        if options.only in (None, rival.name):
            missing = rival.missing(options)
            if missing:
                print(f"MISSING SIDE: {rival.name}: {missing}", flush=True)
                return 2
            rivals.append(rival)
    tables: dict[str, Figures] = defaultdict(Figures)
    for number in range(options.rounds):
        for rival in rivals if number % 2 == 0 else rivals[::-1]:
            _measure(rival, options, tables)
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(machine)
    for unit, figures in tables.items():
        print(figures.comparison(rival=ETCD.name, ours=OURS.name, unit=unit))
    return 0


def _measure(rival: Rival, options: argparse.Namespace, tables: dict[str, Figures]) -> None:
    """One side, from nothing to nothing, with each number of clients."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.dir)))
        _write_keys(directory)
        cluster = stack.enter_context(rival.open(options, directory))
        for clients in options.clients:
            result = _run_clients(cluster, clients, options.seconds)
            for unit, name, field in (
                ("/s", "puts", "per_s"),
                ("ms", "p50", "p50_ms"),
                ("ms", "p99", "p99_ms"),
                ("us", "servers' CPU a put", "server_us"),
                ("us", "the client's CPU a put", "client_us"),
                ("MB", "the three servers' memory", "rss_mb"),
            ):
                tables[unit].add(f"{clients} clients: {name}", rival.name, result[field])
        if options.fsyncs:
            with _counting_fsyncs(cluster.pids, directory / "strace") as count:
                result = _run_clients(cluster, _COUNTED_CLIENTS, _COUNTED_S, warm_s=0)
            # Its report is there once the block has been left.
            step = f"{_COUNTED_CLIENTS} clients: fsyncs of all members a put"
            tables["fsyncs"].add(step, rival.name, count() / result["count"])


@contextmanager
def _counting_fsyncs(pids: list[int], report: Path) -> Iterator[Callable[[], int]]:
    """Count the members' fsync and fdatasync calls; slows them, so nothing else is measured."""
    attach = [f"--attach={pid}" for pid in pids]
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(report), *attach]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
        time.sleep(_ATTACHED_S)
        try:
            yield lambda: sum(
                int(line.split()[3])
                for line in report.read_text().splitlines()
                if line.split()[-1:] in (["fsync"], ["fdatasync"])
            )
        finally:
            strace.send_signal(signal.SIGINT)  # it detaches, and writes its report


def _run_clients(
    cluster: Cluster, clients: int, seconds: float, *, warm_s: float = 2.0
) -> dict[str, float]:
    """Run the clients' process, and count what it costs the servers."""
    arguments = [
        f"--target={cluster.target}",
        f"--clients={clients}",
        f"--seconds={seconds}",
        f"--warm={warm_s}",
    ]
    # Niced, so that on few CPUs the servers come first.
    with subprocess.Popen(
        ["nice", "-n", "5", *cluster.client, *arguments],
        cwd=_REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        before = sum(map(_cpu_s, cluster.pids))
        last = process.stdout.readline()
        cost_s = sum(map(_cpu_s, cluster.pids)) - before
    if first.strip() != MEASURING or not last:
        raise RuntimeError(f"the clients said {first!r}, then {last!r}; see their standard error")
    result: dict[str, float] = json.loads(last)
    result["server_us"] = cost_s / result["count"] * 1e6
    result["rss_mb"] = sum(map(_rss_mb, cluster.pids))
    return result


@contextmanager
def _running(argv: list[list[str]], directory: Path) -> Iterator[list[int]]:
    """Run the members' processes; what they say is shown when one has ended by itself."""
    with (directory / "log").open("w+b") as log, ExitStack() as stack:
        processes = []
        for command in argv:
            process = subprocess.Popen(command, cwd=_REPOSITORY, stdout=log, stderr=log)
            stack.callback(_end, process)
            processes.append(process)
        try:
            yield [process.pid for process in processes]
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-4000:], file=sys.stderr)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _write_keys(directory: Path) -> None:
    """One root, and one certificate that all members show."""
    root = make_root()
    node = issue(root, "localhost")
    (directory / "root.pem").write_text(root.pem)
    (directory / "node.pem").write_text(node.pem)
    (directory / "node.key").write_text(node.key_pem)


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o700)
    return directory


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.raft_alone")
    parser.add_argument("--etcd", type=Path, metavar="DIR", help="of etcd and etcdctl; else PATH")
    parser.add_argument(
        "--grpc-python", default=sys.executable, metavar="PATH", help="a python with grpcio"
    )
    parser.add_argument("--rounds", type=int, default=4, help="A B B A; default 4")
    parser.add_argument("--clients", type=_numbers, default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=10.0, help="default 10, after 2 s")
    parser.add_argument("--only", choices=(ETCD.name, OURS.name), help="one side")
    parser.add_argument("--peers-plain", action="store_true", help="etcd's members without TLS")
    parser.add_argument("--fsyncs", action="store_true", help="count them too; needs strace")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on a real disk")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
