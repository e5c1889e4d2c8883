"""Conformance check for schedulers; plugin authors get it from :mod:`swarmctl.plugins.testing`.

swarmctl takes a scheduler's answer only as far as its own filters gave room, so a broken one cannot
overfill a node. It can still leave tasks pending for ever, or place the same cluster differently on
each leader; that is what is looked for here, on clusters drawn from fixed seeds.
"""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from ..core.model.objects import (
    EngineDescription,
    Node,
    NodeDescription,
    NodeRow,
    NodeSpec,
    NodeStatus,
    TaskRow,
)
from ..core.model.spec import (
    ContainerSpec,
    Placement,
    PlacementPreference,
    Resources,
    SpreadOver,
    TaskSpec,
)
from ..core.model.task import Task, TaskState, TaskStatus
from ..core.scheduler.decide import Candidate
from ..core.store.view import Tables
from .conformance import ConformanceError, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.scheduler.decide import Scheduler

CLUSTERS = 200
LARGE_NODES = 1_000
LARGE_TASKS = 250
DEADLINE_S = 1.0
"""What a scheduler that runs outside has for one answer; here it gets it for the largest one."""


def check_scheduler(make: Callable[[], Scheduler]) -> None:
    """Put a scheduler through the laws of :class:`swarmctl.core.scheduler.decide.Scheduler`.

    It places tasks that it was asked for, on nodes that are there, no more than have room; it finds
    a place where there is one; the same question has the same answer, from the next leader as well;
    it keeps its hands off its arguments; and it answers in time for the largest question there is.

    Args:
        make: returns a fresh one; the same settings each time.

    Raises:
        ConformanceError: it breaks a law.
    """
    _check_form(make())
    for seed in range(CLUSTERS):
        random = Random(seed)  # noqa: S311 - the same clusters every time, and no secret
        tasks, nodes = draw_tasks(random), draw_nodes(random)
        scheduler = make()
        view = Tables()
        before = [*tasks], [*nodes]
        chosen = scheduler.place(view, tasks, nodes)
        require(
            isinstance(chosen, Mapping), f"cluster {seed}: place gave {chosen!r}, no ids by task id"
        )
        chosen = dict(chosen)
        if before != (tasks, nodes):
            raise ConformanceError(
                f"cluster {seed}: it changed its arguments, which are not its own"
            )
        _check(seed, chosen, tasks, nodes)
        for other in (scheduler, make()):
            if dict(other.place(view, tasks, nodes)) != chosen:
                raise ConformanceError(
                    f"cluster {seed}: the same arguments got another answer; the next leader would "
                    "place the same tasks elsewhere"
                )
    _check_time(make())


def _check_form(scheduler: Scheduler) -> None:
    place = getattr(scheduler, "place", None)
    require(callable(place), f"{scheduler!r} is no scheduler: it has no method place")
    signature = inspect.signature(scheduler.place)
    is_async = inspect.iscoroutinefunction(place)
    require(not is_async, 'place is "async def"; it is a plain method that gives ids by task id')
    try:
        signature.bind(Tables(), [], [])
    except TypeError:
        text = f"place takes {signature}; it is called with the view, the tasks and the nodes"
        raise ConformanceError(text) from None


def _check_time(scheduler: Scheduler) -> None:
    random = Random(CLUSTERS)  # noqa: S311 - the same cluster every time, and no secret
    nodes = [_node(random, number) for number in range(LARGE_NODES)]
    tasks = draw_tasks(random, LARGE_TASKS)
    started = time.monotonic()
    scheduler.place(Tables(), tasks, nodes)
    took_s = time.monotonic() - started
    if took_s > DEADLINE_S:
        raise ConformanceError(
            f"it took {took_s:.1f} s to place {LARGE_TASKS} tasks on {LARGE_NODES} nodes; after "
            f"{DEADLINE_S:g} s its process would be killed"
        )


def _check(
    seed: int, chosen: Mapping[str, str], tasks: list[TaskRow], nodes: list[Candidate]
) -> None:
    room = {one.node.api.ID: one.room for one in nodes}
    strangers = set(chosen) - {task.api.ID for task in tasks}
    if strangers:
        raise ConformanceError(
            f"cluster {seed}: it placed tasks that nobody asked for: {strangers}"
        )
    for node_id, count in Counter(chosen.values()).items():
        if count > room.get(node_id, 0):
            raise ConformanceError(
                f"cluster {seed}: node {node_id} got {count} tasks and has room for "
                f"{room.get(node_id, 0)}"
            )
    if not chosen and any(room.values()):
        raise ConformanceError(f"cluster {seed}: there is room, and no task got any of it")


def draw_tasks(random: Random, count: int = 0) -> list[TaskRow]:
    """Return so many (or some) pending tasks that are alike."""
    preferences = tuple(
        PlacementPreference(Spread=SpreadOver(SpreadDescriptor=f"node.labels.{label}"))
        for label in random.choice(((), ("zone",), ("zone", "rack")))
    )
    spec = TaskSpec(
        ContainerSpec=ContainerSpec(Image="nginx"), Placement=Placement(Preferences=preferences)
    )
    status = TaskStatus(State=TaskState.PENDING)
    return [
        TaskRow(
            api=Task(
                ID=f"task{number:03}",
                ServiceID="service",
                Slot=number,
                Spec=spec,
                Status=status,
                DesiredState=TaskState.RUNNING,
            )
        )
        for number in range(1, (count or random.randint(1, 12)) + 1)
    ]


def draw_nodes(random: Random) -> list[Candidate]:
    """Return the nodes of a cluster, by id; there may be none."""
    return [_node(random, number) for number in range(random.randint(0, 8))]


def _node(random: Random, number: int) -> Candidate:
    labels = {"zone": random.choice("abc"), "rack": random.choice("xy")}
    cpus = random.choice((1, 4, 16)) * 10**9
    memory = random.choice((1, 8, 64)) << 30
    row = NodeRow(
        api=Node(
            ID=f"node{number:03}",
            Spec=NodeSpec(Labels=labels if random.random() < 0.8 else {}),
            Description=NodeDescription(
                Hostname=f"host{number}",
                Resources=Resources(NanoCPUs=cpus, MemoryBytes=memory),
                Engine=EngineDescription(Labels={"swarmctl.executor": "docker"}),
            ),
            Status=NodeStatus(State="ready"),
        )
    )
    service_tasks = random.randint(0, 3)
    return Candidate(
        node=row,
        room=random.choice((0, 1, 2, 5, 1 << 31)),
        service_tasks=service_tasks,
        tasks=service_tasks + random.randint(0, 5),
        failures=random.choice((0, 0, 1, 7)),
        cpu=random.randint(0, cpus),
        memory=random.randint(0, memory),
    )
