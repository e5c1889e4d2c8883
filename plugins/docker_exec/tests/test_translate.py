"""Every field of a spec becomes what Docker's own swarm executor would ask of the engine."""

from __future__ import annotations

from typing import Any

import pytest
from swarmctl_docker_exec.level import NEWEST, ApiLevel
from swarmctl_docker_exec.translate import create_body

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.engine import FileBind
from swarmctl.plugins.engine.spec import stop_grace_ns
from swarmctl.plugins.model import (
    AppArmorOpts,
    AttachedNetwork,
    AttachedNetworkSpec,
    BindOptions,
    CredentialSpec,
    DiscreteResourceSpec,
    DNSConfig,
    Driver,
    GenericResource,
    HealthConfig,
    HostNetwork,
    ImageOptions,
    Limit,
    Mount,
    NamedResourceSpec,
    NetworkAttachment,
    PortConfig,
    Privileges,
    ResourceRequirements,
    Resources,
    SeccompOpts,
    SELinuxContext,
    TaskSpec,
    TmpfsOptions,
    Ulimit,
    VolumeOptions,
)
from tests.engines.assignments import assign, identity

LABELS = {
    "com.docker.swarm.node.id": "node-a",
    "com.docker.swarm.service.id": "id-of-web",
    "com.docker.swarm.service.name": "web",
    "com.docker.swarm.task": "",
    "com.docker.swarm.task.id": "t0",
    "com.docker.swarm.task.name": "web.1.t0",
    "swarmctl.cluster.id": "cluster-1",
    "swarmctl.node.id": "node-a",
}
PLAIN = {
    "Image": "alpine:latest",
    "Labels": LABELS,
    "Env": [],
    "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": "no"}},
}


def body(level: ApiLevel = NEWEST, **how: Any) -> dict[str, Any]:
    files = how.pop("files", ())
    made = create_body(assign(**how), identity(), level=level, files=files)
    return dict(made)


def difference(made: dict[str, Any]) -> dict[str, Any]:
    """What ``made`` says beyond the plain container; all of the plain one must be there."""
    extra = {key: value for key, value in made.items() if PLAIN.get(key) != value}
    if "HostConfig" in extra:
        plain: Any = PLAIN["HostConfig"]
        host = extra.pop("HostConfig")
        assert plain.keys() <= host.keys()
        extra |= {f"host.{k}": v for k, v in host.items() if plain.get(k) != v}
    assert PLAIN.keys() <= made.keys()
    return extra


def test_a_plain_task_becomes_the_plainest_container() -> None:
    """An image alone gives labels, no restart policy, the default network, and nothing else."""
    assert body() == PLAIN


CONTAINER_FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"Command": ("a", "b")}, {"Entrypoint": ["a", "b"], "Cmd": []}),
    ({"Command": ("a",), "Args": ("b",)}, {"Entrypoint": ["a"], "Cmd": ["b"]}),
    ({"Args": ("b",)}, {"Cmd": ["b"]}),
    ({"Hostname": "h"}, {"Hostname": "h"}),
    ({"Env": ("A=1", "B")}, {"Env": ["A=1", "B"]}),
    ({"Dir": "/d"}, {"WorkingDir": "/d"}),
    ({"User": "1:2"}, {"User": "1:2"}),
    ({"Groups": ("g", "7")}, {"host.GroupAdd": ["g", "7"]}),
    ({"StopSignal": "SIGINT"}, {"StopSignal": "SIGINT"}),
    ({"StopGracePeriod": 1_500_000_000}, {"StopTimeout": 2}),
    ({"StopGracePeriod": 0}, {"StopTimeout": 0}),
    ({"TTY": True}, {"Tty": True}),
    ({"OpenStdin": True}, {"OpenStdin": True}),
    ({"ReadOnly": True}, {"host.ReadonlyRootfs": True}),
    ({"Init": True}, {"host.Init": True}),
    ({"Init": False}, {"host.Init": False}),
    ({"Isolation": "default"}, {}),
    ({"Isolation": "hyperv"}, {"host.Isolation": "hyperv"}),
    ({"Sysctls": {"net.x": "1"}}, {"host.Sysctls": {"net.x": "1"}}),
    ({"CapabilityAdd": ("CAP_A",)}, {"host.CapAdd": ["CAP_A"]}),
    ({"CapabilityDrop": ("ALL",)}, {"host.CapDrop": ["ALL"]}),
    ({"OomScoreAdj": -5}, {"host.OomScoreAdj": -5}),
    (
        {"Ulimits": (Ulimit(Name="nofile", Hard=9, Soft=8),)},
        {"host.Ulimits": [{"Name": "nofile", "Soft": 8, "Hard": 9}]},
    ),
    (
        {"Hosts": ("10.0.0.1 a b", "::1 six")},
        {"host.ExtraHosts": ["a:10.0.0.1", "b:10.0.0.1", "six:::1"]},
    ),
    (
        {"DNSConfig": DNSConfig(Nameservers=("1.1.1.1",), Search=("lan",), Options=("ndots:2",))},
        {"host.Dns": ["1.1.1.1"], "host.DnsSearch": ["lan"], "host.DnsOptions": ["ndots:2"]},
    ),
    ({"DNSConfig": DNSConfig()}, {}),
    ({"Healthcheck": HealthConfig(Test=("NONE",))}, {"Healthcheck": {"Test": ["NONE"]}}),
    (
        {
            "Healthcheck": HealthConfig(
                Test=("CMD", "x"),
                Interval=1,
                Timeout=2,
                StartPeriod=3,
                StartInterval=4,
                Retries=5,
            )
        },
        {
            "Healthcheck": {
                "Test": ["CMD", "x"],
                "Interval": 1,
                "Timeout": 2,
                "StartPeriod": 3,
                "StartInterval": 4,
                "Retries": 5,
            }
        },
    ),
    (
        {"Healthcheck": HealthConfig(Interval=1)},
        {"Healthcheck": {"Test": [], "Interval": 1}},
    ),
]


