"""What users do every day: services on one manager and two workers, each with an engine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import IMAGE, eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab
    from tests.e2e.swarm import Swarm

pytestmark = [pytest.mark.lab, pytest.mark.engine, pytest.mark.every_engine]

# From here on a crash is no crash loop, and its replacement need not wait (5 s, and some leeway).
SETTLED_S = 5.2


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


def test_replicas_spread_scale_and_go(swarm: Swarm) -> None:
    """Three replicas run one on each host, follow the wanted number, and leave nothing behind."""
    service = swarm.create_spec("web", 3)
    swarm.assert_exactly(service, 3)
    assert swarm.nodes_of(swarm.running(service)) == [0, 1, 2]
    swarm.scale(service, 9)
    swarm.assert_exactly(service, 9)
    assert swarm.nodes_of(swarm.running(service)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    swarm.scale(service, 2)
    swarm.assert_exactly(service, 2)
    eventually(lambda: len(swarm.containers(service)) == 2, what="stopped containers to go")
    assert len(set(swarm.nodes_of(swarm.running(service)))) == 2
    swarm.remove(service)
    eventually(lambda: not swarm.api("GET", "/tasks"), what="its tasks to go")
    assert all(not engine.containers() for engine in swarm.engines())


def test_a_killed_container_is_replaced_at_once(
    swarm: Swarm, record_property: pytest.RecordProperty
) -> None:
    """A container that ran for 5 s and is killed has a successor long before the default delay."""
    service, _ = swarm.create_and_wait("heal", 3)
    victim = swarm.running(service)[0]
    time.sleep(SETTLED_S)  # the rule under test is about time
    started = time.monotonic()
    swarm.kill_container(victim["ID"])
    swarm.wait_running(service, 3, not_tasks=victim["ID"])
    took = time.monotonic() - started
    record_property("replaced_after_s", took)
    assert took < 2.5, f"replaced after {took:.2f} s"
    ended = swarm.task(victim["ID"])
    assert ended["Status"]["State"] == "failed"
    assert ended["Status"]["ContainerStatus"]["ExitCode"] == 137
    assert ended["Status"]["Err"] == "task: non-zero exit (137)"
    swarm.assert_exactly(service, 3)


def test_updates_replace_containers(swarm: Swarm) -> None:
    """A new environment and a new image reach every container; the old ones stop."""
    service = swarm.create_spec("app", 3)
    swarm.wait_running(service, 3)
    before = {task["ID"] for task in swarm.running(service)}

    def set_env(spec: dict[str, Any]) -> None:
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["COLOUR=blue"]

    swarm.update(service, set_env)
    eventually(lambda: _updated(swarm, service, before), 30, what="all to be updated")
    swarm.assert_exactly(service, 3)
    for container in swarm.containers(service, running=True):
        found = _inspect(swarm, container["Id"])
        assert "COLOUR=blue" in found["Config"]["Env"]

    for engine in swarm.engines():
        engine.api("POST", f"/images/{IMAGE}/tag", query={"repo": "app", "tag": "2"})
    before = {task["ID"] for task in swarm.running(service)}
    swarm.update(service, lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Image="app:2"))
    eventually(lambda: _updated(swarm, service, before), 30, what="all to be updated")
    swarm.assert_exactly(service, 3)
    images = {c["Image"] for c in swarm.containers(service, running=True)}
    assert {image.removeprefix("docker.io/library/") for image in images} == {"app:2"}


def _updated(swarm: Swarm, service: str, before: set[str]) -> bool:
    running = {task["ID"] for task in swarm.running(service)}
    return len(running) == 3 and not running & before


def _inspect(swarm: Swarm, container: str) -> Any:
    for engine in swarm.engines():
        with engine.client() as client:
            reply = client.request("GET", f"/containers/{container}/json")
        if reply.status == 200:
            return reply.json
    raise LookupError(container)


def test_drain_pause_and_active(swarm: Swarm) -> None:
    """A drained node's tasks move, a paused one keeps its own and takes no more."""
    service = swarm.create_spec("web", 3)
    swarm.wait_running(service, 3)
    swarm.update_node(1, Availability="drain")
    eventually(lambda: not swarm.containers_on(1, service), 20, what="h2 to be empty")
    swarm.assert_exactly(service, 3)
    assert set(swarm.nodes_of(swarm.running(service))) == {0, 2}

    swarm.update_node(1, Availability="active")
    swarm.update_node(2, Availability="pause")
    kept = swarm.containers_on(2, service)
    swarm.scale(service, 6)
    swarm.assert_exactly(service, 6)
    assert swarm.containers_on(2, service) == kept
    assert len(swarm.containers_on(1, service)) >= 2


