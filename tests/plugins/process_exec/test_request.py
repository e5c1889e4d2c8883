"""From an assignment to a request: every field is honoured, bookkeeping, or refused by name."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from swarmctl.plugins import ExecutorError, NodeIdentity
from swarmctl.plugins.model import (
    SECOND,
    AppArmorOpts,
    AttachedNetwork,
    AttachedNetworkSpec,
    ContainerSpec,
    CredentialSpec,
    DNSConfig,
    Driver,
    HealthConfig,
    Mount,
    NetworkAttachment,
    PortConfig,
    Privileges,
    SeccompOpts,
    SecretFile,
    SELinuxContext,
    TaskSpec,
    Ulimit,
)
from swarmctl.plugins.process_exec import health, request
from swarmctl.plugins.process_exec.accounts import Account
from swarmctl.plugins.process_exec.health import Health, HealthCheck
from swarmctl.plugins.process_exec.refuse import TABLE, objections
from swarmctl.plugins.testing import simple_assignment

if TYPE_CHECKING:
    from swarmctl.plugins.model import TaskAssignment

IDENTITY = NodeIdentity(cluster_id="c", node_id="n", hostname="h", state_dir="/s")

# Fields that a task gets, and fields that say nothing to a process; all others are in TABLE.
HONOURED = {
    *("Env", "User", "Groups", "StopSignal", "StopGracePeriod", "Healthcheck", "Ulimits"),
    *("OomScoreAdj", "Secrets", "Init", "Args"),
}
BOOKKEEPING = {"Labels"}
HONOURED_OF_TASK = {"ContainerSpec", "Resources", "LogDriver"}
BOOKKEEPING_OF_TASK = {"RestartPolicy", "Placement", "ForceUpdate"}


def assigned(fields: dict[str, Any] | None = None, **others: Any) -> TaskAssignment:
    spec = ContainerSpec(**{"Image": "host", "Command": ("true",), **(fields or {})})
    made = simple_assignment("t1", spec, IDENTITY)
    return msgspec.structs.replace(made, **others)


def with_task_spec(**fields: Any) -> TaskAssignment:
    made = assigned()
    spec = msgspec.structs.replace(made.task.Spec, **fields)
    return msgspec.structs.replace(made, task=msgspec.structs.replace(made.task, Spec=spec))


def test_every_field_has_its_place() -> None:
    """Every field of ContainerSpec and TaskSpec is honoured, bookkeeping, or in the table."""
    refused = {row.field.split(".")[1] for row in TABLE if row.field.startswith("ContainerSpec.")}
    known = HONOURED | BOOKKEEPING | refused
    assert set(ContainerSpec.__struct_fields__) == known
    refused = {row.field.split(".")[1] for row in TABLE if row.field.startswith("TaskTemplate.")}
    assert set(TaskSpec.__struct_fields__) == HONOURED_OF_TASK | BOOKKEEPING_OF_TASK | refused


def test_plain_task_is_fine() -> None:
    """A task that asks for what a process has is not refused."""
    plain = {
        "Labels": {"a": "b"},
        "Init": True,
        "Isolation": "default",
        "Privileges": Privileges(
            SELinuxContext=SELinuxContext(Disable=True),
            Seccomp=SeccompOpts(Mode="unconfined"),
            AppArmor=AppArmorOpts(Mode="disabled"),
        ),
        "DNSConfig": DNSConfig(),
    }
    assert objections(assigned(plain)) == []
    host = AttachedNetwork(ID="x1", Spec=AttachedNetworkSpec(Name="host"))
    made = with_task_spec()
    attached = msgspec.structs.replace(
        made.task, NetworksAttachments=(NetworkAttachment(Network=host),)
    )
    assert objections(msgspec.structs.replace(made, task=attached)) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Image", "nginx"),
        ("Image", "host@sha256:" + "0" * 64),
        ("Image", "host:1.2"),
        ("Command", ()),
        ("Dir", "relative"),
        ("Hostname", "h"),
        ("TTY", True),
        ("OpenStdin", True),
        ("ReadOnly", True),
        ("Mounts", (Mount(Type="bind", Source="/a", Target="/b"),)),
        ("Hosts", ("1.2.3.4 a",)),
        ("DNSConfig", DNSConfig(Search=("x",))),
        ("Isolation", "hyperv"),
        ("Sysctls", {"net.core.somaxconn": "1"}),
        ("CapabilityAdd", ("CAP_NET_ADMIN",)),
        ("CapabilityDrop", ("ALL",)),
        ("Privileges", Privileges(CredentialSpec=CredentialSpec(File="x"))),
        ("Privileges", Privileges(SELinuxContext=SELinuxContext(Level="s0"))),
        ("Privileges", Privileges(Seccomp=SeccompOpts(Mode="default"))),
        ("Privileges", Privileges(AppArmor=AppArmorOpts(Mode="default"))),
    ],
)
def test_refused_fields(field: str, value: object) -> None:
    """What a process cannot have is refused, and the text names the field."""
    with pytest.raises(ExecutorError, match=rf"cannot run this task: ContainerSpec\.{field}"):
        request.check(assigned({field: value}))


def test_a_port_cannot_be_bound_for_a_process() -> None:
    """A label that binds a host-mode port is refused; one of the routing mesh is not its matter."""
    labels = {"swarmctl.publish.8080.ip": "10.0.0.1"}
    port = PortConfig(TargetPort=80, PublishedPort=8080, PublishMode="host")
    with pytest.raises(ExecutorError, match="a label cannot bind its host-mode port"):
        request.check(assigned(ports=(port,), service_labels=labels))
    mesh = msgspec.structs.replace(port, PublishMode="ingress")
    request.check(assigned(ports=(mesh,), service_labels=labels))


def test_all_objections_at_once() -> None:
    """One refusal names all that is wrong."""
    with pytest.raises(ExecutorError, match=r"ContainerSpec\.TTY.*ContainerSpec\.ReadOnly"):
        request.check(assigned({"TTY": True, "ReadOnly": True}))


@pytest.mark.parametrize(
    "driver",
    [
        Driver(Name="syslog"),
        Driver(Name="none"),
        Driver(Name="json-file", Options={"tag": "x"}),
        Driver(Name="json-file", Options={"max-size": "huge"}),
        Driver(Name="local", Options={"max-file": "0"}),
    ],
)
def test_refused_log_drivers(driver: Driver) -> None:
    """Log drivers and options that are not ours are refused, the cluster's default as well."""
    for made in (with_task_spec(LogDriver=driver), assigned(log_driver=driver)):
        with pytest.raises(ExecutorError, match="LogDriver"):
            request.check(made)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"StopSignal": "SIGNOPE"}, 'StopSignal "SIGNOPE": no such signal'),
        ({"Env": ("=x",)}, "Env: an entry is no NAME=value"),
        ({"Ulimits": (Ulimit(Name="nope", Soft=1, Hard=1),)}, '"nope": no such limit'),
        ({"Ulimits": (Ulimit(Name="core", Soft=2, Hard=1),)}, "soft is above hard"),
        ({"Ulimits": (Ulimit(Name="core", Soft=-1, Hard=1),)}, "soft is above hard"),
        ({"Healthcheck": HealthConfig(Test=("WHAT",))}, "Healthcheck.Test: must be"),
        ({"Healthcheck": HealthConfig(Test=("CMD-SHELL", "a", "b"))}, "Healthcheck.Test: must be"),
        ({"Healthcheck": HealthConfig(Test=("CMD", "a"), Interval=5)}, "Interval: must be 0"),
        ({"Healthcheck": HealthConfig(Test=("CMD", "a"), Retries=-1)}, "not be negative"),
    ],
)
def test_bad_values(fields: dict[str, Any], text: str) -> None:
    """A value that cannot be used is refused before anything is made."""
    with pytest.raises(ExecutorError, match=text):
        request.check(assigned(fields))


