"""Tables, ``--format``, ``-q`` and filters are the docker CLI's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from swarmctl.cli.wording import age_of, bytes_size, human_duration, plain_image
from tests.cli.objects import INFO, ago, node, service, task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub


def counted(found: dict[str, Any], running: int, wanted: int, done: int = 0) -> dict[str, Any]:
    status = {"RunningTasks": running, "DesiredTasks": wanted, "CompletedTasks": done}
    return {**found, "ServiceStatus": status}


@pytest.fixture
def swarm(stub: Stub) -> Stub:
    """A daemon with services, tasks and nodes."""
    web = counted(service("web10"), 1, 2)
    ports = [(8080, 80, "tcp"), (8081, 81, "tcp"), (9000, 90, "udp")]
    web["Endpoint"]["Ports"] = [
        {"Protocol": kind, "TargetPort": t, "PublishedPort": p, "PublishMode": "ingress"}
        for p, t, kind in ports
    ]
    most = counted(service("web2"), 1, 1)
    most["Spec"]["TaskTemplate"]["Placement"] = {"MaxReplicas": 3}
    job = {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}
    stub.answers["GET /services"] = [web, most, counted(service("job", Mode=job), 0, 2, 3)]
    stub.answers["GET /services/web"] = service()
    stub.answers[f"GET /services/{service()['ID']}"] = service()
    leader = {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}
    nodes = [
        node("node2", "host10", Status={"State": "down", "Addr": ""}),
        node("node1", "host2", ManagerStatus=leader),
    ]
    stub.answers["GET /nodes"] = nodes
    for one in nodes:
        stub.answers[f"GET /nodes/{one['ID']}"] = one
    stub.answers["GET /info"] = INFO
    stub.answers["GET /tasks"] = [
        task(1, 1),
        task(2, 1, "failed", seconds=4000, DesiredState="shutdown", error="x" * 40),
        task(3, 10, seconds=70, NodeID="node2"),
        task(4, 2, "pending", seconds=0, NodeID="", error="no suitable node"),
    ]
    return stub


def test_a_global_job_is_as_long_as_what_is_done_and_to_do(
    stub: Stub, run: Callable[..., Ran]
) -> None:
    """Completed tasks are not desired any more; together they are the job."""
    sweep = counted(service("sweep", Mode={"GlobalJob": {}}), 1, 2, 3)
    stub.answers["GET /services"] = [sweep]
    shown = run("service", "ls", "--format", "{{.Mode}}: {{.Replicas}}").out
    assert shown == "global job: 1/2 (3/5 completed)\n"


def test_services_are_listed_by_name_with_counts(swarm: Stub, run: Callable[..., Ran]) -> None:
    """The table is docker's: natural order, replicas by mode, neighbouring ports drawn together."""
    assert run("service", "ls").out.splitlines() == [
        "ID             NAME      MODE             REPLICAS               IMAGE        PORTS",
        "jobservice00   job       replicated job   0/2 (3/5 completed)    nginx:1.27   ",
        "web2service0   web2      replicated       1/1 (max 3 per node)   nginx:1.27   ",
        (
            "web10service   web10     replicated       1/2                    nginx:1.27   "
            "*:8080-8081->80-81/tcp, *:9000->90/udp"
        ),
    ]
    assert swarm.asked[-1].query == {"status": "true"}


def test_quiet_lists_ids_and_lets_nothing_be_counted(swarm: Stub, run: Callable[..., Ran]) -> None:
    """-q prints ids only, and asks for no counts."""
    assert run("service", "ls", "-q").out.split() == [
        "jobservice00",
        "web2service0",
        "web10service",
    ]
    assert swarm.asked[-1].query == {}


def test_formats(swarm: Stub, run: Callable[..., Ran]) -> None:
    """json, templates and tables of one's own work on every list."""
    rows = [json.loads(line) for line in run("service", "ls", "--format", "json").out.splitlines()]
    assert rows[1]["Name"] == "web2"
    assert list(rows[1]) == ["ID", "Image", "Mode", "Name", "Ports", "Replicas"]
    shown = run("service", "ls", "--format", "{{.Name}}:{{upper .Mode}}").out.splitlines()
    assert shown == ["job:REPLICATED JOB", "web2:REPLICATED", "web10:REPLICATED"]
    table = run("service", "ls", "--format", r"table {{.Name}}\t{{.Replicas}}").out.splitlines()
    assert table[0] == "NAME      REPLICAS"
    assert run("service", "ls", "--format", "{{json .}}").out.count("\n") == 3
    wrong = run("service", "ls", "--format", "{{.Nmae}}")
    assert (wrong.code, wrong.out) == (1, "")
    assert "the columns are ID, Image" in wrong.err


