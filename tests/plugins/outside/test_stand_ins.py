"""Stand-ins without a process: what is asked when, which answers count, and for how long.

The child is played by :func:`answer`, which has the same program answer the open batches at once.
"""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl import __version__
from swarmctl.core.errors import AnswerAwaited
from swarmctl.core.manager.pipeline import Outside, reconcilers
from swarmctl.core.model.change import Update
from swarmctl.core.model.codec import pack
from swarmctl.core.model.labels import REBALANCE
from swarmctl.core.model.objects import TaskRow
from swarmctl.core.model.spec import ContainerSpec, TaskSpec
from swarmctl.core.model.task import Task, TaskState
from swarmctl.core.scheduler.decide import Candidate
from swarmctl.core.scheduler.resources import NodeLoad, Place
from swarmctl.plugins.outside import redact
from swarmctl.plugins.outside.child import Child
from swarmctl.plugins.outside.desk import BATCHES_KEPT, Desk, ImpossibleAnswer, Plugin
from swarmctl.plugins.outside.messages import Failed, Placed, Rows, Start
from swarmctl.plugins.outside.redact import Redactor
from swarmctl.plugins.outside.stand_ins import OutsideAllocator, OutsideFilters, OutsideScheduler
from swarmctl.plugins.sources import Source
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.subnets import SubnetAllocator
from tests.core.allocator.joined import add_network, on_networks
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from pathlib import Path

    from swarmctl.core.manager.reconcile import Reconciler

CODE = textwrap.dedent(
    """
    from swarmctl.plugins import hookimpl
    from swarmctl.plugins.spread import SpreadScheduler
    from swarmctl.plugins.subnets import SubnetAllocator

    class Pairs:
        name, static = "pairs", False
        def check(self, task): return lambda node, load: max(0, 4 - load.tasks)
        def explain(self, nodes): return f"{nodes} with four tasks"
        def why(self, task, place, others): return "fewer than four tasks", "four"

    @hookimpl
    def swarmctl_scheduler(name): return SpreadScheduler() if name == "theirs" else None

    @hookimpl
    def swarmctl_allocator(name): return SubnetAllocator() if name == "theirs" else None

    @hookimpl
    def swarmctl_scheduler_filters(): return [Pairs()]
    """
)


class Theirs:
    """Stand-ins for one plugin, and its program, called in this process."""

    def __init__(self, path: str) -> None:
        self.plugin = Plugin("theirs")
        self.redactor = Redactor()
        self.scheduler = OutsideScheduler(self.plugin, "theirs", SpreadScheduler())
        self.allocator = OutsideAllocator(self.plugin, "theirs", SubnetAllocator())
        self.filters = OutsideFilters(self.plugin, self.redactor)
        self.move_filters = OutsideFilters(self.plugin, self.redactor)
        source = Source(name="theirs", kind="file", path=path)
        start = Start(
            version=__version__, source=source, options={}, memory_bytes=0, deadline_s=1.0
        )
        self.child = Child(start)
        self.asked = 0

    def reconcilers(self) -> tuple[Reconciler, ...]:
        outside = Outside(judges=(self.filters,), move_judges=(self.move_filters,))
        return reconcilers(self.scheduler, self.allocator, {}, outside)

    def answer(self) -> bool:
        """Answer every open batch; return whether there was one."""
        mirror, answered = self.plugin.mirror, False
        for desk in self.plugin.desks:
            if desk.open is None:
                continue
            rows = tuple(self.redactor.row(one) for one in mirror.outbox.values() if one)
            gone = tuple(ref for ref, one in mirror.outbox.items() if one is None)
            anew, mirror.starts_anew, mirror.outbox = mirror.starts_anew, False, {}
            self.child.answer(Rows(index=mirror.index, rows=rows, gone=gone, is_anew=anew))
            for at, (key, asked) in enumerate(list(desk.open.items())):
                said = self.child.answer(asked.question(at == 0))
                assert not isinstance(said, Failed), said
                desk.answered(key, asked.found(said))  # type: ignore[arg-type] # an answer
                self.asked += 1
            desk.close()
            answered = True
        return answered


