"""Leaders whose clocks are an hour apart, one after the other.

Timers are stamps of the leader that wrote them. The next leader's clock may be far behind or ahead
of it: a delay then lasts no longer than itself from the takeover, and nothing is lost or repeated.
"""

from __future__ import annotations

import pytest

from swarmctl.core.dispatcher import liveness
from swarmctl.core.model.base import MINUTE, SECOND
from swarmctl.core.model.spec import RestartPolicy, TaskSpec, UpdateConfig
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec

HOUR = 60 * MINUTE
DELAY = 30 * SECOND


def cluster(task: TaskSpec | None = None, update: UpdateConfig | None = None) -> World:
    """Return two nodes that run a service of two tasks."""
    world = World()
    for node_id in ("n0", "n1"):
        world.node(node_id)
    world.service("a", spec("a", 2, task=task, update=update))
    world.sleep(SECOND)
    return world


def take_over(world: World, apart: int) -> None:
    """Have another leader, whose clock is so far ahead of the last one's."""
    world.now += apart
    world.lead()
    world.run()


def delayed() -> World:
    """Return a cluster in which a task failed a moment ago and its successor waits."""
    world = cluster(TaskSpec(RestartPolicy=RestartPolicy(Delay=DELAY)))
    world.end(world.in_slot("a"))
    world.sleep(SECOND)
    assert world.in_slot("a").api.Status.State is TaskState.READY
    return world


def test_a_restart_delay_does_not_last_an_hour_under_a_leader_that_is_behind() -> None:
    """The successor starts within its delay of the takeover, and not much before."""
    world = delayed()
    take_over(world, -HOUR)
    world.sleep(DELAY - 2 * SECOND)
    assert world.in_slot("a").api.Status.State is TaskState.READY
    world.sleep(2 * SECOND)
    assert world.in_slot("a").api.Status.State is TaskState.RUNNING


def test_a_restart_delay_is_over_under_a_leader_that_is_ahead() -> None:
    """To a clock an hour ahead the delay is long over: the successor starts at once, and once."""
    world = delayed()
    take_over(world, HOUR)
    assert world.in_slot("a").api.Status.State is TaskState.RUNNING
    assert len(world.tasks("a")) == 3


@pytest.mark.parametrize("apart", [(-HOUR, HOUR), (HOUR, -HOUR), (-HOUR, -HOUR)])
def test_changing_back_and_forth_starts_nothing_twice(apart: tuple[int, int]) -> None:
    """Whatever leaders follow each other, the slot gets one successor, and it runs in the end."""
    world = delayed()
    for step in apart:
        take_over(world, step)
        world.sleep(2 * SECOND)
    world.sleep(DELAY)
    assert world.in_slot("a").api.Status.State is TaskState.RUNNING
    assert len(world.tasks("a")) == 3


@pytest.mark.parametrize("apart", [-HOUR, HOUR])
def test_a_rollout_goes_on_within_its_delay(apart: int) -> None:
    """An update that waits between two tasks under one leader goes on under the next."""
    world = cluster(update=UpdateConfig(Parallelism=1, Delay=DELAY))
    world.update("a", spec("a", 2, image="new", update=UpdateConfig(Parallelism=1, Delay=DELAY)))
    world.sleep(6 * SECOND)
    images = {task.api.Spec.ContainerSpec.Image for task in world.running("a")}
    assert images == {"nginx", "new"}
    take_over(world, apart)
    world.sleep(DELAY + 10 * SECOND)
    images = {task.api.Spec.ContainerSpec.Image for task in world.running("a")}
    assert images == {"new"}
    assert len(world.running("a")) == 2


@pytest.mark.parametrize("apart", [-HOUR, HOUR])
def test_a_leader_at_another_time_wants_nothing_of_a_cluster_at_rest(apart: int) -> None:
    """Tasks that run are left alone, whatever the time of the new leader says of their ages."""
    world = cluster()
    before = [task.api.ID for task in world.running("a")]
    take_over(world, apart)
    world.sleep(HOUR)
    assert [task.api.ID for task in world.running("a")] == before
    assert len(world.tasks("a")) == 2


@pytest.mark.parametrize("apart", [-HOUR, HOUR])
def test_nodes_get_their_time_to_register_whatever_the_clocks_say(apart: int) -> None:
    """Silence is counted by the new leader's own monotonic clock: no stamp makes a node down.

    A grace that the former leader stamped an hour into the future is cut to a minute by its caller,
    one that seems over for an hour gives none.
    """
    period = 2.0
    grace_s = min(apart / 1e9, 60.0)
    heard = {"n": liveness.heard_at_takeover(100.0, period, grace_s)}
    early = liveness.judge(heard, 100.0 + 2 * period, period, 0.0)
    assert early.down == ()
    late = liveness.judge(heard, 100.0 + 61.0 + 3 * period, period, 0.0)
    assert late.down == ("n",)
