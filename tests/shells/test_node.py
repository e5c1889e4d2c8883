"""A host's place in a swarm: founded, kept over restarts, left; whole or not at all."""

from __future__ import annotations

import resource
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core import membership as member_file
from swarmctl.core import node as node_module
from swarmctl.core import statedir
from swarmctl.core.ca import credentials, keyfiles
from swarmctl.core.errors import BadRequest, InvalidJoinToken, StorageFailed, SwarmError
from swarmctl.core.manager import state as manager_state
from swarmctl.core.model.change import Create, Delete, Kind, Ref
from swarmctl.core.model.objects import Config, ConfigRow, ConfigSpec
from swarmctl.core.model.request import InitRequest, JoinRequest
from swarmctl.core.model.task import TaskState
from swarmctl.core.node import LocalState
from swarmctl.core.refusals import AlreadyInSwarm, BrokenStay, LastManager, NotInSwarm
from swarmctl.core.wire.connect import Unreachable

from .local_swarm import PATIENCE_S, SPEC, Machine, private_of, state_of, until, write
from .lone_manager import task_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swarmctl.core.node import LocalNode


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "one")


@pytest.fixture
def other(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "two")


def left_in(state_dir: Path) -> list[str]:
    """The files in a state directory."""
    return sorted(
        str(path.relative_to(state_dir)) for path in state_dir.rglob("*") if path.is_file()
    )


async def test_a_founded_swarm_is_on_the_disk_whole(machine: Machine) -> None:
    """After init this node leads a swarm of one, and everything that must survive is written."""
    async with machine.daemon() as node:
        assert node.state is LocalState.INACTIVE
        node_id = await machine.init(node)
        assert (node.state, node.node_id) == (LocalState.ACTIVE, node_id)
        assert node.manager is not None
        assert node.manager.leading
        await until(lambda: state_of(node, node_id) == "ready")
        assert set(left_in(machine.state_dir)) >= {
            "certificates/swarm-node.crt",
            "certificates/swarm-node.key",
            "certificates/swarm-root-ca.crt",
            "machine.json",
            "node.json",
            "raft/kek",
            "raft/raft.db",
        }


async def test_init_and_join_refuse_a_node_that_is_in_a_swarm(machine: Machine) -> None:
    """One node is in one swarm: again is refused in Docker's words."""
    async with machine.daemon() as node:
        await machine.init(node)
        with pytest.raises(AlreadyInSwarm, match="This node is already part of a swarm"):
            await machine.init(node)
        with pytest.raises(AlreadyInSwarm):
            await machine.join(node, machine.address, "SWMTKN-1-x")
        assert node.state is LocalState.ACTIVE


async def test_a_restart_resumes(machine: Machine) -> None:
    """A restarted daemon is the same node of the same cluster, with its tables and tokens."""
    async with machine.daemon() as node:
        node_id = await machine.init(node)
        cluster_id, token = node.cluster_id, private_of(node).worker_token
        await write(node, Create(row=config("kept")))
    for _ in range(3):
        async with machine.daemon() as node:
            await until(lambda node=node: node.state is LocalState.ACTIVE)
            await until(lambda node=node: node.manager.leading)
            assert (node.node_id, node.cluster_id) == (node_id, cluster_id)
            assert private_of(node).worker_token == token
            assert node.manager is not None
            assert (await node.manager.read()).config("kept") is not None


async def test_leaving_by_force_erases_everything_again_and_again(machine: Machine) -> None:
    """On one daemon: init, run a task, leave --force; ten times in a row, each from nothing."""
    seen: set[str] = set()
    async with machine.daemon() as node:
        for _ in range(10):
            seen.add(await machine.init(node))
            await until(lambda: state_of(node, node.node_id) == "ready")
            await write(node, Create(row=task_row("t1", node.node_id)))
            await until(lambda: task_state(node) is TaskState.RUNNING)
            with pytest.raises(LastManager, match="Use `--force` to ignore this message"):
                await node.leave(force=False)
            await node.leave(force=True)
            assert node.state is LocalState.INACTIVE
            assert machine.world.tasks == {}
            assert left_in(machine.state_dir) == []
        with pytest.raises(NotInSwarm, match="This node is not part of a swarm"):
            await node.leave(force=True)
    assert len(seen) == 10


