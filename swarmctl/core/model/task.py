"""Tasks: one attempt to run a service's spec in one slot on one node.

Who writes what (one field, one writer):

| field | writer |
|---|---|
| everything at creation | orchestrator |
| NetworksAttachments, Status up to PENDING | allocator |
| NodeID unless made for a node, Status ASSIGNED, Status.Err while PENDING | scheduler |
| move_to, move_at | the scheduler's rebalancing |
| Status beyond ASSIGNED | the node's agent, by Advance; the dispatcher for lost nodes |
| DesiredState | orchestrator (forward only) |

States only move forward, so reports merge without conflict (swarmkit: a Lamport clock).
"""

from __future__ import annotations

from enum import Enum

import msgspec

from .base import MINUTE, NEVER, ApiStruct, Driver, PrivateStruct, Time, Version, printed
from .spec import EndpointSpec, GenericResource, PortConfig, TaskSpec

MOVE_OFFER_NS = MINUTE
"""How long a move that the rebalancer asks for (``move_to``) may be begun."""


class TaskState(Enum):
    """Observed and desired states, ordered by swarmkit's numbers, written down by their names.

    ``TaskState.RUNNING.value`` is ``"running"``, as the API shows it and the log keeps it; ``<``
    and ``int(state)`` go by the number. (No IntEnum: msgspec would print the number everywhere.)
    """

    number: int
    _value_: str

    def __new__(cls, number: int, name: str) -> TaskState:  # noqa: PYI034 - no Self on 3.10
        state = object.__new__(cls)
        state._value_ = name
        state.number = number
        return state

    def __lt__(self, other: TaskState) -> bool:
        return self.number < other.number

    def __le__(self, other: TaskState) -> bool:
        return self.number <= other.number

    def __gt__(self, other: TaskState) -> bool:
        return self.number > other.number

    def __ge__(self, other: TaskState) -> bool:
        return self.number >= other.number

    def __int__(self) -> int:
        return self.number

    NEW = (0, "new")
    PENDING = (64, "pending")
    ASSIGNED = (192, "assigned")
    ACCEPTED = (256, "accepted")
    PREPARING = (320, "preparing")
    READY = (384, "ready")
    STARTING = (448, "starting")
    RUNNING = (512, "running")
    COMPLETE = (576, "complete")
    SHUTDOWN = (640, "shutdown")
    FAILED = (704, "failed")
    REJECTED = (768, "rejected")
    REMOVE = (800, "remove")
    ORPHANED = (832, "orphaned")


STATE_NAMES: dict[TaskState, str] = {state: state.value for state in TaskState}
STATES_BY_NAME: dict[str, TaskState] = {name: state for state, name in STATE_NAMES.items()}


class ContainerStatus(ApiStruct, frozen=True, kw_only=True):
    """The container (or process) behind a task, once there is one."""

    ContainerID: str = printed("")
    PID: int = printed(0)
    ExitCode: int = printed(0)


class PortStatus(ApiStruct, frozen=True, kw_only=True):
    """Host-mode ports as the node really bound them."""

    Ports: tuple[PortConfig, ...] = ()


class TaskStatus(ApiStruct, frozen=True, kw_only=True):
    """What is known of a task's state, and since when."""

    Timestamp: Time = printed(NEVER)
    State: TaskState = printed(TaskState.NEW)
    Message: str = ""
    Err: str = ""
    ContainerStatus: ContainerStatus | None = None
    PortStatus: PortStatus = msgspec.field(default_factory=lambda: PortStatus())


class SubnetOptions(ApiStruct, frozen=True, kw_only=True):
    """One subnet of an attached network."""

    Subnet: str = ""
    Range: str = ""
    Gateway: str = ""


class IPAMOptions(ApiStruct, frozen=True, kw_only=True):
    """Address management of an attached network."""

    Driver: Driver | None = None
    Configs: tuple[SubnetOptions, ...] = ()


class AttachedNetworkSpec(ApiStruct, frozen=True, kw_only=True):
    """What was asked of an attached network."""

    Name: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    DriverConfiguration: Driver | None = None
    IPv6Enabled: bool = False
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    IPAMOptions: IPAMOptions | None = None
    Scope: str = ""


class AttachedNetwork(ApiStruct, frozen=True, kw_only=True):
    """The copy of a network that a task carries (docker-api.md section 3.5)."""

    ID: str = ""
    Version: Version = msgspec.field(default_factory=lambda: Version())
    CreatedAt: Time = printed(NEVER)
    UpdatedAt: Time = printed(NEVER)
    Spec: AttachedNetworkSpec = msgspec.field(default_factory=lambda: AttachedNetworkSpec())
    DriverState: Driver | None = None
    IPAMOptions: IPAMOptions | None = None


class NetworkAttachment(ApiStruct, frozen=True, kw_only=True):
    """A task's place on one network: a copy of the network and the addresses in CIDR form."""

    Network: AttachedNetwork = msgspec.field(default_factory=lambda: AttachedNetwork())
    Addresses: tuple[str, ...] = ()


Iteration = Version  # a field may not be annotated with the name of its neighbour


class Task(ApiStruct, frozen=True, kw_only=True):
    """A task as the API shows it."""

    ID: str = ""
    Version: Version = msgspec.field(default_factory=lambda: Version())
    CreatedAt: Time = printed(NEVER)
    UpdatedAt: Time = printed(NEVER)
    Name: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    Spec: TaskSpec = msgspec.field(default_factory=lambda: TaskSpec())
    ServiceID: str = ""
    Slot: int = 0
    NodeID: str = ""
    Status: TaskStatus = msgspec.field(default_factory=lambda: TaskStatus())
    DesiredState: TaskState = printed(TaskState.NEW)
    NetworksAttachments: tuple[NetworkAttachment, ...] = ()
    GenericResources: tuple[GenericResource, ...] = ()
    JobIteration: Iteration | None = None
    Volumes: tuple[str, ...] | None = printed(None)