class OutsideWorld(World):
    """A world whose scheduler, filters and allocator are outside, and answer after each turn."""

    def __init__(self, path: str) -> None:
        self.theirs = Theirs(path)
        super().__init__()

    def lead(self) -> None:
        self.theirs.plugin.forget()
        super().lead()
        self.reconcilers = self.theirs.reconcilers()
        self._touched = {one.name: None for one in self.reconcilers}

    def turn(self, only: object = ()) -> bool:
        busy = super().turn()
        if self.theirs.answer():
            self._wake = dict.fromkeys(self._wake, 0)
            busy = True
        return busy


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("theirs") / "theirs.py"
    file.write_text(CODE)
    return str(file)


@pytest.fixture
def world(path: str) -> OutsideWorld:
    made = OutsideWorld(path)
    for name in "abc":
        made.node(name)
    return made


def test_a_pass_without_answers_writes_nothing_and_asks_once(world: OutsideWorld) -> None:
    """Until the answer is there each pass decides the same: nothing. One batch is under way."""
    world.service("web", spec("web", 3))
    World.turn(world)
    World.turn(world)
    index = world.store.index
    World.turn(world)
    World.turn(world)
    assert world.store.index == index
    assert [task.api.Status.State for task in world.tasks("web")] == [TaskState.PENDING] * 3
    assert sum(desk.open is not None for desk in world.theirs.plugin.desks) == 1
    world.settle()
    assert {task.api.NodeID for task in world.tasks("web")} == {"a", "b", "c"}


def test_it_comes_to_rest_and_asks_no_more(world: OutsideWorld) -> None:
    """Placed or refused, nothing is asked until something changes; a fresh leader asks anew."""
    world.service("web", spec("web", 14))
    world.run()
    assert len(world.running("web")) == 12
    waiting = [task for task in world.tasks("web") if task.api.Status.State is TaskState.PENDING]
    assert {task.api.Status.Err for task in waiting} == {"no suitable node (3 with four tasks)"}
    asked, index = world.theirs.asked, world.store.index
    world.settle()
    assert (world.theirs.asked, world.store.index) == (asked, index)
    world.lead()
    world.settle()
    assert world.store.index == index


def test_nothing_chosen_counts_on_those_tables_only(world: OutsideWorld) -> None:
    """A change while the plugin was thinking is not overlooked: it is asked again."""
    world.service("one", spec("one", 1))
    world.settle()
    (task,) = world.tasks("one")
    task = replace(task, api=replace(task.api, ServiceID="other"))
    node = world.view.node("a")
    assert node is not None
    nodes = [Candidate(node, 5, 0, 0, 0)]
    stand_in = OutsideScheduler(Plugin("x"), "x", SpreadScheduler())
    for changed in (True, False):
        with pytest.raises(AnswerAwaited):
            stand_in.place(world.view, [task], nodes)
        stand_in.send(world.view, waits=True)
        assert stand_in.desk.open is not None
        ((key, asked),) = stand_in.desk.open.items()
        stand_in.desk.answered(key, asked.found(Placed(chosen={})))
        stand_in.desk.close()
        if changed:
            world.set_node("b", labels={"power": "green"})
    assert stand_in.place(world.view, [task], nodes) == {}


def test_a_verdict_counts_for_the_node_as_it_was(world: OutsideWorld) -> None:
    """A node that changed since, or holds something else, takes nothing until it is judged anew."""
    world.service("one", spec("one", 1))
    world.settle()
    (task,) = world.tasks("one")
    filters = world.theirs.move_filters
    places = [Place(node, NodeLoad()) for node in world.view.nodes()]
    with pytest.raises(AnswerAwaited):
        filters.judge(task, places)
    filters.send(world.view, waits=True)
    world.theirs.answer()
    assert filters.judge(task, places).rooms == {"a": 4, "b": 4, "c": 4}
    places[0].load.tasks = 1
    world.set_node("b", labels={"x": "y"})
    places[1] = Place(world.view.node("b"), NodeLoad())  # type: ignore[arg-type]
    assert filters.judge(task, places).rooms == {"c": 4}
    with pytest.raises(AnswerAwaited):
        filters.judge(task, places[:2])


def test_what_is_not_answered_is_the_defaults_once(world: OutsideWorld) -> None:
    """A batch that ends without an answer is decided by the built-in, and then asked again."""
    world.service("web", spec("web", 3))
    World.turn(world)
    World.turn(world)
    for _ in range(2):  # the filters' batch, then the scheduler's
        for desk in world.theirs.plugin.desks:
            if desk.open is not None:
                desk.close()
        World.turn(world)
    assert {task.api.NodeID for task in world.tasks("web")} == {"a", "b", "c"}
    assert world.theirs.asked == 0
    world.service("more", spec("more", 3))
    world.run()
    assert world.theirs.asked > 0


