"""What people do to the cluster: through any manager, with retries, keeping the answers.

A write carries a request id from its first attempt to its answer, whichever managers it meets on
the way and whatever they lost of it. What a client was told goes to the checkers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from swarmctl.core.errors import NoLeader, NotFound, SwarmError, Unavailable
from swarmctl.core.model.change import (
    Applied,
    AtLeast,
    Create,
    Delete,
    Exists,
    Free,
    Index,
    Kind,
    Ref,
    Transaction,
    Unreferenced,
    Update,
)
from swarmctl.core.model.objects import Secret, SecretRow, SecretSpec, ServiceRow
from swarmctl.core.model.revision import updated
from swarmctl.core.model.service import Service, next_run
from swarmctl.core.model.spec import (
    ContainerSpec,
    EndpointSpec,
    FileTarget,
    GlobalJob,
    GlobalService,
    Placement,
    PortConfig,
    ReplicatedJob,
    ReplicatedService,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    SecretReference,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarmctl.core.model.task import TaskState
from tests.sim.invariants import OVERLAPPING
from tests.sim.noderows import node_row
from tests.sim.queue import MS, S, Scope, Wait

if TYPE_CHECKING:
    from swarmctl.core.model.change import Requirement, Result
    from swarmctl.core.store.view import View
    from tests.sim.cluster import Cluster
    from tests.sim.member import Manager

CALL_S = 1.2
READS = 0.4
TWICE = 0.15
ROLES = 0.25
MANAGERS_MIN = 3
ZONE_A = (0, 3)
"""The places of the nodes that are in the zone some services ask for."""
SERVICES = ("web", "db", "job", "log", "each", "batch", "sweep")
JOBS = ("batch", "sweep")
SECRETS = ("key", "cert")


class Request(NamedTuple):
    """One write: what a client wants, in words that any manager understands."""

    request_id: str
    kind: str
    name: str
    number: int = 0
    text: str = ""


class Front:
    """A manager's API: answers as a leader, else asks the leader."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._cluster = manager.cluster

    async def write(self, request: Request) -> Result:
        manager = self._manager
        if not manager.leads:
            return await self._forward("write", request)
        first = manager.store.answer_of(request.request_id)
        if first is not None:
            self._cluster.counts["retries answered"] += 1
            return first
        transaction = build(request, manager.view, self._cluster, manager.host.now())
        transaction = replace(transaction, request_id=request.request_id)
        self._cluster.checks.built(request.request_id, transaction)
        (result,) = await manager.proposer.propose([transaction])
        return result

    async def read(self, asked_at: int) -> int:
        if not self._manager.leads:
            return await self._forward("read", asked_at)
        view = await self._manager.read()
        return self._cluster.checks.read(asked_at, view)

    async def join(self, argument: tuple[str, int]) -> object:
        term = self._manager.term
        if term is None or term.membership is None:
            return await self._forward("join", argument)
        return await term.membership.join(*argument)

    async def role(self, node_id: str) -> object:
        if not self._manager.leads:
            return await self._forward("role", node_id)
        row = (await self._manager.read()).node(node_id)
        return row.private.role if row is not None else ""

    async def _forward(self, method: str, argument: object) -> object:
        manager, cluster = self._manager, self._cluster
        leader = cluster.member(manager.runner.leader)
        if leader is None or leader is manager:
            raise NoLeader
        cluster.counts["calls forwarded"] += 1
        wait = cluster.ask(manager.host.name, leader.host.name, method, argument)
        return await manager.scope.limit(wait, 0.7 * CALL_S * S, Unavailable("no answer"))


