"""Updates: which slots are replaced when, as far as this release rolls."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import SECOND, Platform
from swarmctl.core.model.change import Create
from swarmctl.core.model.spec import Placement, TaskSpec, UpdateConfig
from swarmctl.core.model.task import TaskState
from swarmctl.core.orchestrator.tend import CREATE_MAX
from tests.core.pipeline.world import World, spec


def rolling(replicas: int = 4, *, nodes: int = 2, update: UpdateConfig | None = None) -> World:
    """A running service whose spec has just changed."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number}")
    world.service("web", spec(replicas=replicas, update=update))
    world.run()
    world.now += 60 * SECOND
    world.update("web", spec(replicas=replicas, image="nginx:2", update=update))
    return world


def images(world: World) -> list[str]:
    """Return the images that run, by slot."""
    return [row.api.Spec.ContainerSpec.Image for row in world.running("web")]


def floors(world: World) -> list[int]:
    """Roll to the end; return how many ran after each step."""
    seen = []
    for _ in range(200):
        busy = world.turn()
        busy |= world.agents()
        seen.append(len(world.running("web")))
        if not busy:
            return seen
    raise AssertionError("the update does not end")


def test_one_slot_at_a_time_by_default() -> None:
    """Without settings an update replaces one task after the other, and all of them."""
    world = rolling()
    assert min(floors(world)) == 3
    assert images(world) == ["nginx:2"] * 4
    assert world.wishes() == []


@pytest.mark.parametrize(("parallelism", "floor"), [(1, 3), (2, 2), (3, 1), (0, 0)])
def test_parallelism_is_the_most_that_is_missing(parallelism: int, floor: int) -> None:
    """Never more tasks are missing than the update may replace at a time; 0 means all."""
    world = rolling(update=UpdateConfig(Parallelism=parallelism))
    assert min(floors(world)) == floor
    assert images(world) == ["nginx:2"] * 4


@pytest.mark.parametrize("how", ["update", "failure", "drain"])
def test_one_decision_makes_so_many_tasks(how: str) -> None:
    """However many are to be replaced at once; the others follow in the next turns."""
    update = UpdateConfig(Parallelism=0, Order="start-first" if how == "drain" else "")
    world = World()
    for number in range(2):
        world.node(f"n{number}", cpus=1_000)
    count = CREATE_MAX * 3
    world.service("web", spec(replicas=count, update=update))
    world.run()
    world.now += 60 * SECOND
    if how == "update":
        world.update("web", spec(replicas=count, image="nginx:2", update=update))
        world.turn(("orchestrator",))  # it is written down first
    elif how == "failure":
        for row in world.running("web"):
            world.end(row)
    else:
        world.node("n2", cpus=1_000)
        for node_id in ("n0", "n1"):
            world.set_node(node_id, availability="drain")
    changes = [
        change
        for transaction in world.decide("orchestrator", "web")
        for change in transaction.changes
        if isinstance(change, Create)
    ]
    assert len(changes) == CREATE_MAX
    world.run(200)
    assert len(world.running("web")) == count
    assert len(world.runnable("web")) == count
    assert world.wishes() == []


def test_the_next_slot_waits_for_the_delay() -> None:
    """After a slot's new task runs, the next slot waits for the update's delay."""
    world = rolling(replicas=3, update=UpdateConfig(Parallelism=1, Delay=10 * SECOND))
    world.run()
    assert images(world).count("nginx:2") == 1
    world.sleep(10 * SECOND - 1)
    assert images(world).count("nginx:2") == 1
    world.sleep(1)
    assert images(world).count("nginx:2") == 2
    world.sleep(10 * SECOND)
    assert images(world) == ["nginx:2"] * 3


def test_a_new_leader_goes_on_in_mid_update() -> None:
    """Progress is read off the tasks: another leader rolls on, at the same pace."""
    world = rolling(replicas=3, update=UpdateConfig(Parallelism=1, Delay=10 * SECOND))
    world.sleep(5 * SECOND)
    world.lead()
    world.sleep(5 * SECOND - 1)
    assert images(world).count("nginx:2") == 1
    world.sleep(1)
    assert images(world).count("nginx:2") == 2


def test_the_old_task_stops_before_the_new_one_starts() -> None:
    """Stop-first: a slot's new task is prepared while the old one stops, and starts after it."""
    world = rolling(replicas=1, nodes=1)
    world.cut.add("n0")
    old = world.in_slot("web")
    world.settle()
    new = world.in_slot("web")
    assert new.private.replaces == old.api.ID
    assert new.api.DesiredState is TaskState.READY
    assert world.task(old.api.ID).api.DesiredState is TaskState.SHUTDOWN
    world.cut.clear()
    world.run()
    assert images(world) == ["nginx:2"]


def test_a_task_that_fits_nowhere_does_not_hold_up_its_own_update() -> None:
    """An outdated task that was never placed is replaced without waiting for it to stop."""
    world = World()
    world.node("n0")
    impossible = TaskSpec(Placement=Placement(Constraints=("node.labels.none==1",)))
    world.service("web", spec(task=impossible))
    world.run()
    world.update("web", spec(image="nginx:2"))
    world.run()
    assert images(world) == ["nginx:2"]


@pytest.mark.parametrize(
    "placement",
    [
        Placement(Platforms=(Platform(Architecture="amd64", OS="linux"),)),
        Placement(Constraints=("node.labels.zone==a",)),
    ],
)
def test_a_placement_that_still_holds_rolls_nothing(placement: Placement) -> None:
    """A new placement that the tasks' nodes satisfy leaves them alone."""
    world = World()
    world.node("n0", labels={"zone": "a"})
    world.service("web", spec(replicas=2))
    world.run()
    before = {row.api.ID for row in world.running("web")}
    world.update("web", spec(replicas=2, task=TaskSpec(Placement=placement)))
    world.run()
    assert {row.api.ID for row in world.running("web")} == before


def test_labels_and_scale_roll_nothing() -> None:
    """Service labels and the number of replicas are no reason to replace a task."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=2))
    world.run()
    before = {row.api.ID for row in world.running("web")}
    world.update("web", replace(spec(replicas=3), Labels={"a": "b"}))
    world.run()
    assert before < {row.api.ID for row in world.running("web")}


def test_a_forced_update_rolls_everything() -> None:
    """ForceUpdate makes every task outdated."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=2))
    world.run()
    before = {row.api.ID for row in world.running("web")}
    world.update("web", spec(replicas=2, task=TaskSpec(ForceUpdate=1)))
    world.run()
    assert before.isdisjoint({row.api.ID for row in world.running("web")})
    assert len(world.running("web")) == 2


def test_an_update_and_a_scale_meet_well() -> None:
    """Scaling in the middle of an update ends with the new number of new tasks."""
    world = rolling(replicas=4)
    world.turn()
    world.agents()
    row = world.view.service("web")
    assert row is not None
    world.scale("web", 2)
    world.run()
    assert images(world) == ["nginx:2"] * 2
    world.scale("web", 5)
    world.run()
    assert images(world) == ["nginx:2"] * 5
