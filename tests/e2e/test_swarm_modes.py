"""Global services and jobs on real engines, driven by swarmctl's own command line where it counts.

Containers are counted on the engines, past swarmctl.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import IMAGE, eventually
from tests.e2e.swarm import Swarm, swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]

JOB_OF_20_S = 60.0
JOINS_S = 15.0


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


def rows(swarm: Swarm, *args: str) -> list[dict[str, Any]]:
    """What ``service ls`` or ``ps`` lists, by column."""
    said = swarm.hosts[0].swarmctl([*args, "--format", "json"])
    return [json.loads(line) for line in said.stdout.splitlines()]


@contextmanager
def counting(swarm: Swarm, name: str) -> Iterator[list[int]]:
    """Watch from the side; gives how many containers of a service ran at each look."""
    label = f"com.docker.swarm.service.name={name}"
    counts: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            found = (engine.containers(label=label, running=True) for engine in swarm.engines())
            counts.append(sum(map(len, found)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


def test_a_job_of_twenty_five_at_a_time(
    swarm: Swarm, record_property: pytest.RecordProperty
) -> None:
    """``service create`` shows the job and ends with it: 20 completions, never more than 5 at once,
    and the same again with ``update --force``."""
    create = [
        *("service", "create", "--name", "batch", "--mode", "replicated-job"),
        *("--replicas", "20", "--max-concurrent", "5", IMAGE, "sleep", "0.3"),
    ]
    with counting(swarm, "batch") as counts:
        started = time.monotonic()
        said = swarm.hosts[0].swarmctl(create, timeout_s=JOB_OF_20_S)
        took = time.monotonic() - started
    record_property("job_of_20_s", took)
    service = said.stdout.split()[0]
    assert said.stdout.splitlines()[-1] == "job complete"
    assert "job progress: 20 out of 20 complete" in said.stdout
    assert 1 <= max(counts) <= 5
    (listed,) = rows(swarm, "service", "ls")
    assert (listed["Mode"], listed["Replicas"]) == ("replicated job", "0/5 (20/20 completed)")
    tasks = swarm.tasks(service)
    assert sorted(task.get("Slot", 0) for task in tasks) == list(range(20))
    assert {task["Status"]["State"] for task in tasks} == {"complete"}
    assert {0, 1, 2} == set(swarm.nodes_of(tasks))

    said = swarm.hosts[0].swarmctl(["service", "update", "--force", "batch"], timeout_s=JOB_OF_20_S)
    assert said.stdout.splitlines()[-1] == "job complete"
    assert swarm.api("GET", "/services/batch")["JobStatus"]["JobIteration"] == {"Index": 1}
    swarm.remove(service)
    assert all(not engine.containers() for engine in swarm.engines())


def test_a_job_tries_again_what_failed(swarm: Swarm) -> None:
    """A container that ends badly is tried again in its slot; without restarts it is not."""
    marker = "test -e /mark/done && exit 0; touch /mark/done; exit 1"
    mount = {"Type": "volume", "Source": "marks", "Target": "/mark"}
    first_host = {"Constraints": [f"node.hostname == {swarm.hosts[0].name}"]}
    service = swarm.create_spec(
        "flaky",
        1,
        container={"Command": ["sh", "-c", marker], "Mounts": [mount]},
        task={"RestartPolicy": {"Delay": 100_000_000}, "Placement": first_host},
        Mode={"ReplicatedJob": {}},
    )

    def states(of: str) -> list[str]:
        return sorted(task["Status"]["State"] for task in swarm.tasks(of))

    eventually(lambda: states(service) == ["complete", "failed"], 20, what="the second try")
    hopeless = swarm.create_spec(
        "hopeless",
        1,
        container={"Command": ["false"]},
        task={"RestartPolicy": {"Condition": "none"}},
        Mode={"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}},
    )
    eventually(lambda: states(hopeless) == ["failed", "failed"], 20, what="both slots to fail")
    replicas = {row["Name"]: row["Replicas"] for row in rows(swarm, "service", "ls")}
    assert replicas["hopeless"] == "0/1 (0/2 completed)"


def test_a_global_service_and_a_node_that_joins_later(
    lab3: Lab, record_property: pytest.RecordProperty
) -> None:
    """A host that joins gets its container of the service, and its run of the job, by itself."""
    with swarm_on(lab3.hosts[:2]) as swarm:
        said = swarm.hosts[0].swarmctl(
            ["service", "create", "--name", "agent", "--mode", "global", "--stop-signal", "SIGKILL",
             IMAGE, "sleep", "3600"]
        )  # fmt: skip
        assert said.stdout.splitlines()[-1].endswith("converged")
        agent = said.stdout.split()[0]
        swarm.assert_exactly(agent, 2)
        sweep = ["service", "create", "--name", "sweep", "--mode", "global-job", IMAGE, "true"]
        said = swarm.hosts[0].swarmctl(sweep)
        assert said.stdout.splitlines()[-1] == "job complete"

        late = lab3.hosts[2]
        late.start_daemon()
        assert late.daemon is not None
        started = time.monotonic()
        late.daemon.api("POST", "/swarm/join", swarm.join_body())
        whole = Swarm(lab3.hosts)
        try:
            eventually(lambda: len(whole.containers_on(2, agent)) == 1, JOINS_S, what="its task")
            record_property("joined_and_running_s", time.monotonic() - started)
            whole.assert_exactly(agent, 3)

            def counts() -> dict[str, str]:
                return {row["Name"]: row["Replicas"] for row in rows(whole, "service", "ls")}

            wanted = {"agent": "3/3", "sweep": "0/0 (3/3 completed)"}
            eventually(lambda: counts() == wanted, JOINS_S, what="the job on the new node")
            whole.remove(agent)
            whole.remove(said.stdout.split()[0])
        finally:
            whole.close()


def test_a_global_service_and_a_node_that_is_drained(swarm: Swarm) -> None:
    """Drain takes the node's container and gives it to nobody; active brings one back. A paused
    node keeps its container through an update that rolls over the others."""
    service = swarm.create_spec("agent", 0, Mode={"Global": {}})
    swarm.assert_exactly(service, 3)
    swarm.update_node(1, Availability="drain")
    eventually(lambda: not swarm.containers_on(1, service), 20, what="h2 to be empty")
    swarm.assert_exactly(service, 2)
    swarm.update_node(1, Availability="active")
    swarm.assert_exactly(service, 3)
    assert swarm.nodes_of(swarm.running(service)) == [0, 1, 2]

    swarm.update_node(2, Availability="pause")
    kept = swarm.containers_on(2, service)
    before = {task["ID"] for task in swarm.running(service)}
    swarm.update(
        service, lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Env=["COLOUR=blue"])
    )

    def rolled() -> bool:
        running = {task["ID"] for task in swarm.running(service)}
        return len(running) == 3 and len(running & before) == 1

    eventually(rolled, 30, what="two of three to be updated")
    assert swarm.containers_on(2, service) == kept
    swarm.update_node(2, Availability="active")
    eventually(
        lambda: not {task["ID"] for task in swarm.running(service)} & before,
        30,
        what="the third to be updated",
    )
    swarm.assert_exactly(service, 3)


def test_a_global_service_heals_on_its_node(swarm: Swarm) -> None:
    """A container that is killed, and a host that is lost and returns, have their task again."""
    service = swarm.create_spec("agent", 0, Mode={"Global": {}})
    swarm.assert_exactly(service, 3)
    time.sleep(5.2)  # from here on a crash is no crash loop
    victim = swarm.running(service)[0]
    swarm.kill_container(victim["ID"])
    swarm.wait_running(service, 3, not_tasks=victim["ID"])
    assert swarm.nodes_of(swarm.running(service)) == [0, 1, 2]
    swarm.daemons[2].kill()
    eventually(lambda: swarm.node_state(2) == "down", 30, what="h3 to be down")
    eventually(lambda: len(swarm.wanted(service)) == 2, 10, what="its task to be given up")
    swarm.hosts[2].start_daemon()
    swarm.assert_exactly(service, 3)
    assert len(swarm.containers_on(2, service)) == 1
