"""A world in which everything that is done, and all that comes of it, is shown to the model.

A *deed* is a tuple: what is done, and to whom. One that makes no sense now does nothing; one that
the product has to refuse is done all the same, and the model says that it must be refused.
"""

from __future__ import annotations

from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from swarmctl.core.errors import SwarmError
from swarmctl.core.model import revision
from swarmctl.core.model.base import MINUTE, SECOND
from swarmctl.core.model.change import (
    Advance,
    Applied,
    Create,
    Delete,
    Kind,
    Ref,
    Transaction,
    Unreferenced,
    Update,
)
from swarmctl.core.model.crosscheck import check_references, rests_on
from swarmctl.core.model.objects import Secret, SecretRow, SecretSpec, ServiceRow
from swarmctl.core.model.service import Service, next_run
from swarmctl.core.model.spec import (
    ContainerSpec,
    FileTarget,
    GlobalJob,
    GlobalService,
    Placement,
    PortConfig,
    ReplicatedJob,
    ReplicatedService,
    RestartPolicy,
    SecretReference,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarmctl.core.model.stopping import as_posted, started, stopped
from swarmctl.core.model.task import TaskState, TaskStatus
from tests.core.pipeline import model
from tests.core.pipeline.model import Model, Wish
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from swarmctl.core.model.change import Change, Requirement
    from swarmctl.core.model.objects import TaskRow
    from swarmctl.core.store.store import RowChange

MODES = {
    "web": model.REPLICATED,
    "port": model.REPLICATED,
    "each": model.GLOBAL,
    "batch": model.JOB,
    "sweep": model.GLOBAL_JOB,
}
ZONES = {"n0": "a", "n1": "b", "n2": "a", "n3": "b"}
BAD = "bad"

Answer = TypeVar("Answer")


class Stage(World):
    """One cluster and its model.

    Attributes:
        model: what must come of it.
        here: the id that each machine's node has now; a machine that comes back has another.
    """

    def __init__(self) -> None:
        self.model = Model()
        self.here: dict[str, str] = {}
        super().__init__(history=2)
        self.bad.add(BAD)

    def saw(self, changes: Iterable[RowChange]) -> None:
        self.model.now = self.now
        self.model.see((change.before, change.after) for change in changes)

    def _next(self, task: TaskRow) -> TaskStatus | None:
        """Agents take a task through STARTING, where its check has not passed yet."""
        step = super()._next(task)
        before = task.api.Status.State
        if step is not None and step.State is TaskState.RUNNING and before is TaskState.READY:
            return self._status(TaskState.STARTING)
        return step

    # --- deeds ---

    def do(self, deed: tuple[Any, ...]) -> None:
        """Do one deed."""
        kind, *rest = deed
        getattr(self, f"_{kind}")(*rest)

    def _by_user(
        self, *changes: Change, requires: tuple[Requirement, ...] = (), refused: bool = False
    ) -> None:
        """Write what a user wants; see that it is refused if it has to be."""
        self.model.by_user = True
        (result,) = self.apply(Transaction(changes=changes, requires=requires))
        self.model.by_user = False
        assert isinstance(result, Applied) is not refused, result
        self.model.met["refused"] += refused

    def _answer(self, call: Callable[[], Answer], *, refused: bool) -> Answer | None:
        """Return what a call gives; None where it has to be refused, and is."""
        try:
            answer = call()
        except SwarmError:
            if not refused:
                raise
            self.model.met["refused"] += 1
            return None
        assert not refused, "what must be refused was not"
        return answer

    def _set(self, name: str, wish: Wish, secret: str) -> None:
        """Create a service, or update it."""
        key = self.view.by_name(Kind.SECRET, secret) if secret else None
        if secret:
            wish = changed(wish, secret=key.api.ID if key is not None else f"{secret}.none")
        refused = bool(secret) and key is None
        asked = spec_of(name, wish)
        needs = rests_on(asked, ())
        found = self.view.by_name(Kind.SERVICE, name)
        if not isinstance(found, ServiceRow):
            service_id = self.new_id()
            run = next_run(asked, None, self.now)
            row = ServiceRow(api=Service(ID=service_id, Spec=asked, JobStatus=run))
            if not refused:
                self.model.create(service_id, wish)
            self._by_user(Create(row=row), requires=needs, refused=refused)
            return
        self._update(found, asked, wish, refused=refused)

    def _update(
        self, found: ServiceRow, asked: ServiceSpec, wish: Wish, *, refused: bool = False
    ) -> None:
        service_id = found.api.ID
        known = self.model.services[service_id]
        meant, stop = as_posted(found.api, asked)
        if not refused:
            if known.stopped and wish.mode == model.REPLICATED:
                if wish.count:
                    known.stopped = False  # who posts a number has said that it is to run
                else:
                    wish = changed(wish, count=known.wish.count)
            self.model.update(service_id, wish)
        row = revision.updated(found, meant, self.now, registry_auth="")
        row = replace(row, api=replace(row.api, Stopped=stop))
        self._by_user(Update(row=row), requires=rests_on(meant, ()), refused=refused)

    def _scale(self, name: str, count: int) -> None:
        found = self.view.by_name(Kind.SERVICE, name)
        if isinstance(found, ServiceRow) and found.api.Spec.Mode.Replicated is not None:
            wish = changed(self.model.services[found.api.ID].wish, count=count)
            mode = ServiceMode(Replicated=ReplicatedService(Replicas=count))
            self._update(found, replace(found.api.Spec, Mode=mode), wish, refused=self._lacks(wish))

    def _lacks(self, wish: Wish) -> bool:
        return bool(wish.secret) and self.view.secret(wish.secret) is None

    def _back(self, name: str) -> None:
        """Roll a service back, where there is a way."""
        found = self.view.by_name(Kind.SERVICE, name)
        if not isinstance(found, ServiceRow):
            return
        known = self.model.services[found.api.ID]
        refused = known.previous is None or self._lacks(known.previous)

        def call() -> ServiceRow:
            row = revision.rolled_back(found, self.now)
            check_references(row.api.Spec, self.view)
            return row

        row = self._answer(call, refused=refused)
        if row is None:
            return
        self.model.roll_back(found.api.ID)
        self._by_user(Update(row=row), requires=rests_on(row.api.Spec, ()))

    def _remove(self, name: str) -> None:
        found = self.view.by_name(Kind.SERVICE, name)
        if isinstance(found, ServiceRow):
            ref = Ref(Kind.SERVICE, found.api.ID)
            self.model.remove(found.api.ID)
            going = (
                Advance(task_id=task.api.ID, desired=TaskState.REMOVE)
                for task in self.view.tasks_of(found.api.ID)
            )
            self._by_user(Delete(ref=ref, version=found.api.Version.Index), *going)

    def _stop(self, name: str) -> None:
        self._switch(name, stop=True)

    def _start(self, name: str) -> None:
        self._switch(name, stop=False)

    def _switch(self, name: str, *, stop: bool) -> None:
        """Stop or start a service; no job is stopped, and none is started that asks for nothing."""
        found = self.view.by_name(Kind.SERVICE, name)
        if not isinstance(found, ServiceRow):
            return
        known = self.model.services[found.api.ID]
        wish = known.wish
        refused = (
            wish.is_job
            if stop
            else not known.stopped and wish.mode == model.REPLICATED and not wish.count
        )
        api = self._answer(
            lambda: stopped(found.api, self.now) if stop else started(found.api), refused=refused
        )
        if api is None:
            return
        known.stopped = stop
        if api is not found.api:
            self._by_user(Update(row=replace(found, api=api)))

    def _secret(self, name: str) -> None:
        """Make a secret, or remove it if nobody uses it."""
        found = self.view.by_name(Kind.SECRET, name)
        if found is None:
            secret = Secret(ID=f"{name}.{self.new_id()}", Spec=SecretSpec(Name=name))
            self._by_user(Create(row=SecretRow(api=secret)))
            return
        ref = Ref(Kind.SECRET, found.api.ID)
        version = found.api.Version.Index  # type: ignore[union-attr]
        users = self.model.users_of(found.api.ID)
        gone = Delete(ref=ref, version=version)
        self._by_user(gone, requires=(Unreferenced(ref=ref),), refused=bool(users))

    # --- nodes ---

    def _join(self, machine: str) -> None:
        if machine not in self.here:
            self.here[machine] = node_id = f"{machine}.{self.new_id()}"
            self.node(node_id, labels={"zone": ZONES[machine]})

    def _leave(self, machine: str) -> None:
        """Take a node out by force; its tasks are orphaned in the same moment."""
        node_id = self.here.pop(machine, "")
        if not node_id:
            return
        row = self.view.node(node_id)
        assert row is not None
        orphaned = TaskStatus(State=TaskState.ORPHANED)
        self.cut.discard(node_id)
        self.write(
            Delete(ref=Ref(Kind.NODE, node_id), version=row.api.Version.Index),
            *(
                Advance(task_id=task.api.ID, status=orphaned)
                for task in self.view.tasks_on(node_id)
                if task.api.Status.State < TaskState.COMPLETE
            ),
        )

    def _silent(self, machine: str) -> None:
        """A node does not answer; nobody has noticed yet."""
        if machine in self.here:
            self.cut.add(self.here[machine])

    def _node(self, machine: str, state: str) -> None:
        """The leader judges a node: down, unknown, or ready again."""
        if machine in self.here:
            node_id = self.here[machine]
            self.cut = self.cut | {node_id} if state == "down" else self.cut - {node_id}
            self.set_node(node_id, state=state)

    def _availability(self, machine: str, availability: str) -> None:
        if machine in self.here:
            self.set_node(self.here[machine], availability=availability)

    def _label(self, machine: str, zone: str) -> None:
        if machine in self.here:
            self.set_node(self.here[machine], labels={"zone": zone})

    # --- tasks, and time ---

    def _end(self, which: int, state: str) -> None:
        """A task ends by itself, as far as it has come."""
        live = [
            task
            for task in self.tasks()
            if TaskState.ASSIGNED <= task.api.Status.State <= TaskState.RUNNING
            and task.api.NodeID not in self.cut
        ]
        if live:
            task = live[which % len(live)]
            early = task.api.Status.State < TaskState.STARTING
            self.end(task, TaskState.REJECTED if early else TaskState(state))

    def _health(self, which: int) -> None:
        """A running task's agent says more of it; that changes nothing for anybody."""
        live = [task for task in self.tasks() if task.api.Status.State is TaskState.RUNNING]
        if live:
            status = replace(live[which % len(live)].api.Status, Message=f"look {self.now}")
            self.write(Advance(task_id=live[which % len(live)].api.ID, status=status))

    def _turns(self) -> None:
        self.turn()

    def _turn(self, name: str) -> None:
        self.turn((name,))

    def _agents(self) -> None:
        self.agents()

    def _sleep(self, seconds: int) -> None:
        self.sleep(seconds * SECOND)

    def _time(self, seconds: int) -> None:
        self.now += seconds * SECOND

    def _lead(self) -> None:
        self.lead()

    # --- the end ---

    def settle_all(self) -> None:
        """Give everybody who answers all the time there is; who does not is taken for lost."""
        self.bad.clear()
        for machine, node_id in self.here.items():
            row = self.view.node(node_id)
            assert row is not None
            if node_id in self.cut:
                self._node(machine, "down")
            elif row.api.Status.State != "ready":
                self._node(machine, "ready")
        for _ in range(12):
            self.sleep(7 * SECOND)
            for task in self.tasks():
                runs = task.api.Status.State is TaskState.RUNNING
                if runs and task.api.JobIteration is not None and task.api.NodeID not in self.cut:
                    self.end(task, TaskState.COMPLETE)
        self.sleep(10 * MINUTE)  # longer than anything waits


def spec_of(name: str, wish: Wish) -> ServiceSpec:
    """Return a wish in the API's words."""
    file = FileTarget(Name="key", UID="0", GID="0", Mode=0o444)
    secret = wish.secret.partition(".")
    secrets = (SecretReference(SecretID=wish.secret, SecretName=secret[0], File=file),)
    port = PortConfig(Protocol="tcp", TargetPort=80, PublishedPort=80, PublishMode="host")
    zone = Placement(Constraints=(f"node.labels.zone == {wish.zone}",))
    template = TaskSpec(
        ContainerSpec=ContainerSpec(Image=wish.image, Secrets=secrets if wish.secret else ()),
        Placement=zone if wish.zone else None,
        RestartPolicy=RestartPolicy(
            Condition=wish.condition, Delay=SECOND, MaxAttempts=wish.attempts
        ),
    )
    rolling = UpdateConfig(
        Parallelism=wish.parallelism,
        Order="start-first" if wish.start_first else "stop-first",
        FailureAction=wish.action,
    )
    back = replace(rolling, FailureAction="pause") if wish.action == "rollback" else rolling
    made = spec(name, ports=(port,) if wish.port else (), mode=mode_of(wish), update=rolling)
    made = replace(made, TaskTemplate=template, RollbackConfig=back)
    return replace(made, UpdateConfig=None, RollbackConfig=None) if wish.is_job else made


def mode_of(wish: Wish) -> ServiceMode:
    if wish.mode == model.GLOBAL:
        return ServiceMode(Global=GlobalService())
    if wish.mode == model.GLOBAL_JOB:
        return ServiceMode(GlobalJob=GlobalJob())
    if wish.mode == model.JOB:
        numbers = ReplicatedJob(MaxConcurrent=wish.at_once, TotalCompletions=wish.count)
        return ServiceMode(ReplicatedJob=numbers)
    return ServiceMode(Replicated=ReplicatedService(Replicas=wish.count))
