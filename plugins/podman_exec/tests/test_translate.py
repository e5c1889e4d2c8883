"""Every field of a spec becomes what libpod has for it, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from swarmctl_podman_exec.dialect import see_to_binds
from swarmctl_podman_exec.limits import limits_here, with_limits
from swarmctl_podman_exec.mounts import bind_sources, volumes_to_make
from swarmctl_podman_exec.networks import PodmanNetworks
from swarmctl_podman_exec.translate import create_body, profile_of, signal_number
from swarmctl_podman_exec.version import PodmanVersion

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.engine import FileBind
from swarmctl.plugins.model import (
    AppArmorOpts,
    AttachedNetwork,
    AttachedNetworkSpec,
    BindOptions,
    ContainerSpec,
    CredentialSpec,
    DNSConfig,
    Driver,
    HealthConfig,
    HostNetwork,
    ImageOptions,
    Limit,
    Mount,
    NetworkAttachment,
    NetworkAttachmentConfig,
    PortConfig,
    Privileges,
    ResourceRequirements,
    Resources,
    SeccompOpts,
    SELinuxContext,
    TmpfsOptions,
    Ulimit,
    VolumeOptions,
)
from tests.engines.assignments import assign, identity

FORCED = BindOptions(ReadOnlyForceRecursive=True)
NEW = PodmanVersion(5, 4)
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
CAPS = ["CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW"]
PLAIN = {
    "name": "web.1.t0",
    "image": "alpine:latest",
    "labels": LABELS,
    "restart_policy": "no",
    "systemd": "false",
    "log_configuration": {"driver": "k8s-file"},
    "env": {},
    "cap_add": CAPS,
}


def body(version: PodmanVersion = NEW, **how: Any) -> dict[str, Any]:
    files = how.pop("files", ())
    return create_body(
        assign(**how), identity(), version=version, files=files, profile="/files/t0/profile"
    )


def difference(made: dict[str, Any]) -> dict[str, Any]:
    """What ``made`` says beyond the plain container; all of the plain one must be there."""
    assert PLAIN.keys() <= made.keys()
    return {key: value for key, value in made.items() if PLAIN.get(key) != value}


def test_a_plain_task_becomes_the_plainest_container() -> None:
    """An image alone gives labels, no restarts, a log that can be read, and Docker's powers."""
    assert body() == PLAIN


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"Command": ("a", "b")}, {"entrypoint": ["a", "b"]}),
    ({"Command": ("a",), "Args": ("b",)}, {"entrypoint": ["a"], "command": ["b"]}),
    ({"Args": ("b",)}, {"command": ["b"]}),
    ({"Labels": {"a": "b", "swarmctl.node.id": "x"}}, {"labels": {"a": "b", **LABELS}}),
    ({"Hostname": "h"}, {"hostname": "h"}),
    ({"Env": ("A=1=2", "B")}, {"env": {"A": "1=2"}, "unsetenv": ["B"]}),
    ({"Dir": "/d"}, {"work_dir": "/d"}),
    ({"User": "1:2"}, {"user": "1:2"}),
    ({"Groups": ("g", "7")}, {"groups": ["g", "7"]}),
    ({"StopSignal": "SIGINT"}, {"stop_signal": 2}),
    ({"StopGracePeriod": 1_500_000_000}, {"stop_timeout": 2}),
    ({"StopGracePeriod": 0}, {"stop_timeout": 0}),
    ({"TTY": True}, {"terminal": True}),
    ({"OpenStdin": True}, {"stdin": True}),
    ({"ReadOnly": True}, {"read_only_filesystem": True}),
    ({"Init": True}, {"init": True}),
    ({"Init": False}, {}),
    ({"Isolation": "default"}, {}),
    ({"Sysctls": {"net.x": "1"}}, {"sysctl": {"net.x": "1"}}),
    ({"CapabilityAdd": ("CAP_A",)}, {"cap_add": ["CAP_A", *CAPS]}),
    ({"CapabilityAdd": ("net_raw",)}, {"cap_add": ["net_raw", *CAPS[:2]]}),
    ({"CapabilityAdd": ("ALL",)}, {"cap_add": ["ALL"]}),
    (
        {"CapabilityDrop": ("CAP_MKNOD",)},
        {"cap_add": [CAPS[0], CAPS[2]], "cap_drop": ["CAP_MKNOD"]},
    ),
    ({"OomScoreAdj": -5}, {"oom_score_adj": -5}),
    (
        {"Ulimits": (Ulimit(Name="nofile", Hard=-1, Soft=8),)},
        {"r_limits": [{"type": "nofile", "soft": 8, "hard": 18446744073709551615}]},
    ),
    (
        {"Hosts": ("10.0.0.1 a b", "::1 six")},
        {"hostadd": ["a:10.0.0.1", "b:10.0.0.1", "six:::1"]},
    ),
    (
        {"DNSConfig": DNSConfig(Nameservers=("1.1.1.1",), Search=("lan",), Options=("ndots:2",))},
        {"dns_server": ["1.1.1.1"], "dns_search": ["lan"], "dns_option": ["ndots:2"]},
    ),
    ({"DNSConfig": DNSConfig()}, {}),
    # The check is merged with the image's when the container is made.
    ({"Healthcheck": HealthConfig(Test=("CMD", "x"))}, {}),
]


