"""Not one request fails while a service is updated, scaled and moved, and its leader is killed.

Clients ask at fixed times, from a container over the virtual address and from a host over every
host's published port. A server refuses whoever is sent to it after its SIGTERM, and answers whom it
has: so no request may be sent to a task that was told to stop, and none may be cut off.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from benchmarks.asking import asking
from benchmarks.web import PORT, Web
from tests.e2e.swarm import managers_on

if TYPE_CHECKING:
    from benchmarks.managers import Managers
    from tests.e2e.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]

PUBLISHED = 8080
LONG = "/slow/1.5"


def test_no_request_fails(lab3: Lab) -> None:
    """Update, scale down, drain of a host, death of the leader before an update: by no way."""
    with managers_on(lab3.hosts) as managers:
        web = Web(managers, lab3.hosts)
        web.make_client(lab3[0])
        ports = [{"PublishedPort": PUBLISHED, "TargetPort": PORT}]
        web.create(5, check_s=1, EndpointSpec={"Ports": ports})
        inside, outside, vip = web.client_pid, lab3[0].pid, f"{web.vip()}:{PORT}"
        mesh = [f"{host.address}:{PUBLISHED}" for host in lab3.hosts]
        clients = {
            "virtual address": asking(inside, vip, rate=200),
            "mesh": asking(outside, *mesh, rate=200),
            "virtual address, kept alive": asking(inside, vip, rate=40, keep_alive=True),
            "mesh, kept alive": asking(outside, *mesh, rate=40, keep_alive=True),
            "virtual address, long": asking(inside, vip, rate=4, path=LONG),
            "mesh, long": asking(outside, *mesh, rate=4, path=LONG),
        }
        with ExitStack() as stack:
            seen = {what: stack.enter_context(client) for what, client in clients.items()}
            _trouble(web, managers)
    assert {what: asked.failures for what, asked in seen.items()} == {what: [] for what in seen}
    for what in ("virtual address, long", "mesh, long"):
        # Their servers were told to stop after they had begun.
        assert any(answer.endswith("stopping") for answer in seen[what].answers)


def _trouble(web: Web, managers: Managers) -> None:
    web.update("start-first", at_once=2)
    web.scale(3)
    leader = managers.leader()
    drained = next(one for one in managers.hosts[1:] if one is not leader and web.runs_on(one))
    web.drain(drained)
    web.set_availability(drained, "active")
    with web.leader_killed(back_after_s=1):
        web.begin_update("stop-first", at_once=1)
    web.finish_update()
