"""Hosts that are cut off, daemons that are killed: what runs goes on, what is lost comes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab
    from tests.e2e.swarm import Swarm

pytestmark = [pytest.mark.lab, pytest.mark.engine]

# Three heartbeats of 2 s, counted from the last one that was heard.
DOWN_AFTER_S = 6.0
ENDS_WITHIN_S = 5.0


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


# --- the network ------------------------------------------------------------------------------


def test_a_host_that_is_cut_off(swarm: Swarm, record_property: pytest.RecordProperty) -> None:
    """Its tasks run elsewhere some 7 s later; when it is back, its stale tasks stop."""
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    lost = swarm.node(1)["ID"]
    stale = swarm.containers_on(1, service)
    assert len(stale) == 2
    started = time.monotonic()
    swarm.hosts[1].cut()
    swarm.wait_running(service, 6, not_node=lost)
    took = time.monotonic() - started
    record_property("elsewhere_after_s", took)
    assert DOWN_AFTER_S - 2 < took < DOWN_AFTER_S + 4, f"elsewhere after {took:.2f} s"
    assert swarm.node(1)["Status"] == {
        "State": "down",
        "Message": "heartbeat failure",
        "Addr": swarm.hosts[1].address,
    }
    assert swarm.containers_on(1, service) == stale  # nobody can tell them, so they run on

    swarm.hosts[1].heal()
    swarm.wait_ready(3)
    eventually(lambda: not swarm.containers_on(1, service), what="stale tasks to stop")
    swarm.assert_exactly(service, 6)


def test_a_short_cut_replaces_nothing(swarm: Swarm) -> None:
    """A cable out for less than three heartbeats changes no task."""
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    before = _ids(swarm, service)
    swarm.hosts[1].cut()
    time.sleep(3)  # the length of the cut is the case
    swarm.hosts[1].heal()
    # What a node does after the cut reaches the manager: then it is in session again.
    victim = next(t for t in swarm.running(service) if swarm.nodes_of([t]) == [1])
    swarm.kill_container(victim["ID"])
    eventually(lambda: swarm.task(victim["ID"])["Status"]["State"] == "failed", what="the news")
    swarm.assert_exactly(service, 6)
    assert len(before - _ids(swarm, service)) == 1


# --- daemons ----------------------------------------------------------------------------------


def test_a_manager_killed_while_it_creates(swarm: Swarm) -> None:
    """Killed in the middle of 30 replicas and started again, it converges: none twice or lost."""
    service = swarm.create("kill", 30)
    eventually(lambda: len(swarm.running(service)) >= 8, 30, every_s=0.02, what="the first 8")
    swarm.daemons[0].kill()
    swarm.hosts[0].start_daemon()
    swarm.wait_ready(3)
    swarm.assert_exactly(service, 30)
    assert len(swarm.tasks(service)) == 30, "no task had to be replaced"


@pytest.mark.every_engine
def test_a_killed_worker_daemon_adopts_its_tasks(swarm: Swarm) -> None:
    """Its containers run on; one that ended meanwhile is reported with its own exit code."""
    # A slow machine takes a while over all this; the node must not be given up meanwhile.
    swarm.hosts[0].swarmctl(["update", "--dispatcher-heartbeat", "20s"])
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    before = _ids(swarm, service)
    command = ["sh", "-c", "trap 'exit 7' TERM; sleep 3600 & wait"]
    once = swarm.create_spec(
        "once",
        3,
        container={"Command": command},
        task={"RestartPolicy": {"Condition": "none"}},
    )
    swarm.wait_running(once, 3)
    on_worker = next(t for t in swarm.running(once) if swarm.nodes_of([t]) == [1])

    swarm.daemons[1].kill()
    kept = swarm.containers_on(1, service)
    engine, container = swarm.container_of(on_worker["ID"])
    engine.api("POST", f"/containers/{container['Id']}/kill", query={"signal": "TERM"})
    eventually(lambda: len(swarm.containers_on(1, once)) == 0, what="it to exit")
    assert swarm.containers_on(1, service) == kept

    swarm.hosts[1].start_daemon()
    ended = eventually(
        lambda: _ended(swarm, on_worker["ID"]), 15, what="the missed exit to be reported"
    )
    assert ended["Status"]["State"] == "failed"
    assert ended["Status"]["ContainerStatus"]["ExitCode"] == 7
    swarm.assert_exactly(service, 6)
    assert _ids(swarm, service) == before, "nothing was replaced"
    assert swarm.containers_on(1, service) == kept


def test_a_daemon_that_restarts_says_so(swarm: Swarm) -> None:
    """Ended by SIGTERM it has a minute to come back: longer than silence, nothing is replaced."""
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    before, kept = _ids(swarm, service), swarm.containers_on(1, service)
    assert swarm.daemons[1].terminate(ENDS_WITHIN_S) == 0
    eventually(lambda: swarm.node_state(1) == "disconnected", what="the farewell")
    time.sleep(DOWN_AFTER_S + 1.5)  # silence of this length would count as down
    assert swarm.node_state(1) == "disconnected"
    assert _ids(swarm, service) == before
    assert swarm.containers_on(1, service) == kept
    swarm.hosts[1].start_daemon()
    swarm.wait_ready(3)
    swarm.assert_exactly(service, 6)
    assert _ids(swarm, service) == before


def test_a_manager_that_restarts(swarm: Swarm) -> None:
    """The manager's own graceful restart replaces nothing either, on any host."""
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    before = _ids(swarm, service)
    kept = [swarm.containers_on(index, service) for index in range(3)]
    assert swarm.daemons[0].terminate(ENDS_WITHIN_S) == 0
    swarm.hosts[0].start_daemon()
    swarm.wait_ready(3)
    swarm.assert_exactly(service, 6)
    assert _ids(swarm, service) == before
    assert [swarm.containers_on(index, service) for index in range(3)] == kept


@pytest.mark.every_engine
def test_a_host_that_loses_its_power(swarm: Swarm) -> None:
    """Switched off, its tasks run elsewhere; switched on, it takes part and holds nothing old."""
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    swarm.hosts[2].kill_all()
    eventually(lambda: swarm.node_state(2) == "down", 15, what="the node to be down")
    engine = swarm.hosts[2].engine
    assert engine is not None
    engine.start()
    swarm.hosts[2].start_daemon()
    swarm.wait_ready(3)
    swarm.assert_exactly(service, 6)
    # What ran there when the power went is stopped, not run again, and is gone with the service.
    swarm.remove(service)


def _ids(swarm: Swarm, service: str) -> set[str]:
    return {task["ID"] for task in swarm.wanted(service)}


def _ended(swarm: Swarm, task_id: str) -> dict[str, Any] | None:
    task = swarm.task(task_id)
    return task if task["Status"]["State"] not in ("running", "starting") else None
