"""What a lost host and a killed manager cost, for swarmctl and for Docker Swarm.

    python -m benchmarks.failures [--rounds N] [--only swarm|swarmctl]

Prints times, and whether every task ended up with exactly one container. The exit status is 1
when a container ran twice, was orphaned or is absent on swarmctl's side, so CI can run it too.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.figures import Figures
from benchmarks.lab_vs_swarm import present_sides
from benchmarks.sides import SWARM, SWARMCTL, Side
from tests.e2e.lab import Lab, eventually, missing_for_engines

if TYPE_CHECKING:
    from benchmarks.cluster import Audit, Cluster

_HOSTS = 3
_SIDES = {"swarm": SWARM, "swarmctl": SWARMCTL}
_CUT_REPLICAS = 6
_KILL_REPLICAS = 30
_KILL_AT = 8
_WAIT_S = 180.0


def main() -> int:
    """Run the rounds and print the results."""
    options = _parse()
    missing = missing_for_engines()
    if missing:
        print(f"cannot measure here: {missing}", file=sys.stderr)
        return 2
    figures, audits = Figures(), []
    with Lab(_HOSTS) as lab:
        lab.start_engines()
        wanted = [_SIDES[options.only]] if options.only else list(_SIDES.values())
        sides = present_sides(lab, wanted)
        if not sides:
            return 2
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                audits += [(side, a) for a in _cut_worker(side, lab, figures)]
                audits += [(side, a) for a in _kill_manager(side, lab, figures)]
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(figures.table(rival=SWARM.name, ours=SWARMCTL.name))
    for side, audit in audits:
        print(f"{side.name}: {audit}")
    return int(any(side is SWARMCTL and not audit.is_clean for side, audit in audits))


def _cut_worker(side: Side, lab: Lab, figures: Figures) -> list[Audit]:
    """Cut a worker off, wait for its tasks elsewhere, heal it, wait for the old ones to stop."""
    lost = _HOSTS - 1
    with side.open(lab) as cluster:
        _make(cluster)
        service, _ = cluster.create_and_wait("cut", _CUT_REPLICAS)
        node = cluster.node_id(lost)
        started = time.perf_counter()
        lab[lost].cut()
        cluster.wait_running(service, _CUT_REPLICAS, not_node=node)
        figures.add("worker cut off -> its tasks run elsewhere", side.name, _since(started))
        engine = lab[lost].engine
        assert engine is not None
        label = f"com.docker.swarm.service.id={service}"
        assert engine.containers(label=label, running=True), "a cut host's tasks must run on"
        started = time.perf_counter()
        lab[lost].heal()
        eventually(
            lambda: not engine.containers(label=label, running=True),
            _WAIT_S,
            every_s=0.02,
            what="stale tasks to stop",
        )
        figures.add("worker healed -> its stale tasks stopped", side.name, _since(started))
        audit = cluster.audit(service)
        cluster.remove(service)
    return [audit]


def _kill_manager(side: Side, lab: Lab, figures: Figures) -> list[Audit]:
    """kill -9 the manager while it creates 30 tasks, and start it again at once."""
    with side.open(lab) as cluster:
        _make(cluster)
        service = cluster.create("kill", _KILL_REPLICAS)
        eventually(
            lambda: len(cluster.running(service)) >= _KILL_AT,
            _WAIT_S,
            every_s=0.02,
            what=f"{_KILL_AT} tasks to run",
        )
        side.kill_manager(lab[0])
        started = time.perf_counter()
        side.restart_manager(lab[0])
        figures.add("manager killed: started -> it answers", side.name, _since(started))
        cluster.wait_running(service, _KILL_REPLICAS)
        audit = cluster.audit(service)
        figures.add(
            f"manager killed -> {_KILL_REPLICAS} run, no others", side.name, _since(started)
        )
        cluster.remove(service)
    return [audit]


def _make(cluster: Cluster) -> None:
    cluster.init()
    for index in range(1, _HOSTS):
        cluster.join(index, as_manager=False)


def _since(started: float) -> float:
    return time.perf_counter() - started


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failures")
    parser.add_argument("--rounds", type=int, default=1, help="default 1")
    parser.add_argument("--only", choices=sorted(_SIDES), help="one side")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
