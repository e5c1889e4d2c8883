"""What libpod's answers mean: JSON in, our words out. No engine needed.

The answers of hosts that no test has, such as those with control groups of version 2, are composed
by hand after libpod's source, not recorded; what follows from them was not run.
"""

from __future__ import annotations

from typing import Any

import pytest
from swarmctl_podman_exec.answers import inspection, listed
from swarmctl_podman_exec.describe import description, stats_sample
from swarmctl_podman_exec.dialect import PodmanDialect
from swarmctl_podman_exec.executor import PodmanExecutor
from swarmctl_podman_exec.health import Rhythm, argv, command_of, health_keys, pause_s
from swarmctl_podman_exec.images import full_name, names_of
from swarmctl_podman_exec.logs import Numbering
from swarmctl_podman_exec.networks import PodmanNetworks
from swarmctl_podman_exec.version import PodmanVersion, prefix_for, version_in

from swarmctl.plugins import ExecutorSettings, InvalidArgument, LogLine, PluginInfo
from swarmctl.plugins.engine import Refused
from swarmctl.plugins.loader import DETECTION_ORDER, NoSuchExecutor, Plugins
from swarmctl.plugins.model import SECOND, HealthConfig

NO_GROUPS = "Podman without root has no control groups of version 1"
NO_BRIDGES = "the bridges of Podman without root are not in the host's network"


def info(*, rootless: bool = False, version: str = "v1", controllers: str = "", **more: Any) -> Any:
    """An answer of Podman 4.3.1, as far as it is read; changed where hosts differ."""
    return {
        "host": {
            "arch": "amd64",
            "cgroupControllers": controllers.split(),
            "cgroupVersion": version,
            "cpus": 2,
            "eventLogger": "file",
            "hostname": "vm",
            "memTotal": 25276059648,
            "networkBackend": "netavark",
            "os": "linux",
            "security": {"rootless": rootless},
            **more,
        },
        "plugins": {
            "volume": ["local"],
            "network": ["bridge", "macvlan"],
            "log": ["k8s-file", "none", "passthrough", "journald"],
            "authorization": None,
        },
        "registries": {},
        "version": {"APIVersion": "4.3.1", "Version": "4.3.1"},
    }


V1_ROOT = "cpuset cpu cpuacct blkio memory devices freezer pids"
V2_ROOT = "cpuset cpu io memory hugetlb pids rdma misc"


def test_an_engines_description() -> None:
    """Resources, platform, version, and log drivers under Docker's names, too."""
    made = description(info(controllers=V1_ROOT), hostname="")
    assert made.node.Hostname == "vm"
    assert (made.node.Resources.NanoCPUs, made.node.Resources.MemoryBytes) == (
        2 * SECOND,
        25276059648,
    )
    assert (made.node.Platform.Architecture, made.node.Platform.OS) == ("amd64", "linux")
    assert made.node.Engine.EngineVersion == "4.3.1"
    assert made.node.Engine.Labels == {"swarmctl.executor": "podman"}
    assert [(plugin.Type, plugin.Name) for plugin in made.node.Engine.Plugins] == [
        *(("Log", name) for name in ("journald", "json-file", "k8s-file", "none", "passthrough")),
        *(("Network", name) for name in ("bridge", "macvlan")),
        ("Volume", "local"),
    ]
    assert made.warnings == ()


@pytest.mark.parametrize(
    ("answer", "lacking"),
    [
        (info(controllers=V1_ROOT), {}),
        (info(version="v2", controllers=V2_ROOT), {}),
        (
            info(rootless=True),
            {
                **dict.fromkeys(("cpu-limit", "memory-limit", "pids-limit", "stats"), NO_GROUPS),
                "networks": NO_BRIDGES,
            },
        ),
        # What systemd hands to users by default; the processor's takes Delegate=cpu.
        (
            info(rootless=True, version="v2", controllers="memory pids"),
            {
                "cpu-limit": "Podman here has no control group controller cpu",
                "networks": NO_BRIDGES,
            },
        ),
        (
            info(rootless=True, version="v2", controllers="cpu memory pids"),
            {"networks": NO_BRIDGES},
        ),
        (
            info(controllers=V1_ROOT, networkBackend="cni"),
            {"networks": "Podman here uses cni, not netavark"},
        ),
    ],
)
def test_what_a_host_cannot_give_is_a_label_with_the_reason(
    answer: Any, lacking: dict[str, str]
) -> None:
    """Control groups of both versions, with root and without; a warning says the same."""
    made = description(answer, hostname="h")
    labels = {
        name.removeprefix("swarmctl.lacks."): reason
        for name, reason in made.node.Engine.Labels.items()
        if name.startswith("swarmctl.lacks.")
    }
    assert labels == lacking
    said = " ".join(made.warnings)
    assert all(name in said and reason in said for name, reason in lacking.items())


