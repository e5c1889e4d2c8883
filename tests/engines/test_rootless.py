"""Podman without root: what it can do it does; what it cannot, it says before anything is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from swarmctl_podman_exec.executor import PodmanExecutor

from swarmctl.plugins import ExecutorSettings

from .assignments import identity
from .conftest import Node
from .rootless import UID, RootlessPodman
from .test_lifecycle import LOOP, MS, lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

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