STEPS = [
    (manager_state, "open_disk"),
    (keyfiles, "bind_machine"),
    (member_file, "store"),
    (keyfiles, "save_root"),
    (keyfiles, "save_pair"),
]


@pytest.mark.parametrize(("where", "step"), STEPS)
async def test_a_refusing_disk_leaves_no_swarm(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, where: object, step: str
) -> None:
    """When a step of founding fails, init says so, nothing is left, and the next one succeeds."""
    with monkeypatch.context() as broken:
        broken.setattr(where, step, refuse)
        async with machine.daemon() as node:
            with pytest.raises(StorageFailed, match="no space"):
                await machine.init(node)
            assert node.state is LocalState.INACTIVE
            assert left_in(machine.state_dir) == []
            broken.undo()
            await machine.init(node)


def refuse(*_args: object, **_kwargs: object) -> None:
    raise StorageFailed("no space left on device")


@pytest.mark.parametrize(("where", "step"), STEPS)
async def test_a_crash_while_founding_leaves_no_swarm_or_a_whole_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, where: object, step: str
) -> None:
    """A daemon killed within founding starts in no swarm, and can found one."""
    with monkeypatch.context() as crashed:
        crashed.setattr(where, step, crash)
        crashed.setattr(statedir.StateDirectory, "forget", lambda _self: None)  # dead, so no
        async with machine.daemon() as node:
            with pytest.raises(Crash):
                await machine.init(node)
    async with machine.daemon() as node:
        assert node.state is LocalState.INACTIVE
        await machine.init(node)
        assert node.state is LocalState.ACTIVE


class Crash(Exception):
    """Stands for SIGKILL."""


def crash(*_args: object, **_kwargs: object) -> None:
    raise Crash


async def test_a_crash_after_founding_is_a_whole_swarm(machine: Machine) -> None:
    """Once the identity is stored the swarm is founded, started or not."""
    async with machine.daemon() as node:
        with pytest.raises(trio.TooSlowError), trio.fail_after(0):
            await machine.init(node)
        assert left_in(machine.state_dir) == []
    async with machine.daemon() as node:
        stored = trio.Event()
        store = credentials.store

        def note(*args: object) -> None:
            store(*args)  # type: ignore[arg-type]
            trio.from_thread.run_sync(stored.set)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(credentials, "store", note)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.init, node)
                await stored.wait()
                nursery.cancel_scope.cancel()
    async with machine.daemon() as node:
        await until(lambda: node.state is LocalState.ACTIVE)


