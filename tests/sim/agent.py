"""A node's agent: sessions with the leader, the node's tasks, and an executor that pretends.

Mirrors the shells ``agent/session.py``, ``worker.py``, ``runner.py`` and ``reporter.py`` in events;
what a task does next and what that makes of its status is the product's ``agent/step.py``, what it
is given ``agent/expand.py``. Containers are the host's: they outlive the daemon, not the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from swarmctl.core.agent import step as steps
from swarmctl.core.agent.executor import ExecutorError, ExitStatus, NodeIdentity
from swarmctl.core.agent.expand import assignment_of
from swarmctl.core.agent.session import _joined
from swarmctl.core.agent.step import Step, next_step
from swarmctl.core.errors import PermissionDenied, SwarmError, Unavailable
from swarmctl.core.managership import LEARNING_S, ROLE_WAIT_S
from swarmctl.core.model.session import (
    AssignedTask,
    Assignments,
    Farewell,
    Heartbeat,
    News,
    Register,
    Report,
    ReportTaken,
    TaskReport,
    Welcome,
)
from swarmctl.core.model.task import TaskState
from tests.sim.dispatch import Refused
from tests.sim.queue import MS, S, Scope, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarmctl.core.model.session import Dependency, NodeNews
    from swarmctl.core.model.task import TaskStatus
    from tests.sim.cluster import Cluster
    from tests.sim.host import Host
    from tests.sim.network import Stream

BACK_OFF_FIRST_S = 0.1
BACK_OFF_MAX_S = 2.0
WELCOME_S = 10.0
RESTART_NS = 60 * S
PLATFORM = ("linux", "x86_64")


@dataclass
class Remembered:
    """One task in the node's table, which survives the daemon."""

    assigned: AssignedTask
    status: TaskStatus


class Reporter:
    """Newest statuses, and which of them the dispatcher has not confirmed."""

    def __init__(self) -> None:
        self.newest: dict[str, TaskStatus] = {}
        self.dirty: dict[str, None] = {}
        self.number = 0
        self.waits = False

    def put(self, task_id: str, status: TaskStatus) -> None:
        held = self.newest.get(task_id)
        if held is not None and (status.State < held.State or status == held):
            return
        self.newest[task_id] = status
        self.dirty[task_id] = None

    def forget(self, task_id: str) -> None:
        self.newest.pop(task_id, None)
        self.dirty.pop(task_id, None)

    def restart(self) -> None:
        """A new session: everything held is reported anew."""
        self.dirty = dict.fromkeys(self.newest)
        self.number = 0
        self.waits = False

    def next_report(self) -> Report | None:
        if self.waits or not self.dirty:
            return None
        chosen, self.dirty = list(self.dirty), {}
        self.number += 1
        self.waits = True
        tasks = tuple(TaskReport(task_id=each, status=self.newest[each]) for each in chosen)
        return Report(number=self.number, tasks=tasks)

    def taken(self, number: int) -> None:
        if number == self.number:
            self.waits = False