def test_errors_hold_no_values_of_variables() -> None:
    """An environment that cannot be used is refused without showing what it holds."""
    with pytest.raises(ExecutorError) as caught:
        request.check(assigned({"Env": ("A=top-secret\0x",)}))
    assert "top-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("key", "key"),
        ("sub/key", "sub/key"),
        ("/run/secrets/key", "key"),
        ("/etc/app/x.conf", "etc/app/x.conf"),
    ],
)
def test_secret_targets(target: str, path: str) -> None:
    """Relative targets are paths in the task's directory, absolute ones keep their path below."""
    made = assigned(secrets=(SecretFile(id="1", target=target, data=b"x"),))
    spec = request.start_spec(made, Account(), "n")
    assert [file["path"] for file in spec["secrets"]] == [path]


@pytest.mark.parametrize("targets", [("../x",), ("a/../../x",), ("",), ("/",), ("a", "/a")])
def test_bad_secret_targets(targets: tuple[str, ...]) -> None:
    """A target that would leave the directory, or is taken, is refused."""
    files = tuple(SecretFile(id="1", target=target) for target in targets)
    with pytest.raises(ExecutorError, match="target"):
        request.check(assigned(secrets=files))


@pytest.mark.parametrize("owner", ["root", "-1", "", str(2**32 - 1), str(2**32)])
def test_bad_owners(owner: str) -> None:
    """A file can belong to a number that a user can have, and to nothing else."""
    for files in (
        (SecretFile(id="1", target="a", uid=owner),),
        (SecretFile(id="1", target="a", gid=owner),),
    ):
        with pytest.raises(ExecutorError, match="must be numbers below 4294967295"):
            request.check(assigned(configs=files))


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 15), ("SIGINT", 2), ("int", 2), ("9", 9), ("RTMIN", int(signal.SIGRTMIN))],
)
def test_stop_signals(text: str, number: int) -> None:
    """Stop signals are taken by name, with or without SIG, and by number."""
    assert request.stop(ContainerSpec(StopSignal=text)) == (number, 10.0)


