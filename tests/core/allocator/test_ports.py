"""Ports: recorded, unique, dynamic ones sticky; and NEW tasks that wait for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.allocator.decide import keys
from swarmctl.core.model.change import Create, Kind, Ref
from swarmctl.core.model.objects import ServiceRow, TaskRow
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import EndpointSpec, PortConfig
from swarmctl.core.model.task import Task, TaskState
from tests.core.allocator.joined import add_network, on_networks, vips
from tests.core.pipeline.world import World, spec


def port(target: int, published: int = 0, **kwargs: str) -> PortConfig:
    return PortConfig(TargetPort=target, PublishedPort=published, **kwargs)


def published(world: World, service_id: str = "web") -> list[int]:
    row = world.view.service(service_id)
    assert row is not None
    return [one.PublishedPort for one in row.api.Endpoint.Ports]


def test_a_service_without_ports_needs_no_endpoint() -> None:
    """Tasks of a service that publishes nothing become PENDING, and the service is not written."""
    world = World()
    before = world.service("web", spec())
    world.settle()
    (task,) = world.tasks("web")
    assert (task.api.Status.State, task.api.Status.Message) == (
        TaskState.PENDING,
        "pending task scheduling",
    )
    assert world.view.service("web") == before


def test_fixed_ports_are_recorded() -> None:
    """The endpoint says what was asked and what was given, protocol and mode filled in."""
    world = World()
    asked = (port(80, 8080), port(53, 53, Protocol="udp"))
    world.service("web", spec(ports=asked))
    world.settle()
    row = world.view.service("web")
    assert row is not None
    assert row.api.Endpoint.Spec == EndpointSpec(Ports=asked)
    assert row.api.Endpoint.Ports == (
        port(80, 8080, Protocol="tcp", PublishMode="ingress"),
        port(53, 53, Protocol="udp", PublishMode="ingress"),
    )


def test_dynamic_ports_are_the_lowest_free_ones() -> None:
    """Ports without a number get one each, each protocol for itself."""
    world = World()
    world.service("a", spec("a", ports=(port(80), port(81), port(53, Protocol="udp"))))
    world.service("b", spec("b", ports=(port(80),)))
    world.settle()
    assert published(world, "a") == [30_000, 30_001, 30_000]
    assert published(world, "b") == [30_002]


def test_a_dynamic_port_avoids_the_services_own_fixed_one() -> None:
    """A number that the same spec fixes is not handed out beside it."""
    world = World()
    world.service("web", spec(ports=(port(80), port(81, 30_000))))
    world.settle()
    assert published(world) == [30_001, 30_000]


def test_a_dynamic_port_avoids_what_is_published_on_hosts() -> None:
    """A number that another service, or the same one, publishes on its nodes is not handed out."""
    world = World()
    on_hosts = port(80, 30_000, PublishMode="host")
    world.service("node", spec("node", ports=(on_hosts, port(53, 30_000, Protocol="udp"))))
    world.service("web", spec("web", ports=(port(80), port(81, 30_001, PublishMode="host"))))
    world.settle()
    assert published(world) == [30_002, 30_001]
    world.service("dns", spec("dns", ports=(port(53, Protocol="udp"),)))
    world.settle()
    assert published(world, "dns") == [30_001], "protocols are apart"


def test_dynamic_ports_are_sticky() -> None:
    """An update keeps a port's number by name, protocol and target, whatever else it changes."""
    world = World()
    world.service("web", spec(ports=(port(80), port(81))))
    world.settle()
    world.service("other", spec("other", ports=(port(80),)))
    world.settle()
    world.update("web", spec(ports=(port(90), port(81), port(80)), replicas=3))
    world.settle()
    assert published(world) == [30_003, 30_001, 30_000]
    world.lead()
    world.settle()
    assert published(world) == [30_003, 30_001, 30_000]


