"""Three managers with real engines: promoted, demoted, killed and lost, while services run on."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import ApiError, eventually
from tests.e2e.lab.daemons import daemon_environment
from tests.e2e.swarm import Swarm, managers_on, swarm_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.managers import ManagerHost, Managers
    from tests.e2e.lab import Host, Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]


@pytest.fixture
def managers(lab3: Lab) -> Iterator[Managers]:
    """Three managers, each on an engine of its own."""
    with managers_on(lab3.hosts) as managers:
        yield managers


def swarm_of(lab: Lab, *, through: ManagerHost | None = None) -> Swarm:
    """The swarm of the lab's daemons, asked through one of them."""
    hosts = list(lab.hosts)
    if through is not None:
        hosts.sort(key=lambda host: host is not through.host)
    return Swarm(hosts)


def followers(managers: Managers) -> list[ManagerHost]:
    leader = managers.leader()
    return [each for each in managers.hosts if each is not leader]


def status(managers: Managers, through: ManagerHost) -> dict[str, str]:
    """MANAGER STATUS by host name, as one manager lists it; "" for a worker."""
    found = {}
    for node in managers.nodes(through):
        manages = node.get("ManagerStatus") or {}
        word = "Leader" if manages.get("Leader") else manages.get("Reachability", "")
        found[node["Description"]["Hostname"]] = word
    return found


# --- coming and going -------------------------------------------------------------------------


def test_promote_and_demote_on_the_command_line(lab3: Lab) -> None:
    """Workers become managers and workers again, the leader too, and no container notices."""
    with swarm_on(lab3.hosts) as swarm:
        service = swarm.create_spec("web", 6)
        swarm.assert_exactly(service, 6)
        before = [swarm.containers_on(index, service) for index in range(3)]
        first, second, third = lab3.hosts
        ids = [swarm.node(index)["ID"] for index in range(3)]
        said = first.swarmctl(["node", "promote", second.name, third.name])
        assert said.stdout.splitlines() == [
            f"Node {second.name} promoted to a manager in the swarm.",
            f"Node {third.name} promoted to a manager in the swarm.",
        ]

        def managing() -> int:
            listed = third.swarmctl(["node", "ls", "--format", "json"], check=False)
            rows = [json.loads(line) for line in listed.stdout.splitlines()]
            return sum(1 for row in rows if row["ManagerStatus"] in ("Leader", "Reachable"))

        eventually(lambda: managing() == 3, 30, what="three managers, as the third one says")
        said = second.swarmctl(["node", "demote", ids[0]])
        assert said.stdout == f"Manager {ids[0]} demoted in the swarm.\n"
        eventually(lambda: managing() == 2, 30, what="two managers")
        refused = first.swarmctl(["node", "ls"], check=False)
        eventually(
            lambda: first.swarmctl(["node", "ls"], check=False).returncode != 0,
            30,
            what=f"the first to be a worker; it said {refused.stdout}",
        )
        assert second.swarmctl(["service", "scale", "web=7", "--detach"]).returncode == 0
        after = [swarm.containers_on(index, service) for index in range(3)]
        assert all(old <= new for old, new in zip(before, after, strict=True))


def test_what_would_cost_the_quorum_is_refused_with_the_numbers(managers: Managers) -> None:
    """With one of three managers dead only the dead one may be demoted."""
    leader = managers.leader()
    dead, alive = followers(managers)
    dead_id, alive_id = managers.node_id(dead), managers.node_id(alive)
    dead.kill()
    eventually(
        lambda: status(managers, alive)[dead.host.name] == "unreachable",
        what="the dead manager to be unreachable",
    )
    refused = leader.host.swarmctl(["node", "demote", alive_id], check=False)
    assert refused.returncode == 1
    said = "can't remove member from the raft: this would result in a loss of quorum: "
    assert f"{said}1 of the remaining 2 managers is reachable, 2 are needed" in refused.stderr
    refused = alive.host.swarmctl(["leave"], check=False)
    assert refused.returncode == 1
    assert "2 are needed" in refused.stderr
    assert leader.host.swarmctl(["node", "rm", "--force", dead_id]).stdout == f"{dead_id}\n"
    eventually(lambda: set(status(managers, alive)) == {leader.host.name, alive.host.name})


def test_a_demoted_manager_that_was_stopped_comes_up_as_a_worker(managers: Managers) -> None:
    """What was decided while it was away holds, and its place as a worker is the same node's."""
    gone, other = followers(managers)
    gone_id = managers.node_id(gone)
    gone.terminate()
    eventually(lambda: status(managers, other)[gone.host.name] == "unreachable")
    other.host.swarmctl(["node", "demote", gone_id])
    eventually(lambda: status(managers, other)[gone.host.name] == "")
    gone.restart()

    def is_worker() -> bool:
        with gone.client() as client:
            swarm = client.call("GET", "/info")["Swarm"]
        return (
            swarm["NodeID"] == gone_id
            and not swarm["ControlAvailable"]
            and swarm["LocalNodeState"] == "active"
        )

    eventually(is_worker, 30, what="the node to be a worker under its old id")


# --- losing leaders ---------------------------------------------------------------------------