class Client:
    """Somebody who does one thing after another, and asks again until there is an answer."""

    def __init__(self, cluster: Cluster, name: str, scope: Scope) -> None:
        self.name = name
        self._cluster = cluster
        self._scope = scope
        self._number = 0
        scope.start(self._run())

    async def _run(self) -> None:
        rng, cluster = self._cluster.rng, self._cluster
        if self.name == "c0":
            for name in SERVICES:
                request_id, variant = f"first-{name}", str(rng.randrange(100))
                await self.write(Request(request_id, "create", name, rng.randrange(2, 5), variant))
        while True:
            await self._scope.sleep(rng.expovariate(1 / (cluster.options.client_gap_ms * MS)))
            if not cluster.open_for_clients:
                return
            if rng.random() < READS:
                await self.read()
            else:
                self._number += 1
                request_id = f"{self.name}-{self._number}"
                if cluster.options.membership == "roles" and rng.random() < ROLES:
                    wish = rng.choice(["manager", "worker"])
                    await self.write(Request(request_id, "role", "", rng.randrange(10), wish))
                else:
                    await self.write(some_request(rng, request_id))

    async def write(self, request: Request) -> Result | None:
        """Have a request answered; None when it turned out to be impossible."""
        cluster = self._cluster
        cluster.pending_requests += 1
        tries = 0
        while True:
            tries += 1
            try:
                result = await self._call("write", request)
            except NotFound:
                cluster.counts["writes refused"] += 1
                break
            except SwarmError:
                if tries == 1:
                    cluster.counts["writes retried"] += 1
                await self._scope.sleep(cluster.rng.random() * 400 * MS)
                continue
            cluster.checks.acknowledged(request.request_id, result)
            good = isinstance(result, Applied)
            cluster.counts["writes applied" if good else "writes in conflict"] += 1
            cluster.pending_requests -= 1
            return result
        cluster.pending_requests -= 1
        return None

    async def read(self) -> None:
        """Read through some manager; a read that finds no leader is given up."""
        asked_at = self._cluster.checks.known_index
        try:
            await self._call("read", asked_at)
        except SwarmError:
            return
        self._cluster.counts["reads"] += 1

    async def _call(self, method: str, argument: object) -> Result:
        cluster = self._cluster
        managers = [host for host in cluster.hosts.values() if host.manager is not None]
        if not managers:
            raise Unavailable("nobody is there")
        target = cluster.rng.choice(managers)
        if method == "write" and cluster.rng.random() < TWICE:
            other = cluster.rng.choice(managers)  # as a proxy does that took the first for lost
            cluster.ask(self.name, other.name, method, argument)
        wait: Wait[Result] = cluster.ask(self.name, target.name, method, argument)
        return await self._scope.limit(wait, CALL_S * S, Unavailable("no answer"))


# --- requests ------------------------------------------------------------------------------------


def some_request(rng: random.Random, request_id: str) -> Request:  # type: ignore[name-defined] # noqa: F821
    """Draw one."""
    roll = rng.random()
    name = rng.choice(SERVICES)
    if roll < 0.15:
        return Request(request_id, "create", name, rng.randrange(1, 5), str(rng.randrange(100)))
    if roll < 0.55:
        return Request(request_id, "scale", name, rng.randrange(5))
    if roll < 0.73:
        return Request(request_id, "update", name, rng.randrange(100))
    if roll < 0.78:
        return Request(request_id, "remove", name)
    if roll < 0.82:
        return Request(request_id, "node", "", rng.randrange(10), rng.choice(AVAILABILITIES))
    if roll < 0.93:
        return Request(request_id, "label", "", rng.choice(ZONE_A), rng.choice(["a", "b"]))
    if roll < 0.97:
        return Request(request_id, "secret", rng.choice(SECRETS))
    return Request(request_id, "secret rm", rng.choice(SECRETS))


AVAILABILITIES = ("drain", "pause", "active", "active")


def build(request: Request, view: View, cluster: Cluster, now: int) -> Transaction:
    """Return what the API proposes for a request as the tables stand.

    Args:
        now: the manager's wall time, in nanoseconds.

    Raises:
        NotFound: it speaks of something that is not there.
    """
    if request.kind == "create":
        return _creation(request, view, cluster.new_id(), now)
    if request.kind == "join":
        return Transaction(changes=(Create(row=node_row(request.name, 0)),))
    if request.kind in ("node", "label", "role"):
        return _node(request, view)
    if request.kind == "secret":
        secret = Secret(ID=cluster.new_id(), Spec=SecretSpec(Name=request.name))
        return Transaction(changes=(Create(row=SecretRow(api=secret)),))
    if request.kind == "secret rm":
        row = view.by_name(Kind.SECRET, request.name)
        if row is None:
            raise NotFound(f"secret {request.name}")
        ref = Ref(Kind.SECRET, row.api.ID)
        return Transaction(
            changes=(Delete(ref=ref, version=row.api.Version.Index),),  # type: ignore[union-attr]
            requires=(Unreferenced(ref=ref),),
        )
    found = view.by_name(Kind.SERVICE, request.name)
    if not isinstance(found, ServiceRow):
        raise NotFound(f"service {request.name}")
    if request.kind == "remove":
        ref = Ref(Kind.SERVICE, found.api.ID)
        return Transaction(changes=(Delete(ref=ref, version=found.api.Version.Index),))
    spec = found.api.Spec
    if request.kind == "scale":
        spec = replace(spec, Mode=_mode(request.name, request.number))
    elif request.kind != "resume":
        mode = spec.Mode
        spec = replace(service_spec(request.name, 0, request.number, view), Mode=mode)
    row = updated(found, spec, now, registry_auth="")
    return Transaction(changes=(Update(row=row),), requires=_needs(spec, found))


def _creation(request: Request, view: View, service_id: str, now: int) -> Transaction:
    spec = service_spec(request.name, request.number, int(request.text), view)
    run = next_run(spec, None, now)
    row = ServiceRow(api=Service(ID=service_id, Spec=spec, JobStatus=run))
    return Transaction(changes=(Create(row=row),), requires=_needs(spec, row))


