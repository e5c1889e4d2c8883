"""The executor that pretends keeps every law, on a clock that jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from swarmctl.core.errors import InvalidArgument
from swarmctl.plugins import (
    EngineUnavailable,
    ExecutorError,
    ExecutorSettings,
    LogOptions,
    NodeIdentity,
)
from swarmctl.plugins.loader import load_plugins
from swarmctl.plugins.model import SECOND, ContainerSpec, ContainerStatus
from swarmctl.plugins.null_behaviour import read_behaviour
from swarmctl.plugins.null_exec import NullController, NullExecutor, NullWorld, swarmctl_executor
from swarmctl.plugins.testing import ConformanceError, check_executor, simple_assignment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from swarmctl.plugins import TaskObservation
    from swarmctl.plugins.model import TaskAssignment

IDENTITY = NodeIdentity(cluster_id="c" * 25, node_id="n" * 25, hostname="h", state_dir="/nowhere")


class NullPrograms:
    """What the conformance suite runs, in the words of the null executor."""

    def exits(self, code: int) -> ContainerSpec:
        return spec(exit_after="0s", exit_code=code)

    def sleeps(self) -> ContainerSpec:
        return spec()

    def stubborn(self) -> ContainerSpec:
        return msgspec.structs.replace(
            spec(stop_after="1h", output="ready"), StopGracePeriod=SECOND
        )

    def prints(self, out: Sequence[str], err: Sequence[str]) -> ContainerSpec:
        return spec(exit_after="1s", output="\n".join(out), error_output="\n".join(err))


def spec(**said: object) -> ContainerSpec:
    return ContainerSpec(
        Image="x",
        Env=tuple(f"SWARMCTL_NULL_{name.upper()}={value}" for name, value in said.items()),
    )


def assigned(container: ContainerSpec, task_id: str = "t1") -> TaskAssignment:
    return simple_assignment(task_id, container, IDENTITY)


@pytest.fixture
async def executor(nursery: trio.Nursery) -> NullExecutor:
    made = NullExecutor(cpus=2, memory_bytes=1000)
    await nursery.start(made.run, IDENTITY)
    return made


async def test_output_may_be_repeated(autojump_clock: MockClock, executor: NullExecutor) -> None:
    """With output-every a task prints again and again, numbered, until it ends; whoever follows
    gets each line when it is printed, and who asks later gets all of them."""
    container = spec(output="tick", output_every="2s", exit_after="7s")
    control = executor.controller(assigned(container))
    await control.prepare()
    await control.start()
    began = trio.current_time()
    seen = [
        (line.text, round(trio.current_time() - began))
        async for line in control.logs(LogOptions(follow=True))
    ]
    assert seen == [(b"tick", 0), (b"tick 1", 2), (b"tick 2", 4), (b"tick 3", 6)]
    await trio.sleep(100)
    again = [line async for line in control.logs(LogOptions())]
    assert [line.text for line in again] == [text for text, _ in seen]
    assert len({line.at for line in again}) == 4


async def test_conformance(autojump_clock: MockClock) -> None:
    """The null executor keeps the laws of executors."""
    world = NullWorld()
    await check_executor(
        lambda: NullExecutor(world), programs=NullPrograms(), identity=IDENTITY, timeout_s=10_000
    )
    assert not world.tasks


class Liar(NullExecutor):
    """Gets wrong what is told of the process at one stage of a task's life."""

    def __init__(self, world: NullWorld, wrong: str) -> None:
        super().__init__(world)
        self._wrong = wrong

    def controller(self, assignment: TaskAssignment) -> NullController:
        control = super().controller(assignment)
        observe = control.observe

        async def observed() -> TaskObservation:
            seen = await observe()
            task = self.find(assignment.task.ID)
            stage = "unknown"
            if task is not None:
                stage = "ended" if task.ended else "running" if task.runs else "prepared"
            if stage != self._wrong:
                return seen
            pid = 0 if stage in ("running", "prepared") else 7
            code = seen.container.ExitCode if seen.container is not None else 0
            return msgspec.structs.replace(seen, container=ContainerStatus(PID=pid, ExitCode=code))

        control.observe = observed  # type: ignore[method-assign]
        return control


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("unknown", "a PID before there is anything"),
        ("prepared", "PID 0 though it is only prepared"),
        ("running", "PID 0 though it runs"),
        ("ended", "PID 7 though it has ended"),
    ],
)
async def test_a_wrong_pid_is_found(autojump_clock: MockClock, wrong: str, text: str) -> None:
    """check_executor refuses an executor by whose PID one cannot tell whether a task has ended."""
    world = NullWorld()
    with pytest.raises(ConformanceError, match=text):
        await check_executor(
            lambda: Liar(world, wrong), programs=NullPrograms(), identity=IDENTITY, timeout_s=10_000
        )


