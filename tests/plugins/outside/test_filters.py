"""Somebody else's filters in their own process: asked of many nodes at once, obeyed, survived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from tests.core.pipeline.world import spec

from .rig import HEAD, SCHEDULER, Cluster, deadline_for, leading, write_plugin

if TYPE_CHECKING:
    from pathlib import Path

FILTER = (
    HEAD
    + """
class Filter:
    name = "mine"
    static = {static}

    def check(self, task):
        {check}

    def explain(self, nodes):
        return f"{{nodes}} without licence"

    def why(self, task, place, others):
        return "a licence", "none"

@hookimpl
def swarmctl_scheduler_filters():
    return [Filter()]
"""
)
BY_LABEL = FILTER.format(
    static=True,
    check="return lambda node, load: 9 if node.api.Spec.Labels.get('licence') else 0",
)
ONE_EACH = FILTER.format(static=False, check="return lambda node, load: 1 - load.tasks")


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    for name in "abc":
        made.node(name)
    return made


async def test_it_keeps_tasks_from_nodes(tmp_path: Path, cluster: Cluster) -> None:
    """Tasks wait with the filter's sentence until a node suits, and then go only there."""
    write_plugin(tmp_path, BY_LABEL)
    async with leading(tmp_path, cluster) as rig:
        cluster.pending("web", 2)
        await rig.until(lambda: cluster.why("web"))
        assert cluster.why("web") == "no suitable node (3 without licence)"
        cluster.set_node("b", labels={"licence": "yes"})
        assert await rig.placed("web", 2) == ["b", "b"]
        assert rig.plugin.failures == 0


async def test_it_runs_on_what_ours_let_pass(tmp_path: Path, cluster: Cluster) -> None:
    """Nodes that swarmctl's own filters refuse are blamed on those, the others on the plugin's."""
    write_plugin(tmp_path, BY_LABEL)
    cluster.set_node("a", availability="drain")
    async with leading(tmp_path, cluster) as rig:
        cluster.pending("web")
        await rig.until(lambda: cluster.why("web"))
        assert cluster.why("web") == (
            "no suitable node (2 without licence; 1 node not available for new tasks)"
        )


async def test_one_that_looks_at_loads_is_never_outrun(tmp_path: Path, cluster: Cluster) -> None:
    """Many services at once: each node gets the one task that the filter allows."""
    write_plugin(tmp_path, ONE_EACH)
    async with leading(tmp_path, cluster) as rig:
        for number in range(6):
            cluster.pending(f"s{number}")
        assigned = lambda: [n for k in range(6) for n in cluster.where(f"s{k}")]  # noqa: E731
        await rig.until(lambda: len(assigned()) == 3)
        await trio.sleep(0.5)
        assert sorted(assigned()) == ["a", "b", "c"]
        assert rig.plugin.failures == 0


async def test_filter_and_scheduler_of_one_plugin(tmp_path: Path, cluster: Cluster) -> None:
    """Both run in one process, and the scheduler is offered what the filter left."""
    body = "return {t.api.ID: max(n.node.api.ID for n in nodes if n.room) for t in tasks}"
    write_plugin(tmp_path, BY_LABEL + SCHEDULER.format(body=body))
    cluster.set_node("a", labels={"licence": "yes"})
    cluster.set_node("b", labels={"licence": "yes"})
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        cluster.pending("web", 3)
        cluster.pending("more", 2)
        assert await rig.placed("web", 3) == ["b"] * 3
        assert await rig.placed("more", 2) == ["b"] * 2
        assert len(rig.choice.runners) == 1
        assert rig.plugin.failures == 0


async def test_moves_ask_it_too(tmp_path: Path, cluster: Cluster) -> None:
    """The rebalancer names no node that the filter refuses, and waits for its answer."""
    write_plugin(tmp_path, BY_LABEL)
    cluster.set_node("a", labels={"licence": "yes"})
    asked = spec("web", 4)
    asked = replace(asked, Labels={**asked.Labels, "swarmctl.rebalance": "on-join"})
    async with leading(tmp_path, cluster) as rig:
        cluster.service("web", asked)
        assert await rig.placed("web", 4) == ["a"] * 4
        past = cluster.now - 60 * 10**9
        cluster.now = past
        cluster.run_agents()
        cluster.now = past + 30 * 10**9
        cluster.node("z")
        cluster.node("y", labels={"licence": "yes"})
        cluster.come("z", "y")
        await rig.until(lambda: any(one.private.move_to for one in cluster.tasks("web")))
        assert {one.private.move_to for one in cluster.tasks("web")} == {"", "y"}
        assert rig.plugin.failures == 0


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("raise ValueError('no data')", "no data"),
        ("while True: pass", "did not answer within 1 s"),
        ("return lambda node, load: 'many'", "a check must return a room"),
        ("return lambda node, load: x", "name 'x' is not defined"),
    ],
)
async def test_one_that_fails_refuses_nothing(
    tmp_path: Path, cluster: Cluster, check: str, text: str
) -> None:
    """Tasks are placed without a filter that fails, and after three times it is off."""
    write_plugin(tmp_path, FILTER.format(static=True, check=check))
    async with leading(tmp_path, cluster, deadline_s=deadline_for(text)) as rig:
        for number in range(3):
            cluster.pending(f"s{number}")
            await rig.placed(f"s{number}")
        await rig.until(lambda: rig.plugin.off)
        assert text in rig.plugin.off
        assert rig.stalls.longest_s < 0.5