def _needs(spec: ServiceSpec, row: ServiceRow) -> tuple[Requirement, ...]:
    container = spec.TaskTemplate.ContainerSpec
    needs: list[Requirement] = [
        Exists(ref=Ref(Kind.SECRET, use.SecretID))
        for use in (container.Secrets if container else ())
    ]
    for port in spec.EndpointSpec.Ports if spec.EndpointSpec is not None else ():
        if port.PublishedPort and port.PublishMode == "ingress":
            key = f"{port.Protocol}/{port.PublishedPort}"
            needs.append(Free(index=Index.INGRESS_PORT, key=key, holder=row.api.ID))
    return tuple(needs)


def _node(request: Request, view: View) -> Transaction:
    nodes = sorted(view.nodes(), key=lambda row: row.api.ID)
    if request.kind == "label" and request.text == "b":
        bound = [
            task.api.NodeID for task in view.tasks_at(TaskState.RUNNING) if task.api.Spec.Placement
        ]
        nodes = [row for row in nodes if row.api.ID in bound] or nodes  # it hurts somebody there
    row = nodes[request.number % len(nodes)]
    requires: tuple[Requirement, ...] = ()
    if request.kind == "node":
        spec = replace(row.api.Spec, Availability=request.text)
    elif request.kind == "role":
        spec = replace(row.api.Spec, Role=request.text)
        requires = (AtLeast(index=Index.WISH, key="manager", count=MANAGERS_MIN),)
    else:
        spec = replace(row.api.Spec, Labels={"zone": request.text})
    change = Update(row=replace(row, api=replace(row.api, Spec=spec)))
    return Transaction(changes=(change,), requires=requires)


def service_spec(name: str, replicas: int, variant: int, view: View) -> ServiceSpec:
    """Return what a service asks for: each name is of another sort, ``variant`` varies it."""
    secret = view.by_name(Kind.SECRET, SECRETS[variant % 2]) if name == "db" else None
    uses = ()
    if secret is not None:
        target = FileTarget(Name="s", UID="0", GID="0", Mode=0o444)
        uses = (SecretReference(SecretID=secret.api.ID, SecretName="s", File=target),)
    template = TaskSpec(
        ContainerSpec=ContainerSpec(Image=f"{name}:{variant % 5}", Secrets=uses),
        RestartPolicy=_policy(name, variant),
        Resources=_resources(name),
        Placement=_placement(name, variant),
    )
    return ServiceSpec(
        Name=name,
        TaskTemplate=template,
        Mode=_mode(name, replicas),
        UpdateConfig=_rolling(name, variant) if name not in JOBS else None,
        EndpointSpec=EndpointSpec(Ports=_ports(name, variant)),
    )


def _rolling(name: str, variant: int) -> UpdateConfig:
    start_first = name in OVERLAPPING and variant % 4 < 2
    return UpdateConfig(
        Parallelism=variant % 3,
        Delay=(variant % 2) * 200 * MS,
        Monitor=500 * MS,
        Order="start-first" if start_first else "stop-first",
        FailureAction=("pause", "continue", "rollback")[variant % 5 % 3],
        MaxFailureRatio=(variant % 2) * 0.5,
    )


def _mode(name: str, number: int) -> ServiceMode:
    if name == "each":
        return ServiceMode(Global=GlobalService())
    if name == "sweep":
        return ServiceMode(GlobalJob=GlobalJob())
    if name == "batch":
        numbers = ReplicatedJob(MaxConcurrent=1 + number % 3, TotalCompletions=2 * number)
        return ServiceMode(ReplicatedJob=numbers)
    return ServiceMode(Replicated=ReplicatedService(Replicas=number))


def _policy(name: str, variant: int) -> RestartPolicy:
    if name == "job":
        return RestartPolicy(
            Condition="on-failure", Delay=200 * MS, MaxAttempts=2 + variant % 2, Window=5 * S
        )
    return RestartPolicy(Condition="any", Delay=(variant % 3) * 400 * MS)


def _resources(name: str) -> ResourceRequirements | None:
    if name != "web":
        return None
    return ResourceRequirements(Reservations=Resources(NanoCPUs=10**9))


def _placement(name: str, variant: int) -> Placement | None:
    if name == "log" and variant % 2:
        return Placement(Constraints=("node.labels.zone == a",))
    return None


def _ports(name: str, variant: int) -> tuple[PortConfig, ...]:
    if name == "web":
        number = 8080 + variant % 2 if variant % 3 else 0
        return (
            PortConfig(Protocol="tcp", TargetPort=80, PublishedPort=number, PublishMode="ingress"),
        )
    if name == "db":
        return (
            PortConfig(Protocol="tcp", TargetPort=5432, PublishedPort=5432, PublishMode="host"),
        )
    if name == "log":
        number = 8080 if variant % 3 == 1 else 0
        return (
            PortConfig(Protocol="tcp", TargetPort=514, PublishedPort=number, PublishMode="ingress"),
        )
    return ()
