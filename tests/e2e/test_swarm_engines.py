"""Engines that die, hang, come back, or belong to others too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import IMAGE, Daemon, eventually
from tests.e2e.swarm import service_spec, swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Engine, Lab
    from tests.e2e.swarm import Swarm

pytestmark = [pytest.mark.lab, pytest.mark.engine]

PAUSE_S = 20.0
# Exits with the number that it is told by `kill -TERM`, and only then.
_EXIT_7 = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"]


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


def _engine(swarm: Swarm, index: int) -> Engine:
    engine = swarm.hosts[index].engine
    assert engine is not None
    return engine


def _ids(swarm: Swarm, service: str) -> set[str]:
    return {task["ID"] for task in swarm.wanted(service)}


def _on(swarm: Swarm, service: str, index: int) -> dict[str, Any]:
    return next(task for task in swarm.running(service) if swarm.nodes_of([task]) == [index])


# --- outages ----------------------------------------------------------------------------------


@pytest.mark.every_engine
def test_a_hung_engine_fails_nothing(swarm: Swarm) -> None:
    """An engine that stands still for 20 s costs no task; meanwhile its node takes no new ones."""
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    before, kept = _ids(swarm, service), swarm.containers_on(1, service)
    _engine(swarm, 1).pause()
    paused_at = time.monotonic()
    said = eventually(lambda: swarm.node(1)["Status"].get("Message"), PAUSE_S, what="a message")
    assert "engine does not answer" in said
    assert swarm.node_state(1) == "ready"
    other = swarm.create_spec("new", 4)
    swarm.wait_running(other, 4)
    assert set(swarm.nodes_of(swarm.running(other))) == {0, 2}
    time.sleep(max(0.0, paused_at + PAUSE_S - time.monotonic()))  # the length is the case
    _engine(swarm, 1).resume()
    eventually(lambda: not swarm.node(1)["Status"].get("Message"), 15, what="the message to go")
    swarm.assert_exactly(service, 6)
    assert _ids(swarm, service) == before
    assert swarm.containers_on(1, service) == kept
    swarm.scale(other, 6)
    swarm.wait_running(other, 6)
    assert 1 in swarm.nodes_of(swarm.running(other))


@pytest.mark.every_engine
def test_a_killed_engine_with_live_restore(swarm: Swarm) -> None:
    """Its containers run on; one that ended while it was away is reported with its own code."""
    engine = _engine(swarm, 1)
    engine.restart(live_restore=True)
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    before, kept = _ids(swarm, service), swarm.containers_on(1, service)
    once = swarm.create_spec(
        "once",
        3,
        container={"Command": _EXIT_7},
        task={"RestartPolicy": {"Condition": "none"}},
    )
    swarm.wait_running(once, 3)
    missed = _on(swarm, once, 1)
    container = swarm.container_of(missed["ID"])[1]["Id"]
    pid = engine.api("GET", f"/containers/{container}/json")["State"]["Pid"]
    engine.kill()
    swarm.hosts[1].run(["kill", "-TERM", str(pid)])  # the engine counts as its host does
    engine.start(live_restore=True)
    ended = eventually(lambda: _ended(swarm, missed["ID"]), 30, what="the missed exit")
    assert ended["Status"]["ContainerStatus"]["ExitCode"] == 7
    swarm.assert_exactly(service, 6)
    assert _ids(swarm, service) == before
    assert swarm.containers_on(1, service) == kept


@pytest.mark.docker_only("Podman's containers never end with it")
def test_a_killed_engine_without_live_restore(swarm: Swarm) -> None:
    """A dockerd that stops what it finds has each task told with its real code, and replaced."""
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    there = [task for task in swarm.running(service) if swarm.nodes_of([task]) == [1]]
    engine = _engine(swarm, 1)
    engine.kill()
    engine.start()
    for task in there:
        ended = eventually(lambda t=task: _ended(swarm, t["ID"]), 30, what="the end to be told")
        container = ended["Status"]["ContainerStatus"]
        seen = engine.api("GET", f"/containers/{container['ContainerID']}/json")
        assert container["ExitCode"] == seen["State"]["ExitCode"] != 0
    swarm.assert_exactly(service, 6)
    assert len(swarm.tasks(service)) == 8, "nothing else was touched"


def _ended(swarm: Swarm, task_id: str) -> dict[str, Any] | None:
    task = swarm.task(task_id)
    return task if task["Status"]["State"] in ("failed", "complete", "shutdown") else None


# --- neighbours on one engine ---------------------------------------------------------------------


@pytest.mark.docker_only("Podman has no swarm of its own")
def test_neighbours_on_the_engine_stay_unharmed(lab1: Lab) -> None:
    """A Docker swarm and another swarmctl node on the same engine outlive ours, untouched."""
    host = lab1[0]
    engine = host.engine
    assert engine is not None
    engine.api(
        "POST",
        "/swarm/init",
        {"ListenAddr": f"{host.address}:2378", "AdvertiseAddr": f"{host.address}:2378"},
    )
    engine.api("POST", "/services/create", service_spec("dockers", 2))
    by_hand = engine.run_container({"Image": IMAGE, "Cmd": ["sleep", "3600"]}, name="by-hand")
    other = Daemon(host, name="other")
    other.start("--listen-addr=0.0.0.0:2379")
    where = f"{host.address}:2379"
    other.api("POST", "/swarm/init", {"ListenAddr": where, "AdvertiseAddr": where})
    other.api("POST", "/services/create", service_spec("web", 2))
    neighbours = eventually(
        lambda: _running(engine) if len(_running(engine)) == 5 else None, 20, what="neighbours"
    )
    assert by_hand in neighbours

    with swarm_on(lab1.hosts) as swarm:
        service = swarm.create_spec("web", 3)
        swarm.assert_exactly(service, 3)
        swarm.scale(service, 1)
        eventually(lambda: len(_running(engine)) == 6, what="two to stop")
        swarm.remove(service)
        assert _running(engine) == neighbours
        swarm.assert_exactly(swarm.create_spec("again", 2), 2)
        swarm.daemons[0].kill()
        host.start_daemon()
        swarm.wait_ready(1)
        swarm.daemons[0].api("POST", "/swarm/leave", query={"force": "1"})
        eventually(lambda: _running(engine) == neighbours, what="ours to go")
    # The neighbours still work, too.
    other.api("POST", "/services/create", service_spec("more", 1))
    eventually(lambda: len(_running(engine)) == 6, what="the neighbour's new one")
    other.kill()


def _running(engine: Engine) -> set[str]:
    return {container["Id"] for container in engine.containers(running=True)}
