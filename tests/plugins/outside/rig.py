"""A leader's loops on a real store, with a plugin in a real child process beside them."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.clock import SystemClock
from swarmctl.core.manager.pipeline import Outside, reconcilers
from swarmctl.core.manager.reconcile import Loop
from swarmctl.core.model.change import Entry, Update
from swarmctl.core.model.task import TaskState
from swarmctl.core.store.watch import Watch
from swarmctl.plugins.loader import load_plugins
from swarmctl.plugins.outside import runner
from swarmctl.plugins.outside.choice import Wanted, choose
from swarmctl.plugins.outside.runner import DEADLINE_S
from tests.core.pipeline.world import World, spec
from tests.stalls import Stalls, undisturbed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from swarmctl.core.model.change import Applied, Conflict, Result, Transaction
    from swarmctl.core.model.objects import TaskRow
    from swarmctl.plugins.outside.choice import Choice
    from swarmctl.plugins.outside.desk import Plugin

REPO = Path(__file__).resolve().parents[3]
WITHIN_S = 20.0
PATIENT_S = 15.0
"""A plugin's deadline where the test is not about it: the machine may be busy with others."""
COMMAND = (sys.executable, "-m", "swarmctl", "plugin-child")
HEAD = """
import os, sys, time
from swarmctl.plugins import hookimpl

"""
SCHEDULER = (
    HEAD
    + """
class Scheduler:
    def place(self, view, tasks, nodes):
        {body}

@hookimpl
def swarmctl_scheduler(name, settings):
    return Scheduler() if name == "mine" else None
"""
)


class Cluster(World):
    """A store whose writes wake real loops; the clock is the system's."""

    def __init__(self) -> None:
        self.watch = Watch()
        super().__init__()
        self.now = SystemClock().now()

    def apply(self, *transactions: Transaction) -> tuple[Applied | Conflict, ...]:
        stamped = tuple(replace(one, now=one.now or self.now) for one in transactions)
        outcome = self.store.apply(self.store.index + 1, Entry(transactions=stamped))
        self.watch.publish(self.store.index, outcome.changes)
        return outcome.results

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        await trio.lowlevel.checkpoint()
        return self.apply(*transactions)

    def pending(self, service_id: str, replicas: int = 1, **how: object) -> None:
        """Create a service; its tasks come by the loops."""
        self.service(service_id, spec(service_id, replicas, **how))  # type: ignore[arg-type]

    def where(self, service_id: str) -> list[str]:
        """Return the nodes of a service's assigned tasks, sorted."""
        return sorted(task.api.NodeID for task in self.assigned(service_id))

    def assigned(self, service_id: str) -> list[TaskRow]:
        return [
            one
            for one in self.view.tasks_of(service_id)
            if one.api.Status.State >= TaskState.ASSIGNED
        ]

    def run_agents(self) -> None:
        """Have all assigned tasks run, as their agents report."""
        while self.agents():
            pass

    def come(self, *node_ids: str) -> None:
        """Have nodes be ready since the present time of the world."""
        for node_id in node_ids:
            row = self.view.node(node_id)
            assert row is not None
            private = replace(row.private, status_since=self.now)
            self.write(Update(row=replace(row, private=private)))

    def why(self, service_id: str) -> str:
        """Return what the first task of a service says that it waits for."""
        return next((task.api.Status.Err for task in self.view.tasks_of(service_id)), "")


class Rig:
    """A cluster, its leader's loops, and the plugin under test."""

    def __init__(self, cluster: Cluster, choice: Choice) -> None:
        self.cluster = cluster
        self.choice = choice
        self.stalls = Stalls(undisturbed)

    @property
    def plugin(self) -> Plugin:
        (one,) = self.choice.outside.values()
        return one

    async def until(self, condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
        """Wait until something is so."""
        with trio.move_on_after(within_s):
            while not condition():  # noqa: ASYNC110 - the other side is a process
                await trio.sleep(0.01)
            return
        raise AssertionError(f"not so after {within_s:g} s; {vars(self.plugin)}")

    async def placed(self, service_id: str, replicas: int = 1) -> list[str]:
        """Wait until a service's tasks have nodes; return these."""
        await self.until(lambda: len(self.cluster.assigned(service_id)) == replicas)
        return self.cluster.where(service_id)


def write_plugin(folder: Path, code: str, name: str = "mine") -> None:
    file = folder / f"{name}.py"
    file.write_text(code)
    file.chmod(0o644)


def deadline_for(text: str) -> float:
    """Return the deadline of a test that expects a failure: the true one where that is of it."""
    return DEADLINE_S if f"within {DEADLINE_S:g} s" in text else PATIENT_S


@asynccontextmanager
async def leading(
    folder: Path, cluster: Cluster, *, deadline_s: float = PATIENT_S, **wanted: object
) -> AsyncIterator[Rig]:
    """Lead a cluster with the plugins of a folder, which answer within a deadline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "DEADLINE_S", deadline_s)
        async with _leading(folder, cluster, wanted) as rig:
            yield rig


@asynccontextmanager
async def _leading(folder: Path, cluster: Cluster, wanted: dict[str, object]) -> AsyncIterator[Rig]:
    plugins = load_plugins(candidates=[], directory=folder)
    assert plugins.failures == []
    choice = choose(plugins, Wanted(command=COMMAND, **wanted))  # type: ignore[arg-type]
    rig = Rig(cluster, choice)
    outside = Outside(judges=choice.judges, move_judges=choice.move_judges)
    async with trio.open_nursery() as nursery:
        for each in choice.runners.values():
            nursery.start_soon(each.run)
        for one in reconcilers(choice.scheduler, choice.allocator, choice.strategies, outside):
            loop = Loop(
                one,
                view=cluster.view,
                watch=cluster.watch,
                proposer=cluster,  # type: ignore[arg-type] # all that a loop asks of one
                clock=SystemClock(),
                new_id=cluster.new_id,
            )
            nursery.start_soon(loop.run)
        trio.lowlevel.add_instrument(rig.stalls)
        try:
            yield rig
        finally:
            trio.lowlevel.remove_instrument(rig.stalls)
        nursery.cancel_scope.cancel()