def test_a_plugin_that_is_off_is_not_asked(world: OutsideWorld) -> None:
    """Three failures within an hour, not over a day, and the default answers at once."""
    plugin = world.theirs.plugin
    for hour in range(5):
        plugin.failed("too slow", hour * 3601.0)
    assert plugin.off == ""
    plugin.failed("too slow", 4 * 3601.0 + 5)
    plugin.failed("too wrong", 4 * 3601.0 + 9)
    assert plugin.off.endswith("the last time: too wrong")
    world.service("web", on_networks("web", "net", replicas=3))
    add_network(world)
    world.run()
    assert len(world.running("web")) == 3
    assert world.theirs.asked == 0


def test_answers_that_nobody_takes_are_forgotten() -> None:
    """A desk keeps the answers of so many batches and no more."""
    desk: Desk[int] = Desk(Plugin("x"))
    desk.open = {"old": None}  # type: ignore[dict-item]
    desk.answered("old", 7)
    for _ in range(BATCHES_KEPT - 1):
        desk.close()
        assert desk.find("old") == 7
    desk.close()
    assert desk.find("old") is None


def test_impossible_answers_are_found_out_before_they_are_taken(world: OutsideWorld) -> None:
    """An answer to another question is none."""
    world.service("one", spec("one", 1))
    world.settle()
    (task,) = world.tasks("one")
    filters = world.theirs.filters
    asked = filters._asked(task, {}, None)
    with pytest.raises(ImpossibleAnswer, match="another question"):
        asked.found(Placed(chosen={}))


def test_nothing_secret_crosses(world: OutsideWorld) -> None:
    """Variables, commands, driver options and credentials of tasks and services stay here."""
    marked = ContainerSpec(
        Image="nginx", Env=("TOKEN=s3cret",), Command=("run", "--key=s3cret"), Args=("s3cret",)
    )
    asked = spec("web", 2, task=TaskSpec())
    asked = replace(asked, TaskTemplate=replace(asked.TaskTemplate, ContainerSpec=marked))
    row = world.service("web", asked)
    private = replace(row.private, registry_auth="s3cret")
    world.write(Update(row=replace(row, private=private)))
    world.run()
    view, redactor = world.view, Redactor()
    for one in [*view.tasks(), *view.services(), *view.nodes()]:
        assert b"s3cret" not in pack(redactor.row(one))
    assert any(b"s3cret" in pack(one) for one in view.tasks())


def test_specs_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is updated for years leaves no more behind than the bound."""
    monkeypatch.setattr(redact, "SPECS_MAX", 3)
    rows = [TaskRow(api=Task(ID=str(n), Spec=TaskSpec(ForceUpdate=n))) for n in range(8)]
    redactor = Redactor()
    before = [sys.getrefcount(row.api.Spec) for row in rows]
    for row in rows:
        redactor.task(row)
    after = [sys.getrefcount(row.api.Spec) for row in rows]
    assert sum(one > other for one, other in zip(after, before, strict=True)) <= 3


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_happens_our_laws_hold(data: st.DataObject, path: str) -> None:
    """No node holds more than the filter allows, all comes to rest, answers late or early."""
    world = OutsideWorld(path)
    for name in "ab":
        world.node(name, cpus=2)
    add_network(world, "net", "10.9.0.0/28")
    for step in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(("create", "scale", "node", "turn", "lead", "agents")))
        if what == "create":
            made = on_networks(f"s{step}", "net", replicas=data.draw(st.integers(0, 4)))
            if data.draw(st.booleans()):
                made = replace(made, Labels={REBALANCE: "on-join"})
            world.service(f"s{step}", made)
        elif what == "scale" and (services := sorted(one.api.ID for one in world.view.services())):
            world.scale(data.draw(st.sampled_from(services)), data.draw(st.integers(0, 4)))
        elif what == "node":
            world.node(f"n{step}", cpus=2)
        elif what == "turn":
            World.turn(world)
        elif what == "lead":
            world.lead()
        else:
            world.agents()
    world.sleep(120 * 10**9)
    for node in world.view.nodes():
        held = [
            task
            for task in world.view.tasks_on(node.api.ID)
            if task.api.DesiredState <= TaskState.RUNNING
        ]
        assert len(held) <= 4
    assert not world.turn()