def test_a_fixed_number_goes_before_stickiness() -> None:
    """A number the update fixes for one port is not kept by another."""
    world = World()
    world.service("web", spec(ports=(port(80),)))
    world.settle()
    world.update("web", spec(ports=(port(80), port(81, 30_000))))
    world.settle()
    assert published(world) == [30_001, 30_000]


def test_switching_to_host_mode_frees_the_port() -> None:
    """A port published on the nodes themselves is copied through and held by nobody."""
    world = World()
    world.service("web", spec(ports=(port(80, 8080),)))
    world.settle()
    world.update("web", spec(ports=(port(80, 8080, PublishMode="host"),)))
    world.settle()
    world.service("other", spec("other", ports=(port(80, 8080),)))
    world.settle()
    assert published(world) == published(world, "other") == [8080]
    assert {row.api.Status.State for row in world.tasks()} >= {TaskState.PENDING}


def test_giving_ports_up_empties_the_endpoint() -> None:
    """A service that publishes nothing any more has an empty endpoint again."""
    world = World()
    world.service("web", spec(ports=(port(80),)))
    world.settle()
    world.update("web", spec())
    world.settle()
    assert published(world) == []


def forced(world: World, service_id: str, *ports: PortConfig) -> None:
    """Create a service without asking whether its ports are free."""
    row = ServiceRow(api=Service(ID=service_id, Spec=spec(service_id, ports=ports)))
    world.write(Create(row=row))


def test_a_taken_port_keeps_tasks_new_and_says_so() -> None:
    """A service whose port is another's stays unallocated; its tasks say why; it is retried."""
    world = World()
    world.service("a", spec("a", ports=(port(80, 80),)))
    world.settle()
    forced(world, "b", port(80, 80))
    world.settle()
    (task,) = world.tasks("b")
    assert task.api.Status.State is TaskState.NEW
    assert task.api.Status.Err == "port 80/tcp is already in use by service a"
    assert published(world, "b") == []
    assert world.wishes() == []
    world.remove_service("a")
    world.settle()
    assert published(world, "b") == [80]
    (task,) = world.tasks("b")
    assert task.api.Status.State is TaskState.PENDING
    assert task.api.Status.Err == "no suitable node"  # there is none: the port is no obstacle now


def test_two_services_that_wait_for_one_port_do_not_wait_for_each_other() -> None:
    """Should two unallocated services ask for one number, the older one gets it."""
    world = World()
    forced(world, "b", port(80, 80))
    world.now += 1
    forced(world, "a", port(80, 80))
    world.settle()
    assert (published(world, "b"), published(world, "a")) == ([80], [])


def test_a_full_range_is_said_in_words() -> None:
    """When no dynamic port is left, the tasks say so."""
    world = World()
    wide = tuple(port(1, number) for number in range(30_000, 32_768))
    world.service("wide", spec("wide", 0, ports=wide))
    world.settle()
    world.service("web", spec(ports=(port(80),)))
    world.settle()
    (task,) = world.tasks("web")
    assert task.api.Status.Err == "no free tcp port is left between 30000 and 32767"


def test_one_service_in_want_does_not_hold_up_others() -> None:
    """A service that cannot be allocated is no reason for others to wait."""
    world = World()
    world.service("a", spec("a", ports=(port(80, 80),)))
    world.settle()
    forced(world, "b", port(80, 80))
    world.service("c", spec("c", ports=(port(81, 81),)))
    world.settle()
    assert {row.api.ServiceID for row in world.view.tasks_at(TaskState.PENDING)} == {"a", "c"}


def test_many_tasks_become_pending_over_several_turns() -> None:
    """A thousand new tasks are all moved, no entry being larger than allowed."""
    world = World()
    world.service("web", spec(replicas=1_000))
    while world.turn(("orchestrator",)):
        pass
    (moved,) = world.decide("allocator", "everything")
    assert len(moved.changes) == 400
    world.settle()
    assert len(world.view.tasks_at(TaskState.PENDING)) == 1_000


