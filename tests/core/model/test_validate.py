"""Every rule of a service spec, with its exact text (core/model/validate.py)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from swarmctl.core.errors import SwarmError, Unimplemented
from swarmctl.core.model.defaults import normalize_service_spec
from swarmctl.core.model.spec import ServiceSpec
from swarmctl.core.model.validate import check_service_spec, check_service_update

from .builders import structs
from .specs import service_spec

INVALID = "rpc error: code = InvalidArgument desc = "
CONTAINER = "TaskTemplate.ContainerSpec"
SECRET = {
    "SecretID": "id1",
    "SecretName": "s1",
    "File": {"Name": "t", "UID": "0", "GID": "0", "Mode": 292},
}
CONFIG = {"ConfigID": "id1", "ConfigName": "c1", "File": {"Name": "t"}}


def _mount(kind: str = "bind", target: str = "/x", **more: object) -> dict[str, object]:
    return {"Type": kind, "Source": "/a", "Target": target, **more}


def _port(published: int = 8080, target: int = 80, **more: object) -> dict[str, object]:
    return {"TargetPort": target, "PublishedPort": published, **more}


PLAIN_400 = [
    ({"Mode": {"Replicated": {}, "Global": {}}}, "must specify only one service mode"),
    ({"TaskTemplate": None}, "mismatched Runtime and *Spec fields"),
    ({"TaskTemplate.Runtime": "plugin"}, "mismatched Runtime and *Spec fields"),
    ({"TaskTemplate.PluginSpec": {}}, "mismatched Runtime and *Spec fields"),
    ({"TaskTemplate.Runtime": "wasm"}, "unsupported runtime"),
    ({"UpdateConfig": {"Order": "x"}}, "unrecognized update order x"),
    ({"RollbackConfig": {"Order": "x"}}, "unrecognized update order x"),
    ({"UpdateConfig": {"FailureAction": "x"}}, "unrecognized update failure action x"),
    ({"TaskTemplate.RestartPolicy": {"Condition": "x"}}, 'invalid RestartCondition: "x"'),
    ({f"{CONTAINER}.Mounts": [_mount("x")]}, 'invalid MountType: "x"'),
    ({f"{CONTAINER}.Mounts": [_mount("")]}, 'invalid MountType: ""'),
    (
        {f"{CONTAINER}.Configs": [{"ConfigID": "a", "ConfigName": "b"}]},
        "either File or Runtime should be set",
    ),
    (
        {f"{CONTAINER}.Configs": [{**CONFIG, "Runtime": {}}]},
        "either File or Runtime should be set",
    ),
    ({f"{CONTAINER}.Privileges": {"Seccomp": {"Mode": "x"}}}, 'invalid Seccomp.Mode: "x"'),
    (
        {f"{CONTAINER}.Privileges": {"Seccomp": {"Mode": "custom"}}},
        "Seccomp.Profile goes with Seccomp.Mode custom, and only with it",
    ),
    ({f"{CONTAINER}.Privileges": {"AppArmor": {"Mode": "x"}}}, 'invalid AppArmor.Mode: "x"'),
    ({"EndpointSpec": {"Mode": "x"}}, 'invalid EndpointSpec.Mode: "x"'),
    ({"EndpointSpec": {"Ports": [_port(Protocol="x")]}}, 'invalid Protocol: "x"'),
    ({"EndpointSpec": {"Ports": [_port(PublishMode="x")]}}, 'invalid PublishMode: "x"'),
]

INVALID_400 = [
    ({"Name": ""}, "meta: name must be provided"),
    ({"Name": "a.b"}, "name must be valid as a DNS name component"),
    ({"Name": "-a"}, "name must be valid as a DNS name component"),
    ({"Name": "a_"}, "name must be valid as a DNS name component"),
    ({"Name": "a\n"}, "name must be valid as a DNS name component"),
    ({"Name": "a" * 64}, "name must be 63 characters or fewer"),
    ({"Labels": {"swarmctl.qqq": ""}}, "unknown label 'swarmctl.qqq'"),
    ({f"{CONTAINER}.Image": ""}, "ContainerSpec: image reference must be provided"),
    ({f"{CONTAINER}.Image": "A b"}, 'ContainerSpec: "A b" is not a valid repository/tag'),
    (
        {f"{CONTAINER}.Mounts": [_mount(), _mount("tmpfs")]},
        "ContainerSpec: duplicate mount point: /x",
    ),
    ({f"{CONTAINER}.StopGracePeriod": -1}, "ContainerSpec: StopGracePeriod cannot be negative"),
    *(
        (
            {f"{CONTAINER}.Healthcheck": {name: bad}},
            f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms",
        )
        for name in ("Interval", "Timeout", "StartPeriod", "StartInterval")
        for bad in (999_999, -1)
    ),
    (
        {f"{CONTAINER}.Healthcheck": {"Retries": -1}},
        "ContainerSpec: Retries in HealthConfig cannot be negative",
    ),
    (
        {f"{CONTAINER}.Hostname": "{{.Task.Slut}}"},
        "ContainerSpec: expanding hostname failed: unknown placeholder '{{.Task.Slut}}'",
    ),
    (
        {f"{CONTAINER}.Env": ["A={{"]},
        "ContainerSpec: expanding env failed: a placeholder in 'A={{'",
    ),
    (
        {
            f"{CONTAINER}.Mounts": [
                _mount("volume", VolumeOptions={"DriverConfig": {"Options": {"o": "{{.X}}"}}})
            ]
        },
        "ContainerSpec: expanding mounts failed: unknown placeholder '{{.X}}'",
    ),
    (
        {"TaskTemplate.Resources": {"Limits": {"NanoCPUs": 100_000}}},
        "invalid cpu value 0.0001: Must be at least 0.001",
    ),
    (
        {"TaskTemplate.Resources": {"Reservations": {"NanoCPUs": -2_000_000_000}}},
        "invalid cpu value -2: Must be at least 0.001",
    ),
    (
        {"TaskTemplate.Resources": {"Limits": {"MemoryBytes": 1}}},
        "invalid memory value 1: Must be at least 4MiB",
    ),
    (
        {"TaskTemplate.Resources": {"Reservations": {"MemoryBytes": 4194303}}},
        "invalid memory value 4194303: Must be at least 4MiB",
    ),
    (
        {
            "TaskTemplate.Resources": {
                "Reservations": {
                    "GenericResources": [{"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}}]
                }
            }
        },
        (
            "invalid generic resource 'gpu': a service reserves a count, such as gpu=2; "
            "only nodes have named ones"
        ),
    ),
    (
        {
            "TaskTemplate.Resources": {
                "Reservations": {
                    "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": -1}}]
                }
            }
        },
        "invalid generic resource 'gpu': it needs a kind and a count of at least 0",
    ),
    ({"TaskTemplate.RestartPolicy": {"Delay": -1}}, "TaskSpec: restart-delay cannot be negative"),
    ({"TaskTemplate.RestartPolicy": {"Window": -1}}, "TaskSpec: restart-window cannot be negative"),
    (
        {"TaskTemplate.Placement": {"Preferences": [{}]}},
        "Placement: a preference must name what to spread over",
    ),
    *(
        entry
        for which in ("Update", "Rollback")
        for entry in (
            (
                {f"{which}Config": {"Delay": -1}},
                f"TaskSpec: {which.lower()}-delay cannot be negative",
            ),
            (
                {f"{which}Config": {"Monitor": -1}},
                f"TaskSpec: {which.lower()}-monitor cannot be negative",
            ),
            (
                {f"{which}Config": {"MaxFailureRatio": -0.1}},
                f"TaskSpec: {which.lower()}-maxfailureratio cannot be less than 0 or bigger than 1",
            ),
            (
                {f"{which}Config": {"MaxFailureRatio": 1.1}},
                f"TaskSpec: {which.lower()}-maxfailureratio cannot be less than 0 or bigger than 1",
            ),
        )
    ),
    (
        {"RollbackConfig": {"FailureAction": "rollback"}},
        "TaskSpec: rollback-failure-action cannot be rollback",
    ),
    (
        {"Mode": {"Replicated": {"Replicas": 2**63}}},
        "Number of replicas must be non-negative",
    ),
    (
        {"Mode": {"Replicated": {"Replicas": 100_001}}},
        "100001 tasks are more than the 100000 a service may have",
    ),
    (
        {"Mode": {"ReplicatedJob": {"MaxConcurrent": 2**63}}},
        "Maximum concurrent jobs must not be negative",
    ),
    (
        {"Mode": {"ReplicatedJob": {"TotalCompletions": 2**63}}},
        "Total completed jobs must not be negative",
    ),
    ({"Mode": {"GlobalJob": {}}, "UpdateConfig": {}}, "Jobs may not have an update config"),
    ({"Mode": {"ReplicatedJob": {}}, "UpdateConfig": {}}, "Jobs may not have an update config"),
    ({"Mode": {"GlobalJob": {}}, "RollbackConfig": {}}, "Jobs may not have a rollback config"),
    (
        {"EndpointSpec": {"Ports": [_port(), _port(target=81)]}},
        "EndpointSpec: duplicate published ports provided",
    ),
    (
        {"EndpointSpec": {"Mode": "dnsrr", "Ports": [_port()]}},
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    (
        {"EndpointSpec": {"Ports": [_port(target=0)]}},
        "EndpointSpec: port 8080:0 is not in the range 1 to 65535",
    ),
    (
        {"EndpointSpec": {"Ports": [_port(published=65536)]}},
        "EndpointSpec: port 65536:80 is not in the range 1 to 65535",
    ),
    ({f"{CONTAINER}.Secrets": [{**SECRET, "SecretID": ""}]}, "malformed secret reference"),
    ({f"{CONTAINER}.Secrets": [{**SECRET, "SecretName": ""}]}, "malformed secret reference"),
    (
        {f"{CONTAINER}.Secrets": [{**SECRET, "File": None}]},
        "malformed secret reference, no target provided",
    ),
    (
        {f"{CONTAINER}.Secrets": [{**SECRET, "File": {"Name": ""}}]},
        "malformed file secret reference, invalid target file name provided",
    ),
    (
        {f"{CONTAINER}.Secrets": [SECRET, {**SECRET, "SecretName": "s2"}]},
        "secret references 's1' and 's2' have a conflicting target: 't'",
    ),
    ({f"{CONTAINER}.Configs": [{**CONFIG, "ConfigID": ""}]}, "malformed config reference"),
    (
        {f"{CONTAINER}.Configs": [CONFIG, {**CONFIG, "ConfigName": "c2"}]},
        "config references 'c1' and 'c2' have a conflicting target: 't'",
    ),
    (
        {f"{CONTAINER}.Privileges": {"CredentialSpec": {"Config": "id1"}}},
        (
            "CredentialSpec references config 'id1', but that config isn't in config references "
            "with RuntimeTarget"
        ),
    ),
]


def _refusal(changes: dict[str, object]) -> SwarmError:
    with pytest.raises(SwarmError) as caught:
        check_service_spec(service_spec(**changes))
    return caught.value


@pytest.mark.parametrize(("changes", "text"), PLAIN_400, ids=lambda value: str(value)[:60])
def test_words_of_the_api(changes: dict[str, object], text: str) -> None:
    """A word that the API does not have is a 400 in the converter's plain text."""
    error = _refusal(changes)
    assert (error.status, error.message) == (400, text)


