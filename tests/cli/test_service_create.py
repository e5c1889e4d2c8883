"""``service create`` sends what the docker CLI sends; bodies recorded from docker 28.2.2."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.objects import node, service, task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ran
    from tests.cli.stub import Asked, Stub

BARE: dict[str, Any] = {
    "Labels": {},
    "TaskTemplate": {
        "ContainerSpec": {"Image": "nginx:latest", "Init": False, "DNSConfig": {}},
        "Resources": {"Limits": {}, "Reservations": {}},
        "Placement": {},
        "ForceUpdate": 0,
    },
    "Mode": {"Replicated": {}},
    "EndpointSpec": {"Mode": "vip"},
}
CREATE = ("service", "create", "-d", "--no-resolve-image")


@pytest.fixture(autouse=True)
def answers(stub: Stub) -> None:
    stub.answers["POST /services/create"] = (201, {"ID": "s" * 25, "Warnings": None})
    for name in ("n1", "n2"):
        stub.answers[f"GET /networks/{name}"] = {"Name": name, "Id": f"id-{name}"}
    for kind in ("secret", "config"):
        listed = [{"ID": f"{kind}{n}", "Spec": {"Name": f"{kind[0]}{n}"}} for n in "123"]
        stub.answers[f"GET /{kind}s"] = listed


def merged(base: Any, change: Any) -> Any:
    """``base`` with what differs; None takes a key out."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    found = {key: merged(base.get(key), value) for key, value in change.items()}
    return {key: value for key, value in {**base, **found}.items() if value is not None}


def container(**fields: Any) -> dict[str, Any]:
    return {"TaskTemplate": {"ContainerSpec": fields}}


def endpoint(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"EndpointSpec": {"Mode": "vip", "Ports": list(ports)}}


def port(target: int, published: int = 0, protocol: str = "tcp", mode: str = "ingress") -> Any:
    number = {"PublishedPort": published} if published else {}
    return {"Protocol": protocol, "TargetPort": target, **number, "PublishMode": mode}


