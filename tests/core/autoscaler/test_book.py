"""What the leader knows of load (core/autoscaler/book.py)."""

from __future__ import annotations

from swarmctl.core.autoscaler.book import Book, Window, frames_of_past
from swarmctl.core.autoscaler.metrics import FRAMES_KEPT, GAP_NS, PERIOD_NS, SECOND, Frame
from swarmctl.core.model.base import Time
from swarmctl.core.model.change import Advance
from swarmctl.core.model.session import TaskSample
from swarmctl.core.model.task import TaskState, TaskStatus
from tests.core.autoscaler.load import rules
from tests.core.pipeline.world import EPOCH, World, spec


def world_of(replicas: int) -> World:
    world = World()
    world.node("n1")
    world.service("web", spec("web", replicas))
    world.run()
    return world


def gauges(world: World) -> dict[str, float]:
    row = world.view.service("web")
    assert row is not None
    return dict(Book().frame(world.view, row, world.now).gauges)


def test_what_is_read_off_the_tables() -> None:
    """Tasks that run and that do not yet; those that ended within the last minute, and of these
    the ones whose check had failed."""
    world = world_of(3)
    quiet = {"replicas": 3.0, "pending": 0.0, "restarts": 0.0, "unhealthy": 0.0}
    assert gauges(world) == quiet
    first, second, third = world.tasks("web")
    world.end(first)
    sick = TaskStatus(
        Timestamp=Time(world.now), State=TaskState.FAILED, Err="task: unhealthy container"
    )
    world.write(Advance(task_id=second.api.ID, status=sick))
    assert gauges(world) == {"replicas": 1.0, "pending": 0.0, "restarts": 2.0, "unhealthy": 1.0}
    world.turn()
    assert gauges(world)["pending"] == 2.0
    world.sleep(60 * SECOND)
    assert gauges(world)["restarts"] == 2.0
    world.sleep(SECOND)
    assert gauges(world) == quiet
    assert third.api.ID in {task.api.ID for task in world.tasks("web")}


def test_an_end_is_as_old_as_the_leaders_clock_says() -> None:
    """Whatever the node's own clock is at."""
    world = world_of(2)
    for task, wrong in zip(world.tasks("web"), (-3600 * SECOND, 3600 * SECOND), strict=True):
        failed = TaskStatus(Timestamp=Time(world.now + wrong), State=TaskState.FAILED)
        world.write(Advance(task_id=task.api.ID, status=failed))
    assert gauges(world)["restarts"] == 2.0
    world.now += 61 * SECOND
    assert gauges(world)["restarts"] == 0.0


def test_a_sample_counts_for_three_periods() -> None:
    """What a node last said of a task goes missing with it; of others nothing is kept."""
    world = world_of(2)
    row = world.view.service("web")
    assert row is not None
    mine, other = (task.api.ID for task in world.tasks("web"))
    book = Book()
    book.watch(["web"], {mine})
    samples = [TaskSample(task_id=one, cpu=0.5) for one in (mine, other)]
    book.take("n1", samples, "", world.now)

    def known(now: int) -> dict[str, dict[str, float]]:
        points = book.frame(world.view, row, now).tasks
        return {point.task_id: dict(point.values) for point in points if point.values}

    assert known(world.now + GAP_NS) == {mine: {"cpu": 0.5}}
    assert known(world.now + GAP_NS + 1) == {}
    book.watch([], set())
    assert known(world.now) == {}
    assert book.windows == {}


def test_frames_of_the_past_are_as_a_leader_would_have_made_them() -> None:
    """From the oldest sample on, each task from its start, a hole where nothing was measured."""
    seen = {
        "a": [(EPOCH + at * SECOND, TaskSample(task_id="a", cpu=0.5)) for at in (0, 5, 10, 40)],
        "b": [(EPOCH + at * SECOND, TaskSample(task_id="b", cpu=0.1)) for at in (35, 40)],
    }
    born = {"a": EPOCH - 3600 * SECOND, "b": EPOCH + 30 * SECOND}
    frames = list(frames_of_past(seen, born, EPOCH + 45 * SECOND))
    assert [(frame.at - EPOCH) // PERIOD_NS for frame in frames] == list(range(9))
    cpus = [[point.values.get("cpu") for point in frame.tasks] for frame in frames]
    assert cpus == [*[[0.5]] * 6, [None, None], [None, 0.1], [0.5, 0.1]]
    assert [frame.tasks[-1].age_ns for frame in frames[-3:]] == [0, 5 * SECOND, 10 * SECOND]


def test_the_past_is_as_long_as_a_window() -> None:
    """Whatever nodes send, no more is kept than windows hold."""
    rows = [(EPOCH + at * PERIOD_NS, TaskSample(task_id="a", cpu=0.5)) for at in range(1000)]
    frames = list(frames_of_past({"a": rows}, {"a": EPOCH}, EPOCH + 1000 * PERIOD_NS))
    assert len(frames) == FRAMES_KEPT
    assert list(frames_of_past({}, {}, EPOCH)) == []


def test_going_back_is_done_step_by_step() -> None:
    """So a leader with many tasks keeps its heart beating; what is measured meanwhile has its place
    behind."""
    window, policy = Window(), rules(max="9", target="cpu=50%")
    past = [(EPOCH + at * PERIOD_NS, TaskSample(task_id="a", cpu=0.9)) for at in range(10)]
    window.past = {"a": past}
    window.add(Frame(EPOCH + 10 * PERIOD_NS))
    steps = window.go_back(policy, {"a": EPOCH - 60 * SECOND}, EPOCH + 10 * PERIOD_NS)
    next(steps)
    window.add(Frame(EPOCH + 11 * PERIOD_NS))
    assert len(list(steps)) == 9
    assert [(frame.at - EPOCH) // PERIOD_NS for frame in window.frames] == list(range(12))
    assert [answer.wanted for answer in window.answers] == [2] * 10
    assert (window.past, window.reads_back) == ({}, False)
