"""A task's life on a real engine, from pull to removal."""

from __future__ import annotations

import base64
import json
import os
import signal
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.plugins import ExecutorError, LogLine, LogOptions
from swarmctl.plugins.model import HealthConfig, Mount, PortConfig, SecretFile
from tests.e2e.lab.waiting import eventually

from .assignments import IMAGE
from .conftest import docker_only
from .private import LOGIN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from swarmctl.plugins import TaskController

    from .conftest import Node
    from .private import PrivateEngine

pytestmark = pytest.mark.engine
MS = 1_000_000
LOOP = "while :; do sleep 0.05; done"
TWO_PROBES = {"Interval": 100 * MS, "Timeout": 5_000 * MS, "Retries": 2}


async def test_a_task_runs_ends_and_leaves_no_trace(node: Node, engine: PrivateEngine) -> None:
    """Its exit code and times are the container's, and removal leaves neither it nor a volume."""
    volume = Mount(Type="volume", Target="/v")
    task = await node.running(LOOP, setting="trap 'exit 7' USR1", Mounts=(volume,))
    seen = await task.observe()
    assert seen.container is not None
    assert seen.container.ContainerID == engine.running()["web.1.t0"]
    assert Path(f"/proc/{seen.container.PID}").exists()
    assert await node.executor.known_tasks() == {"t0": True}
    os.kill(seen.container.PID, signal.SIGUSR1)
    status = await task.wait()
    assert (status.code, status.error) == (7, "")
    assert status.finished_at > 0
    assert await node.executor.known_tasks() == {"t0": False}
    await task.remove()
    assert await node.executor.known_tasks() == {}
    assert engine.api("GET", "/volumes")["Volumes"] in (None, [])


async def test_every_step_may_be_repeated(node: Node) -> None:
    """Steps done before return at once, also after the task has ended, and start it only once."""
    task = await node.running("echo once")
    await task.prepare()
    await task.start()
    assert (await task.wait()).code == 0
    await task.prepare()
    await task.start()
    await task.shutdown()
    assert (await task.wait()).code == 0
    assert [line.text for line in await lines(task)] == [b"once"]
    await task.remove()
    await task.remove()


