"""What a task may not do to others: hold them up, or touch what is not its own."""

from __future__ import annotations

import os
import signal
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
import trio

from swarmctl.plugins import EngineUnavailable, ExecutorError, LogOptions
from swarmctl.plugins.engine import calls, pull
from swarmctl.plugins.model import Mount
from tests.e2e.lab.waiting import eventually

from .assignments import IMAGE
from .conftest import insist
from .test_lifecycle import LOOP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .conftest import Node
    from .private import PrivateEngine

pytestmark = pytest.mark.engine
STOPS = 9  # more than there are places for any kind of call


@pytest.fixture
def silent(engine: PrivateEngine) -> Iterator[str]:
    """A registry that never answers."""
    stub = engine.silent_registry()
    yield "127.0.0.1:5999"
    stub.kill()
    stub.communicate()


async def test_followers_take_nothing_from_others(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many follow one task's output, the end of another is seen at once; who would be one
    too many is told so."""
    monkeypatch.setattr(calls, "OUTPUTS", 80)
    talker = await node.running("echo hello; exec sleep 1000", setting=":")
    other = await node.running(task_id="t1", slot=2)

    async def follow(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with aclosing(talker.logs(LogOptions(follow=True))) as lines:  # type: ignore[type-var]
            async for line in lines:
                if line.text == b"hello":
                    task_status.started()

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as starting:
            for _ in range(80):
                starting.start_soon(nursery.start, follow)
        with pytest.raises(EngineUnavailable, match="80 outputs are read on this node already"):
            await follow()
        await other.kill()
        with trio.fail_after(5):
            assert (await other.wait()).code == 137
        nursery.cancel_scope.cancel()
    await node.running(task_id="t2", slot=3)


async def test_a_hung_pull_holds_up_nobody(node: Node, silent: str) -> None:
    """Other tasks start while a pull hangs; cancelled, it ends at once and leaves its place."""
    hung = node.controller(task_id="t1", slot=2, Image=f"{silent}/app:1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hung.prepare)
        await trio.sleep(0.3)
        await node.running()
        assert len(nursery.child_tasks) == 1, "the pull should still hang"
        before = time.monotonic()
        nursery.cancel_scope.cancel()
    assert time.monotonic() - before < 1


async def test_a_silent_registry_costs_a_replacement_nothing(
    node: Node, engine: PrivateEngine, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the image here the registry gets one bounded try; replacements do not ask it again."""
    engine.api("POST", f"/images/{IMAGE}/tag", repo=f"{silent}/app", tag="2")
    monkeypatch.setattr(pull, "FIRST_ANSWER_S", 1.5)
    monkeypatch.setattr(pull, "FRESH_S", 0)  # so that only the spec is remembered
    taken = []
    for slot in range(2):
        task = node.controller(task_id=f"t{slot}", slot=1, Image=f"{silent}/app:2")
        before = time.monotonic()
        await task.prepare()
        taken.append(time.monotonic() - before)
    assert taken[0] >= 1.5 > taken[1]


async def test_tasks_of_one_image_share_a_pull(
    node: Node,
    engine: PrivateEngine,
    silent: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ten tasks that come at once ask the registry once, whatever their services."""
    engine.api("POST", f"/images/{IMAGE}/tag", repo=f"{silent}/app", tag="3")
    monkeypatch.setattr(pull, "FIRST_ANSWER_S", 1.5)
    async with trio.open_nursery() as nursery:
        for n in range(10):
            task = node.controller(task_id=f"t{n}", service=f"s{n}", Image=f"{silent}/app:3")
            nursery.start_soon(task.prepare)
    tried = [record for record in caplog.records if "/app:3 failed" in record.getMessage()]
    assert len(tried) == 1


async def test_an_image_that_was_removed_is_pulled_after_all(
    node: Node, engine: PrivateEngine
) -> None:
    """A pull that was skipped is made up for when the image turns out to be missing."""
    engine.api("POST", f"/images/{IMAGE}/tag", repo="nowhere.invalid/app", tag="1")
    await node.controller(Image="nowhere.invalid/app:1").prepare()
    engine.remove_all()
    engine.api("DELETE", "/images/nowhere.invalid/app:1")
    with pytest.raises(ExecutorError, match=r"No such image: nowhere.invalid/app:1: .*lookup"):
        await node.controller(task_id="t1", Image="nowhere.invalid/app:1").prepare()


async def test_many_long_stops_hold_up_nobody(node: Node) -> None:
    """While nine tasks sit out their grace, a fresh task is prepared and started."""
    script = 'trap "" TERM; while :; do sleep 1; done'
    doomed = []
    async with trio.open_nursery() as nursery:
        for n in range(STOPS):
            task = node.controller(
                task_id=f"d{n}", slot=n, Command=("sh", "-c", script), StopGracePeriod=None
            )
            doomed.append(task)

            async def bring_up(task: Any = task) -> None:
                await task.prepare()
                await task.start()

            nursery.start_soon(bring_up)
    async with trio.open_nursery() as stops:
        for task in doomed:
            stops.start_soon(task.shutdown)
        await trio.sleep(0.3)
        with trio.fail_after(9):
            await node.running(service="fresh")
        assert len(stops.child_tasks) == STOPS, "the graces should still run"
        stops.cancel_scope.cancel()


async def test_a_new_daemon_adopts_what_runs(
    node: Node, make_node: Callable[..., Awaitable[Node]], engine: PrivateEngine
) -> None:
    """A second daemon of the same node finds the task running and goes straight to waiting."""
    await node.running(LOOP, setting="trap 'exit 6' USR1")
    before = engine.running()
    again = await make_node()
    assert await again.executor.known_tasks() == {"t0": True}
    task = again.controller(Command=("never", "looked", "at"))
    await task.prepare()
    await task.start()
    assert engine.running() == before
    container = (await task.observe()).container
    assert container is not None
    os.kill(container.PID, signal.SIGUSR1)
    assert (await task.wait()).code == 6


async def test_leftovers_are_removed_with_their_own_grace(
    node: Node, make_node: Callable[..., Awaitable[Node]], engine: PrivateEngine
) -> None:
    """A task without an assignment is stopped as its spec said, and removed."""
    shared = engine.home / "shared"
    shared.mkdir()
    await node.running(
        "while :; do sleep 0.05; done",
        setting="trap 'sleep 0.2; touch /shared/cleaned; exit 3' TERM",
        StopGracePeriod=30_000_000_000,
        Mounts=(Mount(Type="bind", Source=str(shared), Target="/shared"),),
    )
    again = await make_node()
    await again.executor.remove_leftover("t0")
    assert (shared / "cleaned").exists()
    assert await again.executor.known_tasks() == {}


@pytest.fixture
def real_swarm(engine: PrivateEngine) -> Iterator[str]:
    """A service of Docker's own swarm on the same engine; gives its container's id.

    On Podman, which has no swarm, a container that looks the same.
    """
    if engine.kind == "podman":
        labels = {"com.docker.swarm.task.id": "of-docker", "com.docker.swarm.task": ""}
        yield engine.run_foreign("web.1.of-docker", **labels)
        return
    engine.api(
        "POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2399", "AdvertiseAddr": "127.0.0.1"}
    )
    template = {"ContainerSpec": {"Image": IMAGE, "Args": ["sleep", "1000"]}}
    engine.api("POST", "/services/create", {"Name": "web", "TaskTemplate": template})

    def found() -> str:
        return next((held for name, held in engine.running().items() if name[:4] == "web."), "")

    yield eventually(found, 30, what="Docker's own task")
    engine.api("POST", "/swarm/leave", force=1)


async def test_strangers_on_the_engine_are_never_touched(
    node: Node,
    make_node: Callable[..., Awaitable[Node]],
    engine: PrivateEngine,
    real_swarm: str,
) -> None:
    """Docker's own swarm, another node of ours and plain containers live on beside us."""
    other = await make_node("node-b")
    await other.running(task_id="tb")
    engine.run_foreign("plain")
    engine.run_foreign(
        "half", **{"swarmctl.cluster.id": "cluster-1", "com.docker.swarm.task.id": "th"}
    )
    engine.run_foreign("web.1.t0", **{"com.docker.swarm.task.id": "t0"})
    strangers = engine.running()
    assert real_swarm in strangers.values()
    swarm_task = engine.api("GET", f"/containers/{real_swarm}/json")["Config"]["Labels"][
        "com.docker.swarm.task.id"
    ]

    assert await node.executor.known_tasks() == {}
    for task_id in ("tb", "th", "t0", swarm_task):
        await node.executor.remove_leftover(task_id)
    taken = node.controller()
    with pytest.raises(ExecutorError, match=r"not this node's has the name web\.1\.t0"):
        await taken.prepare()
    for step in (taken.shutdown, taken.kill, taken.remove):
        await step()
    assert await node.executor.stats(["tb", "th", "t0", swarm_task]) == {}
    mine = await node.running(task_id="mine", slot=9)
    await mine.remove()

    assert engine.running() == strangers
    assert await insist(other.executor.known_tasks) == {"tb": True}
