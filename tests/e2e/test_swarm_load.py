"""Many tasks at once, slow stops and hung pulls: nothing that matters waits for them."""

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

SETTLED_S = 5.2
ENDS_WITHIN_S = 5.0
HANGING_PORT = 5999
# SIGTERM, which a first process without a handler does not feel; so the grace of 10 s runs out.
SLOW_STOP = {"StopSignal": "SIGTERM"}


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers, and a registry on the first host that never answers."""
    lab3[0].popen(["busybox", "nc", "-ll", "-p", str(HANGING_PORT), "-e", "sleep", "600"])
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


def _hang_a_pull(swarm: Swarm) -> str:
    """Create a service whose image is being pulled for ever, on every host; returns its id."""
    image = f"{swarm.hosts[0].address}:{HANGING_PORT}/hung:1"
    service = swarm.create_spec("hung", 3, container={"Image": image})
    eventually(lambda: len(_at(swarm, service, "preparing")) == 3, what="the pulls to hang")
    return service


def _at(swarm: Swarm, service: str, state: str) -> list[dict[str, Any]]:
    return [task for task in swarm.wanted(service) if task["Status"]["State"] == state]


def _stop_slowly(swarm: Swarm, service: str) -> None:
    """Remove a service of 30; returns while each container has most of its grace before it."""
    swarm.api("DELETE", f"/services/{service}")
    assert len(swarm.containers(service, running=True)) == 30


def test_slow_stops_and_hung_pulls_delay_no_heal(
    swarm: Swarm, record_property: pytest.RecordProperty
) -> None:
    """While 30 containers take 10 s to stop and pulls hang, a crash is healed as fast as ever."""
    slow = swarm.create_spec("slow", 30, container=SLOW_STOP)
    service = swarm.create_spec("heal", 3)
    swarm.wait_running(slow, 30)
    swarm.wait_running(service, 3)
    _hang_a_pull(swarm)
    victim = swarm.running(service)[0]
    time.sleep(SETTLED_S)  # the rule under test is about time
    _stop_slowly(swarm, slow)
    started = time.monotonic()
    swarm.kill_container(victim["ID"])
    swarm.wait_running(service, 3, not_tasks=victim["ID"])
    took = time.monotonic() - started
    record_property("replaced_after_s", took)
    # No stop had ended by then, so none was waited for; how fast it was is a benchmark's business.
    still_stopping = len(swarm.containers(slow, running=True))
    assert still_stopping == 30, f"{still_stopping} left to stop, replaced after {took:.2f} s"
    eventually(lambda: not swarm.containers(slow), 30, what="the slow ones to go")


def test_a_daemon_ends_at_once(swarm: Swarm) -> None:
    """Pulls that hang and stops under way keep no daemon from ending; the next one goes on."""
    slow = swarm.create_spec("slow", 30, container=SLOW_STOP)
    swarm.wait_running(slow, 30)
    _hang_a_pull(swarm)
    _stop_slowly(swarm, slow)
    for daemon in swarm.daemons:
        started = time.monotonic()
        assert daemon.terminate(ENDS_WITHIN_S) == 0
        assert time.monotonic() - started < ENDS_WITHIN_S
    for host in swarm.hosts:
        host.start_daemon()
    eventually(lambda: not swarm.containers(slow), 40, what="the slow ones to go")
    swarm.wait_ready(3)


def test_sixty_replicas(swarm: Swarm) -> None:
    """Sixty tasks on three hosts: each once, spread evenly, all gone when removed."""
    service = swarm.create_spec("many", 60)
    swarm.assert_exactly(service, 60)
    assert [len(swarm.containers_on(index, service)) for index in range(3)] == [20, 20, 20]
    swarm.remove(service)
    eventually(lambda: not swarm.api("GET", "/tasks"), what="its tasks to go")
