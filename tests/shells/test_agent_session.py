"""Agent and dispatcher over real links: assignments in, statuses out, whatever happens between."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.agent.disk import open_task_table
from swarmctl.core.agent.executor import ExitStatus
from swarmctl.core.agent.step import ERR_CHARS_MAX
from swarmctl.core.dispatcher.assignments import parts_of
from swarmctl.core.model.base import Time
from swarmctl.core.model.change import Create, Delete, Kind, Ref, Update
from swarmctl.core.model.cluster import DispatcherConfig
from swarmctl.core.model.objects import (
    ClusterRow,
    Secret,
    SecretPrivate,
    SecretRow,
    SecretSpec,
    TaskRow,
)
from swarmctl.core.model.spec import SecretReference
from swarmctl.core.model.task import TaskState, TaskStatus
from swarmctl.plugins.cancelling import cancelled_at
from swarmctl.plugins.null_exec import NullExecutor

from .lone_manager import Host, LoneManager
from .memory_network import MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from swarmctl.core.agent.runner import Runner
    from swarmctl.core.model.objects import NodeRow
    from swarmctl.core.store.store import RowChange

pytestmark = pytest.mark.still

HOUR_NS = 3_600 * 10**9


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> MemoryNetwork:
    return MemoryNetwork(monkeypatch)


@pytest.fixture
async def cluster(network: MemoryNetwork) -> AsyncIterator[LoneManager]:
    manager = LoneManager(network)
    async with manager.running():
        yield manager


@pytest.fixture
async def host(cluster: LoneManager, tmp_path: Path) -> Host:
    return Host(cluster, "w1", await cluster.admit("w1"), tmp_path)


@pytest.mark.parametrize("point", range(1, 6))
async def test_a_daemon_that_is_told_to_end_while_it_starts(host: Host, point: int) -> None:
    """It ends, wherever it is in its start; the next one finds the table of tasks whole."""
    executor = NullExecutor(host.world)
    assert not await cancelled_at(point, host.make_agent(executor).run)
    assert not await cancelled_at(1, host.make_agent(executor).run)


async def test_a_node_that_registers_is_ready(cluster: LoneManager, host: Host) -> None:
    """A node is unknown until its agent registers; then it is ready, described and addressed."""
    assert cluster.state_of("w1") == "unknown"
    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        row = cluster.node("w1")
        assert row.api.Description.Hostname == "host-w1"
        assert row.api.Status.Addr == "10.0.0.1"
        assert host.news[0].managers[0].node_id == "manager"


async def test_a_late_word_about_a_node_in_session_is_corrected(
    cluster: LoneManager, host: Host
) -> None:
    """A verdict about a former session that is applied after the node is back does not stay."""

    def down(row: NodeRow) -> NodeRow:
        status = replace(row.api.Status, State="down", Message="heartbeat failure")
        return replace(row, api=replace(row.api, Status=status))

    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        await cluster.change_node("w1", down)
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        await cluster.elapse(1)
        assert cluster.state_of("w1") == "ready"
        assert cluster.node("w1").api.Status.Message == ""


async def test_an_assigned_task_runs(cluster: LoneManager, host: Host) -> None:
    """An assigned task goes down the stream, and its status comes up to RUNNING."""
    async with host.daemon():
        await cluster.assign("t1", "w1")
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.RUNNING)
        status = cluster.task("t1").Status
        assert status.ContainerStatus is not None
        assert host.world.tasks["t1"].pid == status.ContainerStatus.PID


# --- a task's life --------------------------------------------------------------------------------


async def running(cluster: LoneManager, task_id: str, **spec: object) -> None:
    await cluster.assign(task_id, "w1", **spec)
    await cluster.until(lambda: cluster.task_state(task_id) is TaskState.RUNNING)


async def test_a_task_that_ends_before_it_is_healthy_never_ran(
    cluster: LoneManager, host: Host
) -> None:
    """RUNNING means healthy: what ends before its first verdict goes to FAILED without it."""
    async with host.daemon():
        env = (
            "SWARMCTL_NULL_HEALTHY_AFTER=9s",
            "SWARMCTL_NULL_EXIT_AFTER=3s",
            "SWARMCTL_NULL_EXIT_CODE=7",
        )
        await cluster.assign("t1", "w1", Env=env)
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.FAILED)
        assert cluster.task("t1").Status.Err == "task: non-zero exit (7)"
        row = cluster.view.task("t1")
        assert row is not None
        assert row.private.started_at == 0


async def test_an_exit_is_reported_with_its_code(cluster: LoneManager, host: Host) -> None:
    """A task that ends by itself with a code other than 0 is FAILED, and says the code."""
    async with host.daemon():
        env = ("SWARMCTL_NULL_EXIT_AFTER=3s", "SWARMCTL_NULL_EXIT_CODE=7")
        await running(cluster, "t1", Env=env)
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.FAILED)
        status = cluster.task("t1").Status
        assert status.Err == "task: non-zero exit (7)"
        assert status.ContainerStatus is not None
        assert status.ContainerStatus.ExitCode == 7


async def test_a_wish_to_stop_cancels_the_pull(cluster: LoneManager, host: Host) -> None:
    """Shutting down a task that is being prepared does not wait for the pull."""
    async with host.daemon():
        await cluster.assign("t1", "w1", Env=("SWARMCTL_NULL_PREPARE_AFTER=1h",))
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.PREPARING)
        await cluster.want("t1", TaskState.SHUTDOWN)
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.SHUTDOWN, 1)


async def test_a_step_that_fails_before_start_rejects(cluster: LoneManager, host: Host) -> None:
    """A pull that fails makes the task REJECTED with the executor's words."""
    async with host.daemon():
        await cluster.assign("t1", "w1", Env=("SWARMCTL_NULL_PREPARE_ERROR=no such image",))
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.REJECTED)
        assert cluster.task("t1").Status.Err == "no such image"