class TaskRunner:
    """One task's life here; every step takes its time on the queue."""

    def __init__(
        self,
        agent: Agent,
        assigned: AssignedTask,
        status: TaskStatus,
        adopted: bool,
    ) -> None:
        self.agent = agent
        self.task_id = assigned.task.ID
        self.status = status
        self.desired = assigned.task.DesiredState
        self.removing = False
        self.over = False
        self._adopted = adopted
        self._turn = 0
        self._under_way: Step | None = None
        self._rests = False
        self.go_on()

    def want(self, desired: TaskState) -> None:
        if desired <= self.desired:
            return
        stopping = self.desired >= TaskState.SHUTDOWN or self.removing
        self.desired = desired
        self._changed(interrupt=desired >= TaskState.SHUTDOWN and not stopping)

    def remove(self) -> None:
        if not self.removing:
            self.removing = True
            self._changed(interrupt=self.desired < TaskState.SHUTDOWN)

    def _changed(self, *, interrupt: bool) -> None:
        if interrupt or self._rests:
            self.go_on()

    def go_on(self) -> None:
        """Begin the next step; whatever is under way is given up."""
        self._turn += 1
        self._rests = False
        desired = TaskState.REMOVE if self.removing else self.desired
        step = next_step(self.status.State, desired)
        after = self.agent.scope.after
        rng = self.agent.cluster.rng
        if step is Step.NOTHING:
            self._rests = True
            if self.removing:
                self._rests = False
                after(rng.random() * 20 * MS, self._end, self._turn)
        elif step is Step.ACCEPT:
            self._reach(TaskState.ACCEPTED)
            after(0, self._stepped, self._turn)
        elif step is Step.PREPARE:
            self._reach(TaskState.PREPARING)
            after(rng.random() * 300 * MS, self._prepared, self._turn)
        elif step is Step.START:
            self._reach(TaskState.STARTING)
            after(rng.random() * 100 * MS, self._started, self._turn)
        elif step is Step.WAIT:
            self._wait()
        else:
            slow = self.agent.cluster.options.stop_ms
            after(rng.random() * slow * MS, self._stopped, self._turn)

    def exited(self, code: int) -> None:
        """The container ended by itself."""
        if self.status.State is TaskState.RUNNING and not self.over:
            before = self.status
            self._set(steps.ended(ExitStatus(code=code), self.agent.host.now(), before))
            self.go_on()

    def _stepped(self, turn: int) -> None:
        if turn == self._turn:
            self.go_on()

    def _prepared(self, turn: int) -> None:
        if turn != self._turn:
            return
        if self.agent.cluster.rng.random() < self.agent.cluster.bad_images:
            self._set(steps.failed("no such image", None, self.agent.host.now(), self.status))
            self.agent.cluster.counts["tasks rejected"] += 1
        else:
            self._reach(TaskState.READY)
        self.go_on()

    def _started(self, turn: int) -> None:
        if turn == self._turn:
            self.agent.host.containers[self.task_id] = None
            self.agent.cluster.checks.container_started(self.agent.host, self.task_id)
            self._reach(TaskState.RUNNING)
            self.go_on()

    def _wait(self) -> None:
        if self.task_id not in self.agent.host.containers:
            lost = steps.ended(
                ExitStatus(code=137, error="no such container"), self.agent.host.now(), self.status
            )
            self._set(lost)
            self.agent.scope.after(0, self._stepped, self._turn)

    def _stopped(self, turn: int) -> None:
        if turn == self._turn:
            self.agent.host.containers.pop(self.task_id, None)
            self._set(steps.stopped(0, self.agent.host.now(), self.status))
            self.go_on()

    def _end(self, turn: int) -> None:
        if turn == self._turn:
            self.over = True
            self.agent.host.containers.pop(self.task_id, None)
            self.agent.gone(self)

    def _reach(self, state: TaskState) -> None:
        if self.status.State < state:
            self._set(steps.reached(state, self.agent.host.now(), self.status))

    def _set(self, status: TaskStatus) -> None:
        self.status = status
        self.agent.noted(self.task_id, status)


