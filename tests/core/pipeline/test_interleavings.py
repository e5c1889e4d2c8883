"""Pairs of writes that could meet badly, each in both orders, judged by the real store.

What is decided is decided on the tables as they were before either write was applied; that is what
a decision in flight looks like when somebody else's entry gets in first.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.api.versions import uses_of
from swarmctl.core.model.base import SECOND
from swarmctl.core.model.change import (
    Applied,
    AtLeast,
    Conflict,
    ConflictKind,
    Create,
    Delete,
    Exists,
    Index,
    Kind,
    Ref,
    Transaction,
    Unreferenced,
    Update,
)
from swarmctl.core.model.objects import Secret, SecretRow, SecretSpec
from swarmctl.core.model.spec import (
    PortConfig,
    ResourceRequirements,
    Resources,
    SecretReference,
    TaskSpec,
    UpdateConfig,
)
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, creation, make_node, secret_removal, spec


def outcome(world: World, first: Transaction, second: Transaction) -> list[str]:
    """Apply two entries; return "applied" or the kind of conflict for each."""
    results = [*world.apply(first), *world.apply(second)]
    return ["applied" if isinstance(one, Applied) else one.kind.value for one in results]


# --- clients against clients ---------------------------------------------------------------------


def secret_pair(world: World) -> tuple[Transaction, Transaction]:
    world.write(Create(row=SecretRow(api=Secret(ID="pw", Spec=SecretSpec(Name="pw")))))
    secret = world.view.secret("pw")
    assert secret is not None
    wanted = spec()
    container = wanted.TaskTemplate.ContainerSpec
    assert container is not None
    with_secret = replace(container, Secrets=(SecretReference(SecretID="pw", SecretName="pw"),))
    wanted = replace(wanted, TaskTemplate=replace(wanted.TaskTemplate, ContainerSpec=with_secret))
    return creation("web", wanted), secret_removal("pw", secret.api.Version.Index)


def test_service_create_then_secret_rm() -> None:
    """A secret that a service came to use meanwhile is not removed."""
    world = World()
    create, remove = secret_pair(world)
    assert outcome(world, create, remove) == ["applied", "referenced"]


def test_secret_rm_then_service_create() -> None:
    """A service that names a secret that went meanwhile is not created."""
    world = World()
    create, remove = secret_pair(world)
    assert outcome(world, remove, create) == ["applied", "missing"]
    assert world.view.service("web") is None


@pytest.mark.parametrize("create_first", [True, False])
def test_a_metrics_secret_and_the_service_that_reads_with_it(*, create_first: bool) -> None:
    """A label names a secret by its name: whichever of the two writes comes second is refused."""
    world = World()
    _, remove = secret_pair(world)
    secret = world.view.secret("pw")
    assert secret is not None
    remove = replace(
        remove, requires=tuple(Unreferenced(ref=ref) for ref in uses_of(world.view, secret))
    )
    labels = {"swarmctl.scale.metric.jobs": "http://queue/,secret=PW"}
    create = creation("web", replace(spec(), Labels=labels))
    create = replace(create, requires=(Exists(ref=Ref(Kind.SECRET, "pw")),))
    if create_first:
        assert outcome(world, create, remove) == ["applied", "referenced"]
    else:
        assert outcome(world, remove, create) == ["applied", "missing"]


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_creates_on_one_port(first: str) -> None:
    """Of two services created with one ingress port the first keeps it, the other is refused."""
    world = World()
    port = (PortConfig(TargetPort=80, PublishedPort=8080),)
    pair = {name: creation(name, spec(name, ports=port)) for name in ("a", "b")}
    second = "b" if first == "a" else "a"
    assert outcome(world, pair[first], pair[second]) == ["applied", "held"]
    assert world.view.service(second) is None


@pytest.mark.parametrize("order", [("m1", "m2"), ("m2", "m1")])
def test_two_demotes_of_the_last_two_managers(order: tuple[str, str]) -> None:
    """One of the last two managers can be demoted, and not both."""
    world = World()
    demotes = {}
    for node_id in ("m1", "m2"):
        row = make_node(node_id)
        world.write(Create(row=replace(row, private=replace(row.private, role="manager"))))
    for node_id in ("m1", "m2"):
        row = world.view.node(node_id)
        assert row is not None
        worker = replace(row, private=replace(row.private, role="worker"))
        needs = AtLeast(index=Index.ROLE, key="manager", count=1)
        demotes[node_id] = Transaction(changes=(Update(row=worker),), requires=(needs,))
    assert outcome(world, demotes[order[0]], demotes[order[1]]) == ["applied", "count"]


# --- placements ----------------------------------------------------------------------------------


def pending_world(task: TaskSpec | None = None, *, nodes: int = 1, replicas: int = 1) -> World:
    """A service whose tasks are PENDING, and nodes to put them on."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number}", cpus=1)
    world.service("web", spec(replicas=replicas, task=task))
    while world.turn(("orchestrator", "allocator")):
        pass
    return world