async def test_a_template_that_cannot_be_expanded_rejects_its_task_only(
    cluster: LoneManager, host: Host
) -> None:
    """A bad placeholder rejects its task; the session stays, also when the task is sent again."""
    async with host.daemon() as agent:
        await cluster.assign("t1", "w1", Env=("A={{.Nonsense}}",))
        await running(cluster, "t2")
        assert cluster.task_state("t1") is TaskState.REJECTED
        await cluster.want("t1", TaskState.SHUTDOWN)
        dialled = cluster.network.dialled
        await cluster.elapse(3)
        assert (cluster.network.dialled, agent.error) == (dialled, "")
    async with host.daemon():  # nor does it keep the next daemon from starting
        await running(cluster, "t3")


async def test_errors_of_any_length_are_reported(cluster: LoneManager, host: Host) -> None:
    """As much of each as there is room for; one that is too long would hold up all reports."""
    for task_id in ("t1", "t2"):
        await cluster.assign(task_id, "w1", Env=("A={{.Nothing}}" + "x" * 900_000,))
    async with host.daemon():
        await running(cluster, "t3")
        for task_id in ("t1", "t2"):
            status = cluster.task(task_id).Status
            assert status.State is TaskState.REJECTED
            assert status.Err.startswith("expanding 'A={{.Nothing}}xxx")
            assert len(status.Err) == ERR_CHARS_MAX


async def test_a_deleted_task_leaves_nothing(cluster: LoneManager, host: Host) -> None:
    """A task whose row is gone is stopped and removed from the node and from its memory."""
    async with host.daemon():
        await running(cluster, "t1")
        row = cluster.view.task("t1")
        assert row is not None
        await cluster.write(Delete(ref=Ref(Kind.TASK, "t1"), version=row.api.Version.Index))
        await cluster.until(lambda: "t1" not in host.world.tasks)
    table, remembered = open_task_table(host.state_dir)
    table.close()
    assert remembered == []


