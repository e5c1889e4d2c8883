"""Bytes to objects and back (core/model/codec.py)."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmctl.core.errors import BadRequest, SwarmError, Undecodable
from swarmctl.core.model import cluster, codec, objects, request, spec
from swarmctl.core.model.base import NEVER, ApiStruct, Time, Version
from swarmctl.core.model.change import Decision, Entry, Result, Transaction
from swarmctl.core.model.cluster import Swarm, SwarmSpec
from swarmctl.core.model.codec import (
    MAX_JSON_BYTES,
    decode_entry,
    decode_json,
    decode_row,
    encode_entry,
    encode_json,
    encode_row,
    pack,
    unpack,
)
from swarmctl.core.model.objects import (
    Config,
    Network,
    NetworkSpec,
    Node,
    NodeSpec,
    Row,
    Secret,
    SecretSpec,
)
from swarmctl.core.model.request import InitRequest
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import ServiceSpec
from swarmctl.core.model.task import Task, TaskAssignment, TaskState, TaskStatus

from .builders import filled, structs, walk

MODELS = [Service, Task, Node, Swarm, Secret, Config, Network]
SPECS = [ServiceSpec, NodeSpec, SwarmSpec, SecretSpec, NetworkSpec, InitRequest]

# --- golden bodies -------------------------------------------------------------------------------

INIT_BODY = {
    "ListenAddr": "0.0.0.0:2377",
    "AdvertiseAddr": "",
    "DataPathAddr": "",
    "DataPathPort": 0,
    "ForceNewCluster": False,
    "Spec": {
        "Labels": None,
        "Orchestration": {},
        "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
        "Dispatcher": {},
        "CAConfig": {},
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": False},
    },
    "AutoLockManagers": False,
    "Availability": "",
    "DefaultAddrPool": [],
    "SubnetSize": 24,
}

CREATE_BODY = {  # as `docker service create` sends it, with most of its flags given
    "Name": "web",
    "Labels": {"tier": "front", "EMPTY": ""},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "nginx:1.27@sha256:" + "0" * 64,
            "Labels": {"Inner": "yes"},
            "Command": ["/bin/sh", "-c"],
            "Args": ["sleep 1"],
            "Hostname": "{{.Task.Slot}}",
            "Env": ["A=1", "B="],
            "Dir": "/srv",
            "User": "www",
            "Groups": ["audio"],
            "Privileges": {
                "CredentialSpec": None,
                "SELinuxContext": None,
                "Seccomp": {"Mode": "custom", "Profile": "e30="},
                "AppArmor": {"Mode": "disabled"},
                "NoNewPrivileges": True,
            },
            "Init": False,
            "StopSignal": "SIGINT",
            "TTY": True,
            "OpenStdin": True,
            "ReadOnly": True,
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/a",
                    "Target": "/b",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rslave", "NonRecursive": True},
                },
                {
                    "Type": "volume",
                    "Source": "data",
                    "Target": "/data",
                    "VolumeOptions": {
                        "NoCopy": True,
                        "Labels": {"k": "v"},
                        "Subpath": "sub",
                        "DriverConfig": {"Name": "local", "Options": {"Type": "nfs"}},
                    },
                },
                {
                    "Type": "tmpfs",
                    "Target": "/tmp",
                    "TmpfsOptions": {"SizeBytes": 65536, "Mode": 1023, "Options": [["uid", "7"]]},
                },
            ],
            "StopGracePeriod": 0,
            "Healthcheck": {
                "Test": ["CMD-SHELL", "true"],
                "Interval": 1000000000,
                "Timeout": 2000000,
                "StartPeriod": 1000000,
                "StartInterval": 1000000,
                "Retries": 3,
            },
            "Hosts": ["10.0.0.1 db"],
            "DNSConfig": {"Nameservers": ["8.8.8.8"], "Search": ["a.b"], "Options": ["ndots:1"]},
            "Secrets": [
                {
                    "File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 292},
                    "SecretID": "s" * 25,
                    "SecretName": "pw",
                }
            ],
            "Configs": [
                {"Runtime": {}, "ConfigID": "c" * 25, "ConfigName": "cred"},
                {
                    "File": {"Name": "/etc/x", "UID": "1", "GID": "2", "Mode": 256},
                    "ConfigID": "d" * 25,
                    "ConfigName": "x",
                },
            ],
            "Isolation": "default",
            "Sysctls": {"net.core.somaxconn": "128"},
            "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["ALL"],
            "Ulimits": [{"Name": "nofile", "Hard": 2, "Soft": 1}],
            "OomScoreAdj": -5,
        },
        "Resources": {
            "Limits": {"NanoCPUs": 500000000, "MemoryBytes": 8388608, "Pids": 10},
            "Reservations": {
                "NanoCPUs": 1,
                "MemoryBytes": 2,
                "GenericResources": [
                    {"NamedResourceSpec": {"Kind": "gpu", "Value": "UUID1"}},
                    {"DiscreteResourceSpec": {"Kind": "fpga", "Value": 0}},
                ],
            },
        },
        "RestartPolicy": {"Condition": "any", "Delay": 0, "MaxAttempts": 0, "Window": 0},
        "Placement": {
            "Constraints": ["node.role==worker"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
            "MaxReplicas": 2,
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}, {"OS": "linux"}],
        },
        "Networks": [{"Target": "net", "Aliases": ["w"], "DriverOpts": {"K": "v"}}],
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        "ForceUpdate": 0,
        "Runtime": "container",
    },
    "Mode": {"Replicated": {"Replicas": 0}},
    "UpdateConfig": {
        "Parallelism": 0,
        "Delay": 1,
        "FailureAction": "pause",
        "Monitor": 5000000000,
        "MaxFailureRatio": 0.25,
        "Order": "start-first",
    },
    "RollbackConfig": {"Parallelism": 1, "MaxFailureRatio": 0.0, "Order": "stop-first"},
    "EndpointSpec": {
        "Mode": "vip",
        "Ports": [
            {
                "Protocol": "tcp",
                "TargetPort": 80,
                "PublishedPort": 8080,
                "PublishMode": "ingress",
            }
        ],
    },
}

BARE_CREATE_BODY = {  # what the docker CLI always sends (`service create nginx`)
    "Labels": {},
    "TaskTemplate": {
        "ContainerSpec": {"Image": "nginx:latest", "Init": False, "DNSConfig": {}},
        "Resources": {"Limits": {}, "Reservations": {}},
        "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
        "ForceUpdate": 0,
    },
    "Mode": {"Replicated": {}},
    "EndpointSpec": {"Mode": "vip"},
}

_META = {
    "ID": "x" * 25,
    "Version": {"Index": 7},
    "CreatedAt": "2026-01-02T03:04:05.678901234Z",
    "UpdatedAt": "2026-01-02T03:04:05Z",
}

OBJECTS: dict[type[ApiStruct], dict[str, object]] = {
    Service: {
        **_META,
        "Spec": CREATE_BODY,
        "PreviousSpec": BARE_CREATE_BODY,
        "Endpoint": {
            "Spec": {"Mode": "vip"},
            "Ports": [{"Protocol": "udp", "TargetPort": 53, "PublishedPort": 30000}],
            "VirtualIPs": [{"NetworkID": "n", "Addr": "10.0.0.5/24"}],
        },
        "UpdateStatus": {
            "State": "updating",
            "StartedAt": "2026-01-02T03:04:05.5Z",
            "Message": "update in progress",
        },
        "ServiceStatus": {"RunningTasks": 0, "DesiredTasks": 2, "CompletedTasks": 0},
        "JobStatus": {"JobIteration": {"Index": 0}, "LastExecution": "0001-01-01T00:00:00Z"},
    },
    Task: {
        **_META,
        "Labels": {},
        "Spec": BARE_CREATE_BODY["TaskTemplate"],
        "ServiceID": "s",
        "Slot": 1,
        "NodeID": "n",
        "Status": {
            "Timestamp": "2026-01-02T03:04:05.000000001Z",
            "State": "failed",
            "Message": "started",
            "Err": "task: non-zero exit (1)",
            "ContainerStatus": {"ContainerID": "c", "PID": 0, "ExitCode": 1},
            "PortStatus": {"Ports": [{"TargetPort": 80, "PublishMode": "host"}]},
        },
        "DesiredState": "shutdown",
        "NetworksAttachments": [
            {
                "Network": {
                    **_META,
                    "Spec": {
                        "Name": "ingress",
                        "Labels": {},
                        "DriverConfiguration": {},
                        "Ingress": True,
                        "IPAMOptions": {"Driver": {}},
                        "Scope": "swarm",
                    },
                    "DriverState": {"Name": "overlay", "Options": {"vxlanid_list": "4096"}},
                    "IPAMOptions": {
                        "Driver": {"Name": "default"},
                        "Configs": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}],
                    },
                },
                "Addresses": ["10.0.0.4/24"],
            }
        ],
        "GenericResources": [{"DiscreteResourceSpec": {"Kind": "fpga", "Value": 1}}],
        "JobIteration": {"Index": 3},
        "Volumes": None,
    },
    Node: {
        **_META,
        "Spec": {"Labels": {"zone": "a"}, "Role": "manager", "Availability": "active"},
        "Description": {
            "Hostname": "h1",
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 4000000000, "MemoryBytes": 1024},
            "Engine": {
                "EngineVersion": "28.2.2",
                "Labels": {"a": "b"},
                "Plugins": [{"Type": "Log", "Name": "json-file"}],
            },
            "TLSInfo": {
                "TrustRoot": "pem",
                "CertIssuerSubject": "AAE=",
                "CertIssuerPublicKey": "/w==",
            },
        },
        "Status": {"State": "ready", "Addr": "10.0.0.1"},
        "ManagerStatus": {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.1:2377"},
    },
    Swarm: {
        **_META,
        "Spec": {
            "Name": "default",
            "Labels": {},
            "Orchestration": {"TaskHistoryRetentionLimit": 0},
            "Raft": {
                "SnapshotInterval": 10000,
                "KeepOldSnapshots": 0,
                "LogEntriesForSlowFollowers": 500,
                "ElectionTick": 10,
                "HeartbeatTick": 1,
            },
            "Dispatcher": {"HeartbeatPeriod": 5000000000},
            "CAConfig": {
                "NodeCertExpiry": 7776000000000000,
                "ExternalCAs": [
                    {"Protocol": "cfssl", "URL": "https://ca", "Options": {"K": "v"}, "CACert": ""}
                ],
                "ForceRotate": 1,
            },
            "TaskDefaults": {"LogDriver": {"Name": "journald"}},
            "EncryptionConfig": {"AutoLockManagers": True},
        },
        "TLSInfo": {"TrustRoot": "pem"},
        "RootRotationInProgress": False,
        "DataPathPort": 4789,
        "DefaultAddrPool": ["10.0.0.0/8"],
        "SubnetSize": 24,
        "JoinTokens": {"Worker": "w", "Manager": "m"},
    },
    Secret: {
        **_META,
        "Spec": {
            "Name": "pw",
            "Labels": {},
            "Driver": {"Name": "vault", "Options": {"path": "/x"}},
            "Templating": {"Name": "golang"},
        },
    },
    Config: {**_META, "Spec": {"Name": "nginx.conf", "Labels": {}, "Data": "AAEC"}},
    Network: {
        "Name": "net",
        "Id": "n" * 25,
        "Created": "2026-01-02T03:04:05.678901234Z",
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [
                {
                    "Subnet": "10.0.1.0/24",
                    "IPRange": "10.0.1.0/25",
                    "Gateway": "10.0.1.1",
                    "AuxiliaryAddresses": {"a": "10.0.1.9"},
                }
            ],
        },
        "Internal": False,
        "Attachable": True,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"},
        "Labels": {},
    },
    ServiceSpec: CREATE_BODY,
}


@pytest.mark.parametrize("model", OBJECTS, ids=lambda model: model.__name__)
def test_golden_round_trip(model: type[ApiStruct]) -> None:
    """Each object of the API is printed again exactly as it was read: no key lost, none added."""
    body = json.dumps(OBJECTS[model]).encode()
    assert json.loads(encode_json(decode_json(body, model))) == OBJECTS[model]


def test_what_the_docker_cli_always_sends_survives() -> None:
    """The empty groups that the docker CLI sends come back as they were sent."""
    body = json.dumps(BARE_CREATE_BODY).encode()
    assert json.loads(encode_json(decode_json(body, ServiceSpec))) == BARE_CREATE_BODY


def test_init_body_of_the_docker_cli() -> None:
    """`docker swarm init` is understood: null labels, an empty pool kept apart from none."""
    decoded = decode_json(json.dumps(INIT_BODY).encode(), InitRequest)
    assert decoded == InitRequest(
        ListenAddr="0.0.0.0:2377", DefaultAddrPool=(), SubnetSize=24, Spec=SwarmSpec()
    )


def test_every_field_appears_in_a_golden_body() -> None:
    """The golden bodies set every field that a service spec can have, but for the few named."""
    shown: set[str] = set()
    known: set[str] = set()
    for body in (CREATE_BODY, BARE_CREATE_BODY):
        for struct in walk(decode_json(json.dumps(body).encode(), ServiceSpec)):
            kind = type(struct).__name__
            known.update(f"{kind}.{f.name}" for f in msgspec.structs.fields(struct))
            shown.update(f"{kind}.{name}" for name in msgspec.to_builtins(struct))
    assert known - shown == {
        "BindOptions.CreateMountpoint",
        "BindOptions.ReadOnlyForceRecursive",
        "BindOptions.ReadOnlyNonRecursive",
        "Mount.ClusterOptions",
        "Mount.Consistency",
        "Mount.ImageOptions",
        "PortConfig.Name",
        "ServiceMode.Global",
        "ServiceMode.GlobalJob",
        "ServiceMode.ReplicatedJob",
        "ServiceSpec.Networks",
        "TaskSpec.NetworkAttachmentSpec",
        "TaskSpec.PluginSpec",
    }


# --- how values look -----------------------------------------------------------------------------


def test_strings_are_not_html_escaped() -> None:
    """`<`, `>`, `&` and letters beyond ASCII are printed as they are, without a newline."""
    assert encode_json(Version(Index=1)) == b'{"Index":1}'
    assert encode_json({"a": "<&>é"}) == '{"a":"<&>é"}'.encode()


def test_zero_objects_print_what_docker_prints() -> None:
    """An empty task shows the keys that Docker always shows, and no others."""
    assert json.loads(encode_json(Task())) == {
        "Version": {"Index": 0},
        "CreatedAt": "0001-01-01T00:00:00Z",
        "UpdatedAt": "0001-01-01T00:00:00Z",
        "Labels": {},
        "Spec": {"ForceUpdate": 0},
        "Status": {
            "Timestamp": "0001-01-01T00:00:00Z",
            "State": "new",
            "PortStatus": {},
        },
        "DesiredState": "new",
        "Volumes": None,
    }


def test_states_are_written_by_name_and_ordered_by_number() -> None:
    """Task states compare by swarmkit's numbers and are lower-case names in JSON and msgpack."""
    assert TaskState.NEW < TaskState.RUNNING <= TaskState.RUNNING < TaskState.REMOVE
    assert max(TaskState.FAILED, TaskState.SHUTDOWN) is TaskState.FAILED
    assert int(TaskState.RUNNING) == 512
    status = TaskStatus(State=TaskState.PREPARING)
    assert b'"State":"preparing"' in encode_json(status)
    assert b"preparing" in pack(status)
    assert unpack(pack(status), TaskStatus) == status