@pytest.mark.parametrize(("given", "expected"), FIELDS)
def test_container_fields(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field of a container spec sets what means the same to libpod, and nothing more."""
    assert difference(body(**given)) == expected


def test_dropping_all_capabilities_leaves_those_that_were_asked_for() -> None:
    """The ones that are Docker's by default do not come back."""
    made = body(CapabilityDrop=("ALL",), CapabilityAdd=("CAP_CHOWN",))
    assert (made["cap_add"], made["cap_drop"]) == (["CAP_CHOWN"], ["ALL"])
    assert "cap_add" not in body(CapabilityDrop=("ALL",))


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_signals_have_numbers(name: str, number: int) -> None:
    """libpod takes the number of a stop signal, whatever a spec calls it."""
    assert signal_number(name) == number


MOUNTS: list[tuple[Mount, dict[str, Any]]] = [
    (Mount(Source="v", Target="/t"), {"volumes": [{"Name": "v", "Dest": "/t"}]}),
    (
        Mount(
            Type="volume",
            Source="v",
            Target="/t",
            ReadOnly=True,
            VolumeOptions=VolumeOptions(NoCopy=True, Subpath="x/y"),
        ),
        {"volumes": [{"Name": "v", "Dest": "/t", "Options": ["ro", "nocopy"], "SubPath": "x/y"}]},
    ),
    (
        Mount(Type="bind", Source="/s", Target="/t", ReadOnly=True, Consistency="cached"),
        {
            "mounts": [
                {
                    "type": "bind",
                    "source": "/s",
                    "destination": "/t",
                    "options": ["rbind", "ro", "rprivate"],
                }
            ]
        },
    ),
    (
        Mount(
            Type="bind",
            Source="/s",
            Target="/t",
            BindOptions=BindOptions(Propagation="rshared", NonRecursive=True),
        ),
        {
            "mounts": [
                {
                    "type": "bind",
                    "source": "/s",
                    "destination": "/t",
                    "options": ["bind", "rshared"],
                }
            ]
        },
    ),
    (
        Mount(
            Type="tmpfs",
            Target="/t",
            TmpfsOptions=TmpfsOptions(SizeBytes=9, Mode=0o700, Options=(("exec",), ("uid", "1"))),
        ),
        {
            "mounts": [
                {
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "destination": "/t",
                    "options": [
                        *("notmpcopyup", "nosuid", "nodev"),
                        *("size=9", "mode=700", "exec", "uid=1"),
                    ],
                }
            ]
        },
    ),
    (
        Mount(Type="image", Source="i", Target="/t", ImageOptions=ImageOptions(Subpath="etc")),
        {"image_volumes": [{"Source": "i", "Destination": "/t", "subPath": "etc"}]},
    ),
]


@pytest.mark.parametrize(("mount", "expected"), MOUNTS)
def test_mounts(mount: Mount, expected: dict[str, Any]) -> None:
    """Each kind of mount goes where libpod has it, with all its options."""
    assert difference(body(Mounts=(mount,))) == expected


def test_volumes_are_made_first_when_they_say_how() -> None:
    """Driver, its options and labels are a volume's own; a plain one makes itself."""
    how = VolumeOptions(Labels={"a": "b"}, DriverConfig=Driver(Name="nfs", Options={"o": "rw"}))
    mounts = (Mount(Source="plain", Target="/p"), Mount(Source="v", Target="/v", VolumeOptions=how))
    assert list(volumes_to_make(mounts)) == [
        {
            "Name": "v",
            "Label": {"a": "b"},
            "Labels": {"a": "b"},
            "Driver": "nfs",
            "Options": {"o": "rw"},
        }
    ]


def test_bind_sources_are_looked_after() -> None:
    """libpod itself does not look whether they exist."""
    options = BindOptions(CreateMountpoint=True)
    mounts = (
        Mount(Type="bind", Source="/a", Target="/t"),
        Mount(Type="bind", Source="/b", Target="/t", BindOptions=options),
        Mount(Source="v", Target="/t"),
    )
    assert bind_sources(mounts) == [("/a", False), ("/b", True)]


@pytest.mark.parametrize(("make", "word"), [(False, "seen"), (True, "made")])
def test_a_bind_source_that_cannot_be_looked_at(make: bool, word: str) -> None:
    """Such as one in a directory that this user may not enter: refused, with the reason."""
    options = BindOptions(CreateMountpoint=make)
    mount = Mount(Type="bind", Source="/" + "x" * 300, Target="/t", BindOptions=options)
    with pytest.raises(ExecutorError, match=rf"cannot be {word}: .*File name too long"):
        see_to_binds((mount,))


PRIVILEGES: list[tuple[Privileges, dict[str, Any]]] = [
    (Privileges(), {}),
    (Privileges(SELinuxContext=SELinuxContext(Disable=True)), {"selinux_opts": ["disable"]}),
    (
        Privileges(SELinuxContext=SELinuxContext(User="u", Role="r", Type="t", Level="l")),
        {"selinux_opts": ["user:u", "role:r", "type:t", "level:l"]},
    ),
    (Privileges(Seccomp=SeccompOpts(Mode="default")), {}),
    (Privileges(Seccomp=SeccompOpts(Mode="unconfined")), {"seccomp_profile_path": "unconfined"}),
    (
        Privileges(Seccomp=SeccompOpts(Mode="custom", Profile=b"{}")),
        {"seccomp_profile_path": "/files/t0/profile"},
    ),
    (Privileges(AppArmor=AppArmorOpts(Mode="default")), {}),
    (Privileges(AppArmor=AppArmorOpts(Mode="disabled")), {"apparmor_profile": "unconfined"}),
    (Privileges(NoNewPrivileges=True), {"no_new_privileges": True}),
]


@pytest.mark.parametrize(("privileges", "expected"), PRIVILEGES)
def test_privileges(privileges: Privileges, expected: dict[str, Any]) -> None:
    """Each has a key of its own."""
    assert difference(body(Privileges=privileges)) == expected


def test_a_seccomp_profile_is_a_file() -> None:
    """libpod reads it from one, so it is written where secrets are, and nothing else is."""
    custom = Privileges(Seccomp=SeccompOpts(Mode="custom", Profile=b"{}"))
    assert profile_of(assign(Privileges=custom)) == b"{}"
    assert profile_of(assign(Privileges=Privileges(Seccomp=SeccompOpts(Mode="default")))) == b""
    assert profile_of(assign()) == b""


def test_resources() -> None:
    """Limits are the engine's to hold; of reservations only memory means something to it."""
    wanted = ResourceRequirements(
        Limits=Limit(NanoCPUs=1_500_000_000, MemoryBytes=64 << 20, Pids=100),
        Reservations=Resources(NanoCPUs=1, MemoryBytes=32 << 20),
    )
    assert difference(body(task_spec={"Resources": wanted})) == {
        "resource_limits": {
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "cpu": {"period": 100_000, "quota": 150_000},
            "pids": {"limit": 100},
        }
    }
    assert difference(body(task_spec={"Resources": ResourceRequirements()})) == {}


def test_host_mode_ports_are_bound_and_others_are_not() -> None:
    """Port 0 lets the engine choose; one target may have several."""
    ports = (
        PortConfig(TargetPort=80, PublishedPort=8080, Protocol="tcp", PublishMode="host"),
        PortConfig(TargetPort=53, Protocol="udp", PublishMode="host"),
        PortConfig(TargetPort=443, PublishedPort=443, Protocol="tcp", PublishMode="ingress"),
    )
    assert difference(body(assignment={"ports": ports})) == {
        "portmappings": [
            {"container_port": 80, "host_port": 8080, "protocol": "tcp"},
            {"container_port": 53, "host_port": 0, "protocol": "udp"},
        ]
    }


def test_a_label_binds_a_host_mode_port_to_one_address() -> None:
    """Only the port that it names."""
    ports = (
        PortConfig(TargetPort=80, PublishedPort=8080, Protocol="tcp", PublishMode="host"),
        PortConfig(TargetPort=81, PublishedPort=8081, Protocol="tcp", PublishMode="host"),
    )
    labels = {"swarmctl.publish.8080/tcp.ip": "192.168.1.5"}
    bound, other = body(assignment={"ports": ports, "service_labels": labels})["portmappings"]
    assert bound["host_ip"] == "192.168.1.5"
    assert "host_ip" not in other


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (Driver(Name="json-file"), {"driver": "k8s-file"}),
        (
            Driver(Name="json-file", Options={"max-size": "10m", "max-file": "1"}),
            {"driver": "k8s-file", "size": 10 << 20},
        ),
        (
            Driver(Name="journald", Options={"tag": "x"}),
            {"driver": "journald", "options": {"tag": "x"}},
        ),
        (Driver(Name="none"), {"driver": "none"}),
    ],
)
def test_log_drivers(driver: Driver, expected: dict[str, Any]) -> None:
    """Docker's file is Podman's; a task's own driver wins over the cluster's."""
    made = body(task_spec={"LogDriver": driver}, assignment={"log_driver": Driver(Name="x")})
    assert made["log_configuration"] == expected