async def test_a_crash_while_leaving_leaves_nothing_that_matters(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identity goes first: a daemon killed within leaving starts in no swarm."""
    async with machine.daemon() as node:
        await machine.init(node)
    with monkeypatch.context() as crashed:
        crashed.setattr(member_file, "remove", crash)
        directory = statedir.StateDirectory(
            machine.state_dir,
            accept_moved_state=False,
            clock=None,  # type: ignore[arg-type] # not asked
            new_id=str,
        )
        with pytest.raises(Crash):
            directory.forget()
    async with machine.daemon() as node:
        assert node.state is LocalState.INACTIVE
        await machine.init(node)


async def test_leaving_goes_on_when_its_caller_goes(machine: Machine) -> None:
    """A client that hangs up in the middle of leave leaves no half of a swarm behind."""
    async with machine.daemon() as node:
        await machine.init(node)
        stay = node._member
        assert stay is not None
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await node.leave(force=True)

            nursery.start_soon(leave)
            await until(lambda: stay.leaving)
            nursery.cancel_scope.cancel()
        await until(lambda: node.state is LocalState.INACTIVE)
        assert left_in(machine.state_dir) == []
        await machine.init(node)


async def test_a_port_that_is_taken_is_named(machine: Machine) -> None:
    """Init on a port that somebody has is a bad request in a sentence, and nothing is left."""
    host, _, port = machine.address.rpartition(":")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
        taken.listen()
        async with machine.daemon() as node:
            with pytest.raises(BadRequest, match=f"cannot listen on {machine.address}: .*in use"):
                await machine.init(node)
            assert node.state is LocalState.INACTIVE
            assert left_in(machine.state_dir) == []


async def test_an_address_of_another_host_is_named(machine: Machine) -> None:
    """Init on an address that is not ours is a bad request, and says which."""
    async with machine.daemon() as node:
        with pytest.raises(BadRequest, match=r"cannot listen on 192\.0\.2\.1:2377"):
            await node.init(InitRequest(ListenAddr="192.0.2.1:2377"), SPEC)


async def test_damaged_state_is_an_error_with_a_way_out(machine: Machine) -> None:
    """A node whose file is damaged says so, is refused everything else, and leaves by force."""
    async with machine.daemon() as node:
        await machine.init(node)
        await until(lambda: state_of(node, node.node_id) == "ready")
        await write(node, Create(row=task_row("t1", node.node_id)))
        await until(lambda: task_state(node) is TaskState.RUNNING)
    (machine.state_dir / "node.json").write_text("{")
    async with machine.daemon() as node:
        assert node.state is LocalState.ERROR
        assert "node.json cannot be used" in node.error
        with pytest.raises(AlreadyInSwarm):
            await machine.init(node)
        with pytest.raises(BrokenStay, match=r"node\.json cannot be used.*--force"):
            await node.leave(force=False)
        assert machine.world.tasks["t1"].runs
        await node.leave(force=True)
        assert (node.state, left_in(machine.state_dir)) == (LocalState.INACTIVE, [])
        assert machine.world.tasks == {}
        await machine.init(node)


async def test_an_engine_that_hangs_keeps_no_damaged_node_in_its_swarm(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be removed in the time that there is for it stays; the node leaves."""
    async with machine.daemon() as node:
        await machine.init(node)
    (machine.state_dir / "node.json").write_text("{")
    monkeypatch.setattr(node_module, "STOP_TASKS_S", 0.1)
    async with machine.daemon() as node:
        monkeypatch.setattr(node.executor, "known_tasks", trio.sleep_forever)
        with trio.fail_after(PATIENCE_S):
            await node.leave(force=True)
        assert (node.state, left_in(machine.state_dir)) == (LocalState.INACTIVE, [])


@pytest.mark.parametrize(
    ("file", "write_file"),
    [
        ("node.json", lambda folder: member_file.store(folder, member_file.load(folder))),
        ("raft/kek", manager_state.write_key),
    ],
)
async def test_a_file_that_is_written_in_part_is_not_taken(
    machine: Machine, file: str, write_file: Callable[[Path], object]
) -> None:
    """A disk that takes less of a file than it was given, as a full one may, has refused it: the
    one before stays."""
    async with machine.daemon() as node:
        await machine.init(node)
    before = (machine.state_dir / file).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(StorageFailed, match=rf"{file} cannot be written"):
            write_file(machine.state_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (machine.state_dir / file).read_bytes() == before


@pytest.mark.parametrize("damage", ["raft/kek", "raft/raft.db"])
async def test_a_manager_without_its_database_is_an_error(machine: Machine, damage: str) -> None:
    """A lost key or database makes the state an error in words, and not the daemon's end."""
    async with machine.daemon() as node:
        await machine.init(node)
    (machine.state_dir / damage).unlink()
    async with machine.daemon() as node:
        await until(lambda: node.state is LocalState.ERROR)
        assert damage in node.error
        await node.leave(force=True)
        await machine.init(node)


async def test_a_stay_that_cannot_begin_leaves_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When what was founded cannot be started, init fails and the node is in no swarm."""
    with monkeypatch.context() as broken:
        broken.setattr(manager_state, "open_state", refuse)
        async with machine.daemon() as node:
            with pytest.raises(SwarmError, match="no space"):
                await machine.init(node)
            assert (node.state, left_in(machine.state_dir)) == (LocalState.INACTIVE, [])
            broken.undo()
            await machine.init(node)


# --- joining -------------------------------------------------------------------------------------


async def test_a_worker_joins_runs_leaves_and_joins_again(machine: Machine, other: Machine) -> None:
    """A worker joins by token, runs tasks, leaves (down at once), and may join anew."""
    async with machine.daemon() as manager, other.daemon() as worker:
        await machine.init(manager)
        token = private_of(manager).worker_token
        ids = set()
        for _ in range(3):
            await other.join(worker, machine.address, token)
            ids.add(worker.node_id)
            await until(lambda: state_of(manager, worker.node_id) == "ready")
            await write(manager, Create(row=task_row(f"t{len(ids)}", worker.node_id)))
            await until(lambda: f"t{len(ids)}" in other.world.tasks)
            left = worker.node_id
            await worker.leave(force=False)
            assert state_of(manager, left) == "down"
            assert left_in(other.state_dir) == []
            assert other.world.tasks == {}
        assert len(ids) == 3


async def test_a_restarted_worker_needs_no_token(machine: Machine, other: Machine) -> None:
    """A worker that restarts is the same node, adopts its tasks, and finds its manager itself."""
    async with machine.daemon() as manager:
        await machine.init(manager)
        async with other.daemon() as worker:
            await other.join(worker, machine.address, private_of(manager).worker_token)
            node_id = worker.node_id
            await until(lambda: state_of(manager, node_id) == "ready")
            await write(manager, Create(row=task_row("t1", node_id)))
            await until(lambda: task_state(manager) is TaskState.RUNNING)
        await until(lambda: state_of(manager, node_id) == "disconnected")
        pid = other.world.tasks["t1"].pid
        async with other.daemon() as worker:
            await until(lambda: state_of(manager, node_id) == "ready")
            assert worker.node_id == node_id
            assert other.world.tasks["t1"].pid == pid


async def test_a_join_that_is_refused_leaves_nothing(machine: Machine, other: Machine) -> None:
    """Wrong token, wrong port, no address: each in its own words, and the node as it was."""
    async with machine.daemon() as manager, other.daemon() as worker:
        await machine.init(manager)
        token = private_of(manager).worker_token
        wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
        with pytest.raises(InvalidJoinToken):
            await other.join(worker, machine.address, wrong)
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1: Connection refused"):
            await other.join(worker, "127.0.0.1:1", token)
        with pytest.raises(BadRequest, match="at least 1 RemoteAddr is required to join"):
            await worker.join(JoinRequest(JoinToken=token))
        assert (worker.state, left_in(other.state_dir)) == (LocalState.INACTIVE, [])


async def test_a_removed_worker_says_so_and_can_leave(machine: Machine, other: Machine) -> None:
    """A worker whose node was removed hears why, and leaves without anybody's help."""
    async with machine.daemon() as manager, other.daemon() as worker:
        await machine.init(manager)
        await other.join(worker, machine.address, private_of(manager).worker_token)
        await until(lambda: state_of(manager, worker.node_id) == "ready")
        assert manager.manager is not None
        row = manager.manager.view.node(worker.node_id)
        assert row is not None
        ref = Ref(Kind.NODE, worker.node_id)
        await write(manager, Delete(ref=ref, version=row.api.Version.Index))
        agent = worker.agent
        assert agent is not None
        await until(lambda: agent.error)
        assert f"node {worker.node_id}" in agent.error
        await worker.leave(force=False)
        assert left_in(other.state_dir) == []


def config(name: str) -> ConfigRow:
    return ConfigRow(api=Config(ID=name, Spec=ConfigSpec(Name=name)))


def task_state(node: LocalNode) -> TaskState:
    assert node.manager is not None
    row = node.manager.view.task("t1")
    assert row is not None
    return row.api.Status.State