@contextmanager
def events_at(host: Host) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Follow a host's events of tasks, configs and nodes; gives what was printed so far."""
    kinds = [word for kind in ("task", "config", "node") for word in ("-f", f"type={kind}")]
    path = host.state_dir / "events"
    with path.open("wb") as out:
        process = host.popen(
            [*host.lab.swarmctl_command, "events", *kinds, "--since", "0", "--format", "json"],
            stdout=out,
            env=daemon_environment(host),
        )

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    try:
        # What was before is told first; from then on tasks are told of, too.
        eventually(lambda: any(event["Type"] == "config" for event in told()), 30, what="events")
        yield told
    finally:
        process.kill()


def test_the_leader_is_killed_while_it_creates(lab3: Lab, managers: Managers) -> None:
    """30 replicas asked for through a follower come up exactly once, whoever leads by then; the
    others tell of every state of every task meanwhile, the same in the same order."""
    leader = managers.leader()
    left = followers(managers)
    swarm = swarm_of(lab3, through=left[0])
    swarm.api("POST", "/configs/create", {"Name": "mark", "Data": "eA=="})
    with events_at(left[0].host) as first, events_at(left[1].host) as second:
        service = swarm.create_spec("web", 30)
        eventually(lambda: len(swarm.tasks(service)) >= 30, every_s=0.01)
        leader.kill()
        leader.restart()
        swarm.assert_exactly(service, 30)

        def heard(told: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
            return [event for event in told() if event["Type"] == "task"]

        def running(told: Callable[[], list[dict[str, Any]]]) -> set[str]:
            states = ((e["Actor"]["ID"], e["Actor"]["Attributes"]) for e in heard(told))
            return {task for task, told in states if told.get("state.new") == "running"}

        wanted = {task["ID"] for task in swarm.wanted(service)}
        for told in (first, second):
            eventually(lambda told=told: wanted <= running(told), 30, what="all that run")
            elected = (event["Actor"]["Attributes"].get("leader.new") for event in told())
            assert "true" in elected
        common = min(len(heard(first)), len(heard(second)))
        assert heard(first)[:common] == heard(second)[:common]
    swarm.close()


def test_a_restarted_leader_makes_no_node_down(lab3: Lab, managers: Managers) -> None:
    """A leader that stops hands over; during a minute's worth of restarts nobody is seen down."""
    leader = managers.leader()
    through = followers(managers)[0]
    swarm = swarm_of(lab3, through=through)
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    tasks = {task["ID"] for task in swarm.wanted(service)}
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            try:
                seen.update(node["Status"]["State"] for node in managers.nodes(through))
            except (ApiError, OSError):
                continue
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        leader.terminate()
        leader.restart()
        managers.wait_whole()
        time.sleep(6.5)  # three periods of silence would show by then
    finally:
        over.set()
        watcher.join()
    assert "down" not in seen, seen
    assert {task["ID"] for task in swarm.wanted(service)} == tasks
    swarm.close()


def test_the_leaders_host_is_cut_off(
    lab3: Lab, managers: Managers, record_property: pytest.RecordProperty
) -> None:
    """Another manager leads, its tasks run elsewhere; when it is back it follows, they stop."""
    leader = managers.leader()
    through = followers(managers)[0]
    swarm = swarm_of(lab3, through=through)
    service = swarm.create_spec("web", 6)
    swarm.assert_exactly(service, 6)
    index = swarm.hosts.index(leader.host)
    lost = managers.node_id(leader)
    started = time.monotonic()
    leader.host.cut()
    swarm.wait_running(service, 6, not_node=lost)
    took = time.monotonic() - started
    record_property("elsewhere_after_s", took)
    assert took < 12, f"elsewhere after {took:.2f} s"
    leader.host.heal()
    managers.wait_whole()
    eventually(lambda: not swarm.containers_on(index, service), what="stale tasks to stop")
    swarm.assert_exactly(service, 6)
    swarm.close()


def test_two_of_three_are_lost_and_the_third_begins_anew(lab3: Lab, managers: Managers) -> None:
    """Without a majority writes are refused in words; by force one goes on with everything."""
    survivor = followers(managers)[0]
    swarm = swarm_of(lab3, through=survivor)
    service = swarm.create_spec("web", 3)
    swarm.assert_exactly(service, 3)
    others = [each for each in managers.hosts if each is not survivor]
    for each in others:
        each.kill()
    with pytest.raises(ApiError, match="does not have a leader"):
        swarm.create_spec("more", 1)
    made = survivor.host.swarmctl(["init", "--force-new-cluster"])
    assert "is now a manager" in made.stdout
    swarm.create_spec("more", 1)
    for each in others:
        each.restart()
    managers.wait_whole()
    swarm.assert_exactly(service, 3)
    swarm.close()


# --- the front door ---------------------------------------------------------------------------


def test_a_follower_serves_the_stock_client(lab3: Lab, managers: Managers) -> None:
    """docker creates, lists and reads the output of a service through a manager that follows."""
    follower = followers(managers)[0]
    host, socket = follower.host, f"unix://{follower.socket}"

    def docker(*words: str) -> Any:
        return host.run(["docker", "-H", socket, *words])

    docker(
        "service", "create", "--detach", "--name", "hello", "--restart-condition", "none",
        "alpine:latest", "echo", "said once",
    )  # fmt: skip
    eventually(lambda: "said once" in docker("service", "logs", "--raw", "hello").stdout)
    assert "hello" in docker("service", "ls", "--format", "{{.Name}}").stdout
    names = docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").stdout.split("\n")
    assert sorted(names[:-1]) == sorted(
        f"{each.host.name} {'Leader' if each is managers.leader() else 'Reachable'}"
        for each in managers.hosts
    )
    docker("service", "rm", "hello")
