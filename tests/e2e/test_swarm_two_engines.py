"""One network over hosts with Docker and hosts with Podman."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.answering import Traffic, call, is_answered, look_up, port
from tests.e2e.lab import Lab, eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.lab, pytest.mark.engine]


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    """A manager with Docker, and two workers with Podman."""
    with Lab(3) as lab:
        kinds = ("docker", "podman", "podman")
        engines = [
            host.start_engine(kind, wait=False) for host, kind in zip(lab.hosts, kinds, strict=True)
        ]
        for engine in engines:
            engine.wait_until_ready()
        with swarm_on(lab.hosts) as swarm, ExitStack() as stack:
            yield Traffic(swarm, stack)


def test_traffic_between_engines(traffic: Traffic) -> None:
    """From each to each: by name, by virtual address, by address, and by published ports."""
    traffic.network("net")
    members = traffic.service("web", 3, "net", **port(8080))
    clients = traffic.service("client", 3, "net")
    names, vip = {member.called for member in members}, traffic.vip("web")
    addresses = traffic.addresses("web", "net")
    for client in clients:
        eventually(lambda: is_answered(client, vip), 10)  # noqa: B023
        assert {client.ask(vip).split()[0] for _ in range(6)} == names
        assert {client.ask_udp(vip).split()[0] for _ in range(6)} == names
        assert look_up(client, "web") == {vip}
        assert look_up(client, "tasks.web") == set(addresses.values())
        assert call(client, "web") in names
        for task_id, address in addresses.items():
            assert client.ask(address).split()[0] == task_id
    for host in traffic.hosts:
        for other in traffic.swarm.hosts:
            eventually(lambda: is_answered(host, other.address, 8080), 10)  # noqa: B023
            answers = {host.ask(other.address, 8080).split()[0] for _ in range(6)}
            assert answers == names