def test_filters_are_handed_to_the_daemon(swarm: Stub, run: Callable[..., Ran]) -> None:
    """Values of one key are gathered; what is no key=value is refused."""
    run("service", "ls", "-f", "name=a", "--filter", "name=b", "-f", "label=x=y")
    sent = json.loads(swarm.asked[-1].query["filters"])
    assert sent == {"name": {"a": True, "b": True}, "label": {"x=y": True}}
    ran = run("service", "ls", "-f", "bogus")
    assert ran.code == 125
    assert "bad format of filter (expected name=value)" in ran.err


def test_tasks_stand_by_slot_the_newest_first(swarm: Stub, run: Callable[..., Ran]) -> None:
    """History is indented, errors are quoted and cut, ages are in words."""
    lines = run("service", "ps", "web").out.splitlines()
    cells = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]
    assert cells[0] == [
        "ID",
        "NAME",
        "IMAGE",
        "NODE",
        "DESIRED STATE",
        "CURRENT STATE",
        "ERROR",
        "PORTS",
    ]
    assert cells[1][1:] == ["web.1", "nginx:1.27", "host2", "Running", "Running 3 minutes ago"]
    assert cells[2][1:] == [
        *("\\_ web.1", "nginx:1.27", "host2", "Shutdown", "Failed about an hour ago"),
        '"' + "x" * 29 + '…"',
    ]
    assert cells[3][1:] == [
        *("web.2", "nginx:1.27", "Running", "Pending less than a second ago"),
        '"no suitable node"',
    ]
    assert cells[4][1] == "web.10"
    looked_up = [line for line in swarm.lines() if line.startswith("GET /nodes/")]
    assert sorted(looked_up) == ["GET /nodes/node1", "GET /nodes/node2"]


@pytest.mark.parametrize(
    ("mode", "name"),
    [({"ReplicatedJob": {"TotalCompletions": 2}}, "web.0"), ({"GlobalJob": {}}, "web.node1")],
)
def test_a_jobs_first_slot_has_a_number(
    stub: Stub, run: Callable[..., Ran], mode: dict[str, Any], name: str
) -> None:
    """It is 0 and left out of answers; only where nodes are the slots do they stand there."""
    stub.answers["GET /services/web"] = service(Mode=mode)
    stub.answers[f"GET /services/{service()['ID']}"] = service(Mode=mode)
    first = task(1, 0)
    del first["Slot"]
    stub.answers["GET /tasks"] = [first]
    stub.answers["GET /nodes/node1"] = node()
    assert run("service", "ps", "--format", "{{.Name}}", "web").out == f"{name}\n"


def test_names_are_not_looked_up_when_ids_are_wanted(swarm: Stub, run: Callable[..., Ran]) -> None:
    """--no-resolve asks for no names; --no-trunc shortens nothing; -q gives whole ids."""
    ran = run("service", "ps", "--no-resolve", "--no-trunc", "web")
    assert "x" * 40 in ran.out
    assert service()["ID"] + ".1" in ran.out
    assert not [line for line in swarm.lines() if line.startswith("GET /nodes/")]
    assert run("service", "ps", "-q", "web").out.split()[0] == task(1, 1)["ID"]


def test_ps_tells_what_a_service_asks_for_in_vain(swarm: Stub, run: Callable[..., Ran]) -> None:
    """What was accepted and is not done stays visible: a warning below the table, not with -q."""
    warned = {**service(), "Warnings": ["published port 8080 is not yet routed"]}
    swarm.answers["GET /services/web"] = warned
    name = warned["Spec"]["Name"]
    assert run("service", "ps", "web").err == (
        f"WARNING: {name}: published port 8080 is not yet routed\n"
    )
    assert run("service", "ps", "-q", "web").err == ""


def test_ps_goes_on_after_a_service_that_is_not_there(swarm: Stub, run: Callable[..., Ran]) -> None:
    """The others are shown first; the missing ones are named, with exit code 1."""
    ran = run("service", "ps", "web", "nope")
    assert ran.code == 1
    assert "web.1" in ran.out
    assert ran.err == "no such service: nope\n"


def test_nodes_are_listed_with_this_one_marked(swarm: Stub, run: Callable[..., Ran]) -> None:
    """The table is docker's, in natural order of hostnames."""
    assert run("node", "ls").out.splitlines() == [
        "ID        HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION",
        "node1 *   host2      Ready     Active         Leader           28.2.2",
        "node2     host10     Down      Active                          28.2.2",
    ]