def test_a_map_keeps_its_own_keys() -> None:
    """Keys of labels, options and sysctls are never folded, merged or dropped."""
    body = b'{"Labels":{"name":"1","Name":"2","NAME":null},"name":"web"}'
    assert decode_json(body, ServiceSpec) == ServiceSpec(
        Name="web", Labels={"name": "1", "Name": "2", "NAME": ""}
    )


def test_null_is_absent_everywhere() -> None:
    """null leaves a field at its default; in a list it is the element's zero value, as in Go."""
    body = (
        b'{"Name":null,"Mode":null,"TaskTemplate":{"ContainerSpec":{"Env":[null],"Mounts":[null]}}}'
    )
    decoded = decode_json(body, ServiceSpec)
    assert decoded == ServiceSpec(
        TaskTemplate=spec.TaskSpec(
            ContainerSpec=spec.ContainerSpec(Env=("",), Mounts=(spec.Mount(),))
        )
    )
    assert decode_json(b"null", ServiceSpec) == ServiceSpec()


def test_the_last_of_two_spellings_wins() -> None:
    """A key given twice in different case counts once, with the value given last."""
    assert decode_json(b'{"name":"a","NAME":"b"}', ServiceSpec).Name == "b"


def test_an_empty_body_is_zero_only_where_it_may_be() -> None:
    """Content-Length: 0 is the zero value; an empty chunked body is an error."""
    assert decode_json(b"", ServiceSpec, allow_empty=True) == ServiceSpec()
    with pytest.raises(BadRequest, match=r"^invalid JSON: got EOF while reading request body$"):
        decode_json(b"", ServiceSpec)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b'{"TaskTemplate":{"ContainerSpec":{"Args":"ls"}}}',
            "invalid JSON: TaskTemplate.ContainerSpec.Args: expected array, got str",
        ),
        (
            b'{"tasktemplate":{"containerspec":{"args":["a",1]}}}',
            "invalid JSON: TaskTemplate.ContainerSpec.Args[1]: expected str, got int",
        ),
        (b'{"Labels":{"a":1}}', "invalid JSON: Labels[...]: expected str, got int"),
        (b'{"Labels":[]}', "invalid JSON: Labels: expected object, got array"),
        (b'{"Mode":7}', "invalid JSON: Mode: expected object, got int"),
        (b"[]", "invalid JSON: expected object, got array"),
        (
            b'{"Mode":{"Replicated":{"Replicas":-1}}}',
            "invalid JSON: Mode.Replicated.Replicas: expected int >= 0",
        ),
        (
            b'{"Mode":{"Replicated":{"Replicas":1.5}}}',
            "invalid JSON: Mode.Replicated.Replicas: expected int, got float",
        ),
        (
            b'{"Mode":{"Replicated":{"Replicas":"1"}}}',
            "invalid JSON: Mode.Replicated.Replicas: expected int, got str",
        ),
        (
            b'{"UpdateConfig":{"Delay":9223372036854775808}}',
            "invalid JSON: UpdateConfig.Delay: expected int <= 9223372036854775807",
        ),
        (
            b'{"EndpointSpec":{"Ports":[{"TargetPort":4294967296}]}}',
            "invalid JSON: EndpointSpec.Ports[0].TargetPort: expected int <= 4294967295",
        ),
        (
            b'{"TaskTemplate":{"ForceUpdate":18446744073709551616}}',
            "invalid JSON: TaskTemplate.ForceUpdate: expected int, got number beyond 64 bits",
        ),
        (b'{"Name":1' + b"0" * 5000 + b"}", "invalid JSON: integer value out of range"),
        (b"{} {}", "unexpected content after JSON"),
        (b"{}x", "unexpected content after JSON"),
        (b"{", "invalid JSON: unexpected EOF"),
        (b" \n", "invalid JSON: got EOF while reading request body"),
        (b'{"Name":"\xff"}', "invalid JSON: not UTF-8 (byte 0 of a string)"),
        (b'{"Name":NaN}', "invalid JSON: invalid character (byte 8)"),
        (b"[" * 100_000, "invalid JSON: nested too deep"),
        (b'{"a":' * 100_000, "invalid JSON: nested too deep"),
    ],
)
def test_bad_bodies_are_named(body: bytes, text: str) -> None:
    """A body that cannot be understood is a 400 that says what is wrong, and where."""
    with pytest.raises(BadRequest) as caught:
        decode_json(body, ServiceSpec)
    assert str(caught.value) == text


