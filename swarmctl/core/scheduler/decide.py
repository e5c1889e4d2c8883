"""PENDING -> ASSIGNED: which node runs a task.

Tasks that are alike (one service, one spec) are placed as a group: the filters say how many of
them each node has room for, the :class:`Scheduler` says where they go, and its answer is taken as
far as the filters agree, whoever wrote it. A task that fits nowhere keeps its state and learns
why in ``Status.Err``. A task made for its node (of a global service) is only confirmed, by the same
filters, and before all others: they have a choice.

What keeps two placements from taking the same last CPU or port: there is one key, so passes follow
each other and each sees its predecessor's result; within a pass every placement is booked before
the next group is judged. And what happens to a *node* meanwhile is caught when the entry is
applied: each placement requires the node to be as it was when it was chosen.

Bounded: one decision judges so many nodes and moves so many tasks, and asks for the next turn at
once when there is more. Groups that were never judged come first, then those judged longest ago,
so one that fits nowhere does not keep others waiting.

Plugins outside this process answer later (:mod:`.outside`): a group that waits for one is passed
over, and served first once the answer is there.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec.structs import replace

from ..errors import AnswerAwaited
from ..model.base import MINUTE, Time
from ..model.change import NOTHING, At, Decision, Exists, Kind, Ref, Transaction, Update
from ..model.labels import STRATEGY
from ..model.task import TaskState, TaskStatus
from .explain import no_suitable_node
from .filters import BUILT_IN
from .outside import AWAIT_NS, Outsider, ask_all
from .resources import Holding, Ledger, claim, demand_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from ..ids import NewId
    from ..model.change import Requirement
    from ..model.objects import NodeRow, ServiceRow, TaskRow
    from ..model.spec import GenericResource
    from ..store.view import View
    from .filters import Check, Filter
    from .outside import Blame, Judge
    from .resources import Demand, GroupKey, Place

NAME = "scheduler"
EVERYTHING = "everything"

TASKS_MAX = 250
"""Tasks moved or explained by one decision."""
JUDGED_MAX = 6_000
"""Nodes looked at by one decision, give or take one group's round over all of them."""

POOLS_MAX = 256
"""Different demands whose answers are kept."""

FAULTY_WINDOW_NS = 5 * MINUTE

ASSIGNED_MESSAGE = "scheduler assigned task to node"


class Candidate(NamedTuple):
    """One node of the cluster as a Scheduler sees it.

    Attributes:
        room: how many of the group's tasks it can take; 0 for one that the filters refuse, which
            is listed all the same since its tasks count when a spread is judged.
        service_tasks: tasks of the same service that should run there.
        tasks: all tasks that should run there.
        failures: how often this spec of the service failed there in the last five minutes.
        cpu, memory: what is reserved there by now, in 1e-9 cores and bytes.
    """

    node: NodeRow
    room: int
    service_tasks: int
    tasks: int
    failures: int
    cpu: int = 0
    memory: int = 0


class _Round(NamedTuple):
    """All nodes' answers, their rooms in sum, and how many each filter was first to refuse."""

    nodes: list[Candidate]
    free: int
    refused: list[int]
    blamed: list[Blame]