def test_grace() -> None:
    """A grace of zero is zero; none at all is Docker's ten seconds."""
    assert request.stop(ContainerSpec(StopGracePeriod=0)).grace_s == 0
    assert request.stop(ContainerSpec(StopGracePeriod=SECOND // 2)).grace_s == 0.5


def test_log_sizes() -> None:
    """Log sizes are read as Docker reads them."""
    driver = Driver(Name="json-file", Options={"max-size": "2m", "max-file": "5"})
    spec = request.start_spec(assigned(log_driver=driver), Account(), "n")
    assert spec["log"] == {"max_bytes": 2 * 1024 * 1024, "max_files": 5}


CHECK = HealthCheck(("true",), 30.0, 30.0, 60.0, 5.0, 3)


def test_health_defaults() -> None:
    """Durations of zero are the engine's defaults; no test is no check."""
    config = HealthConfig(Test=("CMD-SHELL", "curl -f x"))
    found = health.health_check(config)
    assert found == HealthCheck(("/bin/sh", "-c", "curl -f x"), 30.0, 30.0, 0.0, 5.0, 3)
    for none in (None, HealthConfig(), HealthConfig(Test=("NONE",))):
        assert health.health_check(none) is None


def test_health_start_period() -> None:
    """Failures during the start period do not count, and a success ends it."""
    state = Health()
    for age in (1.0, 30.0, 59.0):
        assert CHECK.pause_s(state, age) == 5.0
        state = CHECK.judge(state, age, passed=False)
        assert state == Health()
    state = CHECK.judge(state, 59.5, passed=True)
    assert state.healthy is True
    assert CHECK.pause_s(state, 59.6) == 30.0
    for failures in (1, 2):
        state = CHECK.judge(state, 59.7, passed=False)
        assert (state.healthy, state.failures) == (True, failures)
    assert CHECK.judge(state, 59.8, passed=False).healthy is False


def test_health_forgives() -> None:
    """Only failures in a row make a task unhealthy."""
    state = Health(started=True)
    for passed in (False, False, True, False, False):
        state = CHECK.judge(state, 100.0, passed=passed)
    assert state == Health(healthy=True, failures=2, started=True)
