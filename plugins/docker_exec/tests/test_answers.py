"""What the engine's answers mean: bytes and JSON in, our words out. No engine needed."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from swarmctl_docker_exec import describe
from swarmctl_docker_exec.dialect import UNHEALTHY
from swarmctl_docker_exec.executor import DockerExecutor
from swarmctl_docker_exec.reference import Reference

from swarmctl.plugins import (
    ExecutorError,
    ExecutorSettings,
    InvalidArgument,
    LogLine,
    PluginInfo,
)
from swarmctl.plugins.engine import Inspection, Listed, LogParser
from swarmctl.plugins.loader import NoSuchExecutor, Plugins
from swarmctl.plugins.model import (
    DiscreteResourceSpec,
    GenericResource,
    NamedResourceSpec,
    PortConfig,
)
from tests.engines.assignments import identity

STAMP = b"2024-01-01T00:00:00.000000007Z "
AT = 1_704_067_200_000_000_007


def frame(stream: int, text: bytes) -> bytes:
    message = STAMP + text
    return struct.pack(">BxxxI", stream, len(message)) + message


def inspection(
    *, state: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **more: Any
) -> Inspection:
    plain = {"Status": "exited", "Running": False, "ExitCode": 137, "Pid": 0}
    return Inspection(
        {
            "Id": "c0",
            "State": {**plain, **(state or {})},
            "Config": config or {},
            "NetworkSettings": {"Ports": {}},
            **more,
        },
        UNHEALTHY,
    )


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_log_frames_are_read_in_any_pieces(step: int) -> None:
    """Frames cut anywhere give the same lines; messages without a line end are put together."""
    data = frame(1, b"a\n") + frame(1, b"long ") + frame(2, b"err\n") + frame(1, b"line\n")
    data += frame(2, b"rest")
    parser = LogParser(has_tty=False)
    found = [line for at in range(0, len(data), step) for line in parser.feed(data[at : at + step])]
    found += parser.end()
    expected = [(1, b"a"), (2, b"err"), (1, b"long line")]
    whole = [LogLine(at=AT, stream=stream, text=text) for stream, text in expected]
    assert found == [*whole, LogLine(at=AT, stream=2, text=b"rest", partial=True)]


def test_an_endless_line_is_given_in_pieces() -> None:
    """Output without any line end does not pile up in memory."""
    parser = LogParser(has_tty=False)
    piece = frame(1, b"x" * 16_384)
    found = [line for _ in range(128) for line in parser.feed(piece)]
    assert [(len(line.text), line.partial) for line in found] == [(1 << 20, True)] * 2


@pytest.mark.parametrize("step", [1, 1000, 100_000])
def test_a_terminals_long_lines_are_put_together(step: int) -> None:
    """The engine stamps each piece of 16 KiB; the stamps between them are no output, and what only
    looks like a stamp is."""
    fake = STAMP + b"x" * 100
    data = STAMP + b"x" * 16_384 + STAMP + b"y" * 16_384 + STAMP + b"\r\n" + STAMP + fake + b"\r\n"
    data += STAMP + b"prompt"
    parser = LogParser(has_tty=True)
    found = [line for at in range(0, len(data), step) for line in parser.feed(data[at : at + step])]
    found += parser.end()
    texts = [(line.text, line.partial) for line in found]
    assert texts == [
        (b"x" * 16_384 + b"y" * 16_384 + b"\r", False),
        (fake + b"\r", False),
        (b"prompt", True),
    ]


@pytest.mark.parametrize("has_tty", [False, True])
def test_what_the_engine_itself_says_among_output(has_tty: bool) -> None:
    """An engine that cannot read its own log says so without a time stamp, in a frame of another
    kind where there are frames: an error in its words, after the lines before."""
    said = b"Error grabbing logs: unexpected EOF\n"
    data = STAMP + b"a\n" + said
    if not has_tty:
        data = frame(1, b"a\n") + struct.pack(">BxxxI", 3, len(said)) + said
    found: list[LogLine] = []
    with pytest.raises(ExecutorError, match="be read: Error grabbing logs: unexpected EOF"):
        found.extend(LogParser(has_tty=has_tty).feed(data))
    assert [line.text for line in found] == [b"a"]


@pytest.mark.parametrize(
    ("state", "config", "error"),
    [
        ({}, {}, ""),
        ({"OOMKilled": True}, {}, "container ran out of memory"),
        ({"Error": "cannot attach"}, {}, "cannot attach"),
        # Docker calls every ended container unhealthy; only a full streak of failures means it.
        ({"Health": {"Status": "unhealthy", "FailingStreak": 0}}, {}, ""),
        ({"Health": {"Status": "unhealthy", "FailingStreak": 2}}, {}, ""),
        (
            {"Health": {"Status": "unhealthy", "FailingStreak": 3}},
            {},
            "dockerexec: unhealthy container",
        ),
        (
            {"Health": {"Status": "unhealthy", "FailingStreak": 1}},
            {"Healthcheck": {"Retries": 1}},
            "dockerexec: unhealthy container",
        ),
    ],
)
def test_the_cause_of_an_end(state: dict[str, Any], config: dict[str, Any], error: str) -> None:
    """An exit carries its cause beyond the code where the engine knows one."""
    status = inspection(state=state, config=config).exit_status()
    assert (status.code, status.error) == (137, error)


def test_the_time_of_an_end_keeps_nanoseconds() -> None:
    """The end is when the engine says it was."""
    state = {"FinishedAt": STAMP.decode().strip()}
    assert inspection(state=state).exit_status().finished_at == AT


@pytest.mark.parametrize(
    ("state", "pid"),
    [
        ({"Status": "created"}, None),
        ({"Status": "running", "Running": True, "Pid": 7}, 7),
        ({"Status": "paused", "Running": True, "Pid": 7}, 7),
        ({}, 0),
        ({"Pid": 7}, 0),
    ],
)
def test_a_pid_of_zero_means_the_end(state: dict[str, Any], pid: int | None) -> None:
    """A container that was only created has no process either, and has not ended."""
    container = inspection(state=state).observation(()).container
    assert (None if container is None else container.PID) == pid


def test_a_port_bound_on_both_address_families_is_one_port() -> None:
    """IPv4 and IPv6 bindings of one port are told once, with the port's own name."""
    bindings = [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]
    network = {"Ports": {"80/tcp": bindings, "81/tcp": None}}
    wanted = [PortConfig(Name="web", TargetPort=80)]
    seen = inspection(NetworkSettings=network).observation(wanted)
    assert seen.ports is not None
    assert seen.ports.Ports == (
        PortConfig(
            Name="web", Protocol="tcp", TargetPort=80, PublishedPort=8080, PublishMode="host"
        ),
    )


