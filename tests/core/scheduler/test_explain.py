"""Verdicts: every filter that refuses a node, with what is needed and what is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.base import Driver, Platform
from swarmctl.core.model.explain import NodeVerdict
from swarmctl.core.model.objects import EngineDescription, PluginDescription
from swarmctl.core.model.spec import (
    DiscreteResourceSpec,
    GenericResource,
    Limit,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from swarmctl.core.scheduler.explain import judge_node
from swarmctl.core.scheduler.filters import BUILT_IN
from swarmctl.core.scheduler.quantities import cpus, memory
from tests.core.pipeline.world import World, spec
from tests.core.scheduler.test_swarm_scenarios import CPU, GIB, reserving

DOCKER = EngineDescription(Labels={"swarmctl.executor": "docker"})


def verdict(world: World, wanted: ServiceSpec, node_id: str = "n0") -> NodeVerdict:
    """What a node says to the newest task of a service that is made now."""
    world.service("web", wanted)
    world.settle()
    node = world.view.node(node_id)
    assert node is not None
    return judge_node(world.view, world.tasks("web")[-1], node)


def reasons(found: NodeVerdict) -> list[tuple[str, str, str]]:
    return [(one.Filter, one.Needs, one.Has) for one in found.Refusals]


def placed(*constraints: str, **kwargs: object) -> TaskSpec:
    return TaskSpec(Placement=Placement(Constraints=constraints, **kwargs))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "task", "expected"),
    [
        (
            {"state": "down"},
            TaskSpec(),
            ("ready", "a node that is ready and active", "the node is down"),
        ),
        (
            {"availability": "drain"},
            TaskSpec(),
            ("ready", "a node that is ready and active", "its availability is drain"),
        ),
        (
            {"cpus": 2},
            reserving(2.5),
            ("resources", "2.5 CPUs", "2 CPUs free of 2 CPUs"),
        ),
        (
            {"cpus": 1, "memory": GIB},
            reserving(4, 3 * GIB // 2),
            ("resources", "4 CPUs, 1.5 GiB", "1 CPU free of 1 CPU, 1 GiB free of 1 GiB"),
        ),
        (
            {"labels": {"zone": "a"}},
            placed("node.labels.zone==b", "node.platform.os==linux", "node.labels.disk!=ssd"),
            ("constraints", "node.labels.zone==b", "node.labels.zone is 'a'"),
        ),
        (
            {"arch": "aarch64"},
            placed(Platforms=(Platform(Architecture="x86_64", OS="linux"),)),
            ("platform", "linux/amd64", "linux/arm64"),
        ),
        (
            {"executor": "process"},
            TaskSpec(),
            ("executor", "an executor that runs containers", "executor process"),
        ),
        (
            {
                "engine": replace(
                    DOCKER,
                    Labels={
                        f"swarmctl.lacks.{one}-limit": "it is full moon"
                        for one in ("cpu", "pids", "memory")
                    },
                )
            },
            TaskSpec(Resources=ResourceRequirements(Limits=Limit(NanoCPUs=1, Pids=1))),
            ("abilities", "a CPU limit, a limit of processes", "it is full moon"),
        ),
        (
            {"engine": replace(DOCKER, Plugins=(PluginDescription(Type="Log", Name="json-file"),))},
            TaskSpec(LogDriver=Driver(Name="splunk")),
            ("plugins", "log driver splunk", "drivers json-file"),
        ),
    ],
)
def test_what_is_needed_and_what_is_there(
    node: dict[str, object], task: TaskSpec, expected: tuple[str, str, str]
) -> None:
    """Each filter tells both, in words and with units."""
    world = World()
    world.node("n0", **node)
    found = verdict(world, spec(task=task))
    assert not found.Fits
    assert reasons(found) == [expected]
    assert found.Name == "host-n0"


def test_what_others_hold_is_subtracted() -> None:
    """Free is what is left after the tasks that are there."""
    world = World()
    world.node("n0", cpus=4, memory=8 * GIB)
    world.service("other", spec("other", task=reserving(2.5, 7 * GIB)))
    world.run()
    found = verdict(world, spec(task=reserving(2, 2 * GIB)))
    assert reasons(found) == [
        ("resources", "2 CPUs, 2 GiB", "1.5 CPUs free of 4 CPUs, 1 GiB free of 8 GiB")
    ]


def test_generic_resources_are_counted() -> None:
    """So many of a kind, of how many."""
    gpus = GenericResource(DiscreteResourceSpec=DiscreteResourceSpec(Kind="gpu", Value=1))
    wanted = GenericResource(DiscreteResourceSpec=DiscreteResourceSpec(Kind="gpu", Value=2))
    world = World()
    world.node("n0", resources=Resources(GenericResources=(gpus,)))
    reserved = ResourceRequirements(Reservations=Resources(GenericResources=(wanted,)))
    found = verdict(world, spec(task=TaskSpec(Resources=reserved)))
    assert reasons(found) == [("resources", "2 gpu", "1 gpu free of 1")]


def test_the_holder_of_a_port_is_named() -> None:
    """A user can go and look."""
    port = PortConfig(Protocol="tcp", TargetPort=80, PublishedPort=8080, PublishMode="host")
    world = World()
    world.node("n0")
    world.service("first", spec("first", ports=(port,)))
    world.run()
    (holder,) = world.tasks("first")
    found = verdict(world, spec(ports=(port,)))
    assert reasons(found) == [
        ("ports", "host port tcp/8080", f"tcp/8080 held by first.1.{holder.api.ID}")
    ]


def test_the_limit_of_replicas_is_told_with_what_is_there() -> None:
    """The task over the limit reads both numbers."""
    world = World()
    world.node("n0")
    found = verdict(world, spec(replicas=3, task=placed(MaxReplicas=2)))
    world.run()
    node = world.view.node("n0")
    assert node is not None
    found = judge_node(world.view, world.tasks("web")[-1], node)
    assert reasons(found) == [("replicas", "at most 2 of its tasks on a node", "2 there")]


def test_all_that_speaks_against_a_node_is_told() -> None:
    """The scheduler stops at the first; a user who mends that wants to know the next."""
    world = World()
    world.node("n0", cpus=1, availability="pause", arch="aarch64")
    task = replace(
        reserving(8),
        Placement=Placement(
            Constraints=("node.role==manager",),
            Platforms=(Platform(Architecture="amd64", OS="linux"),),
        ),
    )
    found = verdict(world, spec(task=task))
    assert [one.Filter for one in found.Refusals] == [
        "ready",
        "resources",
        "constraints",
        "platform",
    ]


def test_a_node_that_would_do_fits() -> None:
    """Nothing speaks against it."""
    world = World()
    world.node("n0", availability="pause")
    world.service("web", spec())
    world.settle()
    world.set_node("n0", availability="active")
    node = world.view.node("n0")
    assert node is not None
    assert judge_node(world.view, world.tasks("web")[0], node) == NodeVerdict(
        ID="n0", Name="host-n0", Fits=True
    )


@given(
    wanted=st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from(["", "a", "b"])),
    held=st.integers(0, 4),
    node=st.tuples(
        st.integers(1, 5), st.sampled_from(["a", "b"]), st.sampled_from(["active", "pause"])
    ),
)
def test_the_verdict_is_the_schedulers(
    wanted: tuple[int, int, str], held: int, node: tuple[int, str, str]
) -> None:
    """A node fits by the verdict exactly where the scheduler places the task."""
    cores, gib, zone = wanted
    offered, label, availability = node
    world = World()
    world.node("n0", cpus=offered, memory=4 * GIB, labels={"zone": label})
    world.service("held", spec("held", task=reserving(held)))
    world.settle()
    world.set_node("n0", availability=availability)
    task = replace(
        reserving(cores, gib * GIB),
        Placement=Placement(Constraints=(f"node.labels.zone=={zone}",) if zone else ()),
    )
    world.service("web", spec(task=task))
    while world.turn(("orchestrator", "allocator")):
        pass
    (pending,) = world.tasks("web")
    row = world.view.node("n0")
    assert row is not None
    found = judge_node(world.view, pending, row)
    world.settle()
    assert found.Fits == (world.tasks("web")[0].api.NodeID == "n0")
    assert all(one.Needs and one.Has for one in found.Refusals)


def test_every_filter_has_a_name_of_its_own() -> None:
    """Tables tell them apart."""
    names = [one.name for one in BUILT_IN]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (cpus(CPU), "1 CPU"),
        (cpus(CPU // 2), "0.5 CPUs"),
        (cpus(0), "0 CPUs"),
        (cpus(1_250_000), "0.001 CPUs"),
        (memory(0), "0 B"),
        (memory(1536), "1.5 KiB"),
        (memory(17 * GIB), "17 GiB"),
    ],
)
def test_quantities_have_units(text: str, expected: str) -> None:
    """Amounts are read by humans."""
    assert text == expected