@pytest.mark.parametrize(("given", "expected"), CONTAINER_FIELDS)
def test_container_fields(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field of a container spec sets what Docker sets for it, and nothing more."""
    assert difference(body(**given)) == expected


MOUNTS: list[tuple[Mount, dict[str, Any]]] = [
    (Mount(Source="v", Target="/t"), {"Type": "volume", "Target": "/t", "Source": "v"}),
    (
        Mount(Type="bind", Source="/s", Target="/t", ReadOnly=True, Consistency="cached"),
        {
            "Type": "bind",
            "Target": "/t",
            "Source": "/s",
            "ReadOnly": True,
            "Consistency": "cached",
        },
    ),
    (
        Mount(
            Type="bind",
            Source="/s",
            Target="/t",
            BindOptions=BindOptions(
                Propagation="rshared",
                NonRecursive=True,
                CreateMountpoint=True,
                ReadOnlyNonRecursive=True,
                ReadOnlyForceRecursive=True,
            ),
        ),
        {
            "Type": "bind",
            "Target": "/t",
            "Source": "/s",
            "BindOptions": {
                "Propagation": "rshared",
                "NonRecursive": True,
                "CreateMountpoint": True,
                "ReadOnlyNonRecursive": True,
                "ReadOnlyForceRecursive": True,
            },
        },
    ),
    (
        Mount(
            Type="volume",
            Target="/t",
            VolumeOptions=VolumeOptions(
                NoCopy=True,
                Labels={"a": "b"},
                Subpath="x/y",
                DriverConfig=Driver(Name="nfs", Options={"o": "rw"}),
            ),
        ),
        {
            "Type": "volume",
            "Target": "/t",
            "VolumeOptions": {
                "NoCopy": True,
                "Labels": {"a": "b"},
                "Subpath": "x/y",
                "DriverConfig": {"Name": "nfs", "Options": {"o": "rw"}},
            },
        },
    ),
    (
        Mount(
            Type="tmpfs",
            Target="/t",
            TmpfsOptions=TmpfsOptions(SizeBytes=9, Mode=0o700, Options=(("exec",), ("uid", "1"))),
        ),
        {
            "Type": "tmpfs",
            "Target": "/t",
            "TmpfsOptions": {"SizeBytes": 9, "Mode": 448, "Options": [["exec"], ["uid", "1"]]},
        },
    ),
    (
        Mount(Type="image", Source="i", Target="/t", ImageOptions=ImageOptions(Subpath="etc")),
        {"Type": "image", "Target": "/t", "Source": "i", "ImageOptions": {"Subpath": "etc"}},
    ),
    (
        Mount(Type="npipe", Source=r"\\.\pipe\x", Target=r"\\.\pipe\y"),
        {"Type": "npipe", "Target": r"\\.\pipe\y", "Source": r"\\.\pipe\x"},
    ),
]


@pytest.mark.parametrize(("mount", "expected"), MOUNTS)
def test_mounts(mount: Mount, expected: dict[str, Any]) -> None:
    """Each kind of mount keeps all its options."""
    assert difference(body(Mounts=(mount,))) == {"host.Mounts": [expected]}


PRIVILEGES: list[tuple[Privileges, list[str]]] = [
    (Privileges(), []),
    (Privileges(CredentialSpec=CredentialSpec(File="f")), ["credentialspec=file://f"]),
    (Privileges(CredentialSpec=CredentialSpec(Registry="r")), ["credentialspec=registry://r"]),
    (Privileges(SELinuxContext=SELinuxContext(Disable=True)), ["label=disable"]),
    (
        Privileges(SELinuxContext=SELinuxContext(User="u", Role="r", Type="t", Level="l")),
        ["label=user:u", "label=role:r", "label=type:t", "label=level:l"],
    ),
    (Privileges(Seccomp=SeccompOpts(Mode="default")), []),
    (Privileges(Seccomp=SeccompOpts(Mode="unconfined")), ["seccomp=unconfined"]),
    (Privileges(Seccomp=SeccompOpts(Mode="custom", Profile=b"{}")), ["seccomp={}"]),
    (Privileges(AppArmor=AppArmorOpts(Mode="default")), []),
    (Privileges(AppArmor=AppArmorOpts(Mode="disabled")), ["apparmor=unconfined"]),
    (Privileges(NoNewPrivileges=True), ["no-new-privileges=true"]),
]


@pytest.mark.parametrize(("privileges", "options"), PRIVILEGES)
def test_privileges(privileges: Privileges, options: list[str]) -> None:
    """Privileges become the engine's security options."""
    expected = {"host.SecurityOpt": options} if options else {}
    assert difference(body(Privileges=privileges)) == expected


RESOURCES: list[tuple[ResourceRequirements, dict[str, Any]]] = [
    (ResourceRequirements(), {}),
    (
        ResourceRequirements(
            Limits=Limit(NanoCPUs=1_500_000_000, MemoryBytes=64 << 20, Pids=100),
            Reservations=Resources(NanoCPUs=1, MemoryBytes=32 << 20),
        ),
        {
            "host.CpuPeriod": 100_000,
            "host.CpuQuota": 150_000,
            "host.Memory": 64 << 20,
            "host.PidsLimit": 100,
            "host.MemoryReservation": 32 << 20,
        },
    ),
]


@pytest.mark.parametrize(("wanted", "expected"), RESOURCES)
def test_resources(wanted: ResourceRequirements, expected: dict[str, Any]) -> None:
    """Limits are enforced by the engine; of reservations only memory means something to it."""
    assert difference(body(task_spec={"Resources": wanted})) == expected


def test_generic_resources_reach_the_task_as_variables() -> None:
    """What was assigned of each kind is one variable, after the spec's own."""
    given = (
        GenericResource(NamedResourceSpec=NamedResourceSpec(Kind="gpu", Value="u1")),
        GenericResource(NamedResourceSpec=NamedResourceSpec(Kind="gpu", Value="u2")),
        GenericResource(DiscreteResourceSpec=DiscreteResourceSpec(Kind="fpga", Value=2)),
    )
    made = body(Env=("A=1",), task={"GenericResources": given})
    assert made["Env"] == ["A=1", "DOCKER_RESOURCE_GPU=u1,u2", "DOCKER_RESOURCE_FPGA=2"]


def test_host_mode_ports_are_bound_and_others_are_not() -> None:
    """Only host-mode ports are the engine's; port 0 lets it choose; one target may have several."""
    ports = (
        PortConfig(TargetPort=80, PublishedPort=8080, Protocol="tcp", PublishMode="host"),
        PortConfig(TargetPort=80, PublishedPort=8081, Protocol="tcp", PublishMode="host"),
        PortConfig(TargetPort=53, Protocol="udp", PublishMode="host"),
        PortConfig(TargetPort=443, PublishedPort=443, Protocol="tcp", PublishMode="ingress"),
    )
    assert difference(body(assignment={"ports": ports})) == {
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "host.PortBindings": {
            "80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}],
            "53/udp": [{"HostPort": ""}],
        },
    }


def test_a_label_binds_a_host_mode_port_to_one_address() -> None:
    """Only the port that it names."""
    ports = (
        PortConfig(TargetPort=80, PublishedPort=8080, Protocol="tcp", PublishMode="host"),
        PortConfig(TargetPort=81, PublishedPort=8081, Protocol="tcp", PublishMode="host"),
    )
    labels = {"swarmctl.publish.8080/tcp.ip": "192.168.1.5"}
    made = difference(body(assignment={"ports": ports, "service_labels": labels}))
    assert made["host.PortBindings"] == {
        "80/tcp": [{"HostIp": "192.168.1.5", "HostPort": "8080"}],
        "81/tcp": [{"HostPort": "8081"}],
    }


def test_the_log_driver_is_the_specs_before_the_clusters() -> None:
    """A task's own log driver wins over the cluster's default; neither leaves the engine's."""
    cluster, own = Driver(Name="syslog"), Driver(Name="json-file", Options={"max-size": "1m"})
    by_default: dict[str, Any] = {"assignment": {"log_driver": cluster}}
    assert difference(body(**by_default)) == {"host.LogConfig": {"Type": "syslog", "Config": {}}}
    assert difference(body(task_spec={"LogDriver": own}, **by_default)) == {
        "host.LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}
    }


@pytest.mark.parametrize(("predefined", "mode"), [("true", "host"), ("", "default")])
def test_networks(predefined: str, mode: str) -> None:
    """The engine's own networks are joined by name; without any it is the default one."""
    network = AttachedNetworkSpec(
        Name="host", Labels={"com.docker.swarm.predefined": predefined} if predefined else {}
    )
    attachment = NetworkAttachment(Network=AttachedNetwork(Spec=network))
    made = body(task={"NetworksAttachments": (attachment,)})
    assert made["HostConfig"]["NetworkMode"] == mode


@pytest.mark.parametrize("level", [ApiLevel(1, 41), ApiLevel(1, 44)])
def test_ingress_is_a_network_like_the_others(level: ApiLevel) -> None:
    """It comes last; where the engine chooses MAC addresses by itself, we do."""
    ingress = HostNetwork(id="i", name="ingress", ingress=True)
    net = HostNetwork(id="n", name="net")
    attachments = tuple(
        NetworkAttachment(Network=AttachedNetwork(ID=one.id), Addresses=(f"10.0.{place}.7/24",))
        for place, one in enumerate((ingress, net))
    )
    made = body(
        task={"NetworksAttachments": attachments},
        assignment={"networks": (ingress, net)},
        level=level,
    )
    assert made["HostConfig"]["NetworkMode"] == "net"
    places = made["NetworkingConfig"]["EndpointsConfig"]
    if level == ApiLevel(1, 41):
        assert list(places) == ["net"]
        assert "MacAddress" not in places["net"]
    else:
        assert places["net"]["MacAddress"] == "02:42:0a:00:01:07"
        assert places["ingress"]["MacAddress"] == "02:42:0a:00:00:07"


def test_names_are_asked_of_this_node() -> None:
    """Its addresses in the networks are the name servers; the task's own are asked by it."""
    net = HostNetwork(id="n", name="net", gateways=("fd00::1/64", "10.0.1.1/24"))
    ingress = HostNetwork(id="i", name="ingress", ingress=True, gateways=("10.0.0.1/24",))
    own = DNSConfig(Nameservers=("192.0.2.53",), Search=("example.org",))
    made = body(DNSConfig=own, assignment={"networks": (net, ingress)})["HostConfig"]
    assert made["Dns"] == ["10.0.1.1", "fd00::1"]
    assert made["DnsSearch"] == ["example.org"]
    assert body(DNSConfig=own, assignment={"networks": (ingress,)})["HostConfig"]["Dns"] == [
        "192.0.2.53"
    ]


def test_where_nobody_answers_names_the_engines_own_servers_are_asked() -> None:
    """On a node without a driver that works the gateways would be silent for ever."""
    net = HostNetwork(id="n", name="net", gateways=("10.0.1.1/24",))
    made = body(assignment={"networks": (net,), "names": False})["HostConfig"]
    assert not made.get("Dns")
    own = DNSConfig(Nameservers=("192.0.2.53",))
    made = body(DNSConfig=own, assignment={"networks": (net,), "names": False})["HostConfig"]
    assert made["Dns"] == ["192.0.2.53"]


def test_secret_files_are_bound_read_only_after_the_users_mounts() -> None:
    """Each file is its own read-only bind."""
    made = body(
        Mounts=(Mount(Type="volume", Target="/v"),), files=[FileBind("/tmpfs/a", "/run/secrets/s")]
    )
    assert made["HostConfig"]["Mounts"] == [
        {"Type": "volume", "Target": "/v"},
        {"Type": "bind", "Source": "/tmpfs/a", "Target": "/run/secrets/s", "ReadOnly": True},
    ]


def test_nobody_can_set_the_labels_that_say_whose_a_container_is() -> None:
    """A spec's labels are kept, except where they would claim another owner."""
    made = body(Labels={"mine": "1", "swarmctl.node.id": "forged", "com.docker.swarm.task": "x"})
    assert made["Labels"] == {"mine": "1", **LABELS}


TOO_NEW: list[tuple[str, str, dict[str, Any]]] = [
    ("1.42", "BindOptions.CreateMountpoint", {"BindOptions": BindOptions(CreateMountpoint=True)}),
    (
        "1.44",
        "BindOptions.ReadOnlyNonRecursive",
        {"BindOptions": BindOptions(ReadOnlyNonRecursive=True)},
    ),
    (
        "1.44",
        "BindOptions.ReadOnlyForceRecursive",
        {"BindOptions": BindOptions(ReadOnlyForceRecursive=True)},
    ),
    ("1.45", "VolumeOptions.Subpath", {"VolumeOptions": VolumeOptions(Subpath="x")}),
    ("1.46", "TmpfsOptions.Options", {"TmpfsOptions": TmpfsOptions(Options=(("exec",),))}),
    ("1.48", "a mount of type image", {"Type": "image"}),
    ("1.44", "Healthcheck.StartInterval", {}),
]


@pytest.mark.parametrize(("since", "field", "mount"), TOO_NEW)
def test_a_field_that_the_engine_would_ignore_is_refused(
    since: str, field: str, mount: dict[str, Any]
) -> None:
    """An engine one API version too old gets no body, and the error names field and versions."""
    spec: dict[str, Any] = {"Mounts": (Mount(Target="/t", **mount),)}
    if not mount:
        spec = {"Healthcheck": HealthConfig(StartInterval=1)}
    level = ApiLevel.parse(since)
    assert body(level, **spec)
    before = ApiLevel(level.major, level.minor - 1)
    with pytest.raises(ExecutorError) as caught:
        body(before, **spec)
    assert str(caught.value) == (
        f"{field} needs Docker Engine API {since}, and this node's engine has {before}"
    )


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"Mounts": (Mount(Type="cluster", Target="/t"),)}, "mount /t: cluster volumes"),
        (
            {"Privileges": Privileges(CredentialSpec=CredentialSpec(Config="c"))},
            "CredentialSpec.Config is not supported",
        ),
        ({"Hosts": ("lonely",)}, 'host entry "lonely" must be'),
    ],
)
def test_what_is_not_offered_is_refused(spec: dict[str, Any], text: str) -> None:
    """Nothing is accepted and then not done."""
    with pytest.raises(ExecutorError, match=text):
        body(**spec)


def test_a_task_without_a_container_is_refused() -> None:
    """An engine plugin or a bare network attachment is not run as a container."""
    empty = assign()
    task = type(empty.task)(ID="t0", Spec=TaskSpec())
    with pytest.raises(ExecutorError, match="container tasks only"):
        create_body(type(empty)(task=task), identity(), level=NEWEST)


def test_ten_seconds_is_the_grace_when_none_is_set() -> None:
    """No grace period means ten seconds, and zero means zero."""
    assert stop_grace_ns(assign().task.Spec.ContainerSpec) == 10_000_000_000  # type: ignore[arg-type]
    assert stop_grace_ns(assign(StopGracePeriod=0).task.Spec.ContainerSpec) == 0  # type: ignore[arg-type]


def test_api_levels_compare_as_numbers() -> None:
    """1.9 is older than 1.41, whatever the alphabet says."""
    assert ApiLevel.parse("1.9") < ApiLevel.parse("1.41") < NEWEST
    with pytest.raises(ValueError, match="no API version"):
        ApiLevel.parse("41")
