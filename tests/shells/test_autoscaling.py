"""Scaling by conditions, whole: nodes measure, the leader decides, tasks come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.autoscaler.metrics import SECOND
from swarmctl.core.autoscaler.source import MetricUnavailable
from swarmctl.core.manager.pipeline import reconcilers
from swarmctl.core.model import revision
from swarmctl.core.model.change import Create, Update
from swarmctl.core.model.objects import ServiceRow
from swarmctl.core.model.scaling import as_meant, replicas_of
from swarmctl.core.model.service import Service, ServicePrivate
from swarmctl.core.model.session import Samples
from swarmctl.core.model.spec import ContainerSpec
from swarmctl.core.model.task import TaskState
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.subnets import SubnetAllocator
from tests.core.autoscaler.load import spec_of
from tests.core.pipeline.world import make_node

from .lone_manager import Host, LoneManager
from .memory_network import MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from swarmctl.core.model.objects import NodeRow
    from swarmctl.core.model.scalestatus import ScalingReport
    from swarmctl.core.model.spec import ServiceSpec
    from swarmctl.plugins.null_exec import NullTask

pytestmark = pytest.mark.still


class Scaled:
    """A cluster of one manager and one node, and a service on it.

    Attributes:
        load: cores that all tasks together use; they share it evenly.
    """

    def __init__(self, cluster: LoneManager, host: Host) -> None:
        self.cluster, self.host = cluster, host
        self.load = 0.0

    def spec(self, replicas: int, **labels: str) -> ServiceSpec:
        spec = spec_of(replicas, cpus=0.1, **labels)
        container = ContainerSpec(Image="null", Env=("SWARMCTL_NULL_MEMORY=1000000",))
        return replace(spec, TaskTemplate=replace(spec.TaskTemplate, ContainerSpec=container))

    async def create(self, replicas: int, **labels: str) -> None:
        spec = self.spec(replicas, **labels)
        meant = as_meant(None, spec, self.cluster.clock.now(), named=True)
        row = ServiceRow(
            api=Service(ID="web", Spec=meant.spec), private=ServicePrivate(scale=meant.scale)
        )
        await self.cluster.write(Create(row=row))
        await self.cluster.until(lambda: self.running() == replicas)

    async def label(self, replicas: int, **labels: str) -> None:
        """Give the service other rules, as ``service update`` would."""
        now = self.cluster.clock.now()
        meant = as_meant(self.row, self.spec(replicas, **labels), now, named=True)
        row = revision.updated(self.row, meant.spec, now, registry_auth="")
        row = replace(row, private=replace(row.private, scale=meant.scale))
        await self.cluster.write(Update(row=row))

    @property
    def row(self) -> ServiceRow:
        row = self.cluster.view.service("web")
        assert row is not None
        return row

    def running(self) -> int:
        tasks = self.cluster.view.tasks_of("web")
        return sum(task.api.Status.State is TaskState.RUNNING for task in tasks)

    def count(self) -> int:
        return replicas_of(self.row)

    def report(self) -> ScalingReport:
        return self.cluster.manager.autoscaler.report(self.row)

    async def bear(self, load: float, seconds: int) -> None:
        """Let time pass under a load."""
        for _ in range(seconds):
            tasks = [task for task in self.host.world.tasks.values() if task.runs]
            for task in tasks:
                _use(task, max(load, 1e-9) / len(tasks))
            await self.cluster.elapse(1)


def _use(task: NullTask, cores: float) -> None:
    """Have a pretended task use so much from now on; what it has used stays as it is."""
    assert task.started is not None
    now = trio.current_time()
    used = (now - task.started) * task.behaviour.cpu
    task.started = now - used / cores
    task.behaviour = replace(task.behaviour, cpu=cores)


class Queue:
    """A metric source whose answer is set; None: it is dead, or it hangs."""

    def __init__(self) -> None:
        self.length: float | None = None
        self.hangs = False

    async def read(self, url: str, credentials: str) -> tuple[float, ...]:
        if self.hangs:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.length is None:
            raise MetricUnavailable("it cannot be reached")
        return (self.length,)


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
async def scaled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, queue: Queue
) -> AsyncIterator[Scaled]:
    work = reconcilers(SpreadScheduler(), SubnetAllocator())
    cluster = LoneManager(MemoryNetwork(monkeypatch), work, lambda _name: queue)
    async with cluster.running():
        host = Host(cluster, "w1", await cluster.admit("w1"), tmp_path)
        async with host.daemon():
            await cluster.until(lambda: cluster.state_of("w1") == "ready")
            yield Scaled(cluster, host)


TARGET = {"min": "2", "max": "8", "target": "cpu=50%"}


async def test_load_brings_tasks_and_takes_them_away_again(scaled: Scaled) -> None:
    """Under load the service grows to what its target asks for, and shrinks five minutes after."""
    await scaled.create(2, **TARGET)
    await scaled.bear(0.09, 40)
    assert scaled.count() == 2
    await scaled.bear(0.4, 90)
    assert scaled.count() == 8
    assert scaled.running() == 8
    await scaled.bear(0.09, 240)
    assert scaled.count() == 8  # low for less than five minutes
    await scaled.bear(0.09, 180)
    assert scaled.count() == 2
    await scaled.cluster.until(lambda: scaled.running() == 2)
    steps = scaled.report().Decisions
    tops = [(step.From, step.To) for step in reversed(steps)]
    assert tops[0][0] == tops[-1][1] == 2
    assert max(to for _, to in tops) == 8
    assert all("target cpu=50%" in step.Reason for step in steps)


async def test_who_is_scaled_only_now_does_not_start_blind(scaled: Scaled) -> None:
    """Nodes keep ten minutes: rules that are new, and leaders that are, have their windows full."""
    await scaled.create(8)
    await scaled.bear(0.09, 330)
    await scaled.label(8, **TARGET)
    await scaled.bear(0.09, 12)
    assert scaled.report().WindowSeconds >= 300
    assert scaled.count() == 2
    assert scaled.report().Metrics[0].History[:3] != (None, None, None)


async def test_an_engine_that_does_not_answer_takes_nothing_away(scaled: Scaled) -> None:
    """Without samples the number stands, and the report says that it is blind."""
    await scaled.create(4, **TARGET)
    await scaled.bear(0.2, 60)
    scaled.host.world.available = False
    await scaled.bear(0.0, 400)
    assert scaled.count() == 4
    assert "no value" in scaled.report().Reason


async def test_an_update_under_way_holds_still(scaled: Scaled) -> None:
    """While tasks are replaced their load says nothing; afterwards it counts again."""
    await scaled.create(2, **TARGET)
    await scaled.bear(0.09, 30)
    spec = scaled.spec(2, **TARGET)
    container = ContainerSpec(Image="other", Env=("SWARMCTL_NULL_HEALTHY_AFTER=60s",))
    spec = replace(spec, TaskTemplate=replace(spec.TaskTemplate, ContainerSpec=container))
    row = revision.updated(scaled.row, spec, scaled.cluster.clock.now(), registry_auth="")
    await scaled.cluster.write(Update(row=row))
    await scaled.bear(0.9, 60)
    assert (scaled.count(), scaled.report().Reason) == (2, "an update is under way")
    await scaled.bear(0.9, 240)
    assert scaled.count() == 8


async def test_a_dead_source_is_missing_whatever_the_clock_says(
    scaled: Scaled, queue: Queue
) -> None:
    """What it last gave counts for 30 s of real time, also where the wall clock was set back."""
    queue.length = 40.0
    rules = {"target": "jobs=10 per replica", "metric__jobs": "http://queue/"}
    await scaled.create(2, **{**TARGET, **rules})
    await scaled.bear(0.1, 25)
    assert scaled.count() == 4
    queue.length = None
    await scaled.bear(0.1, 10)
    assert scaled.report().Metrics[0].Value == "40"
    scaled.cluster.clock.ahead_ns -= 3600 * SECOND
    await scaled.bear(0.1, 40)
    (metric,) = scaled.report().Metrics
    assert (metric.Value, metric.Err) == ("", "it cannot be reached")
    assert scaled.report().Reason == "jobs has no value"
    assert scaled.count() == 4


async def test_a_source_that_hangs_holds_nothing_up(scaled: Scaled, queue: Queue) -> None:
    """It is given up after five seconds and said to be silent; other rules go on meanwhile."""
    queue.hangs = True
    rules = {"target": "cpu=50%,jobs=10 per replica", "metric__jobs": "http://queue/"}
    await scaled.create(2, **{**TARGET, **rules})
    await scaled.bear(0.4, 60)
    assert scaled.count() == 8
    assert scaled.report().Metrics[1].Err == "no answer within 5 s"


async def test_pressure_that_no_kernel_tells_is_known_to_the_leader(scaled: Scaled) -> None:
    """Nodes say why they cannot tell pressure, by name, so that rules can be refused."""
    await scaled.create(2)
    await scaled.bear(0.09, 15)
    reason = scaled.cluster.manager.autoscaler.no_psi()
    assert reason == "host-w1: its kernel does not tell it, which takes cgroup v2"
    await scaled.label(2, max="8", up__when="psi.cpu > 10%")
    await scaled.bear(0.09, 10)
    (metric,) = scaled.report().Metrics
    assert (metric.Value, metric.Err) == ("", reason)


async def test_of_many_nodes_without_pressure_some_are_named(scaled: Scaled) -> None:
    """Five are named and the others counted; one that can tell it, or is down, changes that."""
    await scaled.create(2)
    await scaled.bear(0.09, 15)
    autoscaler = scaled.cluster.manager.autoscaler
    told = scaled.cluster.manager.dispatcher.on_samples
    for number in range(7):
        await scaled.cluster.write(Create(row=make_node(f"x{number}")))
    assert autoscaler.no_psi() == "", "those that have said nothing may be able to"
    for number in range(7):
        told(f"x{number}", Samples(rows=(), no_psi="old kernel"))
    assert autoscaler.no_psi() == (
        "host-w1: its kernel does not tell it, which takes cgroup v2; host-x0: old kernel; "
        "host-x1: old kernel; host-x2: old kernel; host-x3: old kernel; and 3 nodes more"
    )
    told("x6", Samples(rows=()))
    assert autoscaler.no_psi() == ""

    def down(row: NodeRow) -> NodeRow:
        return replace(row, api=replace(row.api, Status=replace(row.api.Status, State="down")))

    await scaled.cluster.change_node("x6", down)
    assert autoscaler.no_psi().endswith("; and 2 nodes more")