def test_an_engine_without_events_is_warned_of() -> None:
    """Ends of tasks are then found by the lists that are made anyway."""
    (warning,) = description(info(controllers=V1_ROOT, eventLogger="none"), hostname="").warnings
    assert "logs no events" in warning


@pytest.mark.parametrize(
    "traffic",
    [
        {"NetInput": 7, "NetOutput": 8},
        {"Network": {"eth0": {"RxBytes": 3, "TxBytes": 8}, "eth1": {"RxBytes": 4, "TxBytes": 0}}},
    ],
)
def test_a_sample(traffic: dict[str, Any]) -> None:
    """Counters since the start; the network's numbers are told in one of two ways."""
    row = {"SystemNano": 5, "CPUNano": 6, "MemUsage": 9, "PIDs": 1, **traffic}
    sample = stats_sample({"Error": None, "Stats": [row]})
    assert sample is not None
    assert (sample.at, sample.cpu_ns, sample.memory_bytes, sample.pids) == (5, 6, 9, 1)
    assert (sample.net_rx_bytes, sample.net_tx_bytes) == (7, 8)
    assert stats_sample({"Error": None, "Stats": None}) is None


def container(status: str, *, health: Any = None, check: Any = None, **config: Any) -> Any:
    state = {"Status": status, "Running": status == "running", "ExitCode": 0, "Pid": 7}
    return {
        "Id": "c0",
        "State": {**state, "Health": health},
        "Config": {"StopSignal": 15, "Labels": {}, "Healthcheck": check, **config},
        "NetworkSettings": {"Networks": {"net": {}}, "Ports": {}},
    }


@pytest.mark.parametrize(
    ("status", "running", "never"),
    [
        ("created", False, True),
        ("configured", False, True),
        ("initialized", False, True),
        ("running", True, False),
        ("paused", True, False),
        ("stopping", True, False),
        ("stopped", False, False),
        ("exited", False, False),
        ("removing", False, False),
    ],
)
def test_states(*, status: str, running: bool, never: bool) -> None:
    """Podman has more of them than Docker, and says the same three things by them."""
    seen = inspection(container(status))
    assert (seen.is_running, seen.never_started) == (running, never)
    row = {"Id": "c0", "State": status, "Labels": {"com.docker.swarm.task.id": "t0"}}
    assert listed(row).is_running is running
    assert listed(row).task_id == "t0"


@pytest.mark.parametrize(("told", "signal"), [(15, "15"), ("SIGTERM", "SIGTERM"), (0, "SIGTERM")])
def test_a_stop_signal_is_a_number_or_a_name(told: object, signal: str) -> None:
    """Either can be sent as it is."""
    assert inspection(container("running", StopSignal=told)).stop_signal == signal


def test_health() -> None:
    """Podman's verdict is ours; a streak of failures is the cause of an end."""
    check = {"Test": ["CMD", "x"], "Retries": 2}
    running = inspection(container("running", check=check, health={"Status": "healthy"}))
    assert (running.has_health_check, running.is_healthy) == (True, True)
    starting = inspection(container("running", check=check, health={"Status": "starting"}))
    assert starting.is_healthy is None
    failed = {"Status": "unhealthy", "FailingStreak": 2, "Log": None}
    ended = inspection(container("exited", check=check, health=failed))
    assert ended.exit_status().error == "unhealthy container"
    assert not inspection(container("running")).has_health_check


