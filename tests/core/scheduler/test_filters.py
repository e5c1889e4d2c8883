"""Filters: who passes, who is refused, and the sentence a user reads."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import Driver, Platform
from swarmctl.core.model.change import Update
from swarmctl.core.model.objects import EngineDescription, PluginDescription, TaskRow
from swarmctl.core.model.spec import (
    ContainerSpec,
    Limit,
    Mount,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    TaskSpec,
    VolumeOptions,
)
from swarmctl.core.model.task import (
    AttachedNetwork,
    AttachedNetworkSpec,
    NetworkAttachment,
    Task,
    TaskState,
)
from swarmctl.core.scheduler.explain import no_suitable_node
from swarmctl.core.scheduler.filters import BUILT_IN
from swarmctl.core.scheduler.resources import NodeLoad, Place
from tests.core.pipeline.world import World, spec

GB = 1 << 30


def placed(world: World, wanted: object) -> str:
    """Create a service with this spec; return its task's node, or why it has none."""
    world.service("web", wanted)  # type: ignore[arg-type]
    world.settle()
    (task,) = world.tasks("web")
    if task.api.Status.State is TaskState.ASSIGNED:
        assert task.api.Status.Message == "scheduler assigned task to node"
        assert task.api.Status.Err == ""
        return task.api.NodeID
    assert task.api.Status.State is TaskState.PENDING
    return task.api.Status.Err


def test_no_nodes_at_all() -> None:
    """Without nodes there is nothing to blame."""
    assert placed(World(), spec()) == "no suitable node"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"state": "down"},
        {"state": "unknown"},
        {"state": "disconnected"},
        {"availability": "pause"},
        {"availability": "drain"},
    ],
)
def test_only_ready_and_active_nodes_take_tasks(kwargs: dict[str, str]) -> None:
    """A node that does not answer, or that is paused or drained, takes nothing."""
    world = World()
    world.node("n0", **kwargs)
    why = "no suitable node (1 node not available for new tasks)"
    assert placed(world, spec()) == why
    world.node("n1")
    world.settle()
    assert world.tasks("web")[0].api.NodeID == "n1"


def test_a_node_whose_engine_does_not_answer_takes_nothing() -> None:
    """``can_run`` counts as much as the node's own state."""
    world = World()
    row = world.node("n0")
    world.write(Update(row=replace(row, private=replace(row.private, can_run=False))))
    assert placed(world, spec()) == "no suitable node (1 node not available for new tasks)"


@pytest.mark.parametrize(
    ("reserved", "fits"),
    [
        (Resources(NanoCPUs=10**9), True),
        (Resources(NanoCPUs=10**9 + 1), False),
        (Resources(MemoryBytes=GB), True),
        (Resources(MemoryBytes=GB + 1), False),
    ],
)
def test_reservations_fit_to_the_last_byte(reserved: Resources, fits: bool) -> None:
    """A task fits when exactly as much is left as it reserves."""
    world = World()
    world.node("n0", cpus=1, memory=GB)
    task = TaskSpec(Resources=ResourceRequirements(Reservations=reserved))
    expected = "n0" if fits else "no suitable node (insufficient resources on 1 node)"
    assert placed(world, spec(task=task)) == expected


PLUGINS = (
    PluginDescription(Type="Volume", Name="nfs:latest"),
    PluginDescription(Type="Network", Name="overlay"),
)
LOG_PLUGINS = (*PLUGINS, PluginDescription(Type="Log", Name="json-file"))


@pytest.mark.parametrize(
    ("plugins", "volume", "log", "fits"),
    [
        (PLUGINS, "nfs", "", True),
        (PLUGINS, "local", "", True),
        (PLUGINS, "ceph", "", False),
        ((), "ceph", "", True),
        (PLUGINS, "", "splunk", True),
        (LOG_PLUGINS, "", "splunk", False),
        (LOG_PLUGINS, "", "json-file", True),
        (LOG_PLUGINS, "", "none", True),
    ],
)
def test_drivers(plugins: tuple[PluginDescription, ...], volume: str, log: str, fits: bool) -> None:
    """Volume and log drivers have to be there, as far as the node tells what it has."""
    world = World()
    world.node("n0", engine=EngineDescription(Plugins=plugins))
    wanted = spec()
    options = VolumeOptions(DriverConfig=Driver(Name=volume))
    mounts = (Mount(Type="volume", Target="/data", VolumeOptions=options),) if volume else ()
    template = TaskSpec(
        ContainerSpec=ContainerSpec(Image="nginx", Mounts=mounts),
        LogDriver=Driver(Name=log) if log else None,
    )
    wanted = replace(wanted, TaskTemplate=template)
    expected = "n0" if fits else "no suitable node (missing plugin on 1 node)"
    assert placed(world, wanted) == expected


