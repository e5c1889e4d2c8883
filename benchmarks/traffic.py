"""Requests that fail while services change: swarmctl and Docker Swarm, the same client, one run.

    python -m benchmarks.traffic [--rate 200] [--replicas 10] [--rounds N]
                                 [--only swarm|swarmctl] [--ways shared,dnsrr,host]

Three managers run the service, a worker has none of it: there a container asks over the network,
and the host itself asks the published port of every host. Prints how many requests failed in each
step, and how long those took that were asked meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.asking import Asked, asking
from benchmarks.figures import aligned
from benchmarks.lab_vs_swarm import machine_line
from benchmarks.rounds import add_options, run_rounds
from benchmarks.sides import SWARM, SWARMCTL
from benchmarks.web import PORT, Web

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from benchmarks.managers import Managers
    from benchmarks.sides import Side

MANAGERS, WORKERS = 3, 1
PUBLISHED = 8080
_RESOLVER = "127.0.0.11"
# What a step has begun may go on for a moment after all looks well.
_AFTER_S = 2.0
_BACK_AFTER_S = 5.0
_AT_ONCE = 2
_FEW = 3
_CHECK_S = 2.0  # a check costs an engine some 50 ms of CPU


def main() -> int:
    """Run the rounds and print the tables; exit statuses are those of ``run_rounds``.

    A step that does not come to its end is named, and is the last one of its way. One of swarmctl's
    makes the status 1, and so does a request that failed, save on the ports of hosts: whoever asks
    one has to know what runs there.
    """
    options = _parse()
    machine = machine_line(f"{MANAGERS} managers, {WORKERS} worker, {options.rate:g} requests/s")
    seen = Seen()

    def measure(side: Side, managers: Managers, _number: int) -> None:
        for way in options.ways:
            if way == "shared" and side is SWARM and not has_ipvs():
                print("MISSING WAYS: Swarm: no IPVS in this kernel", file=sys.stderr)
                continue
            Scene(side, managers, options).run(WAYS[way], seen)

    status = run_rounds(MANAGERS, options.rounds, options.only, measure, workers=WORKERS)
    print(machine)
    print(seen.tables())
    ways = ("VIP", "VIP, kept alive", "mesh", "mesh, kept alive", "dnsrr")
    failed = any(seen.failed(f"{SWARMCTL.name} {way}") for way in ways)
    return status or int(failed or SWARMCTL.name in seen.unfinished)


class Seen:
    """What became of requests, by step and by who was asked how.

    Attributes:
        unfinished: steps that did not come to their end, in words, by side.
    """

    def __init__(self) -> None:
        self.unfinished: dict[str, str] = {}
        self._asked: dict[str, dict[str, Asked]] = defaultdict(lambda: defaultdict(Asked))

    def add(self, step: str, who: str, asked: Asked) -> None:
        """Note what became of some requests."""
        self._asked[step][who].requests += asked.requests

    def failed(self, who: str) -> int:
        """How many requests failed that were asked in one way."""
        return sum(len(by[who].failures) for by in self._asked.values() if who in by)

    def tables(self) -> str:
        """Failures, latencies, and how requests failed."""
        everybody = list(dict.fromkeys(who for by in self._asked.values() for who in by))
        failed, took = [["failed requests", *everybody]], [["p50 / p99 / most, ms", *everybody]]
        words = [f"UNFINISHED: {side}, {what}" for side, what in self.unfinished.items()]
        for step, by in self._asked.items():
            failed.append([step, *(_share(by.get(who)) for who in everybody)])
            took.append([step, *(_spread(by.get(who)) for who in everybody)])
            for who, asked in by.items():
                counted = Counter(one.error for one in asked.requests if one.error)
                words += [
                    f"{who}, {step}: {count} x {error}"
                    for error, count in counted.most_common(_FEW)
                ]
        return "\n\n".join([aligned(failed), aligned(took), "\n".join(words)])


def _share(asked: Asked | None) -> str:
    return f"{len(asked.failures)} of {len(asked.requests)}" if asked else "-"


def _spread(asked: Asked | None) -> str:
    if asked is None:
        return "-"
    return " / ".join(f"{asked.latency_ms(percent):.1f}" for percent in (50, 99, 100))


class Scene:
    """One side's swarm with a service and a client's container; clients ask while steps are done.

    Attributes:
        managers: the managers, which run the service.
        outside: the worker's host.
    """

    def __init__(self, side: Side, managers: Managers, options: argparse.Namespace) -> None:
        self.managers = managers
        self._side = side
        self._options = options
        hosts = managers.hosts[0].host.lab.hosts
        self.outside = hosts[MANAGERS]
        self.addresses = [host.address for host in hosts]
        self.web = Web(managers, hosts)

    def run(self, way: Way, seen: Seen) -> None:
        """Make the service, do the steps, and remove it."""
        self.web.make_client(self.outside)
        self.web.create(way.replicas or self._options.replicas, check_s=_CHECK_S, **way.spec)
        spans: list[tuple[str, float, float]] = []
        with ExitStack() as stack:
            clients = {
                f"{self._side.name} {name}": stack.enter_context(client)
                for name, client in way.clients(self, self._options.rate).items()
            }
            time.sleep(_AFTER_S)
            for step in way.steps:
                print(f"{self._side.name}, {way.name}: {step}", file=sys.stderr)
                began = time.monotonic()
                is_over = self._do(step, seen)
                time.sleep(_AFTER_S)
                spans.append((step, began, time.monotonic()))
                if not is_over:
                    break
        for who, asked in clients.items():
            for step, begin, end in spans:
                seen.add(step, who, asked.between(begin, end))
        self.web.remove()

    def _do(self, step: str, seen: Seen) -> bool:
        """Do a step; False if it did not come to its end in time."""
        try:
            STEPS[step](self)
        except AssertionError as error:
            seen.unfinished[self._side.name] = f"{step}: {error}; {self.web.update_status()}"
            return False
        return True

    # --- steps ---

    def scale_up(self) -> None:
        self.web.scale(self._options.replicas)

    def drain(self) -> None:
        leader = self.managers.leader()
        drained = next(one for one in self.managers.hosts if one is not leader)
        self.web.drain(drained)
        self.web.set_availability(drained, "active")

    def kill_leader(self) -> None:
        with self.web.leader_killed(back_after_s=_BACK_AFTER_S):
            pass
        self.web.settle()

    def update_and_kill_leader(self) -> None:
        with self.web.leader_killed(back_after_s=_BACK_AFTER_S):
            self.web.begin_update("start-first", at_once=_AT_ONCE)
        self.web.finish_update()


STEPS: dict[str, Callable[[Scene], None]] = {
    "update, start-first": lambda scene: scene.web.update("start-first", at_once=_AT_ONCE),
    "update, stop-first": lambda scene: scene.web.update("stop-first", at_once=_AT_ONCE),
    "scale to 3": lambda scene: scene.web.scale(3),
    "scale up again": Scene.scale_up,
    "drain of a node": Scene.drain,
    "leader killed": Scene.kill_leader,
    "leader killed, then update": Scene.update_and_kill_leader,
}


@dataclass(frozen=True)
class Way:
    """How clients reach a service.

    Attributes:
        spec: what the service's spec has for it.
        clients: makes clients by name, which ask so many times a second.
        steps: of ``STEPS``.
        replicas: 0 for as many as are wished.
    """

    name: str
    spec: dict[str, Any]
    clients: Callable[[Scene, float], dict[str, AbstractContextManager[Asked]]]
    steps: tuple[str, ...]
    replicas: int = 0


def _shared(scene: Scene, rate: float) -> dict[str, AbstractContextManager[Asked]]:
    """Whoever is asked chooses who answers."""
    pid, outside = scene.web.client_pid, scene.outside.pid
    vip = f"{scene.web.vip()}:{PORT}"
    mesh = [f"{address}:{PUBLISHED}" for address in scene.addresses]
    return {
        "VIP": asking(pid, vip, rate=rate),
        "VIP, kept alive": asking(pid, vip, rate=rate, keep_alive=True),
        "mesh": asking(outside, *mesh, rate=rate),
        "mesh, kept alive": asking(outside, *mesh, rate=rate, keep_alive=True),
    }


def _by_name(scene: Scene, rate: float) -> dict[str, AbstractContextManager[Asked]]:
    """The client chooses among the addresses that the service's name has."""
    pid = scene.web.client_pid
    return {"dnsrr": asking(pid, f"web:{PORT}", rate=rate, resolver=_RESOLVER)}