async def test_states_never_go_back(cluster: LoneManager, host: Host) -> None:
    """Over a task's life the tables see its states only rise, cut connections or not."""
    seen: list[TaskState] = []

    def note(_index: int, changes: tuple[RowChange, ...]) -> None:
        rows = (change.after for change in changes)
        seen.extend(row.api.Status.State for row in rows if isinstance(row, TaskRow))

    async with host.daemon():
        with cluster.manager.watch.told(note):
            await cluster.assign("t1", "w1", Env=("SWARMCTL_NULL_EXIT_AFTER=5s",))
            for _ in range(8):
                await cluster.elapse(0.7)
                cluster.network.cut()
            await cluster.until(lambda: cluster.task_state("t1") is TaskState.COMPLETE)
    assert seen == sorted(seen)
    assert seen[-1] is TaskState.COMPLETE


# --- restarts and lost connections ---------------------------------------------------------------


async def test_a_restarted_daemon_adopts(cluster: LoneManager, host: Host) -> None:
    """What ran before the restart still runs after it: the same process, not started again."""
    async with host.daemon():
        await running(cluster, "t1")
    pid, started = host.world.tasks["t1"].pid, host.world.tasks["t1"].started
    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        await cluster.elapse(5)
        assert cluster.task_state("t1") is TaskState.RUNNING
        assert (host.world.tasks["t1"].pid, host.world.tasks["t1"].started) == (pid, started)


async def test_an_exit_during_the_restart_is_reported(cluster: LoneManager, host: Host) -> None:
    """A task that ended while no daemon ran is reported with its code by the next one."""
    async with host.daemon():
        env = ("SWARMCTL_NULL_EXIT_AFTER=5s", "SWARMCTL_NULL_EXIT_CODE=3")
        await running(cluster, "t1", Env=env)
    await cluster.elapse(10)
    assert cluster.task_state("t1") is TaskState.RUNNING
    async with host.daemon():
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.FAILED)
        assert cluster.task("t1").Status.Err == "task: non-zero exit (3)"


async def test_a_task_that_never_started_waits_for_its_secret(
    cluster: LoneManager, host: Host
) -> None:
    """After a restart a task that was being pulled gets its secret anew, from the manager alone."""
    await cluster.write(Create(row=secret_row("s1", b"hush")))
    uses = (SecretReference(SecretID="s1", SecretName="key"),)
    pulls_long = ("SWARMCTL_NULL_PREPARE_AFTER=30s",)
    async with host.daemon():
        await cluster.assign("t1", "w1", Secrets=uses, Env=pulls_long)
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.PREPARING)
        await cluster.elapse(1)
    for file in (host.state_dir / "worker").iterdir():
        assert b"hush" not in file.read_bytes()
    async with host.daemon():
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.RUNNING)


async def test_a_new_session_reports_everything_anew(cluster: LoneManager, host: Host) -> None:
    """What changed while there was no connection is reported once there is one again."""
    async with host.daemon():
        await running(cluster, "t1", Env=("SWARMCTL_NULL_EXIT_AFTER=2s",))
        cluster.network.reachable = False
        cluster.network.cut()
        await cluster.elapse(4)
        assert cluster.task_state("t1") is TaskState.RUNNING
        cluster.network.reachable = True
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.COMPLETE, 3)


async def test_a_silent_link_is_given_up_on_both_sides(cluster: LoneManager, host: Host) -> None:
    """When a network swallows everything the node goes down after three periods, and comes back.

    One that swallows old connections only is noticed by the agent before that: it dials anew.
    """
    async with host.daemon():
        await running(cluster, "t1")
        dialled = cluster.network.dialled
        cluster.network.silence()
        await cluster.until(lambda: cluster.network.dialled > dialled, 3)
        await cluster.elapse(10)
        assert cluster.state_of("w1") == "ready"
        cluster.network.reachable = False
        cluster.network.silence()
        began = trio.current_time()
        await cluster.until(lambda: cluster.state_of("w1") == "down", 10)
        assert 4 <= trio.current_time() - began <= 6.5
        cluster.network.reachable = True
        await cluster.until(lambda: cluster.state_of("w1") == "ready", 20)
        assert cluster.task_state("t1") is TaskState.RUNNING


