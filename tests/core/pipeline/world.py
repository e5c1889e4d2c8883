"""A cluster without a network: the real store, the real reconcilers, and agents that are a table.

``World`` does what the reconcile loop does, synchronously: it asks for keys, decides them over one
another, applies what they want as one entry and shows everybody what changed. Time stands still
until a test moves it. Every write goes through ``Store.apply``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from swarmctl.core.dispatcher.assignments import is_held_back
from swarmctl.core.manager.pipeline import reconcilers
from swarmctl.core.model import revision
from swarmctl.core.model.base import SECOND, Platform, Time
from swarmctl.core.model.change import (
    Advance,
    Applied,
    Change,
    Conflict,
    Create,
    Delete,
    Entry,
    Exists,
    Free,
    Index,
    Kind,
    Ref,
    Requirement,
    Transaction,
    Unreferenced,
    Update,
)
from swarmctl.core.model.cluster import ClusterInfo, OrchestrationConfig, SwarmSpec
from swarmctl.core.model.objects import (
    ClusterRow,
    EngineDescription,
    Node,
    NodeDescription,
    NodeRow,
    NodeSpec,
    NodeStatus,
    ServiceRow,
    TaskRow,
)
from swarmctl.core.model.service import Service, next_run
from swarmctl.core.model.spec import (
    ContainerSpec,
    EndpointSpec,
    GlobalJob,
    GlobalService,
    PortConfig,
    ReplicatedJob,
    ReplicatedService,
    Resources,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarmctl.core.model.task import TaskState, TaskStatus
from swarmctl.core.store.store import Store, lay
from swarmctl.plugins.binpack import BinpackScheduler
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.subnets import SubnetAllocator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from swarmctl.core.manager.reconcile import Reconciler
    from swarmctl.core.store.store import RowChange
    from swarmctl.core.store.view import View

EPOCH = 1_700_000_000 * SECOND
TURNS_MAX = 60
EXIT = "task: non-zero exit (1)"


def the_reconcilers() -> tuple[Reconciler, ...]:
    """Return what a leader runs, fresh, with the built-in strategies."""
    return reconcilers(SpreadScheduler(), SubnetAllocator(), {"binpack": BinpackScheduler()})


class World:
    """One cluster; ``now`` is the leader's wall time in nanoseconds."""

    def __init__(self, *, history: int | None = None) -> None:
        self.store = Store()
        self.now = EPOCH
        self.cut: set[str] = set()
        self.bad: set[str] = set()  # images whose tasks fail instead of running
        self.watchers: list[Callable[[set[Ref]], object]] = []  # told of what was touched
        self._ids = 0
        spec = SwarmSpec(
            Name="default", Orchestration=OrchestrationConfig(TaskHistoryRetentionLimit=history)
        )
        self.lead()
        self.write(Create(row=ClusterRow(api=ClusterInfo(ID="cluster", Spec=spec))))

    # --- the loop ---

    def lead(self) -> None:
        """Become a fresh leader: new reconcilers that have everything before them."""
        self.reconcilers = the_reconcilers()
        self._touched: dict[str, set[Ref] | None] = {one.name: None for one in self.reconcilers}
        self._wake: dict[tuple[str, str], int] = {}

    def turn(self, only: Collection[str] = ()) -> bool:
        """Give every (or each named) reconciler one pass; return whether anything was wanted."""
        busy = False
        for one in self.reconcilers:
            if not only or one.name in only:
                busy |= self._reconcile(one)
        return busy

    def settle(self, turns: int = TURNS_MAX) -> int:
        """Run passes until nobody wants anything; return how many it took."""
        for count in range(turns):
            if not self.turn():
                return count
        raise AssertionError(f"not at rest after {turns} turns")

    def decide(self, name: str, key: str) -> tuple[Transaction, ...]:
        """Ask a fresh reconciler, without doing what it says."""
        (one,) = (one for one in the_reconcilers() if one.name == name)
        view = self.store.view
        one.keys(view, None)
        return one.decide(view.overlay(), key, self.now, self.new_id).transactions

    def wishes(self) -> list[Transaction]:
        """Return what fresh reconcilers want of the present tables, each on its own."""
        wanted: list[Transaction] = []
        for one in the_reconcilers():
            for key in one.keys(self.store.view, None):
                view = self.store.view.overlay()
                wanted += one.decide(view, key, self.now, self.new_id).transactions
        return wanted

    def next_wake(self) -> int | None:
        """Return the earliest time at which a reconciler wants to be asked again."""
        return min(self._wake.values(), default=None)

    def _reconcile(self, one: Reconciler) -> bool:
        view = self.store.view
        touched, self._touched[one.name] = self._touched[one.name], set()
        due = dict.fromkeys(one.keys(view, touched))
        for (name, key), at in list(self._wake.items()):
            if name == one.name and at <= self.now:
                due[key] = None
        overlay = view.overlay()
        wanted: list[Transaction] = []
        again = False
        for key in due:
            self._wake.pop((one.name, key), None)
            decision = one.decide(overlay, key, self.now, self.new_id)
            for transaction in decision.transactions:
                wanted.append(transaction)
                for change in transaction.changes:
                    lay(overlay, change, overlay.index + 1, self.now)
            if decision.wake_at is not None:
                self._wake[one.name, key] = decision.wake_at
                again |= decision.wake_at <= self.now
        if wanted:
            self.apply(*wanted)
        return bool(wanted) or again

    def apply(self, *transactions: Transaction) -> tuple[Applied | Conflict, ...]:
        """Apply transactions as one entry of the log and tell every reconciler."""
        stamped = tuple(replace(one, now=one.now or self.now) for one in transactions)
        outcome = self.store.apply(self.store.index + 1, Entry(transactions=stamped))
        for touched in self._touched.values():
            if touched is not None:
                touched.update(change.ref for change in outcome.changes)
        self.saw(outcome.changes)
        for watcher in self.watchers:
            watcher({change.ref for change in outcome.changes})
        return outcome.results

    def saw(self, changes: Iterable[RowChange]) -> None:
        """See what an entry has changed; for a world that somebody looks at."""

    def write(self, *changes: Change, requires: tuple[Requirement, ...] = ()) -> None:
        """Apply one transaction that has to take effect."""
        (result,) = self.apply(Transaction(changes=changes, requires=requires))
        assert isinstance(result, Applied), result

    def new_id(self) -> str:
        self._ids += 1
        return f"t{self._ids:05}"

    # --- agents ---

    def agents(self) -> bool:
        """Let every node that is not cut off take each of its tasks one step further."""
        reports = [
            Transaction(changes=(Advance(task_id=task.api.ID, status=status),))
            for task in self.tasks()
            if task.api.NodeID not in self.cut and (status := self._next(task)) is not None
        ]
        if reports:
            self.apply(*reports)
        return bool(reports)

    def _next(self, task: TaskRow) -> TaskStatus | None:
        state, wanted = task.api.Status.State, task.api.DesiredState
        if not TaskState.ASSIGNED <= state <= TaskState.RUNNING or is_held_back(self.view, task):
            return None
        if wanted >= TaskState.SHUTDOWN:
            return self._status(TaskState.SHUTDOWN, "shutdown")
        if state < TaskState.READY:
            return self._status(TaskState.READY, "prepared")
        if state < TaskState.RUNNING and wanted >= TaskState.RUNNING:
            container = task.api.Spec.ContainerSpec
            if container is not None and container.Image in self.bad:
                return replace(self._status(TaskState.FAILED, "started"), Err=EXIT)
            return self._status(TaskState.RUNNING, "started")
        return None

    def _status(self, state: TaskState, message: str = "") -> TaskStatus:
        return TaskStatus(Timestamp=Time(self.now), State=state, Message=message)

    def run(self, rounds: int = TURNS_MAX) -> None:
        """Let reconcilers and agents work until neither has anything to do at this time."""
        for _ in range(rounds):
            busy = self.turn()
            busy |= self.agents()
            if not busy:
                return
        raise AssertionError(f"not at rest after {rounds} rounds")

    def sleep(self, ns: int) -> None:
        """Let time pass, stopping wherever a reconciler wants to be asked."""
        end = self.now + ns
        while True:
            self.run()
            wake = self.next_wake()
            if wake is None or wake > end:
                break
            self.now = max(self.now, wake)
        self.now = end
        self.run()

    # --- what a test does to the cluster ---

    def node(self, node_id: str, **kwargs: object) -> NodeRow:
        """Add a node that is ready."""
        row = make_node(node_id, **kwargs)  # type: ignore[arg-type]
        self.write(Create(row=row))
        return self.view.node(node_id)  # type: ignore[return-value]

    def set_node(
        self,
        node_id: str,
        *,
        state: str | None = None,
        availability: str | None = None,
        labels: dict[str, str] | None = None,
        resources: Resources | None = None,
    ) -> None:
        """Change what a node is or is asked to be, as dispatcher and API do."""
        row = self.view.node(node_id)
        assert row is not None
        api = row.api
        if state is not None:
            api = replace(api, Status=replace(api.Status, State=state))
        if availability is not None:
            api = replace(api, Spec=replace(api.Spec, Availability=availability))
        if labels is not None:
            api = replace(api, Spec=replace(api.Spec, Labels=labels))
        if resources is not None:
            api = replace(api, Description=replace(api.Description, Resources=resources))
        private = row.private if state is None else replace(row.private, status_since=self.now)
        self.write(Update(row=replace(row, api=api, private=private)))

    def remove_node(self, node_id: str) -> None:
        row = self.view.node(node_id)
        assert row is not None
        self.write(Delete(ref=Ref(Kind.NODE, node_id), version=row.api.Version.Index))

    def service(self, service_id: str, spec: ServiceSpec) -> ServiceRow:
        """Create a service, as the API does."""
        (result,) = self.apply(creation(service_id, spec, self.now))
        assert isinstance(result, Applied), result
        return self.view.service(service_id)  # type: ignore[return-value]

    def update(self, service_id: str, spec: ServiceSpec) -> None:
        """Give a service another spec, as the API does."""
        row = self.view.service(service_id)
        assert row is not None
        self.write(Update(row=revision.updated(row, spec, self.now, registry_auth="")))

    def roll_back(self, service_id: str, number: int = 0) -> None:
        """Give a service its previous spec, or that of a revision, as the API does."""
        row = self.view.service(service_id)
        assert row is not None
        if number:
            self.write(Update(row=revision.rolled_back_to(row, number, self.now)))
        else:
            self.write(Update(row=revision.rolled_back(row, self.now)))

    def scale(self, service_id: str, replicas: int) -> None:
        row = self.view.service(service_id)
        assert row is not None
        mode = ServiceMode(Replicated=ReplicatedService(Replicas=replicas))
        self.update(service_id, replace(row.api.Spec, Mode=mode))

    def remove_service(self, service_id: str) -> None:
        row = self.view.service(service_id)
        assert row is not None
        self.write(Delete(ref=Ref(Kind.SERVICE, service_id), version=row.api.Version.Index))

    def end(self, task: TaskRow | str, state: TaskState = TaskState.FAILED) -> None:
        """Have a task's agent report that it ended."""
        task_id = task if isinstance(task, str) else task.api.ID
        err = EXIT if state is TaskState.FAILED else ""
        status = replace(self._status(state), Err=err)
        self.write(Advance(task_id=task_id, status=status))

    # --- what a test asks ---

    @property
    def view(self) -> View:
        return self.store.view

    def tasks(self, service_id: str | None = None) -> list[TaskRow]:
        """Return tasks in the order in which they were made."""
        found = self.view.tasks() if service_id is None else self.view.tasks_of(service_id)
        return sorted(found, key=lambda row: (row.private.spec_index, row.api.ID))

    def task(self, task_id: str) -> TaskRow:
        row = self.view.task(task_id)
        assert row is not None
        return row

    def runnable(self, service_id: str) -> list[TaskRow]:
        """Return the tasks that should run, by slot."""
        found = [row for row in self.tasks(service_id) if row.api.DesiredState <= TaskState.RUNNING]
        return sorted(found, key=lambda row: row.api.Slot)

    def running(self, service_id: str) -> list[TaskRow]:
        """Return the tasks that should run and do."""
        return [
            row for row in self.runnable(service_id) if row.api.Status.State is TaskState.RUNNING
        ]

    def in_slot(self, service_id: str, slot: int = 1) -> TaskRow:
        """Return the one runnable task of a slot."""
        (found,) = (row for row in self.runnable(service_id) if row.api.Slot == slot)
        return found


