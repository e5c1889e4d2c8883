"""Who may be in a swarm: tokens, removed nodes, copied state, leaving and coming anew."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.lab import ApiError, Daemon, eventually
from tests.e2e.swarm import PORT, Swarm, swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and one worker; the third host runs a daemon that is in no swarm."""
    lab3[2].start_daemon()
    with swarm_on(lab3.hosts[:2]) as swarm:
        yield swarm


def _outsider(lab: Lab) -> Daemon:
    daemon = lab[2].daemon
    assert daemon is not None
    return daemon


def _refusal(daemon: Daemon, body: dict[str, object]) -> str:
    with pytest.raises(ApiError) as refused:
        daemon.api("POST", "/swarm/join", body)
    assert daemon.api("GET", "/info")["Swarm"]["LocalNodeState"] == "inactive"
    return refused.value.text


def test_tokens_that_do_not_let_in(swarm: Swarm, lab3: Lab) -> None:
    """A wrong, an outdated and a foreign token are told apart in words; a good one still works."""
    daemon = _outsider(lab3)
    good = swarm.join_body()
    head, _, _ = str(good["JoinToken"]).rpartition("-")
    wrong = f"{head}-{'0' * 25}"
    assert "join token" in _refusal(daemon, swarm.join_body(token=wrong))
    assert "join token" in _refusal(daemon, swarm.join_body(token="nonsense"))

    cluster = swarm.api("GET", "/swarm")
    query = {"version": str(cluster["Version"]["Index"]), "rotateWorkerToken": "true"}
    swarm.api("POST", "/swarm/update", cluster["Spec"], query=query)
    assert "rotated" in _refusal(daemon, good)

    foreign = Daemon(lab3[2], name="foreign")
    foreign.start("--listen-addr=0.0.0.0:2400")
    where = f"{lab3[2].address}:2400"
    foreign.api("POST", "/swarm/init", {"ListenAddr": where, "AdvertiseAddr": where})
    token = foreign.api("GET", "/swarm")["JoinTokens"]["Worker"]
    assert "another swarm" in _refusal(daemon, swarm.join_body(token=token))
    foreign.kill()

    daemon.api("POST", "/swarm/join", swarm.join_body())
    swarm.wait_ready(3)


def test_a_removed_node_is_cut_off(swarm: Swarm) -> None:
    """Removed by force while it is connected, a node is cut off, knows why, and cannot return."""
    service = swarm.create_spec("web", 4)
    swarm.assert_exactly(service, 4)
    node = swarm.node(1)["ID"]
    swarm.api("DELETE", f"/nodes/{node}", query={"force": "1"})
    swarm.wait_running(service, 4, not_node=node)
    worker = swarm.daemons[1]

    def told() -> bool:
        said = worker.api("GET", "/info")["Swarm"]["Error"]
        return f"node {node} was removed from the swarm" in said

    eventually(told, what="the node to know")
    worker.kill()
    swarm.hosts[1].start_daemon()
    eventually(told, what="the node to know again")
    assert [n["ID"] for n in swarm.api("GET", "/nodes")] == [swarm.node_id(0)]
    worker.api("POST", "/swarm/leave", query={"force": "1"})
    eventually(lambda: not swarm.containers_on(1, service), what="its containers to go")
    worker.api("POST", "/swarm/join", swarm.join_body())
    swarm.wait_ready(2)
    assert swarm.node(1)["ID"] != node


def test_a_copied_state_directory(swarm: Swarm, lab3: Lab) -> None:
    """A second daemon with a copy of a node's state is refused, and both places are named."""
    service = swarm.create_spec("web", 2)
    swarm.assert_exactly(service, 2)
    source, copy = swarm.daemons[1], _outsider(lab3)
    copy.terminate()
    shutil.rmtree(copy.state_dir)
    shutil.copytree(source.state_dir, copy.state_dir)
    lab3[2].start_daemon()

    def refused() -> str:
        return str(copy.api("GET", "/info")["Swarm"]["Error"])

    said = eventually(refused, what="the refusal")
    assert lab3[1].address in said or "h2" in said, said
    assert lab3[2].address in said or "h3" in said, said
    assert "copied" in said
    assert swarm.node_state(1) == "ready"
    swarm.assert_exactly(service, 2)
    engine = lab3[2].engine
    assert engine is not None
    assert not engine.containers()


def test_a_worker_that_leaves(swarm: Swarm) -> None:
    """Its containers stop before it is gone, others take over, and it can be removed."""
    service = swarm.create_spec("web", 4)
    swarm.assert_exactly(service, 4)
    node = swarm.node(1)["ID"]
    swarm.daemons[1].api("POST", "/swarm/leave")
    assert not swarm.containers_on(1, service, running=False)
    assert swarm.daemons[1].api("GET", "/info")["Swarm"]["LocalNodeState"] == "inactive"
    swarm.wait_running(service, 4, not_node=node)
    swarm.assert_exactly(service, 4)
    assert swarm.node_state(1) == "down"
    swarm.api("DELETE", f"/nodes/{node}")
    swarm.daemons[1].api("POST", "/swarm/join", swarm.join_body())
    swarm.wait_ready(2)


def test_leaving_and_founding_again(swarm: Swarm) -> None:
    """A manager leaves by force and founds anew, five times; each time all is new and works."""
    manager, host = swarm.daemons[0], swarm.hosts[0]
    engine = host.engine
    assert engine is not None
    with pytest.raises(ApiError, match="--force"):
        manager.api("POST", "/swarm/leave")
    clusters = {swarm.api("GET", "/swarm")["ID"]}
    for number in range(5):
        service = swarm.create_spec("again", 2)
        swarm.wait_running(service, 2)
        if number == 2:
            manager.kill()
            host.start_daemon()
        manager.api("POST", "/swarm/leave", query={"force": "1"})
        assert not engine.containers()
        with pytest.raises(ApiError, match="not a swarm manager"):
            manager.api("GET", "/swarm")
        where = f"{host.address}:{PORT}"
        manager.api("POST", "/swarm/init", {"ListenAddr": where, "AdvertiseAddr": where})
        clusters.add(swarm.api("GET", "/swarm")["ID"])
        assert swarm.api("GET", "/services") == []
        eventually(lambda: swarm.node_state(0) == "ready", what="the node to be ready")
    assert len(clusters) == 6