class TaskFailure(PrivateStruct, frozen=True, kw_only=True):
    """That a task ended badly: on which node, and when in nanoseconds."""

    node_id: str
    at: int


class TaskPrivate(PrivateStruct, frozen=True, kw_only=True):
    """What a task's row holds beyond the API.

    Attributes:
        spec_version: the service's ``spec_index`` this task was made from.
        service_name, service_labels: kept, so names and filters work after the service is gone.
        endpoint: the endpoint spec the task was made with; part of what makes it dirty.
        registry_auth: credentials for pulling the image; secret.
        by_node: it was made for its node, as tasks of global services are; else it has a slot, and
            a job's first slot is 0.
        replaces: the task that has to stop before this one starts, else "".
        owed: it is to stand in for a replica that an update replaces, or that failed: no update
            takes another in its stead until it runs.
        relieves: the task of the same slot that goes on until this one runs, else "". The slot has
            two runnable tasks meanwhile (start-first).
        tries: of one that relieves another, how many before it did not come to run.
        stop_first: why the task before it had to stop first although start-first was asked for;
            told with its status.
        move_to, move_at: the node where the rebalancer wants the task's successor to start first,
            and when it said so, in nanoseconds; the scheduler package writes them.
        start_delay_ns: how long after creation this task may leave READY.
        delay_from: counts the delay from here instead of from creation, once a leader found the
            creation in its own future; 0: from creation.
        applied_at: when the leader took the last status, in nanoseconds.
        started_at: when the leader first took RUNNING, in nanoseconds; 0: never.
        failures: how the slot's earlier tasks of this spec version ended badly, oldest first. They
            are handed on from task to task, so they outlast the history that is kept.
        log_driver: the cluster's default at creation, used when the spec names none.
        spec_index: log index at which the user's part last changed.
    """

    spec_version: int = 0
    service_name: str = ""
    service_labels: dict[str, str] = msgspec.field(default_factory=dict)
    endpoint: EndpointSpec | None = None
    registry_auth: str = ""
    by_node: bool = False
    replaces: str = ""
    owed: bool = False
    relieves: str = ""
    tries: int = 0
    stop_first: str = ""
    move_to: str = ""
    move_at: int = 0
    start_delay_ns: int = 0
    delay_from: int = 0
    applied_at: int = 0
    started_at: int = 0
    failures: tuple[TaskFailure, ...] = ()
    log_driver: Driver | None = None
    spec_index: int = 0


class SecretFile(PrivateStruct, frozen=True, kw_only=True):
    """Secret or config data for one task, resolved: where it goes and what it holds."""

    id: str
    target: str
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444
    data: bytes = b""


class HostNetwork(PrivateStruct, frozen=True, kw_only=True):
    """What a node needs of a network that it takes part in.

    Attributes:
        vni: the network's number on the wire.
        subnets: one of each family.
        gateways: this node's own address in each subnet, CIDR form; its bridge has them.
        internal: nothing beyond the network is reached from it.
        attachable: users put containers of their own on it, and it is there also without tasks.
        room: addresses for those on this node, a subnet of each family; none when there is none.
    """

    id: str
    name: str
    vni: int = 0
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    internal: bool = False
    ingress: bool = False
    attachable: bool = False
    room: tuple[str, ...] = ()
    options: dict[str, str] = msgspec.field(default_factory=dict)


class TaskAssignment(PrivateStruct, frozen=True, kw_only=True):
    """Everything an executor needs to run one task. Templates in the spec are expanded already.

    Attributes:
        task: the task; ``task.Spec.ContainerSpec`` is what runs.
        service_name, service_labels: of the service it belongs to.
        registry_auth: value for ``X-Registry-Auth``, else ""; secret, never written to disk.
        secrets, configs: files to show inside the task; secret, kept in memory only.
        ports: the service's published ports as allocated; an executor binds the host-mode ones.
        networks: those that the task joins, by what this node has in them; ``NetworksAttachments``
            has the task's own addresses. Empty for a task that is adopted.
        names: at this node's gateways somebody answers what is asked about names.
        cluster_id: whose task it is.
        by_node: it was made for its node and has no slot.
    """

    task: Task
    service_name: str = ""
    service_labels: dict[str, str] = msgspec.field(default_factory=dict)
    registry_auth: str = ""
    secrets: tuple[SecretFile, ...] = ()
    configs: tuple[SecretFile, ...] = ()
    ports: tuple[PortConfig, ...] = ()
    networks: tuple[HostNetwork, ...] = ()
    names: bool = True
    log_driver: Driver | None = None
    cluster_id: str = ""
    by_node: bool = False

    @property
    def name(self) -> str:
        """The task's display name, also its container's: service, slot or node, task id."""
        return task_name(self.service_name, self.task, by_node=self.by_node)


def place_of(task: Task, *, by_node: bool) -> str:
    """Return where in its service a task stands: its slot's number, or its node's id.

    The slots of a job begin with 0, so the number alone does not tell (swarmkit has a node's id in
    the place of a job's first slot).
    """
    return task.NodeID if by_node else str(task.Slot)


def task_name(service_name: str, task: Task, *, by_node: bool) -> str:
    """Return ``<service>.<slot or node id>.<task id>``.  # swarmkit api/naming"""
    return task.Name or f"{service_name}.{place_of(task, by_node=by_node)}.{task.ID}"