def make_node(
    node_id: str,
    *,
    labels: dict[str, str] | None = None,
    cpus: int = 8,
    memory: int = 16 << 30,
    executor: str = "docker",
    arch: str = "x86_64",
    availability: str = "active",
    state: str = "ready",
    engine: EngineDescription | None = None,
    resources: Resources | None = None,
) -> NodeRow:
    """Return a node as it is once its agent has registered."""
    return NodeRow(
        api=Node(
            ID=node_id,
            Spec=NodeSpec(Labels=labels or {}, Availability=availability),
            Description=NodeDescription(
                Hostname=f"host-{node_id}",
                Platform=Platform(Architecture=arch, OS="linux"),
                Resources=resources or Resources(NanoCPUs=cpus * 10**9, MemoryBytes=memory),
                Engine=engine or EngineDescription(Labels={"swarmctl.executor": executor}),
            ),
            Status=NodeStatus(State=state, Addr="10.1.0.1"),
        )
    )


def spec(
    name: str = "web",
    replicas: int | None = 1,
    *,
    image: str = "nginx",
    task: TaskSpec | None = None,
    update: UpdateConfig | None = None,
    ports: tuple[PortConfig, ...] = (),
    mode: ServiceMode | None = None,
) -> ServiceSpec:
    """Return a service's spec, replicated unless told otherwise; ``task`` gets the image put in."""
    template = replace(task or TaskSpec(), ContainerSpec=ContainerSpec(Image=image))
    return ServiceSpec(
        Name=name,
        TaskTemplate=template,
        Mode=mode or ServiceMode(Replicated=ReplicatedService(Replicas=replicas)),
        UpdateConfig=update,
        EndpointSpec=EndpointSpec(Ports=ports) if ports else None,
    )