@pytest.mark.parametrize(
    ("test", "checked"), [(None, False), ([], False), (["NONE"], False), (["CMD", "x"], True)]
)
def test_a_health_check_may_be_none(test: list[str] | None, checked: bool) -> None:
    """An absent, empty or switched-off check is none."""
    config = {} if test is None else {"Healthcheck": {"Test": test}}
    assert inspection(config=config).has_health_check is checked


@pytest.mark.parametrize("missing", ["swarmctl.cluster.id", "swarmctl.node.id", "task"])
def test_a_container_is_ours_only_with_all_our_labels(missing: str) -> None:
    """Cluster, node and task: one missing or different, and the container is a stranger's."""
    labels = {
        "swarmctl.cluster.id": "cluster-1",
        "swarmctl.node.id": "node-a",
        "com.docker.swarm.task.id": "t0",
    }
    assert inspection(config={"Labels": labels}).is_of(identity())
    labels.pop("com.docker.swarm.task.id" if missing == "task" else missing)
    assert not inspection(config={"Labels": labels}).is_of(identity())


@pytest.mark.parametrize(
    ("state", "status", "running", "verdict"),
    [
        ("running", "Up 3 minutes", True, ""),
        ("running", "Up 3 minutes (health: starting)", True, ""),
        ("running", "Up 3 minutes (healthy)", True, "healthy"),
        ("running", "Up 3 minutes (unhealthy)", True, "unhealthy"),
        ("paused", "Up 3 minutes (Paused)", True, ""),
        ("created", "Created", False, ""),
        ("exited", "Exited (0) 2 days ago", False, ""),
        ("dead", "Dead", False, ""),
    ],
)
def test_a_row_of_the_list(state: str, status: str, running: bool, verdict: str) -> None:
    """The list tells what runs and what its health check says."""
    row = Listed.read({"Id": "c0", "Labels": None, "State": state, "Status": status})
    assert (row.is_running, row.verdict) == (running, verdict)


