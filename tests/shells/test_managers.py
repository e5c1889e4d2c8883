"""Several managers on loopback, with real disks, sockets and certificates: they come and go."""

from __future__ import annotations

import shutil
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core import managership
from swarmctl.core import membership as member_file
from swarmctl.core.ca import credentials as identity
from swarmctl.core.ca import keyfiles
from swarmctl.core.ca.credentials import call_once
from swarmctl.core.ca.x509 import Role
from swarmctl.core.clock import SystemClock
from swarmctl.core.errors import (
    BadRequest,
    FailedPrecondition,
    InvalidUnlockKey,
    PermissionDenied,
    SwarmError,
    WrongRole,
)
from swarmctl.core.founding import new_unlock_key
from swarmctl.core.manager import forward, members
from swarmctl.core.manager import state as manager_state
from swarmctl.core.manager.calls import FORWARD, JOIN, RESIGN, JoinManagers
from swarmctl.core.model.change import Applied, Change, Transaction, Update
from swarmctl.core.model.cluster import EncryptionConfig
from swarmctl.core.model.codec import pack
from swarmctl.core.model.objects import ManagerStatus
from swarmctl.core.model.request import InitRequest
from swarmctl.core.node import LocalState
from swarmctl.core.nodeport import DEFAULT_LISTEN
from swarmctl.core.raft import space
from swarmctl.core.refusals import CannotResign, HasLeader, LastManager
from tests.ports import free_port

from .local_swarm import PATIENCE_S, SPEC, Machine, private_of, state_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from swarmctl.core.manager.reconcile import Reconciler
    from swarmctl.core.membership import Membership
    from swarmctl.core.model.objects import NodeRow
    from swarmctl.core.node import LocalNode


