"""Hosts without an engine beside hosts with one: processes here, containers there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]

PROCESSES = {"Image": "host", "StopSignal": "SIGTERM"}


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and a worker with engines, and a worker that runs plain processes."""
    for host in lab3.hosts[:2]:
        host.start_daemon()
    lab3[2].start_daemon("--executor=process", engine=False)
    swarm = Swarm(lab3.hosts)
    try:
        swarm.init()
        swarm.join_all()
        yield swarm
    finally:
        swarm.close()


def _sleeps(swarm: Swarm, seconds: int) -> list[str]:
    listed = swarm.hosts[2].run(["ps", "-eo", "args"]).stdout.splitlines()
    return [line for line in listed if line.strip() == f"sleep {seconds}"]


def test_processes_and_containers_in_one_swarm(swarm: Swarm) -> None:
    """Image ``host`` runs where processes do, images run where an engine is; each kind heals."""
    plain = swarm.create_spec("plain", 2, container={**PROCESSES, "Command": ["sleep", "7777"]})
    boxed = swarm.create_spec("boxed", 4)
    swarm.wait_running(plain, 2)
    swarm.assert_exactly(boxed, 4)
    assert swarm.nodes_of(swarm.running(plain)) == [2, 2]
    assert swarm.nodes_of(swarm.running(boxed)) == [0, 0, 1, 1]
    assert len(_sleeps(swarm, 7777)) == 2

    victim = swarm.running(plain)[0]
    status = swarm.task(victim["ID"])["Status"]["ContainerStatus"]
    swarm.hosts[2].run(["kill", "-KILL", str(status["PID"])])
    eventually(
        lambda: swarm.task(victim["ID"])["Status"]["State"] == "failed", what="its end to be seen"
    )
    swarm.wait_running(plain, 2, not_tasks=victim["ID"])
    assert len(_sleeps(swarm, 7777)) == 2


def test_processes_outlive_the_daemon(swarm: Swarm) -> None:
    """A killed daemon's processes run on, are adopted, and end with their service."""
    plain = swarm.create_spec("plain", 2, container={**PROCESSES, "Command": ["sleep", "7778"]})
    swarm.wait_running(plain, 2)
    before = {task["ID"] for task in swarm.running(plain)}
    swarm.daemons[2].kill()
    assert len(_sleeps(swarm, 7778)) == 2
    swarm.hosts[2].start_daemon("--executor=process", engine=False)
    swarm.wait_ready(3)
    swarm.wait_running(plain, 2)
    assert {task["ID"] for task in swarm.wanted(plain)} == before
    swarm.api("DELETE", f"/services/{plain}")
    eventually(lambda: not _sleeps(swarm, 7778), what="the processes to end")


def test_where_no_kind_fits(swarm: Swarm) -> None:
    """With both engines drained a container waits, and the reason names what is missing."""
    swarm.update_node(0, Availability="drain")
    swarm.update_node(1, Availability="drain")
    service = swarm.create_spec("boxed", 1)
    reasons = eventually(lambda: swarm.why_waiting(service), what="a reason")
    assert all("not available for new tasks" in reason for reason in reasons), reasons
    assert all("on 1 node" in reason for reason in reasons), reasons