async def test_leftovers_go_once_the_set_is_known(cluster: LoneManager, host: Host) -> None:
    """A container of ours whose task is gone is removed after the first complete set only."""
    async with host.daemon():
        await running(cluster, "t1")
    table = host.state_dir / "worker" / "tasks.db"
    row = cluster.view.task("t1")
    assert row is not None
    await cluster.write(Delete(ref=Ref(Kind.TASK, "t1"), version=row.api.Version.Index))
    table.unlink()
    cluster.network.reachable = False
    async with host.daemon():
        await cluster.elapse(10)
        assert host.world.tasks["t1"].runs
        cluster.network.reachable = True
        await cluster.until(lambda: "t1" not in host.world.tasks)


async def test_a_damaged_table_costs_nothing_that_runs(cluster: LoneManager, host: Host) -> None:
    """A task table that is no database any more is set aside; what runs is adopted all the same."""
    async with host.daemon():
        await running(cluster, "t1")
    pid = host.world.tasks["t1"].pid
    table = host.state_dir / "worker" / "tasks.db"
    table.write_bytes(b"no database" * 1000)
    async with host.daemon():
        await running(cluster, "t2")
        assert cluster.task_state("t1") is TaskState.RUNNING
        assert host.world.tasks["t1"].pid == pid
    assert table.with_name("tasks.db.damaged").read_bytes().startswith(b"no database")


# --- the engine ----------------------------------------------------------------------------------


async def test_an_engine_that_is_down_fails_no_task(cluster: LoneManager, host: Host) -> None:
    """While the engine is away the node says that it cannot run tasks, and why; none fails."""
    async with host.daemon():
        await running(cluster, "t1")
        host.world.available = False
        await cluster.assign("t2", "w1")
        await cluster.until(lambda: not cluster.node("w1").private.can_run)
        assert "the null engine does not answer" in cluster.node("w1").api.Status.Message
        assert cluster.state_of("w1") == "ready"
        await cluster.elapse(60)
        assert cluster.task_state("t1") is TaskState.RUNNING
        assert cluster.task_state("t2") < TaskState.RUNNING
        host.world.available = True
        await cluster.until(lambda: cluster.task_state("t2") is TaskState.RUNNING)
        await cluster.until(lambda: cluster.node("w1").private.can_run)
        assert cluster.node("w1").api.Status.Message == ""