def test_a_body_that_is_too_long_is_refused_unread() -> None:
    """A body beyond the limit is refused before it is parsed."""
    with pytest.raises(BadRequest, match="longer than"):
        decode_json(b" " * (MAX_JSON_BYTES + 1), ServiceSpec)


def test_secret_data_never_gets_into_an_error() -> None:
    """A secret that is not base64 is refused by its path, without a byte of it."""
    with pytest.raises(BadRequest) as caught:
        decode_json(b'{"Data":"hunter2!"}', SecretSpec)
    assert str(caught.value) == "invalid JSON: Data: invalid base64 encoded string"


def test_times_in_json_must_be_text() -> None:
    """A number is no time; RFC 3339 in any zone is."""
    with pytest.raises(BadRequest, match="CreatedAt: expected str, got int"):
        decode_json(b'{"CreatedAt":5}', Service)
    with pytest.raises(BadRequest, match='CreatedAt: "noon" is no RFC 3339 time'):
        decode_json(b'{"CreatedAt":"noon"}', Service)
    body = b'{"CreatedAt":"1970-01-01T01:00:00.000000007+01:00"}'
    assert decode_json(body, Service).CreatedAt == Time(7)


# --- properties ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [*MODELS, *SPECS], ids=lambda model: model.__name__)
def test_no_field_is_lost(model: type[ApiStruct]) -> None:
    """An object with every single field set comes back whole from both codecs."""
    value = filled(model)
    assert decode_json(encode_json(value), model) == value
    assert unpack(pack(value), model) == value