class Agent:
    """One run of a node's daemon, as far as it is a worker."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        self.cluster = cluster
        self.host = host
        self.scope = Scope(cluster.queue)
        self.reporter = Reporter()
        self.runners: dict[str, TaskRunner] = {}
        self._waiting: dict[str, Remembered] = {}
        self._secrets: dict[str, Dependency] = {}
        self._identity = NodeIdentity(
            cluster_id="cluster", node_id=host.name, hostname=host.name, state_dir="/"
        )
        self._stream: Stream | None = None
        self._expected = 1
        self._parts: list[Assignments] = []
        self._heartbeat_s = 2.0
        self._beats = 0
        self._welcomed: Wait[Welcome] = Wait()
        self._last_good = ""
        self._joining = False
        self._role = "worker"
        for task_id, remembered in list(host.table.items()):
            self.reporter.put(task_id, remembered.status)
            if remembered.status.State >= TaskState.RUNNING:
                self._run(remembered.assigned, remembered.status, adopted=True)
            else:
                self._waiting[task_id] = Remembered(remembered.assigned, remembered.status)
        self.scope.start(self._keep_session())
        if cluster.options.membership == "roles":
            self.scope.after(LEARNING_S * S, self._look_at_vote)

    # --- sessions ---

    def stop(self, *, farewell: bool, power: bool) -> None:
        """The daemon ends; with a farewell it says that it is back soon."""
        stream = self._stream
        if stream is not None:
            if farewell:
                stream.send(Farewell(back_within_ns=RESTART_NS))
            stream.close(reset=not power)
        self.scope.cancel()

    async def _keep_session(self) -> None:
        rng = self.cluster.rng
        back_off_s = BACK_OFF_FIRST_S
        while True:
            for address in self._order():
                began = self.cluster.queue.now
                try:
                    await self._connect(address)
                except Unavailable:
                    self._stream = None
                if self.cluster.queue.now - began > BACK_OFF_MAX_S * S:
                    back_off_s = BACK_OFF_FIRST_S
            await self.scope.sleep(rng.random() * back_off_s * S)
            back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)

    def _order(self) -> list[str]:
        addresses = list(self.host.managers_known)
        if self._last_good:
            return [self._last_good, *(each for each in addresses if each != self._last_good)]
        return addresses

    async def _connect(self, address: str) -> None:
        """Be in session with one manager until it ends."""
        ended: Wait[None] = Wait()
        stream = self.cluster.dial(self.host, address)
        self._stream = stream
        self._expected, self._parts = 1, []
        welcomed = self._welcomed = Wait()
        failure = Unavailable("the session ended")

        def end() -> None:
            stream.close()
            welcomed.fail(failure)
            ended.fail(failure)

        stream.on_message = lambda message: self._hear(stream, message, end)
        stream.on_end = end
        stream.send(Register(description=self.host.description, instance=self.host.name))
        try:
            welcome = await self.scope.limit(welcomed, WELCOME_S * S, failure)
        except Unavailable:
            stream.close()
            raise
        self._last_good = address
        self.cluster.counts["sessions"] += 1
        self._take_news(welcome.news)
        self.reporter.restart()
        self._report()
        self._beats += 1
        self._beat(self._beats)
        await ended

    def _hear(self, stream: Stream, message: object, end: Callable[[], None]) -> None:
        if stream is not self._stream:
            return
        if isinstance(message, Assignments):
            if message.number != self._expected:
                end()
                return
            self._expected += 1
            self._parts.append(message)
            if not message.more:
                parts, self._parts = self._parts, []
                self.apply(_joined(parts))
        elif isinstance(message, ReportTaken):
            self.reporter.taken(message.number)
            self._report()
        elif isinstance(message, News):
            self._take_news(message.news)
        elif isinstance(message, Welcome):
            self._welcomed.resolve(message)
        elif isinstance(message, Refused):
            self._last_good = message.leader or self._last_good
            end()

    def _take_news(self, news: NodeNews) -> None:
        self._heartbeat_s = news.heartbeat_ns / 1e9
        if news.managers:
            self.host.managers_known = [peer.addr for peer in news.managers]
        self._role = news.role
        self._take_role()

    def _take_role(self) -> None:
        by_wish = self.cluster.options.membership == "roles"
        if by_wish and self._role == "worker" and self.host.platter is not None:
            self.scope.start(self._end_as_worker())
        if self._role == "manager" and self.host.platter is None and not self._joining:
            self._joining = True
            self.scope.start(self._join())

    async def _end_as_worker(self) -> None:
        """Stop being a manager if the swarm, asked anew, gives us a worker's certificate."""
        wait = self.cluster.ask(self.host.name, self._last_good, "role", self.host.name)
        try:
            role = await self.scope.limit(wait, 3 * S, Unavailable("no answer"))
        except SwarmError:
            await self.scope.sleep(300 * MS)
            self._take_role()
            return
        if role == "worker" and self._role == "worker":
            self.host.stop_manager()

    def removed(self) -> None:
        """This node is no member any more; if it shall be one, it comes back as a new one."""
        self.scope.after(ROLE_WAIT_S * S, self._take_role)

    async def _join(self) -> None:
        """Become a manager: ask for a number until there is one; see ``core/member.py``."""
        raft_id = 0
        while self._role == "manager":
            wait = self.cluster.ask(
                self.host.name, self._last_good, "join", (self.host.name, raft_id)
            )
            try:
                raft_id = await self.scope.limit(wait, 3 * S, Unavailable("no answer"))
            except PermissionDenied:
                break
            except SwarmError:
                await self.scope.sleep(300 * MS)
                continue
            if self.host.platter is None:
                self.cluster.join(self.host, raft_id)
            break
        self._joining = False

    def _look_at_vote(self) -> None:
        """A member without a vote asks whether it is one still; see ``core/managership.py``."""
        self.scope.after(LEARNING_S * S, self._look_at_vote)
        manager, raft_id = self.host.manager, self.host.raft_id
        if manager is not None and raft_id not in manager.membership.voters:
            self.scope.start(self._ask_whether_member(raft_id))

    async def _ask_whether_member(self, raft_id: int) -> None:
        wait = self.cluster.ask(self.host.name, self._last_good, "join", (self.host.name, raft_id))
        try:
            known = await self.scope.limit(wait, 3 * S, Unavailable("no answer"))
        except SwarmError:
            return
        if known != raft_id and self.host.raft_id == raft_id:
            self.cluster.counts["learners given up"] += 1
            self.host.stop_manager()

    def _beat(self, number: int) -> None:
        stream = self._stream
        if number == self._beats and stream is not None and stream.open:
            stream.send(Heartbeat())
            self.scope.after(self._heartbeat_s * S * self.host.rate, self._beat, number)

    def _report(self) -> None:
        stream = self._stream
        if stream is None or not stream.open or not self._welcomed.done:
            return
        report = self.reporter.next_report()
        if report is not None:
            stream.send(report)

    # --- tasks ---

    def apply(self, message: Assignments) -> None:
        """Take on what the dispatcher sent: data, then tasks to put, then tasks to remove."""
        if message.complete:
            self._secrets.clear()
        self._secrets.update((item.id, item) for item in message.secrets)
        for assigned in message.put:
            self._put(assigned)
        for task_id in message.removed:
            self._remove(task_id)
        for item_id in message.dropped:
            self._secrets.pop(item_id, None)
        if message.complete:
            listed = {assigned.task.ID for assigned in message.put}
            for task_id in [*self.runners, *self._waiting]:
                if task_id not in listed:
                    self._remove(task_id)
            for task_id in list(self.host.containers):
                if task_id not in self.runners:
                    del self.host.containers[task_id]  # left over from a lost table

    def _put(self, assigned: AssignedTask) -> None:
        task_id = assigned.task.ID
        runner = self.runners.get(task_id)
        if runner is not None:
            self.host.table[task_id] = Remembered(assigned, runner.status)
            runner.want(assigned.task.DesiredState)
            return
        waiting = self._waiting.pop(task_id, None)
        status = waiting.status if waiting is not None else assigned.task.Status
        if status.State >= TaskState.RUNNING:
            self._run(assigned, status, adopted=True)
            return
        try:
            assignment_of(assigned, self._identity, PLATFORM, self._secrets, {}, {})
        except ExecutorError as error:
            self.cluster.checks.refused_assignment(self.host, task_id, str(error))
            if status.State < TaskState.STARTING:
                status = steps.failed(str(error), None, self.host.now(), status)
                self.reporter.put(task_id, status)
        self._run(assigned, status, adopted=False)

    def _run(self, assigned: AssignedTask, status: TaskStatus, *, adopted: bool) -> None:
        task_id = assigned.task.ID
        self.host.table[task_id] = Remembered(assigned, status)
        self.runners[task_id] = TaskRunner(self, assigned, status, adopted)

    def _remove(self, task_id: str) -> None:
        waiting = self._waiting.pop(task_id, None)
        if waiting is not None:
            self._run(waiting.assigned, waiting.status, adopted=True)
        runner = self.runners.get(task_id)
        if runner is not None:
            runner.remove()
        else:
            self._forget(task_id)

    def _forget(self, task_id: str) -> None:
        self.host.table.pop(task_id, None)
        self.reporter.forget(task_id)

    def gone(self, runner: TaskRunner) -> None:
        self.runners.pop(runner.task_id, None)
        self._forget(runner.task_id)

    def noted(self, task_id: str, status: TaskStatus) -> None:
        """A task has a new status: remember it, and say so."""
        remembered = self.host.table.get(task_id)
        if remembered is not None:
            remembered.status = status
        self.reporter.put(task_id, status)
        self.scope.after(0, self._report)
