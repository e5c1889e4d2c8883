"""Containers that users start by hand, on attachable networks of the swarm, on either engine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.answering import Traffic, call, is_answered, look_up
from tests.e2e.lab import IMAGE, eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Engine, Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine, pytest.mark.every_engine]


@pytest.fixture
def traffic(lab3: Lab) -> Iterator[Traffic]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm, ExitStack() as stack:
        yield Traffic(swarm, stack)


def _run(engine: Engine, name: str, network: str) -> dict[str, Any]:
    """``docker run -d --network NETWORK --name NAME``; what the engine then says of it."""
    # Podman would set more than this machine may allow.
    limits = [{"Name": one, "Soft": 4096, "Hard": 4096} for one in ("nofile", "nproc")]
    how = {"NetworkMode": network, "Ulimits": limits}
    body = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": how}
    made = engine.run_container(body, name=name)
    seen: dict[str, Any] = engine.api("GET", f"/containers/{made}/json")
    return seen


def test_a_container_of_a_user(traffic: Traffic) -> None:
    """On a host without a task it finds services by name, reaches tasks on other hosts by address
    and by virtual address, and is reached from there; its address is nobody else's. A daemon that
    is killed and comes back finds it."""
    swarm = traffic.swarm
    traffic.network("net", Attachable=True)
    traffic.network("other")
    elsewhere = {"Placement": {"Constraints": [f"node.hostname!={swarm.hosts[2].name}"]}}
    members = traffic.service("web", 2, "net", task=elsewhere)
    (near,) = traffic.service(
        "near", 1, "other", task={"Placement": {"Constraints": ["node.hostname==h3"]}}
    )
    host, engine = swarm.hosts[2], swarm.hosts[2].engine
    assert engine is not None
    networks = {one["Name"] for one in engine.api("GET", "/networks")}
    assert {"net", "other"} <= networks
    seen = _run(engine, "guest", "net")
    address = seen["NetworkSettings"]["Networks"]["net"]["IPAddress"]
    guest = traffic.enter(host.pid_here(seen["State"]["Pid"]), "guest")
    vip, names = traffic.vip("web"), {member.called for member in members}
    eventually(lambda: look_up(guest, "web") == {vip}, 10, what="names")
    eventually(lambda: is_answered(guest, vip), 10)
    assert {call(guest, "web") for _ in range(4)} == names
    for task_id, its in traffic.addresses("web", "net").items():
        assert guest.ask(its).split()[0] == task_id
    for member in members:
        assert member.ask(address).split() == [
            "guest",
            traffic.addresses("web", "net")[member.called],
        ]
    assert look_up(guest, "guest") == {address}
    assert look_up(near, "guest") == set()

    traffic.swarm.daemons[2].kill()
    assert look_up(guest, "tasks.web") == set(traffic.addresses("web", "net").values())
    traffic.swarm.daemons[2].start()
    swarm.wait_ready(3, timeout_s=30)
    traffic.service("late", 2, "net")
    eventually(lambda: look_up(guest, "late") == {traffic.vip("late")}, 10, what="a new name")
    assert call(guest, "late")
    taken = [*traffic.addresses("web", "net").values(), *traffic.addresses("late", "net").values()]
    assert address not in taken

    for service in ("web", "late"):
        swarm.api("DELETE", f"/services/{service}")
    swarm.api("DELETE", "/networks/net")
    eventually(lambda: not _has(swarm.hosts[0].engine, "net"), 20, what="the network to go")
    assert _has(engine, "net")
    engine.remove_container("guest")
    eventually(lambda: not _has(engine, "net"), 20, what="the last network to go")


def _has(engine: Engine | None, network: str) -> bool:
    assert engine is not None
    return any(one["Name"] == network for one in engine.api("GET", "/networks"))
