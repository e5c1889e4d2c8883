"""Somebody else's scheduler in its own process: it places, and whatever it does harms nobody."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core.manager.leader import Alarms, run_leader
from swarmctl.core.model.spec import ResourceRequirements, Resources, TaskSpec
from swarmctl.core.model.task import TaskState
from swarmctl.plugins.outside.runner import Runner
from tests.core.pipeline.world import spec

from .rig import REPO, SCHEDULER, Cluster, deadline_for, leading, write_plugin

LAST_NODE = (
    "last = max(n.node.api.ID for n in nodes if n.room)\n"
    "        room = next(n.room for n in nodes if n.node.api.ID == last)\n"
    "        return {task.api.ID: last for task in tasks[:room]}"
)
if TYPE_CHECKING:
    from swarmctl.core.model.objects import TaskRow

STALL_MAX_S = 0.5
"""A heartbeat is due every 2 s at the least; this machine may be busy with other tests."""


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    for name in "abc":
        made.node(name)
    return made


def children() -> set[int]:
    """Return the processes that this one started and that are still there."""
    found = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    return {int(pid) for text in found for pid in text.split()}


async def test_it_chooses_the_nodes(tmp_path: Path, cluster: Cluster) -> None:
    """A scheduler of a stranger decides where tasks go, and its process ends with the leading."""
    write_plugin(tmp_path, SCHEDULER.format(body=LAST_NODE))
    before = children()
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        cluster.pending("web", 5)
        assert await rig.placed("web", 5) == ["c"] * 5
        assert rig.plugin.failures == 0
        assert len(children() - before) == 1
    assert children() - before == set()


async def test_several_services_at_once_see_each_other(tmp_path: Path, cluster: Cluster) -> None:
    """Groups of one batch are placed one after the other, each on what the others took."""
    fewest = (
        "best = min((n for n in nodes if n.room), key=lambda n: (n.tasks, n.node.api.ID))\n"
        "        return {tasks[0].api.ID: best.node.api.ID}"
    )
    write_plugin(tmp_path, SCHEDULER.format(body=fewest))
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        for number in range(9):
            cluster.pending(f"s{number}")
        for number in range(9):
            await rig.placed(f"s{number}")
        nodes = sorted(node for number in range(9) for node in cluster.where(f"s{number}"))
        assert nodes == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
        assert rig.plugin.failures == 0


async def test_it_sees_the_tables_as_they_become(tmp_path: Path, cluster: Cluster) -> None:
    """Labels that change, nodes that come, and what the view says of tasks reach the child."""
    body = (
        "good = [n for n in nodes if n.node.api.Spec.Labels.get('power') == 'green']\n"
        "        assert len(list(view.tasks_of(tasks[0].api.ServiceID))) >= len(tasks)\n"
        "        assert view.service(tasks[0].api.ServiceID).api.Spec.Name == 'web'\n"
        "        return {task.api.ID: good[0].node.api.ID for task in tasks if good}"
    )
    write_plugin(tmp_path, SCHEDULER.format(body=body))
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        cluster.pending("web", 1)
        await rig.until(lambda: cluster.why("web").startswith("no suitable node"))
        cluster.set_node("b", labels={"power": "green"})
        assert await rig.placed("web") == ["b"]
        cluster.set_node("b", labels={})
        cluster.node("d", labels={"power": "green"})
        cluster.scale("web", 2)
        assert await rig.placed("web", 2) == ["b", "d"]
        assert rig.plugin.failures == 0


async def test_a_service_chooses_it_as_its_strategy(tmp_path: Path, cluster: Cluster) -> None:
    """Named as a strategy it places the services that ask for it and no others."""
    names = "\n@hookimpl\ndef swarmctl_strategies():\n    return ('mine',)\n"
    write_plugin(tmp_path, SCHEDULER.format(body=LAST_NODE) + names)
    async with leading(tmp_path, cluster) as rig:
        asked = spec("packed", 3)
        asked.Labels["swarmctl.strategy"] = "mine"
        cluster.service("packed", asked)
        cluster.pending("other", 3)
        assert await rig.placed("packed", 3) == ["c"] * 3
        assert len(set(await rig.placed("other", 3))) == 3


FAILURES = {
    "raises": ("raise ValueError('no data')", r"ValueError\('no data'\) \(mine.py:\d+\)"),
    "loops for ever": ("while True: pass", "did not answer within 1 s and was killed"),
    "works for 5 s": ("time.sleep(5)", "did not answer within 1 s and was killed"),
    "takes all memory": ("x = [0]\n        while True: x = x + x", "MemoryError|process ended"),
    "takes memory that is refused": ("bytearray(1 << 40)", "MemoryError"),
    "ends its process": ("os._exit(3)", "process ended with code 3"),
    "kills its process": ("os.kill(os.getpid(), 9)", "process ended by signal 9"),
    "exits": ("sys.exit('bye')", "SystemExit"),
    "gives None": ("return None", "must return node ids by task id, and returned None"),
    "gives a number": ("return {tasks[0].api.ID: 7}", "must return node ids by task id"),
    "names no node": ("return {tasks[0].api.ID: 'z'}", "chose a node that does not exist"),
    "places others": ("return {'x': nodes[0].node.api.ID}", "was not asked for"),
    "overfills": (
        "return {tasks[0].api.ID: [n for n in nodes if not n.room][0].node.api.ID}",
        "put 1 tasks on node c, which has room for 0",
    ),
    "writes into its answers": (
        "os.write(1, b'x' * 100)\n        print('hello')\n        raise KeyError('printed')",
        "printed",
    ),
}


@pytest.mark.parametrize("how", FAILURES)
async def test_the_default_takes_over(tmp_path: Path, cluster: Cluster, how: str) -> None:
    """A scheduler that fails in this way delays one placement, and no heartbeat."""
    body, text = FAILURES[how]
    write_plugin(tmp_path, SCHEDULER.format(body=body))
    cluster.set_node("c", availability="drain")
    limits = {"memory_mib": 400, "deadline_s": deadline_for(text)}
    async with leading(tmp_path, cluster, scheduler="mine", **limits) as rig:
        cluster.pending("web", 2)
        assert await rig.placed("web", 2) == ["a", "b"]
        assert rig.plugin.failures >= 1
        with pytest.raises(AssertionError, match=text):
            raise AssertionError(rig.plugin.last_failure)
        assert rig.stalls.longest_s < STALL_MAX_S


async def test_three_failures_switch_it_off(tmp_path: Path, cluster: Cluster) -> None:
    """After the third failure nobody asks it any more, its process is gone, and why is told."""
    write_plugin(tmp_path, SCHEDULER.format(body="raise ValueError('no data')"))
    before = children()
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        for number in range(3):
            assert rig.plugin.off == ""
            cluster.pending(f"s{number}")
            await rig.placed(f"s{number}")
        assert rig.plugin.off.startswith("plugin mine failed 3 times within an hour and is off")
        await rig.until(lambda: children() - before == set())
        cluster.pending("after", 3)
        assert len(set(await rig.placed("after", 3))) == 3
        assert rig.plugin.failures == 3


async def test_a_child_that_was_killed_is_replaced(tmp_path: Path, cluster: Cluster) -> None:
    """Killed from outside it costs one failure, and a new child knows the whole cluster."""
    write_plugin(tmp_path, SCHEDULER.format(body=LAST_NODE))
    before = children()
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        cluster.pending("one")
        assert await rig.placed("one") == ["c"]
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        cluster.pending("two")
        await rig.placed("two")
        assert (rig.plugin.failures, rig.plugin.off) == (1, "")
        cluster.node("d")
        cluster.pending("three", 2)
        assert await rig.placed("three", 2) == ["d", "d"]


async def test_a_child_that_cannot_start_is_a_failure_in_words(
    tmp_path: Path, cluster: Cluster
) -> None:
    """A plugin that is broken where it runs, though not where it was checked, is named with why."""
    code = SCHEDULER.format(body=LAST_NODE)
    guard = "\nif 'plugin-child' in sys.argv: raise RuntimeError('not here')\n"
    write_plugin(tmp_path, code + guard)
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        cluster.pending("web")
        await rig.placed("web")
        assert "RuntimeError('not here')" in rig.plugin.last_failure


async def test_placements_are_checked_by_our_own_filters(tmp_path: Path) -> None:
    """What it places never exceeds what a node has, however many services it is asked for."""
    cluster = Cluster()
    cluster.node("a", cpus=1)
    cluster.node("b", cpus=2)
    write_plugin(tmp_path, SCHEDULER.format(body=LAST_NODE))
    half = Resources(NanoCPUs=500_000_000)
    task = TaskSpec(Resources=ResourceRequirements(Reservations=half))
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        for number in range(8):
            cluster.pending(f"s{number}", task=task)
        await rig.until(lambda: len(all_assigned(cluster)) == 6)
        await trio.sleep(0.3)
        nodes = sorted(one.api.NodeID for one in all_assigned(cluster))
        assert nodes == ["a"] * 2 + ["b"] * 4


def all_assigned(cluster: Cluster) -> list[TaskRow]:
    return [one for one in cluster.tasks() if one.api.Status.State >= TaskState.ASSIGNED]


async def test_nothing_moves_once_all_is_placed(tmp_path: Path, cluster: Cluster) -> None:
    """With every task placed or refused the loops come to rest: no writes, and no questions."""
    write_plugin(tmp_path, SCHEDULER.format(body=LAST_NODE))
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        cluster.pending("web", 3)
        too_much = ResourceRequirements(Reservations=Resources(NanoCPUs=10**12))
        cluster.pending("huge", 1, task=TaskSpec(Resources=too_much))
        await rig.placed("web", 3)
        await rig.until(lambda: cluster.why("huge"))
        await trio.sleep(0.3)
        index = cluster.store.index
        await trio.sleep(2.5)
        assert cluster.store.index == index
        assert all(desk.open is None for desk in rig.plugin.desks)


async def test_the_example_works_as_it_is(tmp_path: Path, cluster: Cluster) -> None:
    """examples/carbon.py, laid into the plugin directory, places by its labels and settings."""
    write_plugin(tmp_path, (REPO / "examples" / "carbon.py").read_text(), "carbon")
    for name, grams in (("a", "400"), ("b", "30"), ("c", "40")):
        cluster.set_node(name, labels={"carbon": grams})
    options = {"carbon": {"step": "100"}}
    async with leading(tmp_path, cluster, scheduler="carbon", options=options) as rig:
        cluster.pending("web", 4)
        assert await rig.placed("web", 4) == ["b", "b", "c", "c"]
        assert rig.plugin.failures == 0


async def test_it_stays_off_until_it_is_another_one(tmp_path: Path, cluster: Cluster) -> None:
    """A restart does not bring back what was switched off; new code or new settings do."""
    folder, state = tmp_path / "plugins", str(tmp_path)
    folder.mkdir()
    write_plugin(folder, SCHEDULER.format(body="raise ValueError('no data')"))
    async with leading(folder, cluster, scheduler="mine", state_dir=state) as rig:
        for number in range(3):
            cluster.pending(f"s{number}")
            await rig.placed(f"s{number}")
        why = rig.plugin.off
        await rig.until((tmp_path / "plugins-off.json").exists)
    before = children()
    async with leading(folder, cluster, scheduler="mine", state_dir=state) as rig:
        assert rig.plugin.off == why
        cluster.pending("again")
        await rig.placed("again")
        assert (rig.plugin.failures, children() - before) == (0, set())
    options = {"mine": {"step": "2"}}
    async with leading(folder, cluster, scheduler="mine", state_dir=state, options=options) as rig:
        assert rig.plugin.off == ""
    write_plugin(folder, SCHEDULER.format(body=LAST_NODE))
    async with leading(folder, cluster, scheduler="mine", state_dir=state) as rig:
        cluster.pending("good")
        assert await rig.placed("good") == ["c"]
    (tmp_path / "plugins-off.json").write_text("[]")
    async with leading(folder, cluster, scheduler="mine", state_dir=state) as rig:
        assert rig.plugin.off == ""


async def test_a_bug_in_asking_keeps_no_task_waiting(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the manager's own side of it fails, the plugin is off when its runner is given up."""

    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async def supervised(runner: Runner) -> None:
        await run_leader({"plugin mine": partial(run, runner)}, Alarms())

    run = Runner.run
    monkeypatch.setattr(Runner, "_send_rows", fail)
    monkeypatch.setattr(Runner, "run", supervised)
    write_plugin(tmp_path, SCHEDULER.format(body=LAST_NODE))
    async with leading(tmp_path, cluster, scheduler="mine") as rig:
        for number in range(4):
            cluster.pending(f"s{number}")
            await rig.placed(f"s{number}")
        assert "RuntimeError('a bug')" in rig.plugin.off