async def test_an_executor_that_cannot_describe_its_node_costs_no_task(
    cluster: LoneManager, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node says so and takes nothing new, until it can again; what runs goes on."""

    async def describe(_executor: NullExecutor) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise KeyError("Plugins")

    async with host.daemon():
        await running(cluster, "t1")
        with monkeypatch.context() as patch:
            patch.setattr(NullExecutor, "describe", describe)
            await cluster.until(lambda: not cluster.node("w1").private.can_run, 10)
            message = cluster.node("w1").api.Status.Message
            assert message == "the null executor has a bug: KeyError('Plugins')"
            assert cluster.node("w1").api.Description.Hostname == "host-w1"
        await cluster.until(lambda: cluster.node("w1").private.can_run, 10)
        assert cluster.node("w1").api.Status.Message == ""
        assert cluster.task_state("t1") is TaskState.RUNNING


async def test_an_engine_away_for_days_is_tried_again(cluster: LoneManager, host: Host) -> None:
    """However often a step was tried in vain, the next try comes seconds later."""
    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        host.world.available = False
        await cluster.assign("t1", "w1")
        await cluster.elapse(1)
        runner = running_tasks(host)["t1"]
        runner._retries = 5_000
        await cluster.elapse(12)
        host.world.available = True
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.RUNNING, 6)


# --- who is in session ---------------------------------------------------------------------------


async def test_a_copied_identity_is_refused(
    cluster: LoneManager, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second host with the same certificate is refused in words that name both."""
    copy = Host(cluster, "w1", host.credentials, tmp_path / "copy")
    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        monkeypatch.setattr(
            "swarmctl.core.ca.credentials.dial", cluster.network.dialler("10.0.0.66")
        )
        async with copy.daemon() as second:
            await cluster.until(lambda: second.error)
            assert "10.0.0.1:40001" in second.error
            assert "10.0.0.66:" in second.error
            assert "was the state directory copied?" in second.error
            await cluster.elapse(10)
            assert second.manager == ""
        assert cluster.state_of("w1") == "ready"


async def test_a_restarted_daemon_need_not_wait_for_its_old_connection(
    cluster: LoneManager, host: Host, tmp_path: Path
) -> None:
    """On the same host a second process takes over at once, since daemons restart."""
    again = Host(cluster, "w1", host.credentials, tmp_path / "again")
    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        async with again.daemon() as second:
            await cluster.until(lambda: second.manager, 1)


async def test_a_removed_node_is_cut_off_and_told(cluster: LoneManager, host: Host) -> None:
    """Removing a node closes its link with the reason, and its calls are refused from then on."""
    async with host.daemon() as agent:
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        row = cluster.node("w1")
        await cluster.write(Delete(ref=Ref(Kind.NODE, "w1"), version=row.api.Version.Index))
        await cluster.until(lambda: agent.error, 1)
        assert "node w1 was removed from the swarm" in agent.error
        await cluster.elapse(10)
        assert "node w1" in agent.error
        assert agent.manager == ""


async def test_a_restart_that_was_announced_is_waited_for(cluster: LoneManager, host: Host) -> None:
    """A daemon that ends says so: for a minute its silence makes the node disconnected only."""
    async with host.daemon():
        await running(cluster, "t1")
    await cluster.until(lambda: cluster.state_of("w1") == "disconnected", 1)
    await cluster.elapse(55)
    assert cluster.state_of("w1") == "disconnected"
    await cluster.until(lambda: cluster.state_of("w1") == "down", 10)


async def test_a_node_that_leaves_is_down_at_once(cluster: LoneManager, host: Host) -> None:
    """Leaving says farewell first, takes on nothing more, and stops and removes every task."""
    async with host.daemon() as agent:
        await running(cluster, "t1", Env=("SWARMCTL_NULL_STOP_AFTER=5s",))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.leave)
            await cluster.until(lambda: cluster.state_of("w1") == "down", 1)
            assert "t1" in host.world.tasks
            await cluster.until(lambda: not host.world.tasks, 10)
    assert cluster.state_of("w1") == "down"


async def test_a_node_that_was_empty_before_leaves_nothing(
    cluster: LoneManager, host: Host
) -> None:
    """Leaving waits for the tasks of now, though there was a moment without any."""
    async with host.daemon() as agent:
        await running(cluster, "t1")
        row = cluster.view.task("t1")
        assert row is not None
        await cluster.write(Delete(ref=Ref(Kind.TASK, "t1"), version=row.api.Version.Index))
        await cluster.until(lambda: not host.world.tasks, 10)
        await running(cluster, "t2", Env=("SWARMCTL_NULL_STOP_AFTER=5s",))
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await agent.leave()
                left.append(list(host.world.tasks))

            left: list[list[str]] = []
            nursery.start_soon(leave)
            await cluster.until(lambda: left, 20)
        assert left == [[]]


async def test_only_a_tasks_own_node_may_report_it(
    cluster: LoneManager, host: Host, tmp_path: Path
) -> None:
    """What a node says of another node's task is ignored."""
    other = Host(cluster, "w2", await cluster.admit("w2"), tmp_path / "w2")
    async with host.daemon(), other.daemon() as stranger:
        await running(cluster, "t1")
        lie = TaskStatus(Timestamp=Time(1), State=TaskState.FAILED, Err="a lie")
        stranger._reporter.put("t1", lie)
        await cluster.elapse(5)
        assert cluster.task_state("t1") is TaskState.RUNNING