@pytest.mark.parametrize("model", [*MODELS, *SPECS], ids=lambda model: model.__name__)
@given(data=st.data())
@settings(max_examples=20)
def test_json_round_trip(model: type[ApiStruct], data: st.DataObject) -> None:
    """decode(encode(x)) == x in JSON, for anything that fits the types."""
    value = data.draw(structs(model))
    assert decode_json(encode_json(value), model) == value


@pytest.mark.parametrize(
    "model",
    [Row, Entry, Transaction, Result, Decision, TaskAssignment, *MODELS],
    ids=lambda model: getattr(model, "__name__", "union"),
)
@given(data=st.data())
@settings(max_examples=20)
def test_msgpack_round_trip(model: type[object], data: st.DataObject) -> None:
    """decode(encode(x)) == x in msgpack, private halves included."""
    value = data.draw(structs(model))
    assert unpack(pack(value), model) == value


@given(entry=structs(Entry), row=structs(Row))
@settings(max_examples=20)
def test_log_and_table_codecs(entry: Entry, row: Row) -> None:
    """Entries and rows survive their own codecs."""
    assert decode_entry(encode_entry(entry)) == entry
    assert decode_row(encode_row(row)) == row


def _shuffle_case(draw: st.DrawFn, shown: object, value: object) -> object:
    """Spell the keys of structs at random and sprinkle nulls; leave the keys of maps alone."""
    if isinstance(value, msgspec.Struct) and isinstance(shown, dict):
        fields = {f.encode_name: f.name for f in msgspec.structs.fields(value)}
        spell = draw(st.sampled_from([str.lower, str.upper, str.swapcase, str]))
        body = {
            spell(key): _shuffle_case(draw, inner, getattr(value, fields[key]))
            for key, inner in shown.items()
        }
        absent = fields.keys() - shown.keys()
        return {**body, **{key: None for key in absent if draw(st.booleans())}, "Bogus": [None]}
    if isinstance(value, tuple) and isinstance(shown, list):
        return [_shuffle_case(draw, *pair) for pair in zip(shown, value, strict=True)]
    return shown