IMAGES_OWN = {"Test": ["CMD-SHELL", "y"], "Interval": 9, "Retries": 4}


@pytest.mark.parametrize(
    ("wanted", "of_image", "body", "rhythm"),
    [
        (None, {}, None, (30 * SECOND, 5 * SECOND)),
        (HealthConfig(Test=("NONE",)), IMAGES_OWN, {"Test": ["NONE"]}, (9, 5 * SECOND)),
        (
            HealthConfig(Test=("CMD", "x"), Interval=1, Timeout=2, StartPeriod=3, StartInterval=4),
            {},
            {"Test": ["CMD", "x"], "Interval": 0, "Timeout": 2, "StartPeriod": 3, "Retries": 3},
            (1, 4),
        ),
        (
            HealthConfig(Timeout=2),
            IMAGES_OWN,
            {
                "Test": ["CMD-SHELL", "y"],
                "Interval": 0,
                "Timeout": 2,
                "StartPeriod": 0,
                "Retries": 4,
            },
            (9, 5 * SECOND),
        ),
    ],
)
def test_a_health_check_is_the_specs_and_the_images(
    wanted: HealthConfig | None, of_image: Any, body: Any, rhythm: tuple[int, int]
) -> None:
    """Podman is told of no interval, so it sets up no timer; the rhythm is kept beside it."""
    assert health_keys(wanted, of_image) == (body, rhythm)
    assert Rhythm.parse(str(Rhythm(*rhythm))) == rhythm


def test_a_rhythm_that_cannot_be_read_is_dockers() -> None:
    """A container that somebody relabelled is checked all the same."""
    assert Rhythm.parse("often") == (30 * SECOND, 5 * SECOND)