def everywhere(name: str = "agent", **kwargs: object) -> ServiceSpec:
    """Return a global service's spec; see :func:`spec`."""
    return spec(name, mode=ServiceMode(Global=GlobalService()), **kwargs)  # type: ignore[arg-type]


def everywhere_once(name: str = "sweep", **kwargs: object) -> ServiceSpec:
    """Return a global job's spec; see :func:`spec`."""
    return spec(name, mode=ServiceMode(GlobalJob=GlobalJob()), **kwargs)  # type: ignore[arg-type]


def job(total: int, most: int | None = None, name: str = "batch", **kwargs: object) -> ServiceSpec:
    """Return the spec of a job: so many completions, ``most`` (or all) at a time."""
    numbers = ReplicatedJob(MaxConcurrent=total if most is None else most, TotalCompletions=total)
    return spec(name, mode=ServiceMode(ReplicatedJob=numbers), **kwargs)  # type: ignore[arg-type]


def creation(service_id: str, spec: ServiceSpec, now: int = EPOCH) -> Transaction:
    """Return the transaction of ``POST /services/create``."""
    container = spec.TaskTemplate.ContainerSpec
    secrets = container.Secrets if container is not None else ()
    requires: list[Requirement] = [Exists(ref=Ref(Kind.SECRET, one.SecretID)) for one in secrets]
    for port in spec.EndpointSpec.Ports if spec.EndpointSpec is not None else ():
        if port.PublishedPort and port.PublishMode in ("", "ingress"):
            key = f"{port.Protocol or 'tcp'}/{port.PublishedPort}"
            requires.append(Free(index=Index.INGRESS_PORT, key=key))
    row = ServiceRow(api=Service(ID=service_id, Spec=spec, JobStatus=next_run(spec, None, now)))
    return Transaction(changes=(Create(row=row),), requires=tuple(requires))


def secret_removal(secret_id: str, version: int) -> Transaction:
    """Return the transaction of ``DELETE /secrets/{id}``."""
    ref = Ref(Kind.SECRET, secret_id)
    return Transaction(
        changes=(Delete(ref=ref, version=version),), requires=(Unreferenced(ref=ref),)
    )