@given(data=st.data(), value=structs(ServiceSpec) | st.just(filled(ServiceSpec)))
@settings(max_examples=50)
def test_any_client_keeps_every_field(data: st.DataObject, value: ServiceSpec) -> None:
    """Read, re-spelled in random case with nulls and unknown keys, written: nothing is lost."""
    body = _shuffle_case(data.draw, json.loads(encode_json(value)), value)
    assert decode_json(json.dumps(body).encode(), ServiceSpec) == value


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]",:0trueNameLabels', max_size=60))
@settings(max_examples=200)
def test_any_body_gives_an_object_or_bad_request(body: bytes | str) -> None:
    """No bytes get anything but a spec or a BadRequest out of the JSON decoder."""
    try:
        decoded = decode_json(body.encode() if isinstance(body, str) else body, ServiceSpec)
    except BadRequest:
        return
    assert isinstance(decoded, ServiceSpec)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Name", "TaskTemplate", "Mode", "Labels", "containerSpec", "Mounts"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(plain=JSON)
@settings(max_examples=200)
def test_any_json_gives_an_object_or_bad_request(plain: object) -> None:
    """No well-formed JSON gets anything but a spec or a BadRequest out of the decoder."""
    try:
        decoded = decode_json(json.dumps(plain).encode(), ServiceSpec)
    except BadRequest as error:
        assert str(error).startswith("invalid JSON: ")  # noqa: PT017 - both outcomes are right
        return
    assert isinstance(decoded, ServiceSpec)