ROLLING = {
    "Parallelism": 1,
    "FailureAction": "pause",
    "Monitor": 5_000_000_000,
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        ("nginx", {}),
        ("library/nginx", {}),
        ("nginx:1 sh -c x", container(Image="nginx:1", Args=["sh", "-c", "x"])),
        ("nginx a -- b", container(Args=["a", "--", "b"])),
        ("nginx -- a", container(Args=["a"])),
        ("--name w --label a=1 --label b nginx", {"Name": "w", "Labels": {"a": "1", "b": ""}}),
        ("--replicas 3 nginx", {"Mode": {"Replicated": {"Replicas": 3}}}),
        ("--replicas 0 nginx", {"Mode": {"Replicated": {"Replicas": 0}}}),
        ("--mode global nginx", {"Mode": {"Replicated": None, "Global": {}}}),
        ("--mode global-job nginx", {"Mode": {"Replicated": None, "GlobalJob": {}}}),
        (
            "--mode replicated-job --replicas 3 nginx",
            {
                "Mode": {
                    "Replicated": None,
                    "ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3},
                }
            },
        ),
        (
            "--mode replicated-job --replicas 3 --max-concurrent 2 nginx",
            {
                "Mode": {
                    "Replicated": None,
                    "ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 3},
                }
            },
        ),
        ("-p 8080:80 nginx", endpoint(port(80, 8080))),
        ("-p 80/udp nginx", endpoint(port(80, 0, "udp"))),
        ("-p 8000-8001:90 nginx", endpoint(port(90, 8000), port(90, 8001))),
        ("-p 8000-8001:90-91 nginx", endpoint(port(90, 8000), port(91, 8001))),
        ("-p target=5,mode=host nginx", endpoint(port(5, mode="host"))),
        ("-p published=9,target=5,protocol=UDP nginx", endpoint(port(5, 9, "udp"))),
        ("-e A=1 -e A=2 -e B=1 -e A=3 -e UNSET nginx", container(Env=["B=1", "A=3", "UNSET"])),
        (
            "--mount type=bind,src=/a,dst=/b,ro nginx",
            container(Mounts=[{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}]),
        ),
        (
            "--mount source=v,target=/v,volume-nocopy,volume-label=a=b,volume-opt=k=v nginx",
            container(
                Mounts=[
                    {
                        "Type": "volume",
                        "Source": "v",
                        "Target": "/v",
                        "VolumeOptions": {
                            "NoCopy": True,
                            "Labels": {"a": "b"},
                            "DriverConfig": {"Options": {"k": "v"}},
                        },
                    }
                ]
            ),
        ),
        (
            "--mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770 nginx",
            container(
                Mounts=[
                    {
                        "Type": "tmpfs",
                        "Target": "/t",
                        "TmpfsOptions": {"SizeBytes": 1048576, "Mode": 1016},
                    }
                ]
            ),
        ),
        (
            "--network n2 --network name=n1,alias=A1,driver-opt=k=v nginx",
            {
                "TaskTemplate": {
                    "Networks": [
                        {"Target": "id-n1", "Aliases": ["a1"], "DriverOpts": {"k": "v"}},
                        {"Target": "id-n2"},
                    ]
                }
            },
        ),
        (
            "--secret s1 --secret source=s2,target=/x,uid=5,mode=0400 nginx",
            container(
                Secrets=[
                    {
                        "File": {"Name": "s1", "UID": "0", "GID": "0", "Mode": 292},
                        "SecretID": "secret1",
                        "SecretName": "s1",
                    },
                    {
                        "File": {"Name": "/x", "UID": "5", "GID": "0", "Mode": 256},
                        "SecretID": "secret2",
                        "SecretName": "s2",
                    },
                ]
            ),
        ),
        (
            "--credential-spec config://c1 nginx",
            container(
                Privileges={
                    "CredentialSpec": {"Config": "config1", "File": "", "Registry": ""},
                    "SELinuxContext": None,
                    "NoNewPrivileges": False,
                },
                Configs=[{"Runtime": {}, "ConfigID": "config1", "ConfigName": "c1"}],
            ),
        ),
        (
            "--update-delay 10s --rollback-parallelism 2 nginx",
            {
                "UpdateConfig": {**ROLLING, "Delay": 10_000_000_000},
                "RollbackConfig": {**ROLLING, "Parallelism": 2},
            },
        ),
        (
            "--restart-max-attempts 3 --restart-window 5s nginx",
            {
                "TaskTemplate": {
                    "RestartPolicy": {
                        "Condition": "any",
                        "MaxAttempts": 3,
                        "Window": 5_000_000_000,
                    }
                }
            },
        ),
        (
            "--health-cmd true --health-interval 5s --health-retries 2 nginx",
            container(
                Healthcheck={
                    "Test": ["CMD-SHELL", "true"],
                    "Interval": 5_000_000_000,
                    "Retries": 2,
                }
            ),
        ),
        ("--no-healthcheck nginx", container(Healthcheck={"Test": ["NONE"]})),
        (
            (
                "--limit-cpu .5 --limit-memory 64m --limit-pids 5 --reserve-memory 32m "
                "--generic-resource gpu=2 nginx"
            ),
            {
                "TaskTemplate": {
                    "Resources": {
                        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 2**26, "Pids": 5},
                        "Reservations": {
                            "MemoryBytes": 2**25,
                            "GenericResources": [
                                {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}
                            ],
                        },
                    }
                }
            },
        ),
        (
            (
                "--constraint node.role==worker --placement-pref spread=node.labels.x "
                "--replicas-max-per-node 2 nginx"
            ),
            {
                "TaskTemplate": {
                    "Placement": {
                        "Constraints": ["node.role==worker"],
                        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.x"}}],
                        "MaxReplicas": 2,
                    }
                }
            },
        ),
        (
            "--cap-add net_admin --cap-drop ALL --sysctl a=1 --ulimit nofile=1:2 nginx",
            container(
                CapabilityAdd=["CAP_NET_ADMIN"],
                CapabilityDrop=["ALL"],
                Sysctls={"a": "1"},
                Ulimits=[{"Name": "nofile", "Hard": 2, "Soft": 1}],
            ),
        ),
        (
            "--host a:1.2.3.4 --host b:::1 --dns 8.8.8.8 --dns-search x.y --dns-option z nginx",
            container(
                Hosts=["1.2.3.4 a", "::1 b"],
                DNSConfig={"Nameservers": ["8.8.8.8"], "Search": ["x.y"], "Options": ["z"]},
            ),
        ),
        (
            (
                "-u u -w /w --hostname h --group g -t --read-only --init --stop-signal TERM "
                "--stop-grace-period 5s --oom-score-adj -5 --isolation default --entrypoint sh "
                "nginx"
            ),
            container(
                User="u",
                Dir="/w",
                Hostname="h",
                Groups=["g"],
                TTY=True,
                ReadOnly=True,
                Init=True,
                StopSignal="TERM",
                StopGracePeriod=5_000_000_000,
                OomScoreAdj=-5,
                Isolation="default",
                Command=["sh"],
            ),
        ),
        (
            "--log-driver json-file --log-opt a=b --endpoint-mode dnsrr nginx",
            {
                "TaskTemplate": {"LogDriver": {"Name": "json-file", "Options": {"a": "b"}}},
                "EndpointSpec": {"Mode": "dnsrr"},
            },
        ),
    ],
)
def test_flags_become_the_spec_that_docker_sends(
    stub: Stub, run: Callable[..., Ran], flags: str, change: dict[str, Any]
) -> None:
    """Every flag puts into the body what the docker CLI puts there, and nothing else."""
    ran = run(*CREATE, *flags.split())
    assert ran == (0, "s" * 25 + "\n", "")
    assert stub.posted() == merged(BARE, change)


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        ("--bogus nginx", 125, "unknown flag: --bogus"),
        ("--replica 3 nginx", 125, "unknown flag: --replica; did you mean --replicas?"),
        ("", 1, "swarmctl: 'swarmctl service create' requires at least 1 argument"),
        (
            "--mode foo nginx",
            1,
            "Unknown mode: foo, only replicated, global, replicated-job and global-job supported",
        ),
        (
            "--mode global --replicas 2 nginx",
            1,
            "replicas can only be used with replicated or replicated-job mode",
        ),
        (
            "--mode global-job --update-delay 5s nginx",
            1,
            "update and rollback configuration is not supported for jobs",
        ),
        (
            "--no-healthcheck --health-cmd x nginx",
            1,
            "--no-healthcheck conflicts with --health-* options",
        ),
        ("--secret nope nginx", 1, "secret not found: nope"),
        ("--secret s1 --secret s1 nginx", 1, "duplicate secret target for s1 not allowed"),
        ("--network nope nginx", 1, "Error response from daemon: network nope not found"),
        ("--env-file /nonexistent nginx", 1, "open /nonexistent: no such file or directory"),
        (
            "--replicas 2 host",
            1,
            (
                "image 'host' is a plain process on a host and needs to know which: swarmctl "
                "service create host COMMAND [ARG...]"
            ),
        ),
    ],
)
def test_wrong_flags_end_before_anything_is_created(
    stub: Stub, run: Callable[..., Ran], flags: str, code: int, text: str
) -> None:
    """A mistake is told in docker's words, with its exit code, and no service comes of it."""
    stub.answers["GET /networks/nope"] = (404, {"message": "network nope not found"})
    ran = run(*CREATE, *flags.split())
    assert (ran.code, ran.err.splitlines()[0]) == (code, text)
    assert "POST /services/create" not in stub.lines()


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("-p", "x", "invalid containerPort: x"),
        ("-p", "1.2.3.4:80:80", "hostip is not supported"),
        ("-p", "80/foo", "invalid proto: foo"),
        (
            "-p",
            "80-82:80-81",
            "invalid ranges specified for container and host Ports: 80-81 and 80-82",
        ),
        ("-p", "published=80", "missing mandatory field 'target'"),
        (
            "-p",
            "target=80,mode=foo",
            "invalid publish mode value (foo): must be either 'ingress' or 'host'",
        ),
        ("--mount", "type=bind", "target is required"),
        (
            "--mount",
            "type=volume,target=/x,bind-propagation=shared",
            "cannot mix 'bind-*' options with mount type 'volume'",
        ),
        ("--mount", "type=bind,target=/x,foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("--secret", "source=a,foo=b", "invalid field in secret request: foo"),
        ("--ulimit", "foo=1", "invalid ulimit type: foo"),
        ("--host", "a:b", 'invalid IP address in add-host: "b"'),
        ("--dns", "x", "IP address is not correctly formatted: x"),
        ("--label", "=a", "invalid label '=a': empty name"),
        ("--env", "=a", "invalid environment variable: =a"),
        ("--limit-memory", "x", "invalid size: 'x'"),
        (
            "--placement-pref",
            "x=y",
            "unsupported placement preference x (only spread is supported)",
        ),
    ],
)
def test_a_wrong_value_names_its_flag(
    stub: Stub, run: Callable[..., Ran], flag: str, value: str, text: str
) -> None:
    """A value that cannot be read ends with 125 and docker's sentence about it."""
    ran = run(*CREATE, flag, value, "nginx")
    assert ran.code == 125
    first = ran.err.splitlines()[0]
    assert first.startswith(f'invalid argument "{value}" for "')
    assert first.endswith(text)
    assert stub.asked == []