@pytest.mark.parametrize(("changes", "text"), INVALID_400, ids=lambda value: str(value)[:60])
def test_rules_of_the_control_api(changes: dict[str, object], text: str) -> None:
    """A value that breaks a rule is a 400 with gRPC's prefix and the rule's text."""
    error = _refusal(changes)
    assert error.status == 400
    assert error.message.startswith(INVALID + text)


def test_a_bad_constraint_is_dockers_500() -> None:
    """A constraint that cannot be parsed is answered as Docker does."""
    error = _refusal({"TaskTemplate.Placement": {"Constraints": ["node.role=manager"]}})
    assert (error.status, error.message) == (
        500,
        "rpc error: code = Unknown desc = constraint expected one operator from ==, !=",
    )


@pytest.mark.parametrize(
    "task",
    [
        {"PluginSpec": {}, "Runtime": "plugin"},
        {"NetworkAttachmentSpec": {}, "Runtime": "attachment"},
    ],
)
def test_other_runtimes_are_not_offered(task: dict[str, object]) -> None:
    """Plugins and attachments as services are refused by name."""
    error = _refusal({"TaskTemplate": task})
    assert isinstance(error, Unimplemented)
    assert task["Runtime"] in str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Name": "a" * 63},
        {"Name": "a__b--c"},
        {"Mode": {}},
        {"Mode": None},
        {"Mode": {"Global": {}}},
        {"Mode": {"ReplicatedJob": {"MaxConcurrent": 0}}},
        {"Mode": {"Replicated": {"Replicas": 0}}},
        {"UpdateConfig": {"Parallelism": 0, "FailureAction": "rollback", "MaxFailureRatio": 1}},
        {"TaskTemplate.Resources": {"Limits": {}, "Reservations": {}}},
        {
            "TaskTemplate.Resources": {
                "Limits": {"NanoCPUs": 1_000_000, "MemoryBytes": 4194304},
                "Reservations": {
                    "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]
                },
            }
        },
        {"TaskTemplate.RestartPolicy": {"Delay": 0, "Window": 0, "Condition": "none"}},
        {f"{CONTAINER}.Healthcheck": {"Interval": 1_000_000, "Test": ["NONE"]}},
        {f"{CONTAINER}.Hostname": "{{.Service.Name}}-{{.Task.Slot}}"},
        {f"{CONTAINER}.Secrets": [SECRET], f"{CONTAINER}.Configs": [CONFIG]},
        {
            f"{CONTAINER}.Configs": [{"ConfigID": "id1", "ConfigName": "c", "Runtime": {}}],
            f"{CONTAINER}.Privileges": {"CredentialSpec": {"Config": "id1"}},
        },
        {"EndpointSpec": {"Mode": "vip", "Ports": [_port(), _port(Protocol="udp")]}},
        {"EndpointSpec": {"Ports": [_port(0), _port(0, 81)]}},
        {"EndpointSpec": {"Mode": "dnsrr", "Ports": [_port(PublishMode="host")]}},
        {"TaskTemplate.Placement": {"Constraints": ["node.planet==earth"]}},
    ],
    ids=str,
)
def test_what_is_right_passes(changes: dict[str, object]) -> None:
    """What Swarm accepts is accepted, before and after it is normalized."""
    spec = service_spec(**changes)
    check_service_spec(spec)
    check_service_spec(normalize_service_spec(spec))