def on_network(**how: Any) -> dict[str, Any]:
    network = HostNetwork(
        id="id-of-net-0123456789",
        name="net",
        vni=4097,
        subnets=("10.98.1.0/24",),
        gateways=("10.98.1.1/24",),
        **how,
    )
    attached = AttachedNetwork(ID=network.id, Spec=AttachedNetworkSpec(Name="net"))
    return {
        "task": {
            "NetworksAttachments": (
                NetworkAttachment(Network=attached, Addresses=("10.98.1.9/24", "fd00::9/64")),
            )
        },
        "task_spec": {
            "Networks": (NetworkAttachmentConfig(Target=network.id, Aliases=("front",)),)
        },
        "assignment": {"networks": (network,)},
    }


def test_a_place_on_a_network_has_fixed_addresses_and_no_names() -> None:
    """All networks are joined at once; names are asked of this node, at its gateway."""
    assert difference(body(**on_network())) == {
        "netns": {"nsmode": "bridge"},
        "networks": {
            "net": {
                "static_ips": ["10.98.1.9", "fd00::9"],
                "static_mac": "02:42:0a:62:01:09",
            }
        },
        "dns_server": ["10.98.1.1"],
    }


@pytest.mark.parametrize(("name", "expected"), [("host", {"netns": {"nsmode": "host"}})])
def test_the_hosts_own_network(name: str, expected: dict[str, Any]) -> None:
    """A predefined network is a mode."""
    labels = {"com.docker.swarm.predefined": "true"}
    network = AttachedNetwork(Spec=AttachedNetworkSpec(Name=name, Labels=labels))
    made = body(task={"NetworksAttachments": (NetworkAttachment(Network=network),)})
    assert difference(made) == expected