def drain(world: World) -> Transaction:
    row = world.view.node("n0")
    assert row is not None
    drained = replace(row.api, Spec=replace(row.api.Spec, Availability="drain"))
    return Transaction(changes=(Update(row=replace(row, api=drained)),))


def test_drained_then_placed() -> None:
    """A placement on a node that was drained meanwhile fails, and the task waits for another."""
    world = pending_world()
    (placing,) = world.decide("scheduler", "everything")
    assert outcome(world, drain(world), placing) == ["applied", "version"]
    world.run()
    (task,) = world.tasks("web")
    assert task.api.Status.State is TaskState.PENDING
    assert task.api.Status.Err == "no suitable node (1 node not available for new tasks)"


def test_placed_then_drained() -> None:
    """A task that was placed just before its node was drained is moved to another one."""
    world = pending_world()
    (placing,) = world.decide("scheduler", "everything")
    assert outcome(world, placing, drain(world)) == ["applied", "applied"]
    world.node("n1")
    world.run()
    (task,) = world.runnable("web")
    assert (task.api.NodeID, task.api.Status.State) == ("n1", TaskState.RUNNING)


CPU = TaskSpec(Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=10**9)))


@pytest.mark.parametrize("later", ["same pass", "next leader"])
def test_the_last_cpu_is_given_once(later: str) -> None:
    """Of two services that want a node's last CPU one gets it, whoever decides about the second."""
    world = World()
    world.node("n0", cpus=1)
    world.service("a", spec("a", task=CPU))
    if later == "same pass":
        world.service("b", spec("b", task=CPU))
        world.run()
    else:
        world.run()
        world.lead()
        world.service("b", spec("b", task=CPU))
        world.run()
    states = {row.api.ServiceID: row.api.Status.State for row in world.tasks()}
    assert states == {"a": TaskState.RUNNING, "b": TaskState.PENDING}
    waiting = world.tasks("b")[0].api.Status.Err
    assert waiting == "no suitable node (insufficient resources on 1 node)"


HOST_PORT = (PortConfig(TargetPort=80, PublishedPort=8080, PublishMode="host"),)


@pytest.mark.parametrize("later", ["same pass", "next leader"])
def test_a_host_port_is_given_once(later: str) -> None:
    """Of two services that bind one port of a node's own one gets it."""
    world = World()
    world.node("n0")
    world.service("a", spec("a", ports=HOST_PORT))
    if later == "next leader":
        world.run()
        world.lead()
    world.service("b", spec("b", ports=HOST_PORT))
    world.run()
    assert [len(world.running(name)) for name in ("a", "b")] == [1, 0]
    waiting = world.tasks("b")[0].api.Status.Err
    assert waiting == "no suitable node (host-mode port already in use on 1 node)"


# --- tasks of a service that changes --------------------------------------------------------------


def removal(world: World, service_id: str = "web") -> Transaction:
    row = world.view.service(service_id)
    assert row is not None
    ref = Ref(Kind.SERVICE, service_id)
    return Transaction(changes=(Delete(ref=ref, version=row.api.Version.Index),))


def scaling(world: World, replicas: int) -> Transaction:
    row = world.view.service("web")
    assert row is not None
    wanted = replace(row.api, Spec=spec(replicas=replicas))
    return Transaction(changes=(Update(row=replace(row, api=wanted)),))


def test_service_removed_then_placed() -> None:
    """A placement for a service that was removed meanwhile fails."""
    world = pending_world()
    (placing,) = world.decide("scheduler", "everything")
    assert outcome(world, removal(world), placing) == ["applied", "missing"]
    world.run()
    assert world.tasks() == []


def test_placed_then_service_removed() -> None:
    """A task placed just before its service was removed is stopped and deleted."""
    world = pending_world()
    (placing,) = world.decide("scheduler", "everything")
    assert outcome(world, placing, removal(world)) == ["applied", "applied"]
    world.run()
    assert world.tasks() == []


def test_scaled_down_then_placed() -> None:
    """A placement of a task that was scaled away meanwhile fails."""
    world = pending_world(replicas=2)
    placings = world.decide("scheduler", "everything")
    world.apply(scaling(world, 1))
    world.turn(("orchestrator",))
    results = world.apply(*placings)
    assert sum(isinstance(one, Applied) for one in results) == 1
    world.run()
    assert [row.api.Slot for row in world.tasks("web")] == [1]


def test_scaled_down_then_created() -> None:
    """Tasks decided upon for more replicas than a service has meanwhile are not created."""
    world = World()
    world.service("web", spec(replicas=3))
    creating = world.decide("orchestrator", "web")
    world.apply(scaling(world, 1))
    results = world.apply(*creating)
    assert [one.kind for one in results if isinstance(one, Conflict)] == [ConflictKind.VERSION] * 3
    world.settle()
    assert [row.api.Slot for row in world.tasks("web")] == [1]


