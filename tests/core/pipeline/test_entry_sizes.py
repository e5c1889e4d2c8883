"""What a decision wants written fits into the log, however large its rows are and however many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from swarmctl.core.manager.propose import ENTRY_BYTES_MAX, ENTRY_CHANGES_MAX
from swarmctl.core.model.change import Create
from swarmctl.core.model.codec import pack
from swarmctl.core.model.labels import DEPENDS_ON
from swarmctl.core.model.spec import PortConfig, RestartPolicy
from swarmctl.core.model.task import TaskState
from tests.core.allocator.joined import add_network, network_of
from tests.core.dispatcher.networked import carrying
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.change import Applied, Conflict, Transaction
    from swarmctl.core.model.spec import ServiceSpec

PUBLISHED = (PortConfig(Protocol="tcp", TargetPort=80, PublishedPort=8080),)


class Logged(World):
    """A world that takes no transaction that a leader would refuse to propose."""

    def apply(self, *transactions: Transaction) -> tuple[Applied | Conflict, ...]:
        for one in transactions:
            assert len(pack(one)) <= ENTRY_BYTES_MAX
            assert len(one.changes) <= ENTRY_CHANGES_MAX
        return super().apply(*transactions)


def large(made: ServiceSpec, **template: object) -> ServiceSpec:
    """Return a spec with 20 KB of environment."""
    container = made.TaskTemplate.ContainerSpec
    assert container is not None
    container = replace(container, Env=(f"CONFIG={'x' * 20_000}",))
    return replace(
        made,
        TaskTemplate=replace(made.TaskTemplate, ContainerSpec=container, **template),
    )


@pytest.mark.parametrize("ports", [(), PUBLISHED])
def test_many_tasks_of_a_large_spec_start(ports: tuple[PortConfig, ...]) -> None:
    """They are moved on in as many transactions as they need, at once."""
    world = Logged()
    world.node("n0")
    world.service("db", spec("db"))
    made = large(spec(replicas=150, ports=ports))
    world.service("web", replace(made, Labels={DEPENDS_ON: "db:running"}))
    world.settle()
    assert all(row.api.Status.Err for row in world.tasks("web"))
    world.run()
    assert len(world.running("web")) == 150
    assert world.wishes() == []


def test_many_tasks_of_a_large_spec_are_restarted() -> None:
    """With what was counted for them, and each counted once."""
    world = Logged()
    world.node("n0")
    policy = RestartPolicy(Condition="any", Delay=0, MaxAttempts=3)
    world.service("web", large(spec(replicas=150), RestartPolicy=policy))
    world.run()
    for row in world.running("web"):
        world.end(row)
    world.run()
    assert len(world.running("web")) == 150
    service = world.view.service("web")
    assert service is not None
    assert {one.attempts for one in service.private.restarts.values()} == {1}
    assert len(service.private.restarts) == 150


def test_a_slot_with_a_long_history_is_removed() -> None:
    """A cluster that keeps all tasks has thousands of a slot that never stays up."""
    world = Logged(history=-1)
    world.node("n0")
    world.service("web", spec(replicas=1))
    world.run()
    world.end(world.in_slot("web"))
    world.sleep(10 * 10**9)
    ended = next(row for row in world.tasks("web") if row.api.Status.State is TaskState.FAILED)
    for number in range(1_100):
        world.write(Create(row=replace(ended, api=replace(ended.api, ID=f"old{number}"))))
    world.scale("web", 0)
    world.run()
    assert world.tasks("web") == []


def test_a_network_that_every_node_has_a_place_on() -> None:
    """Some hundred nodes get theirs with each decision, and in the end all have it."""
    world = Logged()
    count = 700
    for number in range(count):
        carrying(world, f"n{number}")
    add_network(world, "net", "10.64.0.0/14", "fd00:5::/64", Attachable=True, EnableIPv6=True)
    world.settle()
    private = network_of(world).private
    assert len(private.gateways) == len(private.rooms) == count
    assert world.wishes() == []