@pytest.mark.parametrize(
    ("constraint", "fits"),
    [
        ("node.labels.zone==a", True),
        ("node.labels.zone==A", True),
        ("node.labels.zone!=a", False),
        ("node.hostname==host-n0", True),
        ("node.role==manager", False),
        ("engine.labels.swarmctl.executor==docker", True),
        ("node.nonsense==1", False),
    ],
)
def test_constraints(constraint: str, fits: bool) -> None:
    """Placement constraints pick nodes."""
    world = World()
    world.node("n0", labels={"zone": "a"})
    task = TaskSpec(Placement=Placement(Constraints=(constraint,)))
    why = "no suitable node (scheduling constraints not satisfied on 1 node)"
    assert placed(world, spec(task=task)) == ("n0" if fits else why)


@pytest.mark.parametrize(
    ("arch", "platforms", "fits"),
    [
        ("x86_64", [("amd64", "linux")], True),
        ("amd64", [("x86_64", "linux")], True),
        ("aarch64", [("arm64", "linux")], True),
        ("x86_64", [("arm64", "linux")], False),
        ("x86_64", [("arm64", "linux"), ("amd64", "linux")], True),
        ("x86_64", [("", "linux")], True),
        ("x86_64", [("amd64", "")], True),
        ("x86_64", [("amd64", "windows")], False),
    ],
)
def test_platforms(arch: str, platforms: list[tuple[str, str]], fits: bool) -> None:
    """A node runs what is made for it, by whatever name its architecture goes."""
    world = World()
    world.node("n0", arch=arch)
    wanted = tuple(Platform(Architecture=one, OS=system) for one, system in platforms)
    task = TaskSpec(Placement=Placement(Platforms=wanted))
    expected = "n0" if fits else "no suitable node (unsupported platform on 1 node)"
    assert placed(world, spec(task=task)) == expected


@pytest.mark.parametrize(
    ("image", "executor", "fits"),
    [
        ("host", "process", True),
        ("host:latest", "process", True),
        ("host", "null", True),
        ("host", "docker", False),
        ("host", "podman", False),
        ("nginx", "docker", True),
        ("nginx", "podman", True),
        ("nginx", "null", True),
        ("nginx", "process", False),
        ("hostname/app", "process", False),
    ],
)
def test_executors(image: str, executor: str, fits: bool) -> None:
    """Plain processes go where processes are run, images to where containers are."""
    world = World()
    world.node("n0", executor=executor)
    expected = "n0" if fits else "no suitable node (executor cannot run this image on 1 node)"
    assert placed(world, spec(image=image)) == expected


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        (Limit(MemoryBytes=1), False),
        (Limit(MemoryBytes=1, NanoCPUs=1), False),
        (Limit(NanoCPUs=1, Pids=1), True),
        (Limit(), True),
    ],
)
def test_limits_that_an_executor_cannot_give(limits: Limit, fits: bool) -> None:
    """A task whose limit would not hold on a node waits for another, and says so."""
    world = World()
    labels = {"swarmctl.executor": "podman", "swarmctl.lacks.memory-limit": "no control groups"}
    world.node("n0", engine=EngineDescription(Labels=labels))
    why = "no suitable node (executor cannot give the limits or networks asked for on 1 node)"
    task = TaskSpec(Resources=ResourceRequirements(Limits=limits))
    assert placed(world, spec(task=task)) == ("n0" if fits else why)


