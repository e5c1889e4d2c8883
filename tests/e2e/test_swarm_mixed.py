"""Hosts without an engine beside hosts with one: processes here, containers there."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.e2e.answering import Traffic, port
from tests.e2e.lab import eventually
from tests.e2e.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]

PROCESSES = {"Image": "host", "StopSignal": "SIGTERM"}
_RULES = ["nft", "list", "ruleset"]


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


def test_ports_of_processes(swarm: Swarm) -> None:
    """Each host leads to them from everywhere, with an engine or without, also where they listen on
    the very port that they publish: their host gives it to them at once, and leaves their health
    check alone, which asks there before anybody may."""
    for name, published, target in (("same", 8080, 8080), ("other", 8081, 9000)):
        command = ["busybox", "nc", "-ll", "-p", str(target), "-e", "echo", str(target)]
        check = ["CMD", "sh", "-c", f"busybox nc -w 1 127.0.0.1 {target} </dev/null"]
        healthy = {"Test": check, "Interval": 300_000_000, "Retries": 3}
        program = {**PROCESSES, "Command": command, "Healthcheck": healthy}
        swarm.create_spec(name, 0, container=program, **port(published, target))
        for host in swarm.hosts:
            eventually(lambda: str(published) in host.run(_RULES).stdout, 10)  # noqa: B023
        swarm.scale(name, 1)
        swarm.wait_running(name, 1)
        (task,) = swarm.tasks(name)
        assert task["Status"]["State"] == "running"
    with ExitStack() as stack:
        for client in Traffic(swarm, stack).hosts:
            for address in ("127.0.0.1", *(host.address for host in swarm.hosts)):
                for published, target in ((8080, "8080"), (8081, "9000")):
                    asked = partial(client.ask, address, published)
                    eventually(lambda: asked().strip() == target, 10)  # noqa: B023


def test_where_no_kind_fits(swarm: Swarm) -> None:
    """With both engines drained a container waits, and the reason names what is missing."""
    swarm.update_node(0, Availability="drain")
    swarm.update_node(1, Availability="drain")
    service = swarm.create_spec("boxed", 1)
    reasons = eventually(lambda: swarm.why_waiting(service), what="a reason")
    assert all("not available for new tasks" in reason for reason in reasons), reasons
    assert all("on 1 node" in reason for reason in reasons), reasons