def test_created_then_scaled_down() -> None:
    """Tasks created just before a scale-down are removed by it."""
    world = World()
    world.service("web", spec(replicas=3))
    creating = world.decide("orchestrator", "web")
    world.apply(*creating)
    world.apply(scaling(world, 1))
    world.settle()
    assert [row.api.Slot for row in world.tasks("web")] == [1]


def test_service_removed_then_task_created() -> None:
    """No task is created for a service that was removed meanwhile."""
    world = World()
    world.service("web", spec())
    (creating,) = world.decide("orchestrator", "web")
    assert outcome(world, removal(world), creating) == ["applied", "missing"]


def test_two_replacements_of_one_slot() -> None:
    """Two leaders' replacements of one failed task never make two runnable tasks."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    world.run()
    world.now += 10 * SECOND
    world.end(world.in_slot("web"))
    (one,) = world.decide("orchestrator", "web")
    (other,) = world.decide("orchestrator", "web")
    assert outcome(world, one, other) == ["applied", "held"]
    assert len(world.runnable("web")) == 1


def unassigned_pair(world: World) -> tuple[Transaction, Transaction]:
    """Return the placement of a pending task, and its replacement by an update."""
    world.node("n0")
    world.service("web", spec())
    world.turn(("orchestrator", "allocator"))
    world.turn(("orchestrator", "allocator"))
    world.update("web", spec(image="new"))
    world.turn(("orchestrator",))  # the update begins
    (place,) = world.decide("scheduler", "everything")
    (replacement,) = world.decide("orchestrator", "web")
    return place, replacement


def test_placed_then_replaced() -> None:
    """A task that got a node while it was being replaced may have started: its successor waits."""
    world = World()
    place, replacement = unassigned_pair(world)
    assert outcome(world, place, replacement) == ["applied", "version"]
    (old,) = world.tasks("web")
    world.turn(("orchestrator",))
    new = world.in_slot("web")
    assert new.private.replaces == old.api.ID
    assert new.api.DesiredState is TaskState.READY


def test_replaced_then_placed() -> None:
    """A task that was replaced before it had a node gets none, and its successor need not wait."""
    world = World()
    place, replacement = unassigned_pair(world)
    assert outcome(world, replacement, place) == ["applied", "version"]
    assert world.in_slot("web").api.DesiredState is TaskState.RUNNING


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_a_task_that_becomes_ready_while_it_is_replaced_stays(order: str) -> None:
    """A slot that was judged unready is judged anew: an update takes no ready task by mistake."""
    world = World()
    world.node("n0")
    rolling = UpdateConfig(Parallelism=1, Order=order)
    world.service("web", spec(update=rolling))
    for _ in range(3):
        world.turn()
    world.agents()  # prepared, and to start
    world.update("web", spec(image="new", update=rolling))
    world.turn(("orchestrator",))  # the update begins
    (replacement,) = world.decide("orchestrator", "web")
    old = world.in_slot("web")
    world.agents()
    assert world.task(old.api.ID).api.Status.State is TaskState.RUNNING
    (result,) = world.apply(replacement)
    assert isinstance(result, Conflict)
    assert [row.api.ID for row in world.running("web")] == [old.api.ID]
    world.run()
    assert [row.api.Spec.ContainerSpec.Image for row in world.running("web")] == ["new"]


@pytest.mark.parametrize("first", ["failure", "takeover"])
def test_a_new_task_that_fails_while_the_old_one_is_told_to_stop(first: str) -> None:
    """Start-first: the old task leaves only if the new one still runs when that is applied."""
    world = World()
    world.node("n0")
    rolling = UpdateConfig(Parallelism=1, Order="start-first")
    world.service("web", spec(update=rolling))
    world.run()
    world.update("web", spec(image="new", update=rolling))
    while len(world.running("web")) < 2:
        world.turn()
        world.agents()
    old, new = world.runnable("web")
    (takeover,) = world.decide("orchestrator", "web")
    if first == "failure":
        world.end(new)
        (result,) = world.apply(takeover)
        assert isinstance(result, Conflict)
        assert world.running("web")[0].api.ID == old.api.ID
    else:
        (result,) = world.apply(takeover)
        assert isinstance(result, Applied)
        assert [row.api.ID for row in world.running("web")] == [new.api.ID]


def test_port_taken_while_a_dynamic_one_is_chosen() -> None:
    """A dynamic port that somebody fixed meanwhile is not taken twice: another one is found."""
    world = World()
    world.service("a", spec("a", ports=(PortConfig(TargetPort=80),)))
    (allocating,) = world.decide("allocator", "everything")
    fixed = creation("b", spec("b", ports=(PortConfig(TargetPort=80, PublishedPort=30_000),)))
    assert outcome(world, fixed, allocating) == ["applied", "held"]
    world.settle()
    ports = [row.api.Endpoint.Ports[0].PublishedPort for row in world.view.services()]
    assert ports == [30_001, 30_000]
