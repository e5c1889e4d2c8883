"""``service update`` and ``scale`` change what their flags name, and nothing else."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.objects import service

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub


def present() -> dict[str, Any]:
    """A service that has something of everything, and a field that nobody here knows."""
    found = service(
        Labels={"a": "b"},
        Mode={"Replicated": {"Replicas": 2}},
        UpdateConfig={"Parallelism": 2, "Delay": 4, "FailureAction": "continue"},
        EndpointSpec={
            "Mode": "vip",
            "Ports": [
                {
                    "Protocol": "tcp",
                    "TargetPort": 80,
                    "PublishedPort": published,
                    "PublishMode": "ingress",
                }
                for published in (8080, 8090)
            ],
        },
        NewField={"Of": "a newer daemon"},
    )
    task_spec = found["Spec"]["TaskTemplate"]
    task_spec["ContainerSpec"] = {
        "Image": "nginx:1.27",
        "Env": ["A=1", "B=2"],
        "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/x"}],
        "Hosts": ["10.0.0.1 h1"],
        "Secrets": [{"File": {"Name": "s1"}, "SecretID": "secret1", "SecretName": "s1"}],
        "CapabilityAdd": ["CAP_NET_ADMIN"],
        "Healthcheck": {"Test": ["CMD", "a"], "Interval": 5},
        "Groups": ["z", "h"],
        "User": "u",
    }
    task_spec["Resources"] = {"Limits": {"NanoCPUs": 1, "MemoryBytes": 8}, "Reservations": {}}
    task_spec["Placement"] = {"Constraints": ["node.role==manager"]}
    task_spec["Networks"] = [{"Target": "id-n1"}]
    return found


@pytest.fixture(autouse=True)
def answers(stub: Stub) -> None:
    found = present()
    stub.answers["GET /services/web"] = lambda _asked: copy.deepcopy(found)
    stub.answers[f"POST /services/{found['ID']}/update"] = {"Warnings": None}
    for name in ("n1", "n2"):
        stub.answers[f"GET /networks/{name}"] = {"Name": name, "Id": f"id-{name}"}
    for kind in ("secret", "config"):
        listed = [{"ID": f"{kind}{n}", "Spec": {"Name": f"{kind[0]}{n}"}} for n in "123"]
        stub.answers[f"GET /{kind}s"] = listed


def file_of(name: str, number: str, **file: Any) -> dict[str, Any]:
    return {
        "File": {"Name": name, "UID": "0", "GID": "0", "Mode": 292, **file},
        "SecretID": f"secret{number}",
        "SecretName": f"s{number}",
    }


C = "TaskTemplate.ContainerSpec."
T = "TaskTemplate."


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        ("--env-add C=3 --env-add A=9 --env-rm B", C + "Env", ["A=9", "C=3"]),
        ("--label-add z=1 --label-rm a", "Labels", {"z": "1"}),
        ("--label-add a=2 --label-rm a", "Labels", {"a": "2"}),
        ("--container-label-add q=1", C + "Labels", {"q": "1"}),
        ("--mount-rm /x", C + "Mounts", None),
        (
            "--mount-add source=v,target=/x",
            C + "Mounts",
            [{"Type": "volume", "Source": "v", "Target": "/x"}],
        ),
        ("--host-rm h1", C + "Hosts", None),
        ("--host-rm h1:9.9.9.9", C + "Hosts", ["10.0.0.1 h1"]),
        ("--host-add b:1.1.1.1", C + "Hosts", ["10.0.0.1 h1", "1.1.1.1 b"]),
        ("--secret-rm s1 --secret-add s2", C + "Secrets", [file_of("s2", "2")]),
        ("--secret-rm s1", C + "Secrets", None),
        ("--cap-drop NET_ADMIN", C + "CapabilityAdd", None),
        ("--cap-add kill", C + "CapabilityAdd", ["CAP_KILL", "CAP_NET_ADMIN"]),
        ("--cap-add RESET --cap-add kill", C + "CapabilityAdd", ["CAP_KILL"]),
        ("--cap-add ALL", C + "CapabilityAdd", ["ALL"]),
        ("--group-add g --group-rm h", C + "Groups", ["g", "z"]),
        ("--user=", C + "User", None),
        ("--args=", C + "Args", None),
        ("--args=a\tb", C + "Args", ["a", "b"]),
        ("--image=alpine --no-resolve-image", C + "Image", "alpine:latest"),
        ("--no-healthcheck", C + "Healthcheck", {"Test": ["NONE"]}),
        (
            "--health-retries 3",
            C + "Healthcheck",
            {"Test": ["CMD", "a"], "Interval": 5, "Retries": 3},
        ),
        ("--tty=false", C + "TTY", None),
        ("--init=false", C + "Init", False),
        ("--limit-memory 16m", T + "Resources.Limits", {"NanoCPUs": 1, "MemoryBytes": 2**24}),
        ("--limit-cpu 0", T + "Resources.Limits", {"MemoryBytes": 8}),
        (
            "--constraint-rm node.role==manager --constraint-add b==1 --constraint-add a==1",
            T + "Placement.Constraints",
            ["a==1", "b==1"],
        ),
        ("--replicas-max-per-node 3", T + "Placement.MaxReplicas", 3),
        ("--network-add n2", T + "Networks", [{"Target": "id-n1"}, {"Target": "id-n2"}]),
        ("--network-rm n1", T + "Networks", None),
        ("--force", T + "ForceUpdate", 1),
        ("--restart-condition none", T + "RestartPolicy", {"Condition": "none", "MaxAttempts": 0}),
        ("--replicas 5", "Mode", {"Replicated": {"Replicas": 5}}),
        (
            "--update-order start-first",
            "UpdateConfig",
            {"Parallelism": 2, "Delay": 4, "FailureAction": "continue", "Order": "start-first"},
        ),
        ("--endpoint-mode DNSRR --publish-rm 80", "EndpointSpec", {"Mode": "dnsrr"}),
        (
            "--publish-rm 8090:80",
            "EndpointSpec.Ports",
            [
                {
                    "Protocol": "tcp",
                    "TargetPort": 80,
                    "PublishedPort": 8080,
                    "PublishMode": "ingress",
                }
            ],
        ),
        (
            "--publish-rm 80 --publish-add 91:80",
            "EndpointSpec.Ports",
            [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 91, "PublishMode": "ingress"}],
        ),
    ],
)
def test_a_flag_changes_its_field_and_no_other(
    stub: Stub, run: Callable[..., Ran], flags: str, path: str, value: Any
) -> None:
    """The spec goes back as it came, unknown fields too, but for what the flag names."""
    ran = run("service", "update", "-d", *flags.split(" "), "web")
    assert (ran.code, ran.out, ran.err) == (0, "web\n", "")
    expected = present()["Spec"]
    holder = expected
    *parents, last = path.split(".")
    for name in parents:
        holder = holder[name]
    if value is None:
        holder.pop(last, None)
    else:
        holder[last] = value
    assert stub.posted() == expected
    assert stub.asked[-1].query == {"version": "7", "registryAuthFrom": "spec"}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--rollback --force", "other flags may not be combined with --rollback"),
        (
            "--no-healthcheck --health-cmd x",
            "--no-healthcheck conflicts with --health-* options",
        ),
        ("--generic-resource-rm gpu", "could not find generic-resource `gpu` to remove it"),
        ("--network-add n1", "service is already attached to network n1"),
        ("--secret-add nope", "secret not found: nope"),
        (
            "--mount-add source=v,target=/y --mount-add source=w,target=/y",
            "duplicate mount target: /y",
        ),
        ("--max-concurrent 3", "max-concurrent can only be used with replicated-job mode"),
    ],
)
def test_what_does_not_go_together_changes_nothing(
    stub: Stub, run: Callable[..., Ran], flags: str, text: str
) -> None:
    """A contradiction is told in docker's words before anything is sent."""
    assert run("service", "update", "-d", *flags.split(), "web") == (1, "", f"{text}\n")
    assert not [line for line in stub.lines() if line.startswith("POST")]


