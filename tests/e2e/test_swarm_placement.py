"""Where tasks run and why they do not: explain, start order, stop and start, on three engines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.lab import Lab
    from tests.e2e.swarm import Swarm

pytestmark = [pytest.mark.lab, pytest.mark.engine]


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


def cli(swarm: Swarm, *words: str) -> str:
    """Run one swarmctl command on the first host; return what it prints."""
    host = swarm.hosts[0]
    ran = host.run([*host.lab.swarmctl_command, *words])
    return ran.stdout


def labelled(swarm: Swarm, index: int, **labels: str) -> None:
    swarm.update_node(index, Labels=labels)


def test_explain_names_three_reasons_on_three_nodes(
    swarm: Swarm, record_property: Callable[[str, object], None]
) -> None:
    """One node is drained, one has the wrong label, one too little memory: each says so."""
    swarm.update_node(0, Availability="drain", Labels={"disk": "ssd"})
    labelled(swarm, 1, disk="hdd")
    labelled(swarm, 2, disk="ssd")
    offered = {
        index: swarm.node(index)["Description"]["Resources"]["MemoryBytes"] for index in range(3)
    }
    filler = swarm.create_spec(
        "filler",
        1,
        task={
            "Resources": {"Reservations": {"MemoryBytes": offered[2] // 4 * 3}},
            "Placement": {"Constraints": [f"node.id=={swarm.node(2)['ID']}"]},
        },
    )
    swarm.wait_running(filler, 1)
    service = swarm.create_spec(
        "web",
        1,
        task={
            "Resources": {"Reservations": {"MemoryBytes": offered[2] // 2}},
            "Placement": {"Constraints": ["node.labels.disk==ssd"]},
        },
    )
    eventually(lambda: swarm.why_waiting(service) - {""}, what="the scheduler's answer")
    found = swarm.api("GET", f"/services/{service}/explain")
    by_node = {
        node["Name"]: [refusal["Filter"] for refusal in node["Refusals"]] for node in found["Nodes"]
    }
    names = [host.name for host in swarm.hosts]
    assert by_node == {
        names[0]: ["ready"],
        names[1]: ["constraints"],
        names[2]: ["resources"],
    }
    told = cli(swarm, "service", "explain", "web")
    record_property("service_explain", told)
    print(told)
    for words in ("its availability is drain", "node.labels.disk is 'hdd'", "free of"):
        assert words in told
    (task,) = swarm.wanted(service)
    assert "free of" in cli(swarm, "task", "explain", task["ID"])
    swarm.update_node(1, Labels={"disk": "ssd"})
    swarm.wait_running(service, 1)
    assert "1 of 1 tasks run" in cli(swarm, "service", "explain", "web")


def test_explain_tells_the_last_failures(swarm: Swarm) -> None:
    """Exit code, node and error of what ended badly, and what the next task waits for."""
    service = swarm.create_spec(
        "crash",
        1,
        container={"Command": ["sh", "-c", "exit 7"]},
        task={"RestartPolicy": {"Condition": "any", "Delay": 60 * 10**9}},
    )

    def failed() -> dict[str, Any]:
        found = swarm.api("GET", f"/services/{service}/explain")
        assert found["Failures"]
        return dict(found)

    found = eventually(failed, 20, what="a failure to be told")
    assert found["Failures"][0]["ExitCode"] == 7
    assert found["Failures"][0]["Node"] in [host.name for host in swarm.hosts]
    eventually(
        lambda: "waits out its restart delay" in cli(swarm, "service", "ps", "--no-trunc", "crash"),
        what="service ps to say what the successor waits for",
    )


def test_stop_and_start(swarm: Swarm) -> None:
    """Containers go, an update in between reaches nobody, and the same number comes back."""
    service, _ = swarm.create_and_wait("web", 4)
    started = time.monotonic()
    assert cli(swarm, "service", "stop", "web") == "web\n"
    assert time.monotonic() - started < 15
    assert swarm.containers(service, running=True) == []
    assert "0/0 (stopped; 4 when started)" in cli(swarm, "service", "ls")
    swarm.update(
        service, lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Env=["COLOUR=blue"])
    )
    assert swarm.containers(service, running=True) == []
    assert cli(swarm, "service", "start", "--detach", "web") == "web\n"
    swarm.assert_exactly(service, 4)
    assert swarm.spec(service)["Mode"] == {"Replicated": {"Replicas": 4}}
    assert swarm.spec(service)["TaskTemplate"]["ContainerSpec"]["Env"] == ["COLOUR=blue"]


def test_start_order(swarm: Swarm) -> None:
    """A service waits until another one is healthy, and says so meanwhile."""
    db = swarm.create_spec(
        "db",
        1,
        container={
            "Healthcheck": {
                "Test": ["CMD-SHELL", "test -e /ready"],
                "Interval": 200_000_000,
                "Retries": 100,
            },
            "Command": ["sh", "-c", "sleep 4; touch /ready; exec sleep 3600"],
        },
    )
    web = swarm.create_spec("web", 2, Labels={"swarmctl.depends-on": "db:healthy"})

    def waits() -> bool:
        told = {task["Status"].get("Err", "") for task in swarm.wanted(web)}
        return told == {"waits for db to be healthy"}

    eventually(waits, 3, what="both tasks to say what they wait for")
    assert not swarm.running(db)
    swarm.wait_running(web, 2)
    assert swarm.running(db)
    swarm.remove(db)
    swarm.assert_exactly(web, 2)


def test_a_node_that_returns_gets_tasks_again(swarm: Swarm) -> None:
    """With rebalancing, a drained node that is active again takes its share, one by one."""
    service = swarm.create_spec("web", 6, Labels={"swarmctl.rebalance": "on-join"})
    swarm.wait_running(service, 6)
    swarm.update_node(1, Availability="drain")
    eventually(lambda: not swarm.containers_on(1, service), 20, what="h2 to be empty")
    swarm.assert_exactly(service, 6)
    swarm.update_node(1, Availability="active")

    least = 6

    def even() -> bool:
        nonlocal least
        running = swarm.running(service)
        least = min(least, len(running))
        return swarm.nodes_of(running) == [0, 0, 1, 1, 2, 2]

    eventually(even, 60, what="two tasks on each host")
    assert least == 6, "a replica was missing while tasks moved"
    swarm.assert_exactly(service, 6)


def test_binpack_fills_one_node_first(swarm: Swarm) -> None:
    """Reservations decide when a node is full."""
    memory = min(swarm.node(i)["Description"]["Resources"]["MemoryBytes"] for i in range(3))
    service = swarm.create_spec(
        "tight",
        4,
        Labels={"swarmctl.strategy": "binpack"},
        task={"Resources": {"Reservations": {"MemoryBytes": memory * 3 // 10}}},
    )
    swarm.wait_running(service, 4)
    counts = sorted(swarm.nodes_of(swarm.running(service)).count(i) for i in range(3))
    assert counts == [0, 1, 3]


def test_a_start_first_drain_keeps_every_replica(swarm: Swarm) -> None:
    """With that update order a drained host is emptied without a replica missing at any look."""
    service = swarm.create_spec("web", 6, UpdateConfig={"Parallelism": 1, "Order": "start-first"})
    swarm.assert_exactly(service, 6)
    swarm.update_node(1, Availability="drain")
    least = 6

    def moved() -> bool:
        nonlocal least
        running = swarm.running(service)
        least = min(least, len(running))
        return swarm.nodes_of(running) == [0, 0, 0, 2, 2, 2]

    eventually(moved, 30, every_s=0.02, what="all tasks on the other hosts")
    assert least == 6
    eventually(lambda: not swarm.containers_on(1, service), 20, what="h2 to be empty")
    swarm.assert_exactly(service, 6)