def test_the_bridge_of_a_network() -> None:
    """It has this node's gateway, a name that is known beforehand, and room for a tunnel."""
    how = on_network(options={"com.docker.network.driver.overlay.x": "", "mode": "l2"})
    (network,) = how["assignment"]["networks"]
    assert PodmanNetworks().body(network, identity()) == {
        "name": "net",
        "driver": "bridge",
        "network_interface": "sw-id-of-net-01",
        "subnets": [
            {
                "subnet": "10.98.1.0/24",
                "gateway": "10.98.1.1",
                "lease_range": {"start_ip": "10.98.1.255", "end_ip": "10.98.1.255"},
            }
        ],
        "ipv6_enabled": False,
        "internal": False,
        "dns_enabled": False,
        "options": {"mtu": "1450", "isolate": "true", "mode": "l2"},
        "labels": {
            "swarmctl.cluster.id": "cluster-1",
            "swarmctl.node.id": "node-a",
            "swarmctl.network.id": "id-of-net-0123456789",
        },
    }


def test_secret_files_are_bound_read_only_after_the_users_mounts() -> None:
    """Each file is its own read-only bind."""
    made = body(
        Mounts=(Mount(Type="tmpfs", Target="/v"),), files=[FileBind("/tmpfs/a", "/run/secrets/s")]
    )
    assert made["mounts"][1] == {
        "type": "bind",
        "source": "/tmpfs/a",
        "destination": "/run/secrets/s",
        "options": ["bind", "ro", "rprivate"],
    }


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"Mounts": (Mount(Type="cluster", Target="/t"),)}, "mount /t: cluster volumes"),
        ({"Mounts": (Mount(Type="npipe", Target="x"),)}, "Podman has no mounts of type npipe"),
        (
            {
                "Mounts": (
                    Mount(
                        Type="bind",
                        Target="/t",
                        BindOptions=BindOptions(ReadOnlyForceRecursive=True),
                    ),
                )
            },
            "ReadOnlyForceRecursive is not offered on Podman",
        ),
        ({"Isolation": "hyperv"}, "Isolation hyperv is Windows only"),
        ({"Privileges": Privileges(CredentialSpec=CredentialSpec(File="f"))}, "Windows only"),
        ({"Hosts": ("lonely",)}, 'host entry "lonely" must be'),
        ({"StopSignal": "SIGNONE"}, 'StopSignal "SIGNONE" is no signal'),
        (
            {"task_spec": {"LogDriver": Driver(Name="json-file", Options={"max-file": "3"})}},
            "log option max-file=3: Podman keeps one file",
        ),
        (
            {"task_spec": {"LogDriver": Driver(Name="json-file", Options={"max-size": "x"})}},
            'max-size: "x" is no size',
        ),
        (
            {"task_spec": {"LogDriver": Driver(Name="json-file", Options={"labels": "x"})}},
            "Podman has no log option labels",
        ),
    ],
)
def test_what_podman_cannot_do_is_refused(spec: dict[str, Any], text: str) -> None:
    """Nothing is accepted and then not done."""
    with pytest.raises(ExecutorError, match=text):
        body(**spec)


