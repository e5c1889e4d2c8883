"""An engine that is killed, restarted or hung fails no task; what ended meanwhile has its code."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.plugins import EngineUnavailable, ExecutorError, ExitStatus

from .conftest import docker_only, insist

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from swarmctl.plugins import TaskController

    from .conftest import Node
    from .private import PrivateEngine

pytestmark = pytest.mark.engine
PAUSE_S = 20


@pytest.fixture
def mortal(engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """The engine, whole again after the test, whatever the test did to it."""
    yield engine
    engine.signal(signal.SIGCONT)
    if engine.live_restore or not engine.is_running:
        engine.stop()
        engine.start()


class Waiters:
    """Tasks that are waited for as the agent waits: asking again while the engine is away."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.ended: dict[str, ExitStatus | ExecutorError] = {}

    def watch(self, name: str, task: TaskController) -> None:
        self._nursery.start_soon(self._watch, name, task)

    async def until(self, *names: str) -> None:
        with trio.fail_after(20):
            while not set(names) <= self.ended.keys():
                await trio.sleep(0.05)

    async def _watch(self, name: str, task: TaskController) -> None:
        try:
            self.ended[name] = await insist(task.wait, for_s=90)
        except ExecutorError as error:
            self.ended[name] = error

    def codes(self) -> dict[str, int | str]:
        return {
            name: end.code if isinstance(end, ExitStatus) else str(end)
            for name, end in self.ended.items()
        }


async def test_killed_with_live_restore(
    mortal: PrivateEngine, make_node: Callable[..., Awaitable[Node]], nursery: trio.Nursery
) -> None:
    """The engine killed: who kept running is not failed, and who ended while it was away has 7."""
    node = await make_node()
    waiters = Waiters(nursery)
    for slot, script in enumerate(["exec sleep 1000", "sleep 1.5; exit 7"], 1):
        task = await node.running(script, task_id=f"t{slot}", slot=slot)
        waiters.watch(f"t{slot}", task)
    mortal.signal(signal.SIGKILL)
    with pytest.raises(EngineUnavailable):
        await node.executor.describe()
    await trio.sleep(2)
    await trio.to_thread.run_sync(lambda: mortal.start(live_restore=True))
    await waiters.until("t2")
    assert waiters.codes() == {"t2": 7}
    assert await insist(node.executor.known_tasks) == {"t1": True, "t2": False}
    await node.controller(task_id="t1").kill()
    await waiters.until("t1")
    assert waiters.codes() == {"t1": 137, "t2": 7}


@docker_only
async def test_restarted_without_live_restore(
    mortal: PrivateEngine, make_node: Callable[..., Awaitable[Node]], nursery: trio.Nursery
) -> None:
    """An engine that stops its containers as it goes down is reported as just that."""
    node = await make_node()
    waiters = Waiters(nursery)
    script, trap = "while :; do sleep 0.05; done", "trap 'exit 9' TERM"
    waiters.watch("t0", await node.running(script, setting=trap))
    await trio.to_thread.run_sync(mortal.stop)
    await trio.to_thread.run_sync(mortal.start)
    await waiters.until("t0")
    assert waiters.codes() == {"t0": 9}


async def test_hung_for_twenty_seconds(
    mortal: PrivateEngine, make_node: Callable[..., Awaitable[Node]], nursery: trio.Nursery
) -> None:
    """The engine stopped for 20 s: nothing fails, an exit inside has its code, steps go on."""
    node = await make_node()
    waiters = Waiters(nursery)
    for slot, script in enumerate(["exec sleep 1000", "sleep 8; exit 5"], 1):
        waiters.watch(f"t{slot}", await node.running(script, task_id=f"t{slot}", slot=slot))
    next_one = node.controller(task_id="t3", slot=3, Command=("sleep", "1000"))
    mortal.signal(signal.SIGSTOP)
    async with trio.open_nursery() as steps:
        steps.start_soon(insist, next_one.prepare)
        steps.start_soon(insist, node.controller(task_id="t1").observe)
        await trio.sleep(PAUSE_S)
        assert waiters.codes() == {}
        mortal.signal(signal.SIGCONT)
    await insist(next_one.start)
    await waiters.until("t2")
    assert waiters.codes() == {"t2": 5}
    assert await insist(node.executor.known_tasks) == {"t1": True, "t2": False, "t3": True}


async def test_a_node_that_starts_before_its_engine(
    mortal: PrivateEngine, make_node: Callable[..., Awaitable[Node]], nursery: trio.Nursery
) -> None:
    """A daemon may come up first: it says the engine is away, and works once it is there."""
    mortal.stop()
    node = await make_node()
    with pytest.raises(EngineUnavailable):
        await node.executor.describe()
    await trio.to_thread.run_sync(mortal.start)
    waiters = Waiters(nursery)
    waiters.watch("t0", await node.running("exit 4"))
    await waiters.until("t0")
    assert waiters.codes() == {"t0": 4}
