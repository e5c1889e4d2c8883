"""One swarm of a Docker host, a Podman host and a host of processes; and a host that moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import Lab, PodmanEngine, eventually
from tests.e2e.lab.podman import podman_missing
from tests.e2e.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Engine

pytestmark = [pytest.mark.lab, pytest.mark.engine]

DOCKER, PODMAN, PROCESS = range(3)
KIND = "engine.labels.swarmctl.executor"


@pytest.fixture(scope="module")
def mixed_lab() -> Iterator[Lab]:
    """A host of each kind."""
    if reason := podman_missing():
        pytest.skip(reason)
    with Lab(3) as lab:
        lab[DOCKER].start_engine("docker")
        lab[PODMAN].start_engine("podman")
        yield lab


@pytest.fixture
def swarm(mixed_lab: Lab) -> Iterator[Swarm]:
    """The manager is the Docker host; each daemon finds its engine by itself."""
    for host in mixed_lab.hosts:
        host.start_daemon()
    swarm = Swarm(mixed_lab.hosts)
    try:
        swarm.init()
        swarm.join_all()
        yield swarm
    finally:
        swarm.close()
        mixed_lab.clean()


def kinds(swarm: Swarm) -> list[str]:
    """What each node says its executor is."""
    nodes = [swarm.node(index) for index in range(3)]
    return [node["Description"]["Engine"]["Labels"]["swarmctl.executor"] for node in nodes]


def constrained(kind: str) -> dict[str, Any]:
    return {"Placement": {"Constraints": [f"{KIND}=={kind}"]}}


def test_services_go_where_their_kind_is(swarm: Swarm) -> None:
    """Containers are spread over both engines, processes go to the third host; a constraint on the
    executor keeps a service to one engine, and excludes one."""
    assert kinds(swarm) == ["docker", "podman", "process"]
    boxed = swarm.create_spec("boxed", 4)
    plain = swarm.create_spec("plain", 2, container={"Image": "host", "Command": ["sleep", "7779"]})
    only = swarm.create_spec("only", 2, task=constrained("podman"))
    other = swarm.create_spec("other", 2, task={"Placement": {"Constraints": [f"{KIND}!=podman"]}})
    for service, replicas in ((boxed, 4), (plain, 2), (only, 2), (other, 2)):
        swarm.wait_running(service, replicas)
    assert swarm.nodes_of(swarm.running(boxed)) == [DOCKER, DOCKER, PODMAN, PODMAN]
    assert swarm.nodes_of(swarm.running(plain)) == [PROCESS, PROCESS]
    assert swarm.nodes_of(swarm.running(only)) == [PODMAN, PODMAN]
    assert swarm.nodes_of(swarm.running(other)) == [DOCKER, DOCKER]
    swarm.assert_exactly(boxed, 4)


def test_an_update_rolls_across_both_engines_and_processes(swarm: Swarm) -> None:
    """One task at a time is replaced, whoever runs it; each engine runs the new command, no old
    container is left, and the processes are updated as well."""
    rolling = {"UpdateConfig": {"Parallelism": 1, "Monitor": 200_000_000, "Order": "stop-first"}}
    boxed = swarm.create_spec("boxed", 6, **rolling)
    plain = swarm.create_spec(
        "plain", 2, container={"Image": "host", "Command": ["sleep", "7780"]}, **rolling
    )
    swarm.wait_running(boxed, 6)
    swarm.wait_running(plain, 2)
    before = {task["ID"] for service in (boxed, plain) for task in swarm.running(service)}
    for service, seconds in ((boxed, "3601"), (plain, "7781")):
        swarm.update(
            service,
            lambda spec, to=seconds: spec["TaskTemplate"]["ContainerSpec"].update(
                Command=["sleep", to]
            ),
        )

    def completed(service: str) -> bool:
        status = swarm.api("GET", f"/services/{service}").get("UpdateStatus") or {}
        return bool(status.get("State") == "completed")

    for service in (boxed, plain):
        eventually(lambda s=service: completed(s), 90, what=f"the update of {service}")
    swarm.assert_exactly(boxed, 6)
    swarm.wait_running(plain, 2)
    now = {task["ID"] for service in (boxed, plain) for task in swarm.running(service)}
    assert not now & before
    assert swarm.nodes_of(swarm.running(boxed)) == [DOCKER] * 3 + [PODMAN] * 3
    for task in swarm.running(boxed):
        engine, container = swarm.container_of(task["ID"])
        assert _command(engine, container["Id"]) == ["sleep", "3601"]
    listed = swarm.hosts[PROCESS].run(["ps", "-eo", "args"]).stdout
    assert ("sleep 7781" in listed, "sleep 7780" in listed) == (True, False)


def test_a_killed_container_of_either_engine_is_replaced(swarm: Swarm) -> None:
    """Whichever engine it was on."""
    service = swarm.create_spec("web", 2, task={"RestartPolicy": {"Delay": 0}})
    swarm.assert_exactly(service, 2)
    for index in (DOCKER, PODMAN):
        task = next(t for t in swarm.running(service) if swarm.nodes_of([t]) == [index])
        swarm.kill_container(task["ID"])
        swarm.wait_running(service, 2, not_tasks=task["ID"])
    swarm.assert_exactly(service, 2)


def _command(engine: Engine, container: str) -> list[str]:
    seen = engine.api("GET", f"/containers/{container}/json")["Config"]
    return [*(seen["Entrypoint"] or ()), *(seen["Cmd"] or ())]


def test_a_host_moves_to_the_other_engine() -> None:
    """Drained, restarted with the other executor, made active: its tasks come back under Podman,
    nothing is left on Docker, and the node is the same node."""
    if reason := podman_missing():
        pytest.skip(reason)
    with Lab(2) as lab:
        docker = lab[1].start_engine("docker")
        lab[0].start_engine("docker")
        podman = PodmanEngine(lab[1])
        podman.start()
        for host in lab.hosts:
            host.start_daemon()
        swarm = Swarm(lab.hosts)
        try:
            swarm.init()
            swarm.join_all()
            service = swarm.create_spec("web", 4)
            swarm.assert_exactly(service, 4)
            node_id = swarm.node(1)["ID"]

            swarm.update_node(1, Availability="drain")
            eventually(
                lambda: swarm.nodes_of(swarm.running(service)) == [0] * 4, 30, what="the drain"
            )
            swarm.assert_exactly(service, 4)
            eventually(lambda: not docker.containers(running=True), 20, what="Docker to be idle")
            assert lab[1].daemon is not None
            lab[1].daemon.terminate()
            lab[1].start_daemon("--executor=podman", f"--engine={podman.url}", engine=False)
            swarm.wait_ready(2)
            assert swarm.node(1)["ID"] == node_id
            labels = swarm.node(1)["Description"]["Engine"]["Labels"]
            assert labels["swarmctl.executor"] == "podman"

            swarm.update_node(1, Availability="active")
            swarm.scale(service, 8)
            swarm.wait_running(service, 8)
            assert swarm.nodes_of(swarm.running(service)) == [0] * 4 + [1] * 4
            assert len(podman.containers(running=True)) == 4
            assert not docker.containers(running=True)
        finally:
            swarm.close()