def test_a_volume_without_a_name_has_no_labels() -> None:
    """libpod would make it without; the error says what to do."""
    mount = Mount(Target="/t", VolumeOptions=VolumeOptions(Labels={"a": "b"}))
    with pytest.raises(ExecutorError, match=r"mount /t: .*neither labels nor a driver; name it"):
        list(volumes_to_make((mount,)))


@pytest.mark.parametrize(
    ("field", "mount"),
    [
        ("VolumeOptions.Subpath", {"VolumeOptions": VolumeOptions(Subpath="x")}),
        ("ImageOptions.Subpath", {"Type": "image", "ImageOptions": ImageOptions(Subpath="x")}),
    ],
)
def test_a_field_that_the_engine_would_ignore_is_refused(field: str, mount: dict[str, Any]) -> None:
    """An older engine gets no body, and the error names field and versions."""
    spec = {"Mounts": (Mount(Target="/t", **mount),)}
    assert body(PodmanVersion(5, 4), **spec)
    with pytest.raises(ExecutorError) as caught:
        body(PodmanVersion(5, 3), **spec)
    assert str(caught.value) == f"{field} needs Podman 5.4, and this node's engine is 5.3"


LEFT_TO_OTHERS = {"Image", "Secrets", "Configs"}  # always there; arrive as files
TRIED = {name for given, _ in FIELDS for name in given} | {"Mounts", "Privileges"}


def test_no_field_of_a_container_is_forgotten() -> None:
    """Every field of the model is translated by a test of this file, or stands above."""
    assert set(ContainerSpec.__struct_fields__) - TRIED == LEFT_TO_OTHERS


def test_a_container_gets_no_more_than_the_host_allows() -> None:
    """Podman's own wishes for files and processes are bounded; the spec's stand as they are."""
    own = {"type": "nofile", "soft": 8, "hard": 9}
    here = {"nofile": 20000, "nproc": 32768}
    processes = {"type": "nproc", "soft": 32768, "hard": 32768}
    assert with_limits({"r_limits": [own]}, here) == [own, processes]
    assert with_limits({}, {}) == []
    assert all(0 < value < 1 << 20 for value in limits_here().values())