async def test_a_new_heartbeat_period_makes_nobody_late(cluster: LoneManager, host: Host) -> None:
    """A shorter period counts for the agent and for its judge together."""
    await cluster.write(Update(row=with_period(cluster, 60.0)))
    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        await cluster.elapse(20)
        await cluster.write(Update(row=with_period(cluster, 0.5)))
        await cluster.elapse(20)
        assert cluster.state_of("w1") == "ready"
        cluster.network.reachable = False
        cluster.network.cut()
        await cluster.until(lambda: cluster.state_of("w1") == "down", 3)


async def test_slow_consensus_makes_nobody_silent(cluster: LoneManager, host: Host) -> None:
    """A disk that takes ten seconds for a write holds up reports, and no heartbeat."""
    async with host.daemon():
        await running(cluster, "t1", Env=("SWARMCTL_NULL_EXIT_AFTER=1s",))
        cluster.disk.delay_s = 10.0
        await cluster.elapse(40)
        assert cluster.state_of("w1") == "ready"
        cluster.disk.delay_s = 0.0
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.COMPLETE)


@pytest.mark.parametrize("hours", [1, -1, 48, -48], ids="{:+d} h".format)
async def test_a_wall_clock_that_is_set_changes_nothing(
    cluster: LoneManager, host: Host, hours: int
) -> None:
    """Leadership, nodes and tasks rest on time that only passes, so all of them stay."""
    async with host.daemon():
        await running(cluster, "t1")
        term = cluster.manager.raft_status().term
        cluster.clock.ahead_ns = hours * HOUR_NS
        await cluster.elapse(60)
        assert cluster.manager.leading
        assert cluster.manager.raft_status().term == term
        assert cluster.state_of("w1") == "ready"
        assert cluster.task_state("t1") is TaskState.RUNNING
        host.world.tasks["t1"].end_at(trio.current_time(), ExitStatus(code=7))
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.FAILED)
        await running(cluster, "t2")


async def test_a_set_larger_than_a_frame_arrives_whole(
    cluster: LoneManager, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete set that does not fit a frame goes in parts and counts as one."""
    monkeypatch.setattr(
        "swarmctl.core.dispatcher.server.parts_of", partial(parts_of, limit_bytes=2_000)
    )
    for number in range(10):
        await cluster.assign(f"t{number}", "w1", Env=(f"FILL={'x' * 400}",))
    async with host.daemon():
        await cluster.until(
            lambda: all(cluster.task_state(f"t{n}") is TaskState.RUNNING for n in range(10))
        )


async def test_cancelling_an_agent_at_any_moment_leaves_it_whole(
    cluster: LoneManager, host: Host
) -> None:
    """An agent cancelled at any step ends, and the next one brings the task to RUNNING once."""
    await cluster.assign("t1", "w1", Env=("SWARMCTL_NULL_PREPARE_AFTER=200ms",))
    for steps in range(0, 60, 3):
        async with host.daemon():
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
    async with host.daemon():
        await cluster.until(lambda: cluster.task_state("t1") is TaskState.RUNNING)
    assert host.world.next_pid() == host.world.tasks["t1"].pid + 1


def running_tasks(host: Host) -> dict[str, Runner]:
    assert host.agent is not None
    worker = host.agent._worker
    assert worker is not None
    return worker._runners


def secret_row(secret_id: str, data: bytes) -> SecretRow:
    return SecretRow(
        api=Secret(ID=secret_id, Spec=SecretSpec(Name=secret_id)), private=SecretPrivate(data=data)
    )


def with_period(cluster: LoneManager, seconds: float) -> ClusterRow:
    row = cluster.view.cluster()
    assert row is not None
    dispatcher = DispatcherConfig(HeartbeatPeriod=int(seconds * 1e9))
    return replace(row, api=replace(row.api, Spec=replace(row.api.Spec, Dispatcher=dispatcher)))
