"""What only Podman needs: its executor does what Docker's engine does by itself."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from swarmctl_podman_exec.health import Prober

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.model import (
    BindOptions,
    Driver,
    HealthConfig,
    Limit,
    Mount,
    Privileges,
    ResourceRequirements,
    SeccompOpts,
    VolumeOptions,
)
from tests.e2e.lab.unix_http import UnixClient

from .conftest import podman_only
from .test_lifecycle import LOOP, MS, lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .conftest import Node
    from .private import PrivateEngine

pytestmark = [pytest.mark.engine, podman_only]


def seen(engine: PrivateEngine, name: str = "web.1.t0") -> dict[str, Any]:
    """What libpod knows of a container."""
    found: dict[str, Any] = engine.api("GET", f"/v4.0.0/libpod/containers/{name}/json")
    return found


async def test_a_check_that_hangs_is_killed_and_counts_as_failed(
    node: Node, engine: PrivateEngine
) -> None:
    """Its time over, nothing of it is left, and enough of them make the task unhealthy."""
    check = HealthConfig(
        Test=("CMD", "sleep", "4321"), Interval=200 * MS, Timeout=400 * MS, Retries=2
    )
    task = await node.running(LOOP, Healthcheck=check)
    status = await task.wait()
    assert status.error == engine.unhealthy
    assert "sleep 4321" not in engine.said_inside("ps", "-eo", "args")


async def test_checks_that_hang_hold_up_no_others(node: Node, engine: PrivateEngine) -> None:
    """Where as many hang as may run at a time, each is killed in its time, and the next has a turn
    and its whole time."""
    probe = node.executor._dialect.probe
    assert isinstance(probe, Prober)
    probe._places = trio.CapacityLimiter(1)
    check = HealthConfig(
        Test=("CMD", "sleep", "4322"), Interval=100 * MS, Timeout=400 * MS, Retries=2
    )
    tasks = [
        node.controller(task_id=f"t{n}", slot=n, Command=("sh", "-c", LOOP), Healthcheck=check)
        for n in (1, 2, 3)
    ]
    for task in tasks:
        await task.prepare()
    with trio.fail_after(25):
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task.start)
    assert [(await task.wait()).error for task in tasks] == [engine.unhealthy] * 3


async def test_the_rhythm_of_a_check_is_the_specs(node: Node, engine: PrivateEngine) -> None:
    """In the start period it runs more often; Podman was told of no interval and set no timer."""
    check = HealthConfig(
        Test=("CMD-SHELL", "date +%s%N >> /runs; test -e /ok"),
        Interval=60_000 * MS,
        StartPeriod=30_000 * MS,
        StartInterval=100 * MS,
    )
    script = "while [ $(cat /runs 2>/dev/null | wc -l) -lt 3 ]; do sleep 0.05; done; touch /ok"
    with trio.fail_after(15):
        task = await node.running(f"{script}; exec sleep 1000", Healthcheck=check)
    assert (await task.observe()).healthy is True
    assert "Interval" not in seen(engine)["Config"]["Healthcheck"]


async def test_the_images_own_check_is_run(node: Node, engine: PrivateEngine) -> None:
    """A spec that says nothing of health has the image's; one that says NONE has none."""
    name = "docker.io/library/checked:1"
    make_image(engine, name, ["HEALTHCHECK --interval=1s CMD test -e /ok"])
    script = "sleep 0.5; touch /ok; exec sleep 1000"
    task = node.controller(Image="checked:1", Command=("sh", "-c", script))
    await task.prepare()
    began = trio.current_time()
    await task.start()
    assert trio.current_time() - began >= 1
    assert (await task.observe()).healthy is True
    other = await node.running(
        task_id="t1", slot=2, Image="checked:1", Healthcheck=HealthConfig(Test=("NONE",))
    )
    assert (await other.observe()).healthy is None


def make_image(engine: PrivateEngine, name: str, instructions: list[str]) -> None:
    """Build an image upon the tests' own."""
    file = "\n".join(["FROM docker.io/library/alpine:latest", *instructions]).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(file)
        tar.addfile(entry, io.BytesIO(file))
    with UnixClient(engine.socket) as client:
        built = client.request("POST", "/build", packed.getvalue(), query={"t": name})
    assert built.status == 200, built.body
    assert b'"error"' not in built.body, built.body