async def test_ends_after_its_time(executor: NullExecutor, autojump_clock: MockClock) -> None:
    """A task ends as long after its start as it was told to, with code and text."""
    control = executor.controller(
        assigned(spec(exit_after="90s", exit_code=3, exit_error="bored", start_after="10s"))
    )
    before = trio.current_time()
    await control.prepare()
    await control.start()
    assert trio.current_time() == pytest.approx(before + 10)
    status = await control.wait()
    assert trio.current_time() == pytest.approx(before + 100)
    assert (status.code, status.error) == (3, "bored")
    assert status.finished_at == pytest.approx(executor.world.clock.now(), abs=1e6)


async def test_health(executor: NullExecutor, autojump_clock: MockClock) -> None:
    """start() returns at the verdict; an unhealthy task is stopped with Docker's words."""
    control = executor.controller(assigned(spec(healthy_after="7s", unhealthy_after="20s")))
    before = trio.current_time()
    await control.prepare()
    await control.start()
    assert trio.current_time() == pytest.approx(before + 7)
    assert (await control.observe()).healthy is True
    status = await control.wait()
    assert trio.current_time() == pytest.approx(before + 20)
    assert (status.code, status.error) == (137, "unhealthy container")


async def test_fails_as_told(executor: NullExecutor, autojump_clock: MockClock) -> None:
    """prepare() and start() fail with the text they were given."""
    control = executor.controller(assigned(spec(prepare_error="no such image")))
    with pytest.raises(ExecutorError, match="no such image"):
        await control.prepare()
    other = executor.controller(assigned(spec(start_error="no port"), "t2"))
    await other.prepare()
    with pytest.raises(ExecutorError, match="no port"):
        await other.start()
    assert await executor.known_tasks() == {"t2": False}


async def test_grace(executor: NullExecutor, autojump_clock: MockClock) -> None:
    """A task that obeys within its grace ends by its signal, a slower one is killed."""
    for task_id, after, code, seconds in (("a", "2s", 143, 2), ("b", "30s", 137, 10)):
        control = executor.controller(assigned(spec(stop_after=after), task_id))
        await control.prepare()
        await control.start()
        before = trio.current_time()
        await control.shutdown()
        assert trio.current_time() == pytest.approx(before + seconds)
        assert (await control.wait()).code == code


async def test_usage(executor: NullExecutor, autojump_clock: MockClock) -> None:
    """stats() reports the use it was told of; counters grow with time."""
    control = executor.controller(assigned(spec(cpu="0.5", memory="4096")))
    await control.prepare()
    await control.start()
    await trio.sleep(10)
    sample = (await executor.stats(["t1", "unknown"]))["t1"]
    assert (sample.cpu_ns, sample.memory_bytes) == (5 * SECOND, 4096)


async def test_engine_down(executor: NullExecutor, autojump_clock: MockClock) -> None:
    """A world that is switched off answers nothing and forgets nothing."""
    control = executor.controller(assigned(spec()))
    await control.prepare()
    await control.start()
    executor.world.available = False
    with pytest.raises(EngineUnavailable):
        await control.observe()
    with pytest.raises(EngineUnavailable):
        await executor.describe()
    executor.world.available = True
    assert await executor.known_tasks() == {"t1": True}


async def test_follow_ends_with_removal(executor: NullExecutor, autojump_clock: MockClock) -> None:
    """Following the output of a task that is removed before it ran comes to an end."""
    control = executor.controller(assigned(spec()))
    await control.prepare()

    async def read() -> None:
        lines: AsyncIterator[object] = control.logs(LogOptions(follow=True))
        assert [line async for line in lines] == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await control.remove()


def test_labels_and_variables() -> None:
    """Labels say the same as variables, and variables win."""
    container = ContainerSpec(
        Labels={"swarmctl.x.null.exit-after": "1m", "swarmctl.x.null.exit-code": "4", "other": "x"},
        Env=("SWARMCTL_NULL_EXIT_CODE=5", "PATH=/bin"),
    )
    behaviour = read_behaviour(container)
    assert (behaviour.exit_after, behaviour.exit_code) == (60.0, 5)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"exit_aftre": "2s"}, 'no behaviour "exit-aftre"'),
        ({"exit_after": "soon"}, "must be a duration"),
        ({"exit_after": "-2s"}, "must not be negative"),
        ({"exit_code": "many"}, "exit_code"),
    ],
)
def test_bad_behaviour(said: dict[str, object], text: str) -> None:
    """A behaviour that means nothing is refused by name."""
    with pytest.raises(ExecutorError, match=text):
        read_behaviour(spec(**said))


async def test_hook() -> None:
    """The hook makes it by name with its options, and its tasks outlast it."""
    settings = ExecutorSettings(state_dir="/x1", options={"cpus": "1.5", "memory": "77"})
    plugins = load_plugins(candidates=[])
    made = plugins.executor("null", settings)
    node = (await made.describe()).node
    assert (node.Resources.NanoCPUs, node.Resources.MemoryBytes) == (1_500_000_000, 77)
    again = swarmctl_executor("null", settings)
    assert isinstance(made, NullExecutor)
    assert isinstance(again, NullExecutor)
    assert again.world is made.world
    assert swarmctl_executor("docker", settings) is None
    for options in ({"cpu": "1"}, {"cpus": "many"}):
        with pytest.raises(InvalidArgument):
            swarmctl_executor("null", ExecutorSettings(state_dir="/x2", options=options))