@pytest.fixture(params=["open"])
def registry(engine: PrivateEngine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A registry with the image ``app:1`` in it; a ``guarded`` one asks who pulls."""
    served = engine.registry(guarded=request.param == "guarded")

    def pushed() -> bool:
        engine.push(IMAGE, "127.0.0.1:5000/app", "1")
        return True

    eventually(pushed, 10, what="push")
    engine.api("DELETE", "/images/127.0.0.1:5000/app:1")
    yield "127.0.0.1:5000"
    served.kill()
    served.communicate()


async def test_images_are_pulled_and_a_digest_that_is_here_is_not(
    node: Node, engine: PrivateEngine, registry: str, make_node: Callable[..., Awaitable[Node]]
) -> None:
    """An image comes from its registry; by digest it is pulled once, also by a new daemon."""
    before = engine.events_of("image", "pull")
    await node.running(Image=f"{registry}/app:1")
    name = (
        f"{registry}/app@"
        + engine.api("GET", f"/images/{registry}/app:1/json")["RepoDigests"][0].rpartition("@")[2]
    )
    pulls = engine.events_of("image", "pull")
    assert pulls > before
    again = await make_node()
    await again.running(task_id="t1", slot=2, service="other", Image=name)
    assert engine.events_of("image", "pull") == pulls


@pytest.mark.parametrize("registry", ["guarded"], indirect=True)
async def test_a_registry_that_asks_who_pulls(node: Node, registry: str) -> None:
    """With the right credentials the image comes; without, or with wrong ones, it is told so."""

    async def prepare(service: str, login: dict[str, str]) -> None:
        auth = base64.urlsafe_b64encode(json.dumps(login).encode()).decode() if login else ""
        given = {"registry_auth": auth}
        image = f"{registry}/app:1"
        await node.controller(
            task_id=service, service=service, Image=image, assignment=given
        ).prepare()

    for service, login in (("none", {}), ("wrong", {**LOGIN, "password": "x"})):
        with pytest.raises(ExecutorError, match=r"No such image: .*(auth|denied|credentials)"):
            await prepare(service, login)
    await prepare("right", LOGIN)


async def test_a_cancelled_start_leaves_nothing_running_behind(node: Node) -> None:
    """A start that goes on in the engine after it was cancelled is known to the stop after it."""
    task = node.controller(Command=("sleep", "1000"))
    await task.prepare()
    with trio.move_on_after(0.03) as scope:
        await task.start()
    await task.shutdown()
    assert scope.cancelled_caught
    await trio.sleep(0.5)
    assert await node.executor.known_tasks() == {"t0": False}


@pytest.mark.parametrize(
    ("image", "command", "text"),
    [
        ("nowhere.invalid/app:1", ("true",), "No such image: nowhere.invalid/app:1: "),
        (IMAGE, ("/no/such/program",), "starting container failed: .*no such file"),
    ],
)
async def test_what_cannot_run_says_why(
    node: Node, image: str, command: tuple[str, ...], text: str
) -> None:
    """A missing image or program is an error in Docker's words, with the cause."""
    task = node.controller(Image=image, Command=command)

    async def bring_up() -> None:
        await task.prepare()
        await task.start()

    with pytest.raises(ExecutorError, match=text):
        await bring_up()


async def test_a_bind_source_that_is_missing_is_refused(node: Node) -> None:
    """Nothing is made on the host for a bind mount whose source does not exist."""
    task = node.controller(Mounts=(Mount(Type="bind", Source="/no/such", Target="/x"),))
    with pytest.raises(ExecutorError, match="bind source path does not exist: /no/such"):
        await task.prepare()
    assert not Path("/no/such").exists()


@docker_only
async def test_a_field_newer_than_the_engine_is_refused_before_anything_is_made(
    node: Node, engine: PrivateEngine
) -> None:
    """What this engine's API cannot do is said, with both versions, and no container exists."""
    major, minor = engine.api("GET", "/version")["ApiVersion"].split(".")
    if int(minor) >= 44:
        pytest.skip("this engine knows StartInterval")
    task = node.controller(Healthcheck=HealthConfig(Test=("CMD", "true"), StartInterval=MS))
    with pytest.raises(ExecutorError, match=rf"needs Docker Engine API 1.44.*{major}\.{minor}"):
        await task.prepare()
    assert await node.executor.known_tasks() == {}


async def test_stopping_is_the_tasks_own_signal_first(node: Node) -> None:
    """A task that obeys its stop signal ends with its own code, within the grace."""
    task = await node.running(
        LOOP, setting="trap 'exit 5' INT", StopSignal="SIGINT", StopGracePeriod=30_000 * MS
    )
    with trio.fail_after(15):
        await task.shutdown()
    assert (await task.wait()).code == 5


async def test_a_task_that_ignores_its_signal_is_killed_at_the_deadline(node: Node) -> None:
    """Grace over, the task is killed: 137, and not before the grace was over."""
    task = await node.running(LOOP, setting="trap '' TERM", StopGracePeriod=900 * MS)
    started = trio.current_time()
    await task.shutdown()
    assert trio.current_time() - started >= 0.9
    assert (await task.wait()).code == 137


async def test_a_stop_that_was_cancelled_goes_on_with_the_grace_that_is_left(node: Node) -> None:
    """Cancelling a stop and asking again neither starts the grace anew nor signals twice."""
    trap = "trap 'echo signal' TERM"
    task = await node.running(LOOP, setting=trap, StopGracePeriod=3_000 * MS)
    started = trio.current_time()
    with trio.move_on_after(1.5):
        await task.shutdown()
    await task.shutdown()
    assert 3.0 <= trio.current_time() - started < 4.4
    assert [line.text for line in await lines(task)].count(b"signal") == 1


async def test_kill_grants_no_grace(node: Node) -> None:
    """Kill ends a task that has ten seconds of grace at once."""
    task = await node.running(LOOP, setting="trap '' TERM", StopGracePeriod=None)
    with trio.fail_after(8):
        await task.kill()
    assert (await task.wait()).code == 137


async def test_start_returns_once_the_task_is_healthy(node: Node) -> None:
    """A task with a health check starts when its check passes, not before."""
    check = HealthConfig(Test=("CMD", "test", "-e", "/ok"), **{**TWO_PROBES, "Retries": 50})
    task = node.controller(
        Command=("sh", "-c", "sleep 0.7; touch /ok; exec sleep 1000"), Healthcheck=check
    )
    await task.prepare()
    before = trio.current_time()
    await task.start()
    assert trio.current_time() - before >= 0.7
    assert (await task.observe()).healthy is True


async def test_an_unhealthy_task_is_stopped_and_says_so(node: Node, engine: PrivateEngine) -> None:
    """A task whose check fails while it runs is stopped, and its end says why."""
    check = HealthConfig(Test=("CMD", "test", "!", "-e", "/bad"), **TWO_PROBES)
    task = await node.running(
        LOOP, setting="trap 'exit 3' TERM", Healthcheck=check, StopGracePeriod=30_000 * MS
    )
    container = (await task.observe()).container
    assert container is not None
    Path(f"/proc/{container.PID}/root/bad").touch()
    status = await task.wait()
    assert (status.code, status.error) == (3, engine.unhealthy)


async def test_a_task_that_never_gets_healthy_ends_and_a_new_daemon_knows_why(
    node: Node, engine: PrivateEngine, make_node: Callable[..., Awaitable[Node]]
) -> None:
    """Start returns when the task was stopped for its health; the cause survives the daemon."""
    check = HealthConfig(Test=("CMD", "false"), **TWO_PROBES)
    task = await node.running(Healthcheck=check)
    status = await task.wait()
    assert status.error == engine.unhealthy
    again = (await make_node()).controller()
    assert await again.wait() == status


async def test_host_ports_are_reported_as_bound(node: Node, engine: PrivateEngine) -> None:
    """A chosen port and one that the engine chose are both told, by name, once each."""
    ports = (
        PortConfig(Name="web", TargetPort=80, PublishedPort=18080, PublishMode="host"),
        PortConfig(Name="dns", TargetPort=53, Protocol="udp", PublishMode="host"),
        PortConfig(Name="no", TargetPort=81, PublishedPort=18081, PublishMode="ingress"),
    )
    task = await node.running(assignment={"ports": ports})
    bound = (await task.observe()).ports
    assert bound is not None
    found = {port.Name: port for port in bound.Ports}
    assert sorted(found) == ["dns", "web"]
    assert (found["web"].PublishedPort, found["web"].PublishMode) == (18080, "host")
    assert found["dns"].PublishedPort > 1024


async def test_a_host_port_is_bound_to_the_address_that_its_label_names(
    node: Node, engine: PrivateEngine
) -> None:
    """Whoever asks for loopback alone is not offered to the world, whichever engine it is."""
    ports = (PortConfig(TargetPort=80, PublishedPort=18080, PublishMode="host"),)
    labels = {"swarmctl.publish.18080.ip": "127.0.0.1"}
    await node.running(assignment={"ports": ports, "service_labels": labels})
    told = engine.api("GET", "/containers/web.1.t0/json")["NetworkSettings"]["Ports"]
    assert told["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "18080"}]


async def test_a_host_port_cannot_be_bound_to_an_interface(node: Node) -> None:
    """Engines know addresses only: the task is told, and not bound to all of them."""
    ports = (PortConfig(TargetPort=80, PublishedPort=18080, PublishMode="host"),)
    labels = {"swarmctl.publish.18080.ip": "lo"}
    with pytest.raises(ExecutorError, match=r"port 18080 .* an address, not lo"):
        await node.controller(assignment={"ports": ports, "service_labels": labels}).prepare()


async def test_secrets_and_configs_are_files_in_memory(node: Node, engine: PrivateEngine) -> None:
    """They have their owner and mode, cannot be written, lie on a tmpfs, and go with the task's
    end, though its container is kept."""
    files = {
        "secrets": (
            SecretFile(id="s", target="key", uid="7", gid="8", mode=0o440, data=b"marker\n"),
        ),
        "configs": (SecretFile(id="c", target="/etc/app/conf", mode=0o444, data=b"config\n"),),
    }
    script = (
        "stat -c '%a %u %g' /run/secrets/key; cat /run/secrets/key /etc/app/conf;"
        "(echo x > /etc/app/conf) 2>/dev/null || echo read-only; exec sleep 1000"
    )
    task = await node.running(script, assignment=files)
    home = Path(node.identity.state_dir, engine.kind, "files")
    assert os.stat(home).st_dev != os.stat(home.parent).st_dev  # noqa: PTH116
    assert f" {home} " in Path("/proc/self/mountinfo").read_text()
    said = [line.text for line in await lines(task, at_least=4)]
    assert said == [b"440 7 8", b"marker", b"config", b"read-only"]
    assert await node.executor.known_tasks() == {"t0": True}
    await task.kill()
    assert list(home.iterdir()) == []
    assert await node.executor.known_tasks() == {"t0": False}
    await task.remove()


async def test_a_secret_that_cannot_be_written_leaves_none(node: Node) -> None:
    """An owner that no user can be is refused, and the files before it are gone again."""
    good = SecretFile(id="s", target="good", data=b"marker\n")
    bad = SecretFile(id="t", target="bad", uid=str(2**32), data=b"marker\n")
    task = node.controller(assignment={"secrets": (good, bad)})
    with pytest.raises(ExecutorError, match='"4294967296:0" of bad must be two numbers below'):
        await task.prepare()
    assert await node.executor.known_tasks() == {}


async def test_a_container_that_was_removed_by_hand_leaves_no_secrets(
    node: Node, engine: PrivateEngine
) -> None:
    """Nobody will start it again; the task itself may stay in the swarm's history for long."""
    secrets = (SecretFile(id="s", target="key", data=b"marker\n"),)
    task = await node.running(assignment={"secrets": secrets})
    engine.api("DELETE", "/containers/web.1.t0?force=1")
    with pytest.raises(ExecutorError, match="container destroyed"):
        await task.wait()
    assert await node.executor.known_tasks() == {}


async def test_logs_keep_streams_times_and_long_lines(node: Node) -> None:
    """Lines come whole, with stream and time, and can be chosen by stream, tail and time."""
    script = (
        "echo out; sleep 0.05; echo err >&2; sleep 0.05;"
        "head -c 40000 /dev/zero | tr '\\0' x; echo; printf unfinished"
    )
    task = await node.running(script)
    await task.wait()
    found = await lines(task)
    assert [line.stream for line in found] == [1, 2, 1, 1]
    assert [line.text for line in found] == [b"out", b"err", b"x" * 40000, b"unfinished"]
    assert [line.partial for line in found] == [False, False, False, True]
    assert [line.at for line in found] == sorted(line.at for line in found)
    assert [line.text for line in await lines(task, stdout=False)] == [b"err"]
    assert [line.text for line in await lines(task, tail=1)] == [b"unfinished"]
    assert [line.text for line in await lines(task, since=found[1].at + 1)][-1] == b"unfinished"
    assert b"out" not in [line.text for line in await lines(task, since=found[1].at)]


async def test_logs_of_a_terminal(node: Node) -> None:
    """With a terminal there is one stream; carriage returns are kept, long lines are whole."""
    script = "echo one; echo two >&2; head -c 40000 /dev/zero | tr '\\0' x; echo"
    task = await node.running(script, TTY=True)
    await task.wait()
    found = [(line.stream, line.text) for line in await lines(task)]
    assert found == [(1, b"one\r"), (1, b"two\r"), (1, b"x" * 40_000 + b"\r")]


async def test_followed_logs_end_with_the_task_or_when_closed(node: Node) -> None:
    """Following gives lines as they are written, and ends by itself when the task ends."""
    script = "n=0; while [ $n -lt 4 ]; do n=$((n+1)); echo $n; sleep 0.2; done"
    task = await node.running(script)
    with trio.fail_after(20):
        async with aclosing(task.logs(LogOptions(follow=True))) as early:  # type: ignore[type-var]
            async for line in early:
                assert line.text == b"1"
                break
        assert [line.text for line in await lines(task, follow=True)] == [b"1", b"2", b"3", b"4"]


async def test_stats_are_sampled_for_running_tasks(node: Node) -> None:
    """A running task has memory and processes; one that ended or is unknown is left out."""
    await node.running(task_id="t0")
    await (await node.running("true", task_id="t1", slot=2)).wait()
    stats = await node.executor.stats(["t0", "t1", "unknown"])
    assert list(stats) == ["t0"]
    assert stats["t0"].at > 0
    assert stats["t0"].pids == 1
    assert stats["t0"].memory_bytes > 0


async def test_the_node_is_described_by_its_engine(node: Node, engine: PrivateEngine) -> None:
    """Resources, platform, version and plugins are the engine's; the label names the executor."""
    info = engine.api("GET", "/info")
    described = (await node.executor.describe()).node
    assert described.Hostname == "host-of-node-a"
    assert described.Resources.NanoCPUs == info["NCPU"] * 10**9
    assert described.Resources.MemoryBytes == info["MemTotal"]
    assert described.Platform.OS == "linux"
    assert described.Engine.EngineVersion == info["ServerVersion"]
    assert described.Engine.Labels["swarmctl.executor"] == engine.kind
    assert ("Volume", "local") in {(p.Type, p.Name) for p in described.Engine.Plugins}


async def lines(task: TaskController, *, at_least: int = 0, **options: object) -> list[LogLine]:
    """A task's output; waits until there are ``at_least`` so many lines."""
    with trio.fail_after(10):
        while True:
            found = [line async for line in task.logs(LogOptions(**options))]  # type: ignore[arg-type]
            if len(found) >= at_least:
                return found
            await trio.sleep(0.05)