def test_environment_files_are_read_before_the_flags(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments and blank lines are skipped, bare names take our own value, and -e wins."""
    monkeypatch.setenv("OURS", "yes")
    file = tmp_path / "env"
    file.write_text("A=1\n# no\n\nUNSET\nOURS\n  C=x y\n")
    run(*CREATE, "--env-file", str(file), "-e", "A=2", "nginx")
    found = stub.posted()["TaskTemplate"]["ContainerSpec"]["Env"]
    assert found == ["OURS=yes", "C=x y", "A=2"]


def test_an_image_is_pinned_to_the_digest_the_registry_tells(
    stub: Stub, run: Callable[..., Ran]
) -> None:
    """The digest goes into the image and the platforms into the placement."""
    digest = "sha256:" + "a" * 64
    stub.answers["GET /distribution/nginx:1.27/json"] = {
        "Descriptor": {"digest": digest},
        "Platforms": [{"architecture": "amd64", "os": "linux"}],
    }
    ran = run("service", "create", "-d", "nginx:1.27")
    assert ran.err == ""
    task_spec = stub.posted()["TaskTemplate"]
    assert task_spec["ContainerSpec"]["Image"] == f"nginx:1.27@{digest}"
    assert task_spec["Placement"] == {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]}


def test_a_registry_that_cannot_be_asked_is_a_warning(stub: Stub, run: Callable[..., Ran]) -> None:
    """Without a digest the service is created all the same, and docker's warning says so."""
    ran = run("service", "create", "-d", "nginx")
    assert ran.code == 0
    assert ran.err.startswith("image nginx:latest could not be accessed on a registry to record\n")
    assert stub.posted() == BARE


def test_plain_processes_have_no_registry(stub: Stub, run: Callable[..., Ran]) -> None:
    """The image of the process executor is looked up nowhere."""
    ran = run("service", "create", "-d", "host", "sleep", "1")
    assert (ran.code, ran.err) == (0, "")
    assert stub.lines() == ["POST /services/create"]


def test_warnings_of_the_answer_are_shown(stub: Stub, run: Callable[..., Ran]) -> None:
    """What the daemon accepted and does not do is told on standard error."""
    answer = {"ID": "x", "Warnings": ["ports are not yet routed"]}
    stub.answers["POST /services/create"] = (201, answer)
    assert run(*CREATE, "nginx") == (0, "x\n", "WARNING: ports are not yet routed\n")


def test_a_service_asks_for_an_address_of_its_own(stub: Stub, run: Callable[..., Ran]) -> None:
    """A label carries it: of the only network unless told of which; two are one of each family."""
    stub.answers["GET /networks/net"] = stub.answers["GET /networks/b"] = {"Id": "n1"}
    assert run(*CREATE, "--network", "net", "--ip", "10.0.1.5", "nginx").code == 0
    assert stub.posted()["Labels"] == {"swarmctl.vip.net": "10.0.1.5"}
    stub.asked.clear()
    addresses = ("--ip", "net=10.0.1.5", "--ip", "net=fd00::5", "--ip", "b=10.0.2.5")
    assert run(*CREATE, "--network", "net", "--network", "b", *addresses, "nginx").code == 0
    assert stub.posted()["Labels"] == {
        "swarmctl.vip.net": "10.0.1.5,fd00::5",
        "swarmctl.vip.b": "10.0.2.5",
    }
    ran = run(*CREATE, "--network", "net", "--network", "b", "--ip", "10.0.1.5", "nginx")
    assert ran.code != 0
    assert ran.err.endswith("--ip 10.0.1.5: say of which network: NETWORK=10.0.1.5\n")


def test_registry_logins_travel_only_when_asked(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--with-registry-auth sends the login of the image's registry from docker's own config."""
    auths = {
        "https://index.docker.io/v1/": {"auth": base64.b64encode(b"me:pw").decode()},
        "reg.example:5000": {"auth": base64.b64encode(b"you:secret").decode()},
    }
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    run(*CREATE, "reg.example:5000/x")
    assert "x-registry-auth" not in stub.asked[-1].headers
    for image, user, server in (
        ("reg.example:5000/x", "you", "reg.example:5000"),
        ("nginx", "me", "https://index.docker.io/v1/"),
    ):
        run(*CREATE, "--with-registry-auth", image)
        sent = json.loads(base64.urlsafe_b64decode(stub.asked[-1].headers["x-registry-auth"]))
        assert (sent["username"], sent["serveraddress"]) == (user, server)


def test_create_waits_until_the_service_runs(stub: Stub, run: Callable[..., Ran]) -> None:
    """Without --detach the lines tell how far it is, and the command ends when it stayed so."""
    found = service(UpdateConfig={"Monitor": 1})
    looks: list[list[dict[str, Any]]] = [
        [],
        [task(1, 1, "preparing"), task(2, 2, "running")],
        [task(1, 1), task(2, 2)],
    ]

    def tasks(asked: Asked) -> list[dict[str, Any]]:
        filters = json.loads(asked.query["filters"])
        assert filters == {"service": {found["ID"]: True}, "_up-to-date": {"true": True}}
        return looks.pop(0) if len(looks) > 1 else looks[0]

    stub.answers["POST /services/create"] = (201, {"ID": found["ID"], "Warnings": None})
    stub.answers[f"GET /services/{found['ID']}"] = found
    stub.answers["GET /tasks"] = tasks
    stub.answers["GET /nodes"] = [node()]
    ran = run("service", "create", "--no-resolve-image", "nginx")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        found["ID"],
        "overall progress: 0 out of 2 tasks",
        "1/2: ",
        "2/2: ",
        "overall progress: 1 out of 2 tasks",
        "overall progress: 2 out of 2 tasks",
        "verify: Waiting 1 seconds to verify that tasks are stable...",
        f"verify: Service {found['ID']} converged",
    ]