@pytest.mark.parametrize(
    ("status", "age_s", "expected"),
    [("starting", 0, 1.0), ("starting", 60, 10.0), ("healthy", 0, 10.0)],
)
def test_the_start_period_has_a_rhythm_of_its_own(
    status: str, age_s: float, expected: float
) -> None:
    """Shorter, until the first success or the period's end."""
    check = {"Test": ["CMD", "x"], "StartPeriod": 60 * SECOND}
    labels = {"swarmctl.health.rhythm": f"{10 * SECOND} {SECOND}"}
    body = container("running", check=check, health={"Status": status}, Labels=labels)
    assert pause_s(inspection(body), age_s) == expected


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (["CMD", "a", "b c"], ["a", "b c"]),
        (["CMD-SHELL", "a b"], ["/bin/sh", "-c", "a b"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_a_check_that_hangs_is_found_by_its_command(test: list[str], expected: list[str]) -> None:
    """Podman's list of what runs in a container does not say which is the check."""
    seen = inspection(container("running", check={"Test": test}))
    assert argv(seen) == expected
    run = {"ProcessConfig": {"entrypoint": expected[0], "arguments": expected[1:]}}
    assert command_of(run) == expected


@pytest.mark.parametrize(
    ("image", "full", "short"),
    [
        ("app", "docker.io/library/app:latest", "app"),
        ("app:1", "docker.io/library/app:1", "app:1"),
        ("me/app:1", "docker.io/me/app:1", "me/app:1"),
        ("host:5000/app", "host:5000/app:latest", "host:5000/app"),
        ("quay.io/a/b:2", "quay.io/a/b:2", "quay.io/a/b:2"),
        ("localhost/app", "localhost/app:latest", "localhost/app"),
        ("app:1@sha256:ab", "docker.io/library/app@sha256:ab", "app@sha256:ab"),
    ],
)
def test_names_of_images(image: str, full: str, short: str) -> None:
    """A short name is Docker Hub's; an image that is only here is found by it, too."""
    assert full_name(image) == full
    assert names_of(image) == list(dict.fromkeys((full, short)))


def line(at: int, text: bytes = b"x") -> LogLine:
    return LogLine(at=at, stream=1, text=text)


def test_lines_of_one_second_are_numbered() -> None:
    """So no two have one time; and reading from a second's beginning gives the same numbers."""
    told = [5, 5, 5, 7, 7]
    numbering = Numbering(0)
    times = [numbering.numbered(line(at * SECOND)).at for at in told]
    assert times == [5 * SECOND, 5 * SECOND + 1, 5 * SECOND + 2, 7 * SECOND, 7 * SECOND + 1]
    again = Numbering(7)
    late = [again.numbered(line(at * SECOND)).at for at in told[2:]]
    assert late == [5 * SECOND, *times[3:]]  # an earlier second's lines do not count


def test_times_that_are_exact_are_kept() -> None:
    """Newer engines tell nanoseconds; two equal ones are told apart."""
    numbering = Numbering(0)
    assert [numbering.numbered(line(at)).at for at in (50, 50, 60)] == [50, 51, 60]


def test_a_network_of_the_engine() -> None:
    """Name, labels, and each subnet with its gateway."""
    row = {
        "name": "net",
        "id": "0815",
        "labels": {"a": "b"},
        "subnets": [
            {
                "subnet": "10.98.1.0/24",
                "gateway": "10.98.1.1",
                "lease_range": {"start_ip": "10.98.1.8", "end_ip": "10.98.1.15"},
            },
            {"subnet": "fd00::/64"},
        ],
    }
    seen = PodmanNetworks().seen(row)
    assert (seen.name, seen.labels) == ("net", {"a": "b"})
    assert seen.configs == [("10.98.1.0/24", "10.98.1.1"), ("fd00::/64", "")]
    assert seen.own_choice == [("10.98.1.8", "10.98.1.15")]
    assert PodmanNetworks().seen({"name": "host", "id": "1"}).configs == []


@pytest.mark.parametrize(
    ("status", "text", "what"),
    [
        (404, "no such image: x", "image"),
        (500, "x: image not known", "image"),
        (500, "unable to find network with name or ID net: network not found", "network"),
        (500, 'the container name "web.1.t0" is already in use by abc', "name"),
        (500, "something else", ""),
    ],
)
def test_why_a_create_was_refused(status: int, text: str, what: str) -> None:
    """libpod's status is 500 for nearly everything; its words tell."""
    dialect, error = PodmanDialect(), Refused(status, text)
    found = {
        "image": dialect.is_no_image(error),
        "network": dialect.is_no_network(error),
        "name": dialect.is_name_taken(error),
    }
    assert [name for name, is_so in found.items() if is_so] == [what] * bool(what)


def test_versions() -> None:
    """Paths carry the engine's own version; 4.10 is newer than 4.9."""
    assert PodmanVersion.parse("5.4.0-dev") == (5, 4)
    assert prefix_for(PodmanVersion(4, 3)) == "/v4.3.0/libpod"
    assert version_in("/v4.3.0/libpod") == PodmanVersion(4, 3)
    assert PodmanVersion(4, 9) < PodmanVersion(4, 10)
    with pytest.raises(ValueError, match="no version"):
        PodmanVersion.parse("new")


def test_the_hook_makes_the_podman_executor_and_no_other() -> None:
    """The plugin answers to its own name, and names itself; Docker is looked for first."""
    import swarmctl_podman_exec

    plugins = Plugins()
    plugins.register("podman", swarmctl_podman_exec)
    settings = ExecutorSettings(state_dir="/nowhere")
    assert isinstance(plugins.executor("podman", settings), PodmanExecutor)
    assert plugins.infos() == (PluginInfo(name="podman", version="0.1.0"),)
    with pytest.raises(NoSuchExecutor):
        plugins.executor("docker", settings)
    assert DETECTION_ORDER == ("docker", "podman", "process")


def test_where_podman_listens() -> None:
    """Root's socket is below /run, a user's below his own directory; nothing else is an engine."""
    assert PodmanDialect("/run").endpoint == "unix:///run/podman/podman.sock"
    assert PodmanDialect("/run/user/7").endpoint == "unix:///run/user/7/podman/podman.sock"
    with pytest.raises(InvalidArgument, match=r"such as unix:///run/.*podman\.sock"):
        PodmanExecutor(ExecutorSettings(state_dir="/nowhere", engine="tcp://127.0.0.1:1"))
