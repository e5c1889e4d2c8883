"""The engines that these tests run against, and a node on each.

An engine is started for these tests alone: they kill it, hang it and start swarms on it. Each test
runs on every kind; one that is about one kind says so (:data:`docker_only`).
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
from swarmctl_docker_exec.executor import DockerExecutor
from swarmctl_podman_exec.executor import PodmanExecutor

from swarmctl.plugins import EngineUnavailable, ExecutorSettings, LogOptions, NodeIdentity

from .assignments import assign, identity
from .private import KINDS, PrivateEngine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import Any, TypeVar

    from swarmctl.plugins import TaskController
    from swarmctl.plugins.engine import EngineExecutor

    T = TypeVar("T")


EXECUTORS: dict[str, Callable[[ExecutorSettings], EngineExecutor]] = {
    "docker": DockerExecutor,
    "podman": PodmanExecutor,
}


docker_only = pytest.mark.parametrize("engine", ["docker"], indirect=True)
podman_only = pytest.mark.parametrize("engine", ["podman"], indirect=True)


class Node:
    """An executor that runs, and what tests do with it again and again."""

    def __init__(self, executor: EngineExecutor, who: NodeIdentity) -> None:
        self.executor = executor
        self.identity = who

    def controller(self, **how: Any) -> TaskController:
        """A controller for a task of this node; keywords as :func:`assign` takes them."""
        how.setdefault("StopGracePeriod", 200_000_000)
        return self.executor.controller(assign(**how))

    async def running(
        self, script: str = "exec sleep 1000", *, setting: str = "", **how: Any
    ) -> TaskController:
        """A controller of a task that runs ``script`` by now.

        ``setting`` (traps, say) runs first and has been run when this returns; the task then
        prints one line, "set".
        """
        first = f"{setting}; echo set; " if setting else ""
        made = self.controller(Command=("sh", "-c", first + script), **how)
        await made.prepare()
        await made.start()
        if setting:
            async with aclosing(made.logs(LogOptions(follow=True))) as lines:  # type: ignore[type-var]
                async for line in lines:
                    assert line.text == b"set"
                    break
        return made


@pytest.fixture(scope="session", params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Iterator[PrivateEngine]:
    kind = KINDS[request.param]
    reason = kind.missing()
    if reason:
        pytest.skip(reason)
    started = kind()
    try:
        started.start()
        yield started
    finally:
        started.close()


@pytest.fixture
def make_node(
    engine: PrivateEngine, request: pytest.FixtureRequest, nursery: trio.Nursery
) -> Iterator[Callable[..., Awaitable[Node]]]:
    """Makes nodes on the engine; their daemons end with the test, and all containers go."""

    # Under the engine's directory, whose mounts go when it goes, whatever a failed test left.
    home = engine.home / "nodes" / str(abs(hash(request.node.nodeid)))

    async def make(name: str = "node-a", **settings: Any) -> Node:
        who = identity(name, state_dir=str(home / name))
        executor = EXECUTORS[engine.kind](
            ExecutorSettings(state_dir=who.state_dir, engine=f"unix://{engine.socket}", **settings)
        )
        await nursery.start(executor.run, who)
        return Node(executor, who)

    yield make
    engine.remove_all()


@pytest.fixture
async def node(make_node: Callable[..., Awaitable[Node]]) -> Node:
    return await make_node()


async def insist(ask: Callable[[], Awaitable[T]], *, for_s: float = 40) -> T:
    """Ask as the agent does: an engine that cannot be asked now is asked again."""
    with trio.fail_after(for_s):
        while True:
            try:
                return await ask()
            except EngineUnavailable:
                await trio.sleep(0.2)