class Scheduler(Protocol):
    """Chooses nodes for tasks that are alike. Pure: the same arguments give the same answer."""

    def place(
        self, view: View, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Mapping[str, str]:
        """Return node ids by task id; tasks left out stay pending.

        A node gets no more tasks than it has room for; what goes beyond that is not taken.

        Args:
            view: the tables, for whoever wants to know more.
            tasks: of one service and one spec, in the order in which they should be served.
            nodes: every node of the cluster, by id.

        Raises:
            AnswerAwaited: only by a stand-in for a plugin outside this process: not known yet.
        """
        ...


class Scheduling:
    """The scheduler's reconciler: hand ``keys`` and ``decide`` to the loop.

    What it remembers between calls is a cache of the view (:class:`~.resources.Ledger`) and which
    groups were judged since it last changed; a fresh one decides the same.

    Args:
        scheduler: ranks nodes.
        filters: of plugins; run after ours.
        strategies: by name, what ranks nodes for services that ask for it (:data:`STRATEGY`). A
            name that is not among them leaves a service to ``scheduler``.
        judges: filters of plugins outside this process; they run after all others.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        filters: Iterable[Filter] = (),
        strategies: Mapping[str, Scheduler] | None = None,
        judges: Sequence[Judge] = (),
    ) -> None:
        self._scheduler = scheduler
        self._strategies = strategies or {}
        self._judges = tuple(judges)
        schedulers = {id(one): one for one in (scheduler, *self._strategies.values())}
        self._outsiders: tuple[Outsider, ...] = (
            *self._judges,
            *(one for one in schedulers.values() if isinstance(one, Outsider)),
        )
        self._awaiting: set[GroupKey] = set()
        self._filters: tuple[Filter, ...] = (*BUILT_IN, *filters)
        self._ledger = Ledger()
        self._pools = _Pools(self._ledger)
        self._judged: dict[GroupKey, int] = {}

    def keys(self, view: View, touched: set[Ref] | None) -> Iterable[str]:
        """Return the one key when there is something to place.

        Args:
            touched: the rows that changed since the last call; None for "read everything".
        """
        self._ledger.refresh(view, touched)
        for outsider in self._outsiders:
            outsider.note(touched)
        self._judged = {
            key: generation
            for key, generation in self._judged.items()
            if key in self._ledger.pending and touched is not None
        }
        return (EVERYTHING,) if self._ledger.pending else ()

    def decide(self, view: View, key: str, now: int, new_id: NewId) -> Decision:
        """Return the placements and explanations that are due."""
        ledger = self._ledger
        if ledger.index != view.index:
            ledger.rebuild(view)
            self._judged.clear()
        due = [group for group in ledger.pending if self._judged.get(group) != ledger.generation]
        if not due:
            return NOTHING
        if any(judge.busy for judge in self._judges):
            return Decision(wake_at=now + AWAIT_NS)
        due.sort(key=self._turn)
        self._awaiting.clear()
        work = _Pass(
            view, ledger, self._pools, self._scheduler_for, self._filters, self._judges, now
        )
        try:
            for group in due:
                if not work.has_room:
                    break
                try:
                    if work.serve(group):
                        self._judged[group] = ledger.generation
                except AnswerAwaited:
                    self._awaiting.add(group)
        finally:
            work.unbook()
        for outsider in self._outsiders:
            outsider.send(view, waits=bool(self._awaiting))
        wake_at = now + AWAIT_NS if self._awaiting else None
        return Decision(
            transactions=tuple(work.transactions), wake_at=wake_at if work.has_room else now
        )

    def _turn(self, group: GroupKey) -> tuple[bool, bool, int, GroupKey]:
        """Sort tasks made for their node first, then who waited for an answer, then the longest."""
        awaited = group in self._awaiting
        return not group.node_id, not awaited, self._judged.get(group, -1), group

    def _scheduler_for(self, service: ServiceRow | None) -> Scheduler:
        asked = service.api.Spec.Labels.get(STRATEGY) if service is not None else None
        return self._scheduler if asked is None else self._strategies.get(asked, self._scheduler)


class _Pools:
    """What static checks say of every node, kept until a node changes.

    Many services want the same: a node that answers and runs containers. They share one round.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._generation = -1
        self._kept: dict[tuple[Check, ...], tuple[int, ...]] = {}

    def verdicts(self, checks: tuple[Check, ...]) -> tuple[int, ...]:
        """Return, for each node in order, the place of the first check that refuses it, or -1."""
        if self._generation != self._ledger.node_generation or len(self._kept) >= POOLS_MAX:
            self._kept.clear()
            self._generation = self._ledger.node_generation
        kept = self._kept.get(checks)
        if kept is None:
            kept = tuple(_verdict(place, checks) for place in self._ledger.places().values())
            self._kept[checks] = kept
        return kept


def _verdict(place: Place, checks: tuple[Check, ...]) -> int:
    return next((at for at, check in enumerate(checks) if check(*place) <= 0), -1)


def _is_busy(one: object) -> bool:
    return isinstance(one, Outsider) and one.busy


class _Pass:
    """One decision in the making; lives for one call."""

    def __init__(
        self,
        view: View,
        ledger: Ledger,
        pools: _Pools,
        scheduler_for: Callable[[ServiceRow | None], Scheduler],
        filters: tuple[Filter, ...],
        judges: tuple[Judge, ...],
        now: int,
    ) -> None:
        self.transactions: list[Transaction] = []
        self._view = view
        self._ledger = ledger
        self._pools = pools
        self._scheduler_for = scheduler_for
        self._filters = filters
        self._judges = judges
        self._now = now
        self._judged = 0
        self._booked: list[Holding] = []

    @property
    def has_room(self) -> bool:
        return len(self.transactions) < TASKS_MAX and self._judged < JUDGED_MAX

    def unbook(self) -> None:
        """Take back what was only planned: it counts once it is applied."""
        for holding in self._booked:
            self._ledger.book(holding, -1)

    def serve(self, group: GroupKey) -> bool:
        """Place and explain a group's tasks; return whether nothing more can be done for it now.

        Raises:
            AnswerAwaited: that depends on a plugin that has not answered yet.
        """
        members = self._ledger.pending[group]
        first = self._view.task(next(iter(members)))
        if first is None or (group.service_id and self._view.service(group.service_id) is None):
            return True  # its tasks are about to be removed
        scheduler = self._scheduler_of(group)
        if _is_busy(scheduler):
            raise AnswerAwaited
        round_ = self._round(group, first)
        most = min(round_.free, TASKS_MAX - len(self.transactions), len(members))
        tasks = [row for row in map(self._view.task, islice(members, most)) if row is not None]
        placed = self._place(scheduler, tasks, round_.nodes) if tasks else set[str]()
        if len(placed) == len(members):
            return True
        if not placed or most == round_.free:
            if placed:
                round_ = self._round(group, first)
            waiting = (task_id for task_id in members if task_id not in placed)
            why = no_suitable_node(self._filters, round_.refused, round_.blamed)
            return self._explain(waiting, why)
        return False

    def _scheduler_of(self, group: GroupKey) -> Scheduler | None:
        """Return who places a group's tasks; None where each is made for its node."""
        if group.node_id:
            return None
        return self._scheduler_for(
            self._view.service(group.service_id) if group.service_id else None
        )

    def _round(self, group: GroupKey, task: TaskRow) -> _Round:
        """Ask every node how many tasks like ``task`` it can take."""
        static, dynamic = self._checks(task)
        refused = [0] * len(self._filters)
        nodes: list[Candidate] = []
        most, free = len(self._ledger.pending[group]), 0
        failures = self._failures(group)
        service_id = group.service_id
        places, verdicts = self._candidates(group, tuple(check for _, check in static))
        for place, verdict in zip(places, verdicts, strict=True):
            node, load = place
            room = most
            if verdict >= 0:
                room = 0
                refused[static[verdict][0]] += 1
            else:
                for at, check in dynamic:
                    fits = check(node, load)
                    if fits < room:  # no min(): this is the innermost loop
                        room = max(0, fits)
                        if not room:
                            refused[at] += 1
                            break
            free += room
            service_tasks = load.services.get(service_id, 0)
            failed = failures.get(node.api.ID, 0) if failures else 0
            nodes.append(
                Candidate(node, room, service_tasks, load.tasks, failed, load.cpu, load.memory)
            )
        self._judged += len(verdicts)
        blamed: list[Blame] = []
        if self._judges and free:
            nodes, blamed = self._ask_judges(task, nodes)
            free = sum(one.room for one in nodes)
        return _Round(nodes, free, refused, blamed)

    def _ask_judges(
        self, task: TaskRow, nodes: list[Candidate]
    ) -> tuple[list[Candidate], list[Blame]]:
        """Take from the nodes' rooms what plugins outside this process refuse."""
        places = self._ledger.places()
        judged = [places[one.node.api.ID] for one in nodes if one.room]
        self._judged += len(judged) * len(self._judges)
        blamed: list[Blame] = []
        for rooms, more in ask_all(self._judges, task, judged):
            nodes = [
                one._replace(room=min(one.room, rooms.get(one.node.api.ID, 0))) for one in nodes
            ]
            blamed += more
        return nodes, blamed

    def _candidates(
        self, group: GroupKey, static: tuple[Check, ...]
    ) -> tuple[Collection[Place], Sequence[int]]:
        """Return the nodes that a group may go to, and what the static checks say of each."""
        places = self._ledger.places()
        if not group.node_id:
            return places.values(), self._pools.verdicts(static)
        own = places.get(group.node_id)
        return ((own,), (_verdict(own, static),)) if own is not None else ((), ())

    def _checks(self, task: TaskRow) -> tuple[list[tuple[int, Check]], list[tuple[int, Check]]]:
        """Return the static checks and the others, each with its filter's place."""
        static: list[tuple[int, Check]] = []
        dynamic: list[tuple[int, Check]] = []
        for at, one in enumerate(self._filters):
            check = one.check(task)
            if check is not None:
                (static if one.static else dynamic).append((at, check))
        return static, dynamic

    def _failures(self, group: GroupKey) -> dict[str, int]:
        counts: dict[str, int] = {}
        since = self._now - FAULTY_WINDOW_NS
        key = (group.service_id, group.spec_version)
        for failures in self._ledger.failures.get(key, {}).values():
            for failure in failures:
                if failure.at > since:
                    counts[failure.node_id] = counts.get(failure.node_id, 0) + 1
        return counts

    def _place(
        self, scheduler: Scheduler | None, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> set[str]:
        """Have nodes chosen and take the choices that hold; return the ids of the tasks placed."""
        if scheduler is None:
            chosen: Mapping[str, str] = {task.api.ID: task.api.NodeID for task in tasks}
        else:
            chosen = scheduler.place(self._view, tasks, nodes)
        wanted = set(chosen.values())
        room = {one.node.api.ID: one.room for one in nodes if one.node.api.ID in wanted}
        placed: set[str] = set()
        demand = demand_of(tasks[0])
        for task in tasks:
            node_id = chosen.get(task.api.ID, "")
            if room.get(node_id, 0) > 0:
                room[node_id] -= 1
                placed.add(task.api.ID)
                self._assign(task, self._ledger.nodes[node_id], demand)
        return placed

    def _assign(self, task: TaskRow, node: NodeRow, demand: Demand) -> None:
        node_id = node.api.ID
        claims: tuple[GenericResource, ...] = ()
        if demand.generic:
            claims = claim(node, self._ledger.places()[node_id].load, demand.generic)
        holding = Holding(node_id, task.api.ServiceID, demand, claims, counted=True)
        self._ledger.book(holding)
        self._booked.append(holding)
        status = TaskStatus(
            Timestamp=Time(self._now), State=TaskState.ASSIGNED, Message=ASSIGNED_MESSAGE
        )
        api = replace(task.api, NodeID=node_id, Status=status, GenericResources=claims)
        requires: list[Requirement] = [
            At(ref=Ref(Kind.NODE, node_id), version=node.api.Version.Index)
        ]
        if task.api.ServiceID:
            requires.append(Exists(ref=Ref(Kind.SERVICE, task.api.ServiceID)))
        update = Update(row=replace(task, api=api))
        self.transactions.append(Transaction(changes=(update,), requires=tuple(requires)))

    def _explain(self, task_ids: Iterable[str], why: str) -> bool:
        """Write why tasks wait where that is news; return whether all of them know."""
        for task_id in task_ids:
            task = self._view.task(task_id)
            if task is None or task.api.Status.Err == why:
                continue
            if len(self.transactions) >= TASKS_MAX:
                return False
            status = replace(task.api.Status, Err=why)
            update = Update(row=replace(task, api=replace(task.api, Status=status)))
            self.transactions.append(Transaction(changes=(update,)))
        return True
