"""The root CA changes under a swarm that works: real daemons, engines, files, and a kill -9."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import Swarm, swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


def rotate(swarm: Swarm) -> None:
    cluster = swarm.api("GET", "/swarm")
    spec = cluster["Spec"]
    config = {**spec["CAConfig"], "ForceRotate": spec["CAConfig"].get("ForceRotate", 0) + 1}
    query = {"version": str(cluster["Version"]["Index"])}
    swarm.api("POST", "/swarm/update", {**spec, "CAConfig": config}, query=query)


def roots_on_disk(swarm: Swarm) -> list[str]:
    path = "certificates/swarm-root-ca.crt"
    return [(daemon.state_dir / path).read_text() for daemon in swarm.daemons]


def test_a_rotation_disturbs_no_container(swarm: Swarm) -> None:
    """A worker is killed, the root is rotated, the others renew and the rotation waits; the worker
    comes back with its own certificate and id, and it ends. No container of the others was touched,
    and every node trusts the new root."""
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    before = [swarm.containers_on(index, service) for index in (0, 1)]
    old = swarm.api("GET", "/swarm")
    node = swarm.node(2)["ID"]
    swarm.daemons[2].kill()
    rotate(swarm)

    def issuers() -> list[Any]:
        wanted = swarm.api("GET", "/swarm")["TLSInfo"]["CertIssuerPublicKey"]
        shown = (swarm.node(index)["Description"]["TLSInfo"] for index in range(3))
        return [info["CertIssuerPublicKey"] == wanted for info in shown]

    eventually(lambda: issuers() == [True, True, False], what="the others to renew")
    during = swarm.api("GET", "/swarm")
    assert during["RootRotationInProgress"]
    assert during["TLSInfo"]["TrustRoot"] == old["TLSInfo"]["TrustRoot"]
    swarm.hosts[2].start_daemon()
    eventually(lambda: not swarm.api("GET", "/swarm")["RootRotationInProgress"], what="its end")
    after = swarm.api("GET", "/swarm")
    new_root = after["TLSInfo"]["TrustRoot"]
    assert new_root != old["TLSInfo"]["TrustRoot"]
    assert after["JoinTokens"]["Worker"] != old["JoinTokens"]["Worker"]
    eventually(lambda: set(roots_on_disk(swarm)) == {new_root}, what="the new root on every disk")
    swarm.wait_ready(3)
    assert swarm.node(2)["ID"] == node
    swarm.assert_exactly(service, 6)
    for index in (0, 1):  # the killed host's may have been replaced here meanwhile
        assert before[index] <= swarm.containers_on(index, service)