def _on_hosts(scene: Scene, rate: float) -> dict[str, AbstractContextManager[Asked]]:
    """Every manager's host has a task at its own port."""
    ports = [f"{address}:{PUBLISHED}" for address in scene.addresses[:MANAGERS]]
    return {"host port": asking(scene.outside.pid, *ports, rate=rate)}


def _published(mode: str) -> list[dict[str, Any]]:
    return [{"PublishedPort": PUBLISHED, "TargetPort": PORT, "PublishMode": mode}]


WAYS = {
    "shared": Way(
        "virtual address and mesh",
        {"EndpointSpec": {"Ports": _published("ingress")}},
        _shared,
        tuple(STEPS),
    ),
    "dnsrr": Way("dnsrr", {"EndpointSpec": {"Mode": "dnsrr"}}, _by_name, tuple(STEPS)),
    "host": Way(
        "ports of hosts",
        {"Mode": {"Global": {}}, "EndpointSpec": {"Ports": _published("host")}},
        _on_hosts,
        ("update, stop-first", "leader killed"),
        replicas=MANAGERS,
    ),
}


def has_ipvs() -> bool:
    """Whether the kernel has what Docker's virtual addresses and mesh rest on."""
    return Path("/proc/net/ip_vs").exists()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic")
    add_options(parser, rounds=1)
    parser.add_argument("--rate", type=float, default=200, help="of each client; default 200")
    parser.add_argument("--replicas", type=int, default=10, help="default 10")
    parser.add_argument(
        "--ways", type=lambda text: text.split(","), default=list(WAYS), help=",".join(WAYS)
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