class Managers:
    """Machines by name, each with its daemon while that runs.

    Attributes:
        nodes: the running daemons, by machine.
    """

    def __init__(
        self,
        tmp_path: Path,
        count: int,
        nursery: trio.Nursery,
        work: Sequence[Reconciler] = (),
    ) -> None:
        """Daemons are tasks of ``nursery``; ``work`` is what a leader does."""
        self._nursery = nursery
        self.machines = [Machine(tmp_path / f"m{number}") for number in range(count)]
        for machine in self.machines:
            machine.work = work
        self.nodes: dict[int, LocalNode] = {}
        self._scopes: dict[int, tuple[trio.CancelScope, trio.Event]] = {}

    async def start(self, number: int) -> LocalNode:
        """Start a machine's daemon."""
        self.machines[number].state_dir.mkdir(exist_ok=True)
        await self._nursery.start(self._live, number)
        return self.nodes[number]

    async def _live(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        scope, over = trio.CancelScope(), trio.Event()
        self._scopes[number] = scope, over
        try:
            with scope:
                async with self.machines[number].daemon() as node:
                    self.nodes[number] = node
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            over.set()

    async def stop(self, number: int) -> None:
        """End a machine's daemon, as SIGTERM does."""
        scope, over = self._scopes.pop(number)
        scope.cancel()
        await over.wait()
        del self.nodes[number]

    async def found(self, managers: int) -> None:
        """Make a swarm of so many managers, on the first machines; all vote and take tasks."""
        first = await self.start(0)
        await self.machines[0].init(first)
        for number in range(1, managers):
            await self.join(number)
        await until(lambda: self.voters() == managers)
        for node in list(self.nodes.values()):
            await until(partial(self._is_ready, node))

    def _is_ready(self, node: LocalNode) -> bool:
        return state_of(self.leader(), node.node_id) == "ready"

    async def join(self, number: int, *, manager: bool = True) -> LocalNode:
        """Start a machine and join it."""
        node = await self.start(number)
        private = private_of(self.leader())
        token = private.manager_token if manager else private.worker_token
        await self.machines[number].join(node, self.leader().advertise_addr, token)
        return node

    def leader(self) -> LocalNode:
        """The node that leads now."""
        for node in self.nodes.values():
            if node.manager is not None and node.manager.leading:
                return node
        raise AssertionError("nobody leads")

    def number_of_leader(self) -> int:
        leader = self.leader()
        return next(number for number, node in self.nodes.items() if node is leader)

    def led(self) -> bool:
        """True when somebody leads."""
        return any(node.manager and node.manager.leading for node in self.nodes.values())

    def voters(self) -> int:
        """How many have a vote, as the leader sees it; 0 without one."""
        if not self.led():
            return 0
        manager = self.leader().manager
        assert manager is not None
        return len(manager.raft_status().membership.voters)

    def row(self, number: int) -> NodeRow:
        manager = self.leader().manager
        assert manager is not None
        row = manager.view.node(self.nodes[number].node_id)
        assert row is not None
        return row

    async def write(self, *changes: Change) -> None:
        """Have changes applied by whoever leads."""
        await until(self.led)
        manager = self.leader().manager
        assert manager is not None
        (result,) = await manager.propose([Transaction(changes=changes)])
        assert isinstance(result, Applied), result

    async def wish(self, number: int, role: str) -> None:
        """Set a node's role, as ``node promote`` and ``demote`` do."""
        while (row := self.row(number)).api.Spec.Role != role:
            spec = replace(row.api.Spec, Role=role)
            changed = replace(row, api=replace(row.api, Spec=spec))
            manager = self.leader().manager
            assert manager is not None
            await manager.propose([Transaction(changes=(Update(row=changed),))])  # or again

    async def lock(self, key: bytes) -> None:
        """Lock all managers with a key, or unlock them for good with none."""
        manager = self.leader().manager
        assert manager is not None
        row = manager.view.cluster()
        assert row is not None
        encryption = EncryptionConfig(AutoLockManagers=bool(key))
        spec = replace(row.api.Spec, EncryptionConfig=encryption)
        private = replace(row.private, unlock_key=key)
        changed = replace(row, api=replace(row.api, Spec=spec), private=private)
        await self.write(Update(row=changed))

    async def name_cluster(self, text: str) -> None:
        """Write something that all managers are to have."""
        manager = self.leader().manager
        assert manager is not None
        row = manager.view.cluster()
        assert row is not None
        spec = replace(row.api.Spec, Labels={"text": text})
        await self.write(Update(row=replace(row, api=replace(row.api, Spec=spec))))

    def has(self, number: int, text: str) -> bool:
        """True when a manager's own tables have what was written."""
        manager = self.nodes[number].manager
        row = manager.view.cluster() if manager is not None else None
        return row is not None and row.api.Spec.Labels.get("text") == text


@asynccontextmanager
async def managers(
    tmp_path: Path, count: int, *, machines: int = 0, work: Sequence[Reconciler] = ()
) -> AsyncIterator[Managers]:
    async with trio.open_nursery() as nursery:
        swarm = Managers(tmp_path, machines or count, nursery, work)
        await swarm.found(count)
        yield swarm
        nursery.cancel_scope.cancel()


async def test_three_managers_have_the_same_tables(tmp_path: Path) -> None:
    """Managers that join get everything written before and after, and one of them leads."""
    async with managers(tmp_path, 3) as swarm:
        await swarm.name_cluster("same")
        await until(lambda: all(swarm.has(number, "same") for number in range(3)))
        assert sum(node.manager.leading for node in swarm.nodes.values() if node.manager) == 1


async def test_the_rest_goes_on_when_the_leader_stops(tmp_path: Path) -> None:
    """A leader that stops hands over; it comes back as a follower and catches up."""
    async with managers(tmp_path, 3) as swarm:
        gone = swarm.number_of_leader()
        before = trio.current_time()
        await swarm.stop(gone)
        await until(swarm.led)
        assert trio.current_time() - before < 30
        await swarm.name_cluster("without")
        await swarm.start(gone)
        await until(lambda: swarm.has(gone, "without"))


async def test_a_call_that_only_a_leader_answers_waits_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody leads a manager refuses no newcomer and no renewal: what its tables say may be
    old. It answers when there is a leader, be it itself or another."""
    monkeypatch.setattr(forward, "LEADER_WAIT_S", PATIENCE_S)
    async with managers(tmp_path, 2) as swarm:
        alone = swarm.number_of_leader()
        await swarm.stop(1 - alone)
        survivor, machine = swarm.nodes[alone], swarm.machines[alone]
        assert survivor.manager is not None
        assert await survivor.manager.wait_without_leader()
        assert survivor._member is not None
        credentials = survivor._member.credentials
        before = credentials.identity.serial
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                identity.renew,
                credentials,
                machine.state_dir,
                [survivor.advertise_addr],
                SystemClock().now(),
            )
            await swarm.start(1 - alone)
        assert credentials.identity.serial != before


async def test_every_manager_tells_who_is_reachable(tmp_path: Path) -> None:
    """One that stops is told of as unreachable, and as reachable when it is back, by all others."""

    def told(number: int, node_id: str) -> list[str]:
        events = readers[number].take()
        seen[number] += [
            one.attributes["reachability.new"]
            for one in events
            if one.id == node_id and "reachability.new" in one.attributes
        ]
        return seen[number]

    async with managers(tmp_path, 3) as swarm:
        gone = (swarm.number_of_leader() + 1) % 3
        node_id = swarm.nodes[gone].node_id
        others = sorted({0, 1, 2} - {gone})
        readers = {
            number: swarm.nodes[number].events.open_reader(past=False, tasks=False)
            for number in others
        }
        seen: dict[int, list[str]] = {number: [] for number in others}
        await swarm.stop(gone)
        await until(lambda: all(told(one, node_id) == ["unreachable"] for one in others))
        await swarm.start(gone)
        wanted = ["unreachable", "reachable"]
        await until(lambda: all(told(one, node_id) == wanted for one in others))


async def test_a_leader_without_room_lets_one_with_room_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk takes no changes another neither: the third leads, and writes go on."""
    async with managers(tmp_path, 3) as swarm:
        full = {swarm.number_of_leader(), (swarm.number_of_leader() + 1) % 3}
        (with_room,) = {0, 1, 2} - full

        def complaint(directory: Path, **_before: str) -> str:
            without = {swarm.machines[number].state_dir for number in full}
            return "the disk is full" if without & set(directory.parents) else ""

        monkeypatch.setattr(space, "complaint", complaint)
        await until(lambda: swarm.led() and swarm.number_of_leader() == with_room)
        await swarm.name_cluster("with room")


async def test_a_worker_becomes_a_manager_and_a_worker_again(tmp_path: Path) -> None:
    """Promotion and demotion need no restart, and the node stays in session throughout."""
    async with managers(tmp_path, 1, machines=2) as swarm:
        worker = await swarm.join(1, manager=False)
        assert worker.manager is None
        await swarm.wish(1, "manager")
        # The leader may count its vote before it has looked at what it was sent.
        await until(lambda: swarm.voters() == 2 and worker.manager is not None)
        await swarm.wish(1, "worker")
        await until(lambda: swarm.voters() == 1 and worker.manager is None)
        await until(lambda: not worker.is_manager)
        assert worker.state is LocalState.ACTIVE
        assert swarm.row(1).private.raft_id == 0


async def test_a_disk_that_refuses_a_change_of_role_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose disk takes no database, or not that there is none, goes on as a worker and says
    what is the matter; once the disk takes it, its role is what it shall be."""
    monkeypatch.setattr(managership, "RETRY_MAX_S", 0.2)
    async with managers(tmp_path, 1, machines=2) as swarm:
        worker = await swarm.join(1, manager=False)
        state_dir = swarm.machines[1].state_dir
        (state_dir / "raft").write_text("in the way")
        await swarm.wish(1, "manager")
        await until(lambda: f"{state_dir / 'raft'} cannot be made" in worker.error)
        assert worker.state is LocalState.ACTIVE
        leader = swarm.leader().manager
        assert leader is not None
        (learner,) = leader.raft_status().membership.learners
        assert worker._member is not None
        managing = worker._member.managership
        seen = {id(managing.failure): managing.failure}
        await until(lambda: len(seen) > 3 or seen.update({id(managing.failure): managing.failure}))
        assert leader.raft_status().membership.learners == (learner,)
        assert leader._runner.removed == ()
        (state_dir / "raft").unlink()
        await until(lambda: swarm.voters() == 2 and worker.manager is not None)

        (state_dir / ".node.json.new").mkdir()
        await swarm.wish(1, "worker")
        await until(lambda: "node.json cannot be written" in str(managing.failure))
        await until(lambda: not worker.is_manager)
        assert worker.state is LocalState.ACTIVE
        (state_dir / ".node.json.new").rmdir()
        await until(lambda: managing.failure is None)
        assert member_file.load(state_dir).raft_id == 0


async def test_a_manager_that_is_demoted_before_it_heard_anything_is_a_worker_again(
    tmp_path: Path,
) -> None:
    """A learner that nothing of the leader ever reached has nothing to say, so nobody can answer
    that it was removed: its worker's certificate tells it. It may become a manager again later.
    """
    async with managers(tmp_path, 1, machines=2) as swarm:
        worker = await swarm.join(1, manager=False)
        leader = swarm.leader().manager
        assert leader is not None
        send = leader._runner._send
        leader._runner._send = lambda _: None
        await swarm.wish(1, "manager")
        await until(lambda: len(leader.raft_status().membership.learners) == 1)
        shown = leader.membership.status_of(swarm.row(1))
        assert shown is not None
        assert shown.Reachability == "unknown"
        with pytest.raises(FailedPrecondition, match="last manager of the swarm; those that were"):
            leader.membership.require_removable(swarm.row(0))
        await swarm.wish(1, "worker")
        await until(lambda: not worker.is_manager and not leader.raft_status().membership.learners)
        leader._runner._send = send
        await swarm.wish(1, "manager")
        await until(lambda: swarm.voters() == 2)


async def test_a_learner_that_was_given_up_comes_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that nothing ever reached is removed after a while. It has nothing to say, so nobody can
    answer that; its certificate stays a manager's, since that is what it shall be. So it asks.
    """
    monkeypatch.setattr(managership, "LEARNING_S", 0.3)
    monkeypatch.setattr(managership, "ROLE_WAIT_S", 0.1)
    async with managers(tmp_path, 1, machines=2) as swarm:
        await swarm.join(1, manager=False)
        leader = swarm.leader().manager
        assert leader is not None
        send = leader._runner._send
        leader._runner._send = lambda _: None
        await swarm.wish(1, "manager")
        await until(lambda: len(leader.raft_status().membership.learners) == 1)
        with monkeypatch.context() as patience:
            patience.setattr(members, "LEARNER_PATIENCE_S", -1.0)
            patience.setattr(members, "CATCH_UP_ENTRIES", -1000)
            await until(lambda: leader._runner.removed)
        leader._runner._send = send
        await until(lambda: swarm.voters() == 2)
        assert swarm.row(1).private.raft_id not in leader._runner.removed


async def test_a_certificate_that_comes_after_its_role_is_over_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promoted and demoted while the manager's certificate is under way: it becomes a worker's."""
    ask, signed, arrives = identity._ask, trio.Event(), trio.Event()

    async def ask_slowly(*request: Any) -> Any:
        answer = await ask(*request)
        signed.set()
        await arrives.wait()
        return answer

    async with managers(tmp_path, 1, machines=2) as swarm:
        worker = await swarm.join(1, manager=False)
        member = worker._member
        assert member is not None
        monkeypatch.setattr(identity, "_ask", ask_slowly)
        changed = member.credentials.changed
        await swarm.wish(1, "manager")
        await signed.wait()
        await swarm.wish(1, "worker")
        await until(lambda: swarm.row(1).private.role == member._told_role == "worker")
        arrives.set()
        await changed.wait()
        await until(lambda: member.credentials.role is Role.WORKER)


async def test_a_demoted_leader_hands_over_first(tmp_path: Path) -> None:
    """Demoting the leader costs no election: another leads, removes it, and it is a worker."""
    async with managers(tmp_path, 3) as swarm:
        first = swarm.number_of_leader()
        node = swarm.nodes[first]
        await swarm.wish(first, "worker")
        await until(lambda: swarm.led() and swarm.number_of_leader() != first)
        await until(lambda: swarm.voters() == 2 and node.manager is None)
        await swarm.name_cluster("two")


async def test_a_stopped_manager_that_was_demoted_comes_up_as_a_worker(tmp_path: Path) -> None:
    """What was decided while it was away holds when it comes back."""
    async with managers(tmp_path, 3) as swarm:
        away = (swarm.number_of_leader() + 1) % 3
        node_id = swarm.nodes[away].node_id
        await swarm.stop(away)
        manager = swarm.leader().manager
        assert manager is not None
        await until(lambda: len(manager.membership.members().reachable) == 2)
        row = manager.view.node(node_id)
        assert row is not None
        spec = replace(row.api.Spec, Role="worker")
        await swarm.write(Update(row=replace(row, api=replace(row.api, Spec=spec))))
        await until(lambda: swarm.voters() == 2)
        back = await swarm.start(away)
        await until(lambda: not back.is_manager and back.state is LocalState.ACTIVE)
        assert back.node_id == node_id


async def test_a_manager_leaves_and_the_others_are_one_less(tmp_path: Path) -> None:
    """A manager that the others can do without leaves without force, also the leader."""
    async with managers(tmp_path, 3) as swarm:
        leaver = swarm.number_of_leader()
        await swarm.nodes[leaver].leave(force=False)
        await until(lambda: swarm.voters() == 2)
        assert swarm.nodes[leaver].state is LocalState.INACTIVE
        await swarm.name_cluster("two")


async def test_the_last_manager_does_not_leave_without_force(tmp_path: Path) -> None:
    """Leaving as the only manager would end the swarm."""
    async with managers(tmp_path, 1) as swarm:
        with pytest.raises(LastManager):
            await swarm.nodes[0].leave(force=False)


async def test_a_manager_that_is_needed_does_not_leave_without_force(tmp_path: Path) -> None:
    """With one of three managers gone, a second may not leave; the text says who is needed."""
    async with managers(tmp_path, 3) as swarm:
        away = (swarm.number_of_leader() + 1) % 3
        await swarm.stop(away)
        manager = swarm.leader().manager
        assert manager is not None
        await until(lambda: len(manager.membership.members().reachable) == 2)
        with pytest.raises(CannotResign, match="1 of the remaining 2 managers is reachable, 2 are"):
            await swarm.leader().leave(force=False)


async def test_lost_quorum_is_recovered_by_force(tmp_path: Path) -> None:
    """One of three managers goes on alone with everything it has, and others join it again."""
    async with managers(tmp_path, 3, machines=4) as swarm:
        await swarm.name_cluster("kept")
        await until(lambda: all(swarm.has(number, "kept") for number in range(3)))
        for number in (0, 1):
            await swarm.stop(number)
        survivor = swarm.nodes[2]
        node_id = survivor.node_id
        await until(lambda: not swarm.led())
        assert await survivor.init(InitRequest(ForceNewCluster=True), SPEC) == node_id
        await until(lambda: swarm.has(2, "kept") and swarm.led())
        assert swarm.voters() == 1
        await swarm.join(3)
        await until(lambda: swarm.voters() == 2 and swarm.has(3, "kept"))
        await swarm.start(0)  # it is told that its number is gone, and joins anew
        await until(lambda: swarm.voters() == 3 and swarm.has(0, "kept"))


@pytest.mark.parametrize("by_leader", [False, True])
async def test_by_force_but_the_swarm_has_a_leader(tmp_path: Path, *, by_leader: bool) -> None:
    """It is refused: the others have acknowledged what this manager may not know. All go on."""
    async with managers(tmp_path, 3) as swarm:
        number = swarm.number_of_leader()
        node = swarm.nodes[number if by_leader else (number + 1) % 3]
        with pytest.raises(HasLeader, match="for a swarm that has lost most of its managers"):
            await node.init(InitRequest(ForceNewCluster=True), SPEC)
        await swarm.name_cluster("kept")
        await until(lambda: all(swarm.has(number, "kept") for number in range(3)))
        assert swarm.voters() == 3


@asynccontextmanager
async def a_survivor(tmp_path: Path) -> AsyncIterator[tuple[Managers, LocalNode]]:
    """One of two managers, which has lost the other."""
    async with managers(tmp_path, 2, machines=2) as swarm:
        await swarm.name_cluster("kept")
        await until(lambda: swarm.has(0, "kept") and swarm.has(1, "kept"))
        await swarm.stop(0)
        await until(lambda: not swarm.led())
        yield swarm, swarm.nodes[1]


async def test_by_force_a_manager_stays_where_it_is(tmp_path: Path) -> None:
    """Command lines name the default port when their user named none: it is not taken for a wish,
    nor are addresses looked for that were named once."""
    async with a_survivor(tmp_path) as (swarm, survivor):
        where = swarm.machines[1].address
        assert survivor.advertise_addr == where
        await survivor.init(InitRequest(ForceNewCluster=True, ListenAddr=DEFAULT_LISTEN), SPEC)
        assert (survivor.advertise_addr, survivor.managers) == (where, (where,))
        assert swarm.has(1, "kept")


@pytest.mark.parametrize("moves", [False, True])
async def test_by_force_the_tables_say_who_leads_and_where(tmp_path: Path, *, moves: bool) -> None:
    """The only manager is known by its new number: lists show it as the leader, at its address, and
    nobody is to be removed. It stays the leader when another one joins."""
    async with a_survivor(tmp_path) as (swarm, survivor):
        where = f"127.0.0.1:{free_port()}" if moves else swarm.machines[1].address
        listen = where if moves else ""
        await survivor.init(InitRequest(ForceNewCluster=True, ListenAddr=listen), SPEC)
        manager = survivor.manager
        assert manager is not None
        shown = manager.membership.status_of(swarm.row(1))
        assert shown == ManagerStatus(Leader=True, Reachability="reachable", Addr=where)
        assert manager.membership.waiting == ()
        if not moves:  # else who comes back knows no address of it
            await swarm.start(0)
            await until(lambda: swarm.voters() == 2 and swarm.has(0, "kept"))
            assert swarm.leader() is survivor


@pytest.mark.parametrize("where", ["taken", "192.0.2.1:2377", "nowhere"])
async def test_by_force_to_a_place_that_cannot_be(tmp_path: Path, where: str) -> None:
    """It is refused in words and nothing is lost: the manager goes on as it was, and the next try
    begins anew with everything."""
    async with a_survivor(tmp_path) as (swarm, survivor):
        before = survivor.node_id, survivor.advertise_addr
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}" if where == "taken" else where
            with pytest.raises(BadRequest, match="listen"):
                await survivor.init(InitRequest(ForceNewCluster=True, ListenAddr=listen), SPEC)
        assert (survivor.node_id, survivor.advertise_addr) == before
        assert survivor.state is LocalState.ACTIVE
        await swarm.stop(1)
        survivor = await swarm.start(1)
        await survivor.init(InitRequest(ForceNewCluster=True), SPEC)
        assert swarm.has(1, "kept")


async def test_by_force_with_a_damaged_database(tmp_path: Path) -> None:
    """A database that cannot be opened is no reason to remove it and the node's identity."""
    async with a_survivor(tmp_path) as (swarm, survivor):
        node_id, directory = survivor.node_id, swarm.machines[1].state_dir
        await swarm.stop(1)
        database = directory / "raft" / "raft.db"
        whole = database.read_bytes()
        database.write_bytes(whole[: len(whole) // 2])
        survivor = await swarm.start(1)
        await until(lambda: survivor.state is LocalState.ERROR)
        with pytest.raises(SwarmError, match=r"raft\.db"):
            await survivor.init(InitRequest(ForceNewCluster=True), SPEC)
        assert (survivor.node_id, survivor.state) == (node_id, LocalState.ERROR)
        await swarm.stop(1)
        database.write_bytes(whole)
        survivor = await swarm.start(1)
        await survivor.init(InitRequest(ForceNewCluster=True), SPEC)
        assert swarm.has(1, "kept")


async def test_by_force_although_the_caller_goes(tmp_path: Path) -> None:
    """A client that hangs up in the middle leaves a manager behind, the old one or the new."""
    async with a_survivor(tmp_path) as (swarm, survivor):
        for pause_s in (0.0, 0.01, 0.05, 0.2):
            with trio.move_on_after(pause_s):
                await survivor.init(InitRequest(ForceNewCluster=True), SPEC)
            assert survivor.is_manager
        await survivor.init(InitRequest(ForceNewCluster=True), SPEC)
        assert swarm.has(1, "kept")


class Crash(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("written", ["nothing", "the place", "all"])
async def test_a_crash_while_it_begins_anew_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """A manager killed anywhere within has everything when it starts, and the command goes on."""
    store, force_new = member_file.store, manager_state.force_new
    stored: list[Membership] = []

    def store_once(directory: Path, place: Membership) -> None:
        if written == "nothing" or stored:
            raise Crash
        stored.append(place)
        store(directory, place)

    def force_new_and_die(*args: Any, **kwargs: Any) -> None:
        if written == "all":
            force_new(*args, **kwargs)
        raise Crash

    async with a_survivor(tmp_path) as (swarm, survivor):
        node_id = survivor.node_id
        with monkeypatch.context() as dying:
            dying.setattr(member_file, "store", store_once)
            dying.setattr(manager_state, "force_new", force_new_and_die)
            with pytest.raises(Crash):
                await survivor.init(InitRequest(ForceNewCluster=True), SPEC)
            await swarm.stop(1)
        survivor = await swarm.start(1)
        member = survivor._member
        assert member is not None
        await until(lambda: member.managership.manager is not None)
        await trio.sleep(0.3)  # it has looked whether it is a member still
        assert await survivor.init(InitRequest(ForceNewCluster=True), SPEC) == node_id
        assert swarm.has(1, "kept")
        assert swarm.voters() == 1


async def test_a_manager_without_its_database_joins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wiped database costs a manager its number and nothing else. The old number is off the disk
    before there is an empty database, which must never speak for it."""
    numbers: list[int] = []

    def make_empty(state_dir: Path, **owner: str) -> None:
        numbers.append(member_file.load(state_dir).raft_id)
        made(state_dir, **owner)

    made = manager_state.make_empty
    async with managers(tmp_path, 3) as swarm:
        wiped = (swarm.number_of_leader() + 1) % 3
        number_before = swarm.row(wiped).private.raft_id
        await swarm.stop(wiped)
        for path in (swarm.machines[wiped].state_dir / "raft").iterdir():
            path.unlink()
        await swarm.name_cluster("meanwhile")
        monkeypatch.setattr(manager_state, "make_empty", make_empty)
        await swarm.start(wiped)
        await until(lambda: swarm.has(wiped, "meanwhile"))
        await until(lambda: swarm.voters() == 3)
        assert numbers == [0]
        assert swarm.row(wiped).private.raft_id not in (0, number_before)


async def test_a_wiped_host_joins_while_its_former_self_is_a_member(tmp_path: Path) -> None:
    """The leader still speaks to the manager that was at this address, of a log that the new one
    does not have yet; that costs it nothing, its member number least of all."""
    async with managers(tmp_path, 3) as swarm:
        wiped = (swarm.number_of_leader() + 1) % 3
        await swarm.stop(wiped)
        shutil.rmtree(swarm.machines[wiped].state_dir)
        await swarm.join(wiped)
        await until(lambda: swarm.voters() == 4)
        manager = swarm.leader().manager
        assert manager is not None
        assert manager.raft_status().membership.learners == ()
        assert manager._runner.removed == ()


async def test_a_manager_that_cannot_be_dialled_is_not_let_in(tmp_path: Path) -> None:
    """Joining with an address where nobody listens is refused and leaves the members alone."""
    async with managers(tmp_path, 1, machines=2) as swarm:
        machine = swarm.machines[1]
        machine.advertised = "127.0.0.1:1"
        with pytest.raises(SwarmError, match=r"as a manager at 127\.0\.0\.1:1"):
            await swarm.join(1)
        assert swarm.voters() == 1
        assert swarm.nodes[1].state is LocalState.INACTIVE


async def test_the_last_two_managers_cannot_both_be_demoted(tmp_path: Path) -> None:
    """Whichever of two demotions comes second is refused when it is applied."""
    async with managers(tmp_path, 1) as swarm:
        manager = swarm.leader().manager
        assert manager is not None
        with pytest.raises(FailedPrecondition, match="demote the last manager"):
            manager.membership.require_removable(swarm.row(0))


async def test_a_worker_may_not_speak_for_managers(tmp_path: Path) -> None:
    """Consensus, forwarded calls and a member number are for holders of a manager's certificate."""
    async with managers(tmp_path, 1, machines=2) as swarm:
        worker = await swarm.join(1, manager=False)
        member = worker._member
        assert member is not None
        for method in (FORWARD, JOIN, RESIGN):
            link = await member.credentials.dial(swarm.leader().advertise_addr)
            with pytest.raises(WrongRole, match="shows a worker's certificate"):
                await call_once(link, method, b"")


async def test_a_node_that_is_not_wanted_as_a_manager_gets_no_number(tmp_path: Path) -> None:
    """A manager's certificate alone opens nothing: the wish in the tables decides."""
    async with managers(tmp_path, 2) as swarm:
        other = 1 - swarm.number_of_leader()
        member = swarm.nodes[other]._member
        assert member is not None
        await swarm.wish(other, "worker")
        await until(lambda: swarm.voters() == 1)
        link = await member.credentials.dial(swarm.leader().advertise_addr)
        request = pack(JoinManagers(addr="127.0.0.1:1"))
        with pytest.raises((PermissionDenied, WrongRole)):
            await call_once(link, JOIN, request)


async def test_a_manager_that_moved_is_found_again(tmp_path: Path) -> None:
    """Identity is the certificate: a manager on another port keeps its number."""
    async with managers(tmp_path, 3) as swarm:
        moved = (swarm.number_of_leader() + 1) % 3
        number = swarm.row(moved).private.raft_id
        await swarm.stop(moved)
        address = f"127.0.0.1:{free_port()}"
        swarm.machines[moved].flags = (address, address)
        await swarm.start(moved)
        await until(lambda: swarm.row(moved).private.manager_addr == address)
        assert swarm.row(moved).private.raft_id == number
        await swarm.name_cluster("found")
        await until(lambda: swarm.has(moved, "found"))


async def test_a_manager_whose_disk_went_back_joins_anew(tmp_path: Path) -> None:
    """An older copy of its database has forgotten what it promised: it gets a new number."""
    async with managers(tmp_path, 3) as swarm:
        back = (swarm.number_of_leader() + 1) % 3
        directory = swarm.machines[back].state_dir / "raft"
        number_before = swarm.row(back).private.raft_id
        await swarm.stop(back)
        shutil.copytree(directory, tmp_path / "older")
        await swarm.start(back)
        await swarm.name_cluster("promised")
        await until(lambda: swarm.has(back, "promised"))
        await swarm.stop(back)
        shutil.rmtree(directory)
        shutil.copytree(tmp_path / "older", directory)
        await swarm.start(back)
        await until(lambda: swarm.row(back).private.raft_id not in (0, number_before))
        await until(lambda: swarm.has(back, "promised") and swarm.voters() == 3)


async def test_three_managers_are_locked_and_unlocked(tmp_path: Path) -> None:
    """Locking takes the key off all disks; a restarted manager waits for it and then goes on."""
    async with managers(tmp_path, 3) as swarm:
        key = new_unlock_key()
        await swarm.lock(key)
        key_files = [machine.state_dir / "raft" / "kek" for machine in swarm.machines]
        await until(lambda: not any(path.exists() for path in key_files))
        away = (swarm.number_of_leader() + 1) % 3
        await swarm.stop(away)
        node = await swarm.start(away)
        await until(lambda: node.state is LocalState.LOCKED)
        await swarm.name_cluster("meanwhile")
        with pytest.raises(InvalidUnlockKey):
            await node.unlock(new_unlock_key())
        assert node.state is LocalState.LOCKED
        await node.unlock(key)
        await until(lambda: swarm.has(away, "meanwhile"))
        await swarm.lock(b"")
        await until(lambda: all(path.exists() for path in key_files))


async def test_a_locked_manager_is_demoted_and_promoted_again(tmp_path: Path) -> None:
    """As a worker it has nothing that is locked: its key lies open, and a restart asks for none.
    Promoted again it is locked like the others, and opens with the key of now, not of then."""
    async with managers(tmp_path, 3) as swarm:
        first, second = new_unlock_key(), new_unlock_key()
        await swarm.lock(first)
        other = (swarm.number_of_leader() + 1) % 3
        state_dir = swarm.machines[other].state_dir
        key_file = state_dir / "raft" / "kek"

        def is_sealed() -> bool:
            return keyfiles.is_sealed(state_dir) and not key_file.exists()

        await until(is_sealed)
        await swarm.wish(other, "worker")
        await until(lambda: swarm.voters() == 2)
        await until(lambda: role_of(swarm, other) is Role.WORKER)
        await until(lambda: not keyfiles.is_sealed(state_dir))
        assert not (state_dir / "raft" / "raft.db").exists()
        await swarm.stop(other)
        await swarm.lock(second)
        node = await swarm.start(other)
        await until(lambda: node.state is LocalState.ACTIVE)
        await swarm.name_cluster("meanwhile")
        await swarm.wish(other, "manager")
        await until(lambda: swarm.voters() == 3 and swarm.has(other, "meanwhile"))
        await until(is_sealed)
        await swarm.stop(other)
        node = await swarm.start(other)
        await until(lambda: node.state is LocalState.LOCKED)
        with pytest.raises(InvalidUnlockKey):
            await node.unlock(first)
        await node.unlock(second)
        await swarm.name_cluster("after")
        await until(lambda: swarm.has(other, "after"))


def role_of(swarm: Managers, number: int) -> Role:
    """Return the role that a node's certificate has."""
    member = swarm.nodes[number]._member
    assert member is not None
    return member.credentials.role
