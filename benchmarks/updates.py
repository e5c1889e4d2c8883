"""How long what happens in a service's life takes, for swarmctl and for Docker Swarm.

    python -m benchmarks.updates [--rounds N] [--only swarm|swarmctl]

Rolling updates, such as fail, a job, a drain, a global service where a node joins, a secret that is
replaced. Both sides get the same specs through the same routes. The containers ignore the stop
signal and have a second of grace, so a replica takes at least that long to stop.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figures
from benchmarks.lab_vs_swarm import machine_line, present_sides
from benchmarks.sides import SWARM, SWARMCTL, Side
from tests.e2e.lab import IMAGE, Lab, missing_for_engines

if TYPE_CHECKING:
    from benchmarks.cluster import Cluster

_HOSTS = 3
_REPLICAS = 10
_FEW = 3
_DRAINED = 6
_COMPLETIONS, _AT_ONCE = 20, 5
_SECOND = 1_000_000_000
_QUIET_S = 3.0
_SIDES = {"swarm": SWARM, "swarmctl": SWARMCTL}


def main() -> int:
    """Run the rounds and print the table; the exit status is 2 when nothing can be measured."""
    options = _parse()
    missing = missing_for_engines()
    if missing:
        print(f"cannot measure here: {missing}", file=sys.stderr)
        return 2
    machine = machine_line(f"{options.rounds} rounds on {_HOSTS} hosts")
    figures = Figures()
    with Lab(_HOSTS) as lab:
        lab.start_engines()
        wanted = [_SIDES[options.only]] if options.only else list(_SIDES.values())
        sides = present_sides(lab, wanted)
        if not sides:
            return 2
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                _measure(side, lab, figures)
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(machine)
    print(figures.table(rival=SWARM.name, ours=SWARMCTL.name))
    return 0


def _measure(side: Side, lab: Lab, figures: Figures) -> None:
    with side.open(lab) as cluster:
        cluster.init()
        cluster.join(1, as_manager=False)
        time.sleep(_QUIET_S)
        figures.add("node joins -> its global task runs", side.name, _join(cluster))
        time.sleep(_QUIET_S)
        for order in ("stop-first", "start-first"):
            took = _update(cluster, order)
            figures.add(f"{order} update of {_REPLICAS}, one at a time", side.name, took)
        figures.add(f"secret replaced in {_FEW}, one at a time", side.name, _secret(cluster))
        for action, state in (("pause", "paused"), ("rollback", "rollback_completed")):
            took = _fail(cluster, action, state)
            figures.add(f"update of {_FEW} that cannot start -> {state}", side.name, took)
        figures.add(f"drain -> {_DRAINED} run elsewhere", side.name, _drain(cluster))
        figures.add(f"job of {_COMPLETIONS}, {_AT_ONCE} at a time", side.name, _job(cluster))


def _join(cluster: Cluster) -> float:
    """Seconds from the join of the last host until a global service runs there, too."""
    service = cluster.create_from(
        {"Name": "everywhere", "TaskTemplate": _template(), "Mode": {"Global": {}}}
    )
    cluster.wait_running(service, _HOSTS - 1)
    started = time.perf_counter()
    cluster.join(_HOSTS - 1, as_manager=False)
    cluster.wait_running(service, _HOSTS)
    took = time.perf_counter() - started
    cluster.remove(service)
    return took


def _template(**container: Any) -> dict[str, Any]:
    """The task of a container that as its first process ignores SIGTERM."""
    return {
        "ContainerSpec": {
            "Image": IMAGE,
            "Command": ["sleep", "3600"],
            "StopGracePeriod": _SECOND,
            **container,
        }
    }


def _serve(
    cluster: Cluster, name: str, replicas: int, template: dict[str, Any], **parts: Any
) -> str:
    """Create a service, and wait until it runs; returns its id."""
    mode = {"Replicated": {"Replicas": replicas}}
    service = cluster.create_from({"Name": name, "TaskTemplate": template, "Mode": mode, **parts})
    cluster.wait_running(service, replicas)
    return service


def _update(cluster: Cluster, order: str) -> float:
    """Seconds from the update until every replica is one of the new spec."""
    template = _template()
    config = {"Parallelism": 1, "Order": order}
    service = _serve(cluster, f"update-{order}", _REPLICAS, template, UpdateConfig=config)
    started = time.perf_counter()
    cluster.update(service, TaskTemplate={**template, "ForceUpdate": 1})
    cluster.wait_forced(service, _REPLICAS, 1)
    took = time.perf_counter() - started
    cluster.remove(service)
    return took


def _secret(cluster: Cluster) -> float:
    """Seconds from the update to another secret until every replica has that one."""
    first, second = (cluster.create_secret(name, name) for name in ("first", "second"))
    service = _serve(cluster, "reader", _FEW, _template(Secrets=[first]))

    def has_second(spec: dict[str, Any]) -> bool:
        used = spec["ContainerSpec"].get("Secrets") or ()
        return [one["SecretID"] for one in used] == [second["SecretID"]]

    started = time.perf_counter()
    cluster.update(service, TaskTemplate=_template(Secrets=[second]))
    cluster.wait_renewed(service, _FEW, has_second)
    took = time.perf_counter() - started
    cluster.remove(service)
    return took


def _fail(cluster: Cluster, action: str, state: str) -> float:
    """Seconds from an update to a command that is not there until it is over, in this state."""
    config = {"Parallelism": 1, "Monitor": _SECOND}
    service = _serve(
        cluster,
        f"fails-{action}",
        _FEW,
        _template(),
        UpdateConfig={**config, "FailureAction": action},
        RollbackConfig=config,
    )
    started = time.perf_counter()
    cluster.update(service, TaskTemplate=_template(Command=["/no/such/command"]))
    cluster.wait_update(service, state)
    took = time.perf_counter() - started
    cluster.remove(service)
    return took


def _drain(cluster: Cluster) -> float:
    """Seconds from a node's drain until as many tasks as before run on the others."""
    service = _serve(cluster, "moves", _DRAINED, _template())
    drained = _HOSTS - 1
    node = cluster.node_id(drained)
    started = time.perf_counter()
    cluster.set_availability(node, "drain")
    cluster.wait_running(service, _DRAINED, not_node=node)
    took = time.perf_counter() - started
    cluster.set_availability(node, "active")
    cluster.remove(service)
    return took


def _job(cluster: Cluster) -> float:
    """Seconds from the creation of a job until it has completed as often as it should."""
    started = time.perf_counter()
    service = cluster.create_from(
        {
            "Name": "job",
            "TaskTemplate": {
                "ContainerSpec": {"Image": IMAGE, "Command": ["true"]},
                "RestartPolicy": {"Condition": "on-failure"},
            },
            "Mode": {
                "ReplicatedJob": {"MaxConcurrent": _AT_ONCE, "TotalCompletions": _COMPLETIONS}
            },
        }
    )
    cluster.wait_completed(service, _COMPLETIONS)
    # Docker leaves the containers of a removed job where they are; the lab's cleaning takes them.
    return time.perf_counter() - started


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.updates")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--only", choices=sorted(_SIDES), help="one side")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