@given(spec=structs(ServiceSpec))
@settings(max_examples=150)
def test_any_spec_passes_or_is_refused_in_words(spec: ServiceSpec) -> None:
    """No spec that fits the types gets anything but a SwarmError out of the checks."""
    try:
        check_service_spec(spec)
    except SwarmError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right
    check_service_update(spec, spec)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ({}, {"Mode": {"Global": {}}}, "service mode change is not allowed"),
        ({"Mode": {"ReplicatedJob": {}}}, {}, "service mode change is not allowed"),
        ({}, {"Name": "other"}, "renaming services is not supported"),
        (
            {"Networks": [{"Target": "a"}]},
            {"Networks": [{"Target": "b"}]},
            "networks must be migrated to TaskSpec before being changed",
        ),
    ],
)
def test_what_an_update_may_not_change(
    old: dict[str, object], new: dict[str, object], text: str
) -> None:
    """Mode, name and service-level networks are frozen: 501 with Docker's text."""
    with pytest.raises(Unimplemented) as caught:
        check_service_update(service_spec(**old), service_spec(**new))
    assert caught.value.message == f"rpc error: code = Unimplemented desc = {text}"
    assert caught.value.status == 501


def test_what_an_update_may_change() -> None:
    """Replicas may change, no mode is still replicated, and networks may move to the task."""
    check_service_update(service_spec(), service_spec(Mode={"Replicated": {"Replicas": 5}}))
    check_service_update(service_spec(), service_spec(Mode={}))
    old = service_spec(Networks=[{"Target": "a"}])
    new = service_spec(**{"TaskTemplate.Networks": [{"Target": "b"}]})
    check_service_update(old, new)
