"""What becomes of writes and tasks when the leader of three managers goes, for both swarms.

    python -m benchmarks.failover [--kills 50] [--rival-kills 3] [--rounds 3]
                                  [--only swarm|swarmctl] [--cases killed,cut,demoted,stopped,load]

Prints one line for each case: medians, 99th percentiles, extremes, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cluster import Cluster
from benchmarks.figures import Figures
from benchmarks.lab_vs_swarm import machine_line
from benchmarks.managers import NO_ANSWER
from benchmarks.rounds import add_options, run_rounds
from benchmarks.sides import SWARM, SWARMCTL
from benchmarks.writers import first_accepted, writing
from tests.e2e.lab import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.managers import ManagerHost, Managers
    from benchmarks.sides import Side

MANAGERS = 3
_REPLICAS = 6
_WRITERS = 4
_LOAD_CLIENTS = 32
_LOAD_S = 30.0
# After a change writes are watched for so long: longer than Docker needs to elect a leader.
_WATCH_S = 60.0
# ... and at least so long: a change of leaders may come some time after what causes it.
_AFTER_S = 5.0
_SETTLED_S = 1.0


def main() -> int:
    """Run the cases and print the table; exit statuses are those of ``run_rounds``."""
    options = _parse()
    machine = machine_line(f"{MANAGERS} managers")
    figures, notes = Figures(), list[str]()

    def measure(side: Side, managers: Managers, number: int) -> None:
        kills = options.rival_kills if side is SWARM else options.kills
        share = _share(kills, options.rounds, number)
        bench = Bench(side, managers, figures, notes, kills=share)
        for case in options.cases:
            CASES[case](bench)

    status = run_rounds(MANAGERS, options.rounds, options.only, measure)
    print(machine)
    print(figures.comparison(rival=SWARM.name, ours=SWARMCTL.name, tails=True))
    print("\n".join(notes))
    if options.json:
        figures.write_json(options.json)
    return status


class Bench:
    """One side's swarm of three managers, and where its figures go."""

    def __init__(
        self,
        side: Side,
        managers: Managers,
        figures: Figures,
        notes: list[str],
        *,
        kills: int,
    ) -> None:
        self._side = side
        self._managers = managers
        self._figures = figures
        self._notes = notes
        self._kills = kills

    def killed(self) -> None:
        """``kill -9`` of the leader; how long until any survivor accepts a write."""
        for _ in range(self._kills):
            leader, others = self._leader()
            started = time.perf_counter()
            leader.kill()
            accepted = first_accepted(others)
            self._add("leader killed -> next write accepted", accepted - started)
            leader.restart()
            self._settle()

    def cut(self) -> None:
        """The leader's cable is pulled; how long until its tasks run on the other hosts."""
        leader, others = self._leader()
        # Managers are on the lab's first hosts, so the sockets of all are those of the swarm.
        cluster = Cluster([one.host for one in others], [one.socket for one in others])
        try:
            service, _ = cluster.create_and_wait("cut", _REPLICAS)
            node = self._managers.node_id(leader)
            time.sleep(_SETTLED_S)
            started = time.perf_counter()
            leader.host.cut()
            cluster.wait_running(service, _REPLICAS, not_node=node)
            took = time.perf_counter() - started
            self._add("leader's host cut off -> its tasks run elsewhere", took)
            leader.host.heal()
            self._settle()
            cluster.remove(service)
        finally:
            cluster.close()

    def demoted(self) -> None:
        """The leader is demoted while clients write through the others, and promoted again."""
        leader, others = self._leader()
        with writing(others, _WRITERS) as writers:
            time.sleep(_SETTLED_S)
            started = time.perf_counter()
            self._set_role(leader, "worker")
            ended = self._watch(started, writers.accepted)
        gap = writers.longest_gap(started, ended)
        self._add("leader demoted -> longest gap without an accepted write", gap)
        self._set_role(leader, "manager")
        self._settle()

    def stopped(self) -> None:
        """The leader's process is ended by SIGTERM while clients write through the others."""
        leader, others = self._leader()
        with writing(others, _WRITERS) as writers:
            time.sleep(_SETTLED_S)
            started = time.perf_counter()
            leader.terminate()
            ended = self._watch(started, writers.accepted)
        gap = writers.longest_gap(started, ended)
        self._add("leader stopped (SIGTERM) -> longest gap without an accepted write", gap)
        leader.restart()
        self._settle()

    def load(self) -> None:
        """Clients write through all managers as fast as they are answered: nobody may be voted."""
        hosts = self._managers.hosts
        before = self._side.elections(hosts)
        started = time.perf_counter()
        with writing(hosts, _LOAD_CLIENTS) as writers:
            time.sleep(_LOAD_S)
        took = time.perf_counter() - started
        elections = self._side.elections(hosts) - before
        self._notes.append(
            f"{self._side.name}: {_LOAD_CLIENTS} clients for {_LOAD_S:.0f} s:"
            f" {len(writers.accepted) / took:.0f} writes/s, {len(writers.refused)} refused,"
            f" {elections} elections, longest gap"
            f" {writers.longest_gap(started, started + _LOAD_S):.2f} s"
        )
        self._settle()

    def _leader(self) -> tuple[ManagerHost, list[ManagerHost]]:
        leader = self._managers.leader()
        return leader, [one for one in self._managers.hosts if one is not leader]

    def _settle(self) -> None:
        self._managers.wait_whole()
        time.sleep(_SETTLED_S)

    def _watch(self, started: float, accepted: list[float]) -> float:
        """Wait until writes are accepted again, and some time more; returns when that was."""
        while True:
            time.sleep(0.1)
            now = time.perf_counter()
            lately = [at for at in accepted[-10:] if at > now - 1]
            if now > started + _WATCH_S or (now > started + _AFTER_S and len(lately) == 10):
                return now

    def _set_role(self, host: ManagerHost, role: str) -> None:
        """Wish for a role once; who loses the leader on the way looks before it wishes again."""
        node_id = self._managers.node_id(host)
        while True:
            node = self._managers.ask("GET", f"/nodes/{node_id}")
            if node["Spec"]["Role"] == role:
                return
            query = {"version": str(node["Version"]["Index"])}
            spec = {**node["Spec"], "Role": role}
            through = next(one for one in self._managers.hosts if one is not host)
            with suppress(ApiError, *NO_ANSWER), through.client() as client:
                client.call("POST", f"/nodes/{node_id}/update", spec, query=query)

    def _add(self, step: str, seconds: float) -> None:
        self._figures.add(step, self._side.name, seconds)


CASES: dict[str, Callable[[Bench], None]] = {
    "killed": Bench.killed,
    "cut": Bench.cut,
    "demoted": Bench.demoted,
    "stopped": Bench.stopped,
    "load": Bench.load,
}


def _share(total: int, rounds: int, number: int) -> int:
    """Spread so many kills over the rounds."""
    return total * (number + 1) // rounds - total * number // rounds


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover")
    parser.add_argument("--kills", type=int, default=50, help="of our leader; default 50")
    parser.add_argument("--rival-kills", type=int, default=3, help="of Docker's; default 3")
    add_options(parser, rounds=3)
    parser.add_argument("--cases", type=_cases, default=list(CASES), help="default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample")
    return parser.parse_args()


def _cases(text: str) -> list[str]:
    cases = text.split(",")
    if not set(cases) <= set(CASES):
        raise argparse.ArgumentTypeError(f"cases are {','.join(CASES)}")
    return cases


if __name__ == "__main__":
    sys.exit(main())