def test_a_rollback_sends_the_present_spec_back(stub: Stub, run: Callable[..., Ran]) -> None:
    """--rollback asks the daemon to swap the specs; the body is the one that was read."""
    assert run("service", "update", "-d", "--rollback", "web").code == 0
    assert stub.asked[-1].query["rollback"] == "previous"
    assert stub.posted() == present()["Spec"]


@pytest.mark.parametrize(
    ("flags", "asked"), [((), "previous"), (("--to", "3"), "3"), (("--to=12", "-q"), "12")]
)
def test_service_rollback_asks_for_an_older_spec(
    stub: Stub, run: Callable[..., Ran], flags: tuple[str, ...], asked: str
) -> None:
    """As docker's: the present spec is the body; --to names a version of the history."""
    assert run("service", "rollback", "-d", *flags, "web").out == "web\n"
    assert stub.asked[-1].query["rollback"] == asked
    assert stub.posted() == present()["Spec"]


def test_there_is_no_version_0(stub: Stub, run: Callable[..., Ran]) -> None:
    """A number that cannot be one is refused before anything is sent."""
    ran = run("service", "rollback", "--to", "0", "web")
    assert (ran.code, ran.err) == (
        1,
        "invalid version 0: versions count from 1, see 'service history'\n",
    )


def test_history_lists_the_versions(stub: Stub, run: Callable[..., Ran]) -> None:
    """The newest first, with a star; what changed is cut unless --no-trunc is given."""
    spec = present()["Spec"]
    changes = [f"env A{at}" for at in range(40)]
    stub.answers["GET /services/web/history"] = [
        {
            "Number": 2,
            "CreatedAt": "2020-01-02T00:00:00Z",
            "How": "updated",
            "Current": True,
            "Changes": changes,
            "Spec": spec,
        },
        {
            "Number": 1,
            "CreatedAt": "2020-01-01T00:00:00Z",
            "How": "created",
            "Changes": [],
            "Spec": spec,
        },
    ]
    ran = run("service", "history", "web")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["VERSION", "CREATED", "HOW", "IMAGE", "CHANGES"]
    assert lines[1].startswith("2 * ")
    assert lines[1].endswith("...")
    assert lines[2].startswith("1 ")
    whole = run("service", "history", "--no-trunc", "--format", "{{.Changes}}", "web")
    assert whole.out.splitlines()[0] == "; ".join(changes)


def test_scaling_goes_on_after_a_service_that_fails(stub: Stub, run: Callable[..., Ran]) -> None:
    """Each service is scaled by itself; errors are told at the end and give exit code 1."""
    ran = run("service", "scale", "-d", "web=x", "nope=1", "web=5")
    assert ran.code == 1
    assert ran.out == "web scaled to 5\n"
    assert ran.err.splitlines() == [
        'web: invalid replicas value x: strconv.ParseUint: parsing "x": invalid syntax',
        "nope: Error response from daemon: service nope not found",
    ]
    assert stub.posted()["Mode"] == {"Replicated": {"Replicas": 5}}


def test_a_specifier_without_a_number_scales_nothing(stub: Stub, run: Callable[..., Ran]) -> None:
    """A word that is no SERVICE=REPLICAS ends the command before the first request."""
    ran = run("service", "scale", "web=3", "web")
    assert (ran.code, stub.asked) == (1, [])
    assert "invalid scale specifier 'web'" in ran.err