@given(data=st.binary(max_size=80), cut=st.integers(0, 200))
@settings(max_examples=200)
def test_any_bytes_give_an_entry_or_undecodable(data: bytes, cut: int) -> None:
    """Damaged log entries are Undecodable, never another exception."""
    whole = encode_entry(Entry(transactions=(Transaction(changes=()),)))
    for damaged in (data, whole[:cut] + data):
        try:
            decode_entry(damaged)
            decode_row(damaged)
        except Undecodable:
            continue


def test_a_msgpack_bomb_is_undecodable() -> None:
    """Depth beyond reason is refused, not followed."""
    with pytest.raises(Undecodable):
        unpack(b"\x91" * 100_000, Entry)


def test_a_time_beyond_64_bits_is_undecodable() -> None:
    """No row can bring a time into the tables that JSON cannot print."""
    data = pack({"Timestamp": 2**63, "State": "new"})
    with pytest.raises(Undecodable, match="64 bits"):
        unpack(data, TaskStatus)


def test_undecodable_says_what_it_should_have_been() -> None:
    """The error names the type and no value."""
    with pytest.raises(Undecodable, match=r"^these 1 bytes are no Row: Expected `object`"):
        decode_row(b"\x01")
    assert issubclass(Undecodable, SwarmError)


def test_foreign_values_are_a_programmers_error() -> None:
    """A value without a JSON or msgpack form is a TypeError, not silence."""
    with pytest.raises(TypeError):
        encode_json(object())
    with pytest.raises(TypeError):
        pack(object())


def test_every_request_body_is_decodable_from_nothing() -> None:
    """Each request and spec has a zero value, as Go's decoders give for an empty object."""
    for module in (request, spec, cluster, objects):
        for model in vars(module).values():
            if isinstance(model, type) and issubclass(model, ApiStruct):
                assert decode_json(b"{}", model) == model()


def test_never_is_gos_zero_time() -> None:
    """A time that never was is printed as year 1 and read back as NEVER."""
    assert encode_json({"t": NEVER}) == b'{"t":"0001-01-01T00:00:00Z"}'
    assert codec.decode_json(encode_json(Service()), Service).CreatedAt == NEVER