@pytest.mark.parametrize(
    ("image", "name", "tag"),
    [
        ("alpine", "alpine", "latest"),
        ("alpine:3", "alpine", "3"),
        ("host:5000/a/b", "host:5000/a/b", "latest"),
        ("host:5000/a/b:1", "host:5000/a/b", "1"),
        ("host:5000/a/b:1@sha256:ab", "host:5000/a/b", "sha256:ab"),
        ("a@sha256:ab", "a", "sha256:ab"),
    ],
)
def test_image_references_are_split_as_pulls_want_them(image: str, name: str, tag: str) -> None:
    """A digest wins over a tag, a port is no tag, and no tag means latest, never all tags."""
    assert Reference.parse(image) == (name, tag)


def test_an_engines_description() -> None:
    """Labels, generic resources, plugins by type, and the engine's own warnings."""
    info = {
        "Name": "h",
        "NCPU": 2,
        "MemTotal": 5,
        "Labels": ["zone=a=b", "ssd"],
        "Plugins": {"Volume": ["nfs", "local"], "Network": ["bridge"], "Log": None},
        "GenericResources": [
            {"NamedResourceSpec": {"Kind": "gpu", "Value": "u1"}},
            {"DiscreteResourceSpec": {"Kind": "fpga", "Value": 2}},
        ],
        "Warnings": ["WARNING: No swap limit support"],
    }
    made = describe.description(info, hostname="")
    assert made.node.Hostname == "h"
    assert made.node.Engine.Labels == {"zone": "a=b", "ssd": "", "swarmctl.executor": "docker"}
    assert [(p.Type, p.Name) for p in made.node.Engine.Plugins] == [
        ("Network", "bridge"),
        ("Volume", "local"),
        ("Volume", "nfs"),
    ]
    assert made.node.Resources.GenericResources == (
        GenericResource(NamedResourceSpec=NamedResourceSpec(Kind="gpu", Value="u1")),
        GenericResource(DiscreteResourceSpec=DiscreteResourceSpec(Kind="fpga", Value=2)),
    )
    assert made.warnings == ("WARNING: No swap limit support",)


def test_a_sample_of_an_ended_container_is_none() -> None:
    """The engine answers with zeroes for a container that has just ended."""
    assert describe.stats_sample({"read": "0001-01-01T00:00:00Z"}) is None


def test_the_hook_makes_the_docker_executor_and_no_other() -> None:
    """The plugin answers to its own name, and names itself."""
    import swarmctl_docker_exec

    plugins = Plugins()
    plugins.register("docker", swarmctl_docker_exec)
    settings = ExecutorSettings(state_dir="/nowhere")
    assert isinstance(plugins.executor("docker", settings), DockerExecutor)
    assert plugins.infos() == (PluginInfo(name="docker", version="0.1.0"),)
    with pytest.raises(NoSuchExecutor):
        plugins.executor("podman", settings)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:2375", "/var/run/docker.sock", "unix://x"])
def test_an_engine_elsewhere_is_refused(endpoint: str) -> None:
    """Tasks of this node run on this host: only a unix socket names an engine."""
    with pytest.raises(InvalidArgument, match="must be a unix socket of this host, such as unix:"):
        DockerExecutor(ExecutorSettings(state_dir="/nowhere", engine=endpoint))
