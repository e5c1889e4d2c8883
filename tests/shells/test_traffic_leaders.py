"""Traffic while leaders come and go, with real sockets, disks and elections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from swarmctl.core.model.change import Create, Update
from swarmctl.core.model.network import make_network
from swarmctl.core.model.objects import NetworkSpec, ServiceRow
from swarmctl.core.model.revision import updated
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import UpdateConfig
from swarmctl.core.model.task import TaskState
from swarmctl.plugins.null_driver import NullKernel
from tests.core.allocator.joined import on_networks
from tests.core.pipeline.world import the_reconcilers

from .local_swarm import until, write
from .test_managers import Managers

if TYPE_CHECKING:
    from pathlib import Path

    from swarmctl.core.model.spec import ServiceSpec

REPLICAS = 6
ALL = range(REPLICAS)


def web(image: str) -> ServiceSpec:
    order = UpdateConfig(Parallelism=1, Order="start-first", Monitor=10**8)
    made = replace(on_networks("web", "net", replicas=REPLICAS, image=image), UpdateConfig=order)
    container = replace(
        made.TaskTemplate.ContainerSpec,  # type: ignore[type-var]
        Env=("SWARMCTL_NULL_START_AFTER=100ms",),
    )
    return replace(made, TaskTemplate=replace(made.TaskTemplate, ContainerSpec=container))


class Watched(NullKernel):
    """Tells of every moment at which it sends nobody, or somebody to a task that does not run."""

    def __init__(self, managers: Managers) -> None:
        super().__init__()
        self._managers = managers
        self.delay_s = 0.02

    def ready(self) -> set[str] | None:
        """Return the ready tasks of the service; None where nobody could send it anything."""
        for network in self.table.networks:
            if network.network.name == "net":
                members = (one for service in network.services for one in service.members)
                return {member.task_id for member in members if member.ready}
        return None

    def wrongs(self) -> str:
        worlds = [machine.world for machine in self._managers.machines]
        running = {one for world in worlds for one, task in world.tasks.items() if task.runs}
        ready = self.ready()
        if ready is None:
            return ""
        if not ready:
            return "it sends nobody"
        return f"it sends to {ready - running}" if ready - running else ""


async def test_leaders_change_during_an_update(tmp_path: Path) -> None:
    """Two leaders end in the middle of it: no kernel is ever without a task, or has a dead one.

    And the update comes to its end, with as many tasks as there shall be.
    """
    async with trio.open_nursery() as nursery:
        managers = Managers(tmp_path, 3, nursery, the_reconcilers())
        kernels = [Watched(managers) for _ in managers.machines]
        for machine, kernel in zip(managers.machines, kernels, strict=True):
            machine.kernel = kernel
        await managers.found(3)
        leader = managers.leader()
        wanted = NetworkSpec(Name="net", Driver="overlay")
        await write(leader, Create(row=make_network("net", wanted)))
        await write(leader, Create(row=ServiceRow(api=Service(ID="web", Spec=web("one")))))
        await until(lambda: all(len(kernel.ready() or ()) == REPLICAS for kernel in kernels))

        wrongs: list[str] = []

        async def watch() -> None:
            while True:
                wrongs.extend(filter(None, (kernel.wrongs() for kernel in kernels)))
                await trio.sleep(0.005)

        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            leader = managers.leader()
            assert leader.manager is not None
            row = leader.manager.view.service("web")
            assert row is not None
            await write(leader, Update(row=updated(row, web("two"), 0, registry_auth="")))
            for _ in range(2):
                await until(lambda: images(managers).count("two") >= 2)
                number = next(n for n, node in managers.nodes.items() if node is managers.leader())
                await managers.stop(number)
                await until(
                    lambda: any(
                        node.manager and node.manager.leading for node in managers.nodes.values()
                    )
                )
                await managers.start(number)
            await until(lambda: images(managers) == ["two"] * REPLICAS)
            await until(lambda: all(len(kernel.ready() or ALL) == REPLICAS for kernel in kernels))
            watching.cancel_scope.cancel()
        assert wrongs == []
        nursery.cancel_scope.cancel()


def images(managers: Managers) -> list[str]:
    """Return the images of the tasks that run and shall."""
    for node in managers.nodes.values():
        if node.manager is not None and node.manager.leading:
            return sorted(
                row.api.Spec.ContainerSpec.Image  # type: ignore[union-attr]
                for row in node.manager.view.tasks_of("web")
                if row.api.Status.State is TaskState.RUNNING
                and row.api.DesiredState is TaskState.RUNNING
            )
    return []