def test_constraints_on_labels(swarm: Swarm) -> None:
    """Tasks go where node labels allow, wait in words where none does, and start when one comes."""
    swarm.update_node(1, Labels={"disk": "ssd"})
    service = swarm.create_spec(
        "db", 2, task={"Placement": {"Constraints": ["node.labels.disk==ssd"]}}
    )
    swarm.assert_exactly(service, 2)
    assert swarm.nodes_of(swarm.running(service)) == [1, 1]

    waiting = swarm.create_spec(
        "far", 1, task={"Placement": {"Constraints": ["node.labels.zone==moon"]}}
    )
    text = "no suitable node (scheduling constraints not satisfied on 3 nodes)"
    eventually(lambda: swarm.why_waiting(waiting) == {text}, what="the reason")
    swarm.update_node(2, Labels={"zone": "moon"})
    swarm.assert_exactly(waiting, 1)
    assert swarm.nodes_of(swarm.running(waiting)) == [2]


def test_a_host_port_is_taken_once_a_host(swarm: Swarm) -> None:
    """Of four tasks that publish one host port on three hosts, three run; the fourth says why."""
    ports = [{"TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp", "PublishMode": "host"}]
    service = swarm.create_spec("www", 4, EndpointSpec={"Ports": ports})
    swarm.wait_running(service, 3)
    text = "no suitable node (host-mode port already in use on 3 nodes)"
    eventually(lambda: swarm.why_waiting(service) == {text}, what="the reason")
    assert swarm.nodes_of(swarm.running(service)) == [0, 1, 2]
    published = [p for c in swarm.containers(service, running=True) for p in c["Ports"]]
    assert {port["PublicPort"] for port in published} == {8080}
    swarm.scale(service, 3)
    eventually(lambda: len(swarm.wanted(service)) == 3, what="the fourth to go")


def test_logs_of_a_service(swarm: Swarm) -> None:
    """The output of all tasks comes over the manager, wherever they run, both streams."""
    command = ["sh", "-c", "echo to out; echo to err >&2; sleep 3600"]
    service = swarm.create_spec("talk", 3, container={"Command": command})
    swarm.wait_running(service, 3)

    def lines(**query: str) -> list[tuple[int, str]]:
        reply = swarm.daemons[0].client()
        try:
            body = reply.request("GET", f"/services/{service}/logs", query=query).body
        finally:
            reply.close()
        return sorted(_frames(body))

    expected = [(1, "to out")] * 3 + [(2, "to err")] * 3
    eventually(lambda: lines(stdout="1", stderr="1") == expected, what="all lines")
    assert lines(stdout="1") == [(1, "to out")] * 3
    detailed = lines(stdout="1", details="1")
    assert all(f"com.docker.swarm.service.id={service}" in text for _, text in detailed)


def _frames(body: bytes) -> list[tuple[int, str]]:
    """Docker's frames: a stream's number, three zeros, a length, a line."""
    found = []
    while body:
        size = int.from_bytes(body[4:8], "big")
        found.append((body[0], body[8 : 8 + size].decode().rstrip("\n")))
        body = body[8 + size :]
    return found