def test_services_without_ports_are_allocated_one_by_one() -> None:
    """Each is a key of its own, so creating one costs no look at the thousand others."""
    world = World()
    rows = [world.service(name, spec(name)) for name in ("a", "b", "c")]
    touched = {Ref(Kind.SERVICE, row.api.ID) for row in rows[1:]}
    assert set(keys(world.view, touched)) == {"b", "c"}
    while world.turn(("orchestrator",)):
        pass
    (moved,) = world.decide("allocator", "b")
    assert {change.row.api.ServiceID for change in moved.changes} == {"b"}  # type: ignore[union-attr]


def test_a_port_that_a_younger_service_gives_back_goes_to_the_older_one() -> None:
    """Whoever waits for it is asked again, although nothing of it changed."""
    world = World()
    world.service("old", spec("old", ports=(port(80, 80),)))
    world.service("young", spec("young", ports=(port(80, 81),)))
    world.settle()
    world.update("old", spec("old", ports=(port(80, 81),)))
    world.settle()
    assert published(world, "old") == [80]
    world.update("young", spec("young"))
    world.settle()
    assert (published(world, "old"), published(world, "young")) == ([81], [])


def test_a_task_without_a_service_needs_no_ports() -> None:
    """A plain container's task becomes PENDING at once."""
    world = World()
    world.write(Create(row=TaskRow(api=Task(ID="x", DesiredState=TaskState.RUNNING))))
    world.turn(("allocator",))
    assert world.task("x").api.Status.State is TaskState.PENDING


def test_addresses_are_left_alone() -> None:
    """Allocating ports keeps what else the endpoint holds."""
    world = World()
    add_network(world)
    world.settle()
    world.service("web", on_networks("web", "net"))
    world.settle()
    before = vips(world)
    assert before
    world.update("web", on_networks("web", "net", ports=(port(80, 80),)))
    world.settle()
    assert (published(world), vips(world)) == ([80], before)


PORTS = st.lists(
    st.builds(
        PortConfig,
        TargetPort=st.integers(80, 82),
        PublishedPort=st.sampled_from([0, 0, 80, 30_000, 30_001]),
        Protocol=st.sampled_from(["", "tcp", "udp"]),
        PublishMode=st.sampled_from(["", "ingress", "host"]),
    ),
    max_size=3,
    unique_by=lambda one: (one.TargetPort, one.Protocol or "tcp"),
).map(tuple)


def ingress_numbers(row: ServiceRow) -> set[tuple[str, int]]:
    """Return what one service holds; it may well name one number twice itself."""
    ports = row.api.Endpoint.Ports
    return {(one.Protocol, one.PublishedPort) for one in ports if one.PublishMode == "ingress"}


def test_a_port_that_is_asked_for_no_more_is_for_who_waits() -> None:
    """Also when who asked for it never had it: an older service that itself waited for another."""
    world = World()
    tcp, udp = port(80, 80), port(80, 80, Protocol="udp")
    forced(world, "b", udp)
    world.settle()
    forced(world, "a", tcp, udp)
    world.update("b", spec("b", ports=(tcp,)))
    world.settle()
    assert published(world, "a") == []
    world.update("a", spec("a"))
    world.settle()
    assert published(world, "b") == [80]
    assert world.wishes() == []


@given(st.lists(st.tuples(st.sampled_from("abc"), PORTS), max_size=8))
def test_no_port_is_ever_given_twice(steps: list[tuple[str, tuple[PortConfig, ...]]]) -> None:
    """Whatever services ask for, updated in whatever order: one holder a port, and it is stable."""
    world = World()
    for name, ports in steps:
        if world.view.service(name) is None:
            forced(world, name, *ports)
        else:
            world.update(name, spec(name, ports=ports))
        world.settle()
        held = [pair for row in world.view.services() for pair in ingress_numbers(row)]
        assert len(held) == len(set(held))
        assert all(number for _, number in held)
        assert world.wishes() == []
