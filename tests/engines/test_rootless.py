"""Podman without root: what it can do it does; what it cannot, it says before anything is tried."""

from __future__ import annotations

import json
import shutil
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from swarmctl_podman_exec.executor import PodmanExecutor

from swarmctl.plugins import ExecutorSettings
from tests.archive import cached_archive
from tests.daemon import Daemon

from .assignments import IMAGE, identity
from .conftest import Node
from .rootless import UID, RootlessPodman
from .test_lifecycle import LOOP, MS, lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def rootless() -> Iterator[RootlessPodman]:
    if reason := RootlessPodman.missing():
        pytest.skip(reason)
    started = RootlessPodman()
    try:
        started.start()
        yield started
    finally:
        started.close()


@pytest.fixture
def make(
    rootless: RootlessPodman, nursery: trio.Nursery
) -> Iterator[Callable[[], Awaitable[Node]]]:
    """Makes daemons of one node on that engine."""

    async def one() -> Node:
        who = identity(state_dir=str(rootless.home / "node"))
        settings = ExecutorSettings(state_dir=who.state_dir, engine=f"unix://{rootless.socket}")
        executor = PodmanExecutor(settings)
        await nursery.start(executor.run, who)
        return Node(executor, who)

    yield one
    rootless.remove_all()


async def test_what_it_cannot_give_is_told(make: Callable[[], Awaitable[Node]]) -> None:
    """Networks never; limits and samples where control groups are of version 1."""
    node = await make()
    described = await node.executor.describe()
    labels = described.node.Engine.Labels
    assert "not in the host's network" in labels["swarmctl.lacks.networks"]
    assert any("networks" in warning for warning in described.warnings)


async def test_tasks_run_stop_and_tell(make: Callable[[], Awaitable[Node]]) -> None:
    """A task runs as the user, its output is read, its signal obeyed, its exit code told, and
    removal leaves nothing."""
    node = await make()
    task = await node.running(LOOP, setting="trap 'exit 5' TERM", StopGracePeriod=30_000 * MS)
    container = (await task.observe()).container
    assert container is not None
    status = await trio.Path(f"/proc/{container.PID}/status").read_text()
    (uid,) = (line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    assert uid == str(UID)
    assert next(line.text for line in await lines(task)) == b"set"
    with trio.fail_after(15):
        await task.shutdown()
    assert (await task.wait()).code == 5
    await task.remove()
    assert await node.executor.known_tasks() == {}


async def test_a_new_daemon_adopts_what_runs(make: Callable[[], Awaitable[Node]]) -> None:
    """As with root."""
    grace = 30_000 * MS
    await (await make()).running(LOOP, setting="trap 'exit 6' TERM", StopGracePeriod=grace)
    again = await make()
    assert await again.executor.known_tasks() == {"t0": True}
    task = again.controller(StopGracePeriod=grace)
    with trio.fail_after(15):
        await task.shutdown()
    assert (await task.wait()).code == 6


# --- a swarm of the user's own --------------------------------------------------------------------

ASKING = {"memory-limit": "--limit-memory=64m", "networks": "--network=net"}
"""What a rootless Podman may lack, and the flag that asks for it."""
FORM = "{{.CurrentState}} {{.Error}}"
NOT_HERE = "executor cannot give the limits or networks asked for on 1 node"


@pytest.fixture
def daemon(rootless: RootlessPodman, everybodys_python: Path) -> Iterator[Daemon]:
    """The one-file archive, run by the user, as the only manager of a swarm."""
    folder = rootless.directory_of_user("node")
    archive = shutil.copy(cached_archive(), folder / "swarmctl.pyz")
    archive.chmod(0o644)
    command = [*rootless.command_of_user(), str(everybodys_python), str(archive)]
    made = Daemon(folder, command, {"PATH": "/usr/bin:/bin", **rootless.environment()})
    made.start(executor="podman", engine=f"unix://{rootless.socket}")
    made.init()
    yield made
    made.end()
    rootless.remove_all()


def create(daemon: Daemon, name: str, *words: str) -> None:
    """Create a service without waiting for it."""
    done = daemon.command("service", "create", f"--name={name}", "--detach", *words)
    assert done.returncode == 0, done.stderr


def task_ids(daemon: Daemon, service: str) -> set[str]:
    """The tasks that a service has and had."""
    return {*daemon.command("service", "ps", "--no-trunc", "--quiet", service).stdout.split()}


def test_a_swarm_of_an_ordinary_user(rootless: RootlessPodman, daemon: Daemon) -> None:
    """Its services get secrets, run, are read, outlive the daemon and go. A task that needs what
    such a Podman cannot give waits, and says why; the scheduler tries nothing."""
    form = "--format={{json .Description.Engine.Labels}}"
    told = partial(daemon.command, "node", "inspect", form, "self")
    daemon.until(lambda: '"podman"' in told().stdout, "its engine is not described")
    labels = json.loads(told().stdout)
    lacking = {n: why for n in ASKING if (why := labels.get(f"swarmctl.lacks.{n}"))}
    assert "networks" in lacking

    (daemon.folder / "word").write_text("swordfish")
    for words in (
        ("secret", "create", "word", str(daemon.folder / "word")),
        ("network", "create", "--driver=overlay", "net"),
    ):
        assert daemon.command(*words).returncode == 0
    script = "cat /run/secrets/word; echo; exec sleep 1000"
    create(daemon, "web", "--replicas=2", "--secret=word", IMAGE, "sh", "-c", script)
    for name in lacking:
        create(daemon, name, ASKING[name], IMAGE, "sleep", "1000")
    daemon.until(lambda: len(rootless.running()) == 2, "two containers do not run")
    for name, why in lacking.items():
        waits = partial(daemon.command, "service", "ps", "--no-trunc", f"--format={FORM}", name)
        daemon.until(lambda ask=waits: NOT_HERE in ask().stdout, f"{name} does not wait")  # type: ignore[misc]
        assert waits().stdout.startswith("Pending")
        assert why in daemon.command("service", "explain", name).stdout
    daemon.until(
        lambda: daemon.command("service", "logs", "--raw", "web").stdout == "swordfish\n" * 2,
        "its output is not read",
    )

    before, ids = rootless.running(), task_ids(daemon, "web")
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    daemon.start(executor="podman", engine=f"unix://{rootless.socket}")
    daemon.until(lambda: daemon.runs("web"), "it is not adopted")
    assert (rootless.running(), task_ids(daemon, "web")) == (before, ids)
    assert daemon.command("service", "rm", "web").returncode == 0
    daemon.until(lambda: not rootless.running(), "its containers do not go")