def test_node_ps_is_about_this_node_unless_told(swarm: Stub, run: Callable[..., Ran]) -> None:
    """Without an argument the daemon's own node is meant."""
    assert run("node", "ps").code == 0
    (asked,) = [asked for asked in swarm.asked if asked.path == "/tasks"]
    assert json.loads(asked.query["filters"]) == {"node": {"node1": True}}


def test_removing_goes_on_after_a_failure(stub: Stub, run: Callable[..., Ran]) -> None:
    """What can be removed is removed and named; the rest is told at the end with exit code 1."""
    stub.answers["DELETE /services/a"] = None
    stub.answers["DELETE /services/c"] = None
    ran = run("service", "rm", "a", "b", "c")
    assert (ran.code, ran.out) == (1, "a\nc\n")
    assert ran.err == "Error response from daemon: service b not found\n"
    refusal = "node n is not down and can't be removed"
    stub.answers["DELETE /nodes/n"] = lambda asked: (
        None if asked.query.get("force") == "1" else (400, {"message": refusal})
    )
    assert run("node", "rm", "n").err == f"Error response from daemon: {refusal}\n"
    assert run("node", "rm", "--force", "n") == (0, "n\n", "")


def test_a_node_is_changed_by_its_flags_alone(stub: Stub, run: Callable[..., Ran]) -> None:
    """Labels are added and removed, availability and role set; the version goes along."""
    found = node()
    found["Spec"]["Labels"] = {"old": "1", "keep": ""}
    stub.answers["GET /nodes/node1"] = found
    stub.answers["POST /nodes/node1/update"] = None
    flags = ("--label-add", "a=b", "--label-rm", "old", "--availability", "DRAIN")
    assert run("node", "update", *flags, "node1") == (0, "node1\n", "")
    assert stub.posted() == {
        "Labels": {"keep": "", "a": "b"},
        "Role": "worker",
        "Availability": "drain",
    }
    assert stub.asked[-1].query == {"version": "3"}
    ran = run("node", "update", "--label-rm", "nope", "node1")
    assert (ran.code, ran.err) == (1, "key nope doesn't exist in node's labels\n")


def test_roles_are_wished_and_told_as_docker_does(stub: Stub, run: Callable[..., Ran]) -> None:
    """Promoting and demoting posts the spec with the other role under the version that was read; a
    node that has the role already is told and left alone; the first refusal ends the command."""
    for name, role in (("m", "manager"), ("w", "worker"), ("v", "worker")):
        found = node(
            f"{name}-id", Spec={"Labels": {"a": "b"}, "Role": role, "Availability": "drain"}
        )
        stub.answers[f"GET /nodes/{name}"] = found
        stub.answers[f"POST /nodes/{name}-id/update"] = None
    assert run("node", "promote", "w", "m") == (
        0,
        "Node w promoted to a manager in the swarm.\nNode m-id is already a manager.\n",
        "",
    )
    assert stub.posted() == {"Labels": {"a": "b"}, "Role": "manager", "Availability": "drain"}
    (posted,) = [asked for asked in stub.asked if asked.method == "POST"]
    assert (posted.path, posted.query) == ("/nodes/w-id/update", {"version": "3"})
    assert run("node", "demote", "w", "m") == (
        0,
        "Node w-id is already a worker.\nManager m demoted in the swarm.\n",
        "",
    )
    refusal = "attempting to demote the last manager of the swarm"
    stub.answers["POST /nodes/m-id/update"] = (400, {"message": refusal})
    before = len(stub.asked)
    ran = run("node", "demote", "m", "v")
    assert ran == (1, "", f"Error response from daemon: {refusal}\n")
    assert stub.lines()[before:] == ["GET /nodes/m", "POST /nodes/m-id/update"]
    ran = run("node", "promote", "nope", "w")
    assert ran == (1, "", "Error response from daemon: node nope not found\n")


def test_managers_are_listed_by_how_they_stand(stub: Stub, run: Callable[..., Ran]) -> None:
    """The leader, the other managers by whether they are reached, workers by nothing."""
    stub.answers["GET /info"] = INFO
    stub.answers["GET /nodes"] = [
        node("n1", "a", ManagerStatus={"Leader": True, "Reachability": "reachable"}),
        node("n2", "b", ManagerStatus={"Reachability": "reachable"}),
        node("n3", "c", ManagerStatus={"Reachability": "unreachable"}),
        node("n4", "d"),
    ]
    shown = run("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").out
    assert shown == "a Leader\nb Reachable\nc Unreachable\nd \n"


