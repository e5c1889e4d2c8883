"""Rolling updates on real engines: both orders, one that pauses, one that goes back."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab
    from tests.e2e.swarm import Swarm

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SECOND = 10**9
LOOK_EVERY_S = 0.05
UPDATE_S = 40.0
NEVER_HEALTHY = {
    "Test": ["CMD-SHELL", "exit 1"],
    "Interval": SECOND // 2,
    "Timeout": SECOND,
    "Retries": 2,
}


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


def _settings(order: str = "stop-first", **more: Any) -> dict[str, Any]:
    return {"Parallelism": 1, "Order": order, "Monitor": SECOND, **more}


def _set(colour: str, **container: Any) -> Any:
    """Return a change of a spec: another environment, and what else is given."""

    def change(spec: dict[str, Any]) -> None:
        spec["TaskTemplate"]["ContainerSpec"].update(Env=[f"COLOUR={colour}"], **container)

    return change


def _status(swarm: Swarm, service: str) -> dict[str, Any]:
    found: dict[str, Any] = swarm.api("GET", f"/services/{service}").get("UpdateStatus") or {}
    return found


def _wait_state(swarm: Swarm, service: str, state: str) -> dict[str, Any]:
    eventually(
        lambda: _status(swarm, service).get("State") == state, UPDATE_S, what=f"the update {state}"
    )
    return _status(swarm, service)


def _colours(swarm: Swarm, service: str) -> list[str]:
    """Return what runs, container by container, as the engines say."""
    found = []
    for engine in swarm.engines():
        for container in engine.containers(running=True):
            if container["Labels"].get("com.docker.swarm.service.id") == service:
                shown = engine.api("GET", f"/containers/{container['Id']}/json")
                env = dict(line.split("=", 1) for line in shown["Config"]["Env"])
                found.append(env["COLOUR"])
    return sorted(found)


@contextmanager
def _fewest(swarm: Swarm, service: str) -> Iterator[list[int]]:
    """Watch how many containers run, past swarmctl; the fewest seen is in the list at the end.

    Engines are asked one after the other, and one may run more by the time that the last one runs
    less. So what one of two looks saw counts: nobody that ran between them is left out.
    """
    fewest: list[int] = []
    over = threading.Event()

    def look() -> set[str]:
        return {container["Id"] for container in swarm.containers(service, running=True)}

    def watch() -> None:
        before = look()
        while not over.wait(LOOK_EVERY_S):
            now = look()
            fewest.append(len(before | now))
            before = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield fewest
    finally:
        over.set()
        watcher.join()
        fewest[:] = [min(fewest)]


@pytest.mark.every_engine
@pytest.mark.parametrize(("order", "floor"), [("stop-first", 3), ("start-first", 4)])
def test_a_rolling_update_keeps_its_floor(
    swarm: Swarm, order: str, floor: int, record_property: pytest.RecordProperty
) -> None:
    """Every container is replaced, one at a time, and never fewer run than the order allows."""
    service = swarm.create_spec(
        "web", 4, container={"Env": ["COLOUR=red"]}, UpdateConfig=_settings(order)
    )
    swarm.assert_exactly(service, 4)
    started = time.monotonic()
    with _fewest(swarm, service) as fewest:
        swarm.update(service, _set("blue"))
        eventually(
            lambda: _colours(swarm, service) == ["blue"] * 4, UPDATE_S, what="all to be blue"
        )
    record_property("rolled_after_s", time.monotonic() - started)
    assert fewest[0] >= floor
    assert _wait_state(swarm, service, "completed")["Message"] == "update completed"
    swarm.assert_exactly(service, 4)


def test_an_update_of_tasks_that_do_not_start_pauses(swarm: Swarm) -> None:
    """The first failure stops it with the other containers as they were; a new spec goes on."""
    service = swarm.create_spec(
        "web", 3, container={"Env": ["COLOUR=red"]}, UpdateConfig=_settings()
    )
    swarm.assert_exactly(service, 3)
    swarm.update(service, _set("bad", Command=["/no/such/command"]))
    status = _wait_state(swarm, service, "paused")
    assert "update paused due to failure or early termination of task " in status["Message"]
    failed = swarm.task(status["Message"].rpartition(" ")[2])
    assert failed["Status"]["State"] in ("failed", "rejected")
    time.sleep(2)  # nothing may follow
    assert _colours(swarm, service) == ["red", "red"]

    swarm.update(service, _set("blue", Command=["sleep", "3600"]))
    _wait_state(swarm, service, "completed")
    swarm.assert_exactly(service, 3)
    assert _colours(swarm, service) == ["blue"] * 3


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_an_update_that_is_never_healthy_is_rolled_back(swarm: Swarm, order: str) -> None:
    """The service gets its previous spec; with start-first no container of it ever stopped."""
    service = swarm.create_spec(
        "web",
        3,
        container={"Env": ["COLOUR=red"]},
        UpdateConfig=_settings(order, FailureAction="rollback"),
        RollbackConfig=_settings(order),
    )
    swarm.assert_exactly(service, 3)
    before = {task["ID"] for task in swarm.running(service)}
    swarm.update(service, _set("bad", Healthcheck=NEVER_HEALTHY))
    status = _wait_state(swarm, service, "rollback_completed")
    assert status["Message"] == "rollback completed"
    found = swarm.api("GET", f"/services/{service}")
    assert "PreviousSpec" not in found
    assert found["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["COLOUR=red"]
    swarm.assert_exactly(service, 3)
    assert _colours(swarm, service) == ["red"] * 3
    kept = before & {task["ID"] for task in swarm.running(service)}
    assert len(kept) == (3 if order == "start-first" else 2)


def test_history_and_rollback_on_the_command_line(swarm: Swarm) -> None:
    """``service history`` lists the versions, ``service rollback --to`` brings one back, and an
    update that the daemon rolls back has exit code 1."""
    host = swarm.hosts[0]
    settings = _settings(FailureAction="rollback")
    service = swarm.create_spec(
        "web",
        2,
        container={"Env": ["COLOUR=red"]},
        UpdateConfig=settings,
        RollbackConfig=_settings(),
    )
    swarm.assert_exactly(service, 2)
    for colour in ("green", "blue"):
        host.swarmctl(["service", "update", "--env-add", f"COLOUR={colour}", "web"])
    lines = host.swarmctl(["service", "history", "web"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["VERSION", "3", "2", "1"]
    host.swarmctl(["service", "rollback", "--to", "1", "web"])
    assert _colours(swarm, service) == ["red", "red"]

    failed = host.swarmctl(["service", "update", "--args", "/no/such/file", "web"], check=False)
    assert failed.returncode == 1
    assert "service update rolled back: " in failed.stderr
    assert _colours(swarm, service) == ["red", "red"]