@pytest.mark.parametrize(
    ("network", "fits"),
    [
        (AttachedNetworkSpec(Name="back"), False),
        (AttachedNetworkSpec(Name="ingress", Ingress=True), True),
        (AttachedNetworkSpec(Name="host", Labels={"com.docker.swarm.predefined": "true"}), True),
    ],
)
def test_networks_that_an_executor_cannot_give(network: AttachedNetworkSpec, fits: bool) -> None:
    """Overlays need an executor whose bridges are the host's; what every engine has does not."""
    world = World()
    labels = {"swarmctl.executor": "podman", "swarmctl.lacks.networks": "no root"}
    node = world.node("n0", engine=EngineDescription(Labels=labels))
    attached = NetworkAttachment(Network=AttachedNetwork(ID="net", Spec=network))
    task = TaskRow(api=Task(ID="t0", NetworksAttachments=(attached,)))
    (ability,) = (one for one in BUILT_IN if one.name == "abilities")
    check = ability.check(task)
    assert (check is None or bool(check(node, NodeLoad()))) is fits
    if not fits:
        assert ability.why(task, Place(node, NodeLoad()), ()) == ("an overlay network", "no root")


@pytest.mark.parametrize(
    ("protocol", "number", "fits"), [("tcp", 80, False), ("udp", 80, True), ("tcp", 81, True)]
)
def test_host_ports(protocol: str, number: int, fits: bool) -> None:
    """A port of the node itself is bound once for each protocol."""
    world = World()
    world.node("n0")
    first = PortConfig(TargetPort=80, PublishedPort=80, PublishMode="host", Protocol="tcp")
    world.service("first", spec("first", ports=(first,)))
    world.settle()
    second = PortConfig(TargetPort=80, PublishedPort=number, PublishMode="host", Protocol=protocol)
    expected = "n0" if fits else "no suitable node (host-mode port already in use on 1 node)"
    assert placed(world, spec(ports=(second,))) == expected


def test_a_host_port_is_held_until_the_task_has_stopped() -> None:
    """A task that should stop still binds its port; its place is taken once it is over."""
    world = World()
    world.node("n0")
    port = (PortConfig(TargetPort=80, PublishedPort=80, PublishMode="host"),)
    world.service("first", spec("first", ports=port))
    world.run()
    world.cut.add("n0")
    world.remove_service("first")
    why = "no suitable node (host-mode port already in use on 1 node)"
    assert placed(world, spec(ports=port)) == why
    world.cut.clear()
    world.run()
    assert [row.api.NodeID for row in world.running("web")] == ["n0"]


def test_max_replicas_per_node() -> None:
    """No node gets more of a service than it allows, and the rest say why they wait."""
    world = World()
    world.node("n0")
    world.node("n1")
    world.service("web", spec(replicas=5, task=TaskSpec(Placement=Placement(MaxReplicas=2))))
    world.settle()
    nodes = [row.api.NodeID for row in world.tasks("web")]
    assert sorted(filter(None, nodes)) == ["n0", "n0", "n1", "n1"]
    (waiting,) = (row for row in world.tasks("web") if not row.api.NodeID)
    assert waiting.api.Status.Err == "no suitable node (max replicas per node limit exceed)"


def test_the_most_frequent_reason_comes_first() -> None:
    """Every node is counted for the first filter that refuses it; larger counts are named first."""
    world = World()
    world.node("n0", state="down")
    world.node("n1", labels={"zone": "a"}, cpus=1)
    world.node("n2", labels={"zone": "b"})
    world.node("n3", labels={"zone": "b"})
    task = TaskSpec(
        Placement=Placement(Constraints=("node.labels.zone==a",)),
        Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=2 * 10**9)),
    )
    assert placed(world, spec(task=task)) == (
        "no suitable node (scheduling constraints not satisfied on 2 nodes; "
        "1 node not available for new tasks; insufficient resources on 1 node)"
    )


def test_plurals() -> None:
    """One node is a node and two are nodes."""
    refused = [0] * len(BUILT_IN)
    refused[0] = 2
    assert no_suitable_node(BUILT_IN, refused) == (
        "no suitable node (2 nodes not available for new tasks)"
    )


def test_the_reason_follows_the_facts() -> None:
    """A task that waits learns the new reason when nodes change, and is placed when one fits."""
    world = World()
    world.node("n0", cpus=1)
    task = TaskSpec(Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=2 * 10**9)))
    assert placed(world, spec(task=task)).endswith("(insufficient resources on 1 node)")
    world.node("n1", cpus=1)
    world.settle()
    why = world.tasks("web")[0].api.Status.Err
    assert why == "no suitable node (insufficient resources on 2 nodes)"
    assert world.settle() == 0
    world.set_node("n1", resources=Resources(NanoCPUs=2 * 10**9))
    world.settle()
    assert world.tasks("web")[0].api.NodeID == "n1"