def test_inspecting(swarm: Stub, run: Callable[..., Ran]) -> None:
    """Objects come as an indented array, by a template that knows their fields, or pretty."""
    shown = json.loads(run("service", "inspect", "web").out)
    assert shown[0]["Spec"]["Name"] == "web"
    assert swarm.asked[-1].query == {"insertDefaults": "true"}
    form = "{{.Spec.Name}}|{{.Spec.TaskTemplate.ContainerSpec.Hostname}}|{{len .Endpoint.Ports}}"
    assert run("service", "inspect", "-f", form, "web").out == "web||0\n"
    assert run("service", "inspect", "--format", "{{.Nope}}", "web").code == 1
    pretty = run("service", "inspect", "--pretty", "web").out
    assert "Name:\t\tweb\n" in pretty
    assert " Replicas:\t2\n" in pretty
    assert run("node", "inspect", "-f", "{{.Description.Hostname}}", "self").out == "host2\n"
    assert " Leader:\t\tYes" in run("node", "inspect", "--pretty", "node1").out
    ran = run("service", "inspect", "nope")
    assert ran == (1, "[]\n", "Error: no such service: nope\n")
    ran = run("service", "inspect", "--pretty", "-f", "x", "web")
    assert ran.err == "--format is incompatible with human friendly format\n"


def test_tasks_of_the_swarm(swarm: Stub, run: Callable[..., Ran]) -> None:
    """task ls leaves out what has ended unless told; task inspect shows a task whole."""
    run("task", "ls", "-q")
    sent = json.loads(swarm.asked[-1].query["filters"])
    assert sent == {"desired-state": {"ready": True, "running": True, "complete": True}}
    run("task", "ls", "--all", "-q")
    assert swarm.asked[-1].query == {}
    swarm.answers["GET /tasks/t"] = task(1, 1)
    assert json.loads(run("task", "inspect", "t").out)[0]["Slot"] == 1
    assert run("task", "inspect", "-f", "{{.Status.State}} {{.Slot}}", "t").out == "running 1\n"


def test_info_version_and_plugins(swarm: Stub, run: Callable[..., Ran]) -> None:
    """What the daemon is, told to a human and to a template."""
    told = run("info").out.splitlines()
    assert "Executor: docker (28.2.2)" in told
    assert " Is Manager: true" in told
    assert run("info", "-f", "{{.Swarm.LocalNodeState}}").out == "active\n"
    assert json.loads(run("info", "--format", "json").out)["Name"] == "host1"
    assert run("plugin", "ls").out.splitlines() == [
        "NAME      VERSION   API       KIND       STATE     WHY",
        "process   0.1.0     1         built-in   loaded    ",
        'green                                    failed    plugin "green" ' + "x" * 44 + "…",
    ]
    assert run("plugin", "ls", "-q").out == "process\ngreen\n"
    assert run("plugin", "ls", "-f", "state=failed", "--format", "{{.Why}}").out == (
        'plugin "green" ' + "x" * 44 + "…\n"
    )
    assert run("plugin", "ls", "-f", "size=3").code == 1
    hooks = run("plugin", "inspect", "process", "--format", "{{.State}} {{index .Hooks 0}}")
    assert hooks.out == "loaded swarmctl_executor\n"
    missing = run("plugin", "inspect", "process", "blue")
    assert json.loads(missing.out)[0]["Place"] == "swarmctl.plugins.process_exec"
    assert (missing.code, missing.err) == (1, "Error: no such plugin: blue\n")
    swarm.answers["GET /version"] = {"Version": "0.1.0", "ApiVersion": "1.50"}
    assert run("version", "-f", "{{.Server.ApiVersion}}").out == "1.50\n"
    assert "Server:" in run("version").out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (61 * 86400, "2 months"),
        (3 * 365 * 86400, "3 years"),
    ],
)
def test_ages_are_told_as_docker_tells_them(seconds: float, words: str) -> None:
    """Lengths of time have one part, in go-units' words."""
    assert human_duration(seconds) == words
    assert age_of(0, int(seconds * 1e9)) == f"{words.lower()} ago"


def test_sizes_and_images() -> None:
    """Sizes have four digits in powers of 1024; an image loses the digest beside its tag only."""
    assert [bytes_size(n) for n in (0, 1023, 1024, 8_000_000_000)] == [
        *("0B", "1023B", "1KiB", "7.451GiB"),
    ]
    assert plain_image("reg:5000/a:1@sha256:0") == "reg:5000/a:1"
    assert plain_image("reg:5000/a@sha256:0") == "reg:5000/a@sha256:0"
    assert ago(0) < ago(-5)