async def test_a_new_daemon_goes_on_with_the_checks(
    node: Node, make_node: Callable[..., Awaitable[Node]], engine: PrivateEngine
) -> None:
    """Nobody waits for the task any more, so nobody checks; who adopts it does both."""
    check = HealthConfig(Test=("CMD", "test", "!", "-e", "/bad"), Interval=200 * MS, Retries=2)
    task = await node.running(LOOP, Healthcheck=check)
    container = (await task.observe()).container
    assert container is not None
    Path(f"/proc/{container.PID}/root/bad").touch()
    again = (await make_node()).controller(StopGracePeriod=200 * MS)
    with trio.fail_after(20):
        assert (await again.wait()).error == engine.unhealthy


async def test_volumes_are_made_as_the_spec_says(node: Node, engine: PrivateEngine) -> None:
    """With labels and a driver's options; one that is there is taken as it is."""
    how = VolumeOptions(
        Labels={"of": "us"},
        DriverConfig=Driver(
            Name="local", Options={"type": "tmpfs", "device": "tmpfs", "o": "nr_inodes=64"}
        ),
    )
    mounts = (Mount(Type="volume", Source="made", Target="/v", VolumeOptions=how),)
    task = await node.running("df -i /v | tail -1; exec sleep 1000", Mounts=mounts)
    volume = engine.api("GET", "/volumes/made")
    assert (volume["Labels"], volume["Options"]["o"]) == ({"of": "us"}, "nr_inodes=64")
    assert (await lines(task, at_least=1))[0].text.split()[1] == b"64"
    await node.running(task_id="t1", slot=2, Mounts=mounts)
    engine.remove_all()
    engine.api("DELETE", "/volumes/made")


async def test_a_bind_source_may_be_made(node: Node, engine: PrivateEngine) -> None:
    """Where the spec asks for it; else its absence is an error before anything is made."""
    source = engine.home / "made" / "here"
    mount = Mount(
        Type="bind", Source=str(source), Target="/t", BindOptions=BindOptions(CreateMountpoint=True)
    )
    await node.running("touch /t/x; exec sleep 1000", setting="touch /t/x", Mounts=(mount,))
    assert (source / "x").exists()


async def test_a_seccomp_profile_of_the_spec_holds(node: Node) -> None:
    """It forbids what it says, and its file goes with the task."""
    names = ["mkdir", "mkdirat"]
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO"}],
    }
    privileges = Privileges(
        Seccomp=SeccompOpts(Mode="custom", Profile=json.dumps(profile).encode())
    )
    script = "mkdir /x 2>/dev/null || echo forbidden; exec sleep 1000"
    task = await node.running(script, Privileges=privileges)
    assert [line.text for line in await lines(task, at_least=1)] == [b"forbidden"]
    await task.remove()
    assert list(Path(node.identity.state_dir, "podman", "files").iterdir()) == []


async def test_limits_are_the_control_groups(node: Node) -> None:
    """Memory, processors and processes."""
    limits = Limit(MemoryBytes=64 << 20, NanoCPUs=500_000_000, Pids=77)
    script = """
        c=/sys/fs/cgroup
        cat $c/memory.max 2>/dev/null || cat $c/memory/memory.limit_in_bytes
        cat $c/pids.max 2>/dev/null || cat $c/pids/pids.max
        cat $c/cpu.max 2>/dev/null || cat $c/cpu/cpu.cfs_quota_us
        exec sleep 1000
    """
    wanted = {"Resources": ResourceRequirements(Limits=limits)}
    task = await node.running(script, task_spec=wanted)
    found = [line.text.split()[0] for line in await lines(task, at_least=3)]
    assert found == [str(64 << 20).encode(), b"77", b"50000"]


async def test_a_log_driver_that_does_not_exist_is_refused(node: Node) -> None:
    """In the engine's words."""
    task = node.controller(task_spec={"LogDriver": Driver(Name="splunk")})
    with pytest.raises(ExecutorError, match="invalid log driver"):
        await task.prepare()


async def test_an_image_that_is_only_here_is_found_by_its_short_name(
    node: Node, engine: PrivateEngine
) -> None:
    """As ``podman build`` makes them, under localhost."""
    make_image(engine, "localhost/mine:1", ["LABEL a=b"])
    await node.running(Image="mine:1")
    assert seen(engine)["ImageName"] == "localhost/mine:1"
