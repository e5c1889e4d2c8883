"""What an agent and the leader's dispatcher say to each other on their one stream.

The agent opens the stream with :class:`Register`; the dispatcher answers :class:`Welcome` and then
one complete :class:`Assignments`, later incremental ones. Everything after that flows both ways
until either side closes. A lost stream loses nothing: the agent registers again, gets a complete
set, and reports every status it holds anew.
"""

from __future__ import annotations

from typing import Union, cast

import msgspec

from .base import Driver, PrivateStruct
from .codec import unpack
from .endpoints import EndpointChanges
from .objects import NodeDescription
from .spec import PortConfig
from .task import HostNetwork, Task, TaskStatus

SESSION_METHOD = "session"


class ManagerPeer(PrivateStruct, frozen=True, kw_only=True):
    """A manager that an agent may dial."""

    node_id: str
    addr: str


# --- from the agent ------------------------------------------------------------------------------


class Carriage(PrivateStruct, frozen=True, kw_only=True):
    """What a node has to carry traffic with.

    Attributes:
        driver: name of its network driver, "" while none works there.
        host_network: its tasks have the node's own network.
        data_path_addr: where other nodes reach it below the overlays; "" for where it is seen.
    """

    driver: str = ""
    host_network: bool = False
    data_path_addr: str = ""


class Register(PrivateStruct, frozen=True, kw_only=True, tag="register"):
    """The first message: who is here, with what.

    Attributes:
        description: what this node offers.
        can_run: False while the executor's engine does not answer.
        instance: random id of this process; a second process with the same certificate shows.
        advertise_addr: where the node says it is; empty for "where I dial from".
        warning: a sentence for ``Status.Message``, such as why it cannot run tasks.
        carriage: what it has to carry traffic with.
    """

    description: NodeDescription
    can_run: bool = True
    instance: str = ""
    advertise_addr: str = ""
    warning: str = ""
    carriage: Carriage = msgspec.field(default_factory=lambda: Carriage())


class Heartbeat(PrivateStruct, frozen=True, kw_only=True, tag="heartbeat"):
    """Still here."""


class TaskReport(PrivateStruct, frozen=True, kw_only=True):
    """The newest status of one task."""

    task_id: str
    status: TaskStatus


class Report(PrivateStruct, frozen=True, kw_only=True, tag="report"):
    """Statuses that changed. Counts as a heartbeat. Answered by :class:`ReportTaken`."""

    number: int
    tasks: tuple[TaskReport, ...]


class Describe(PrivateStruct, frozen=True, kw_only=True, tag="describe"):
    """The node's description changed."""

    description: NodeDescription
    can_run: bool = True
    warning: str = ""
    carriage: Carriage = msgspec.field(default_factory=lambda: Carriage())


class EndpointsKnown(PrivateStruct, frozen=True, kw_only=True, tag="endpoints-known"):
    """This node's kernel agrees with this version of the endpoint table."""

    version: int


class TaskSample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one task uses: rates over the last few seconds, and what it holds now.

    None is what its executor cannot tell. ``cpu`` in cores, ``mem`` in bytes, ``net_*`` in bytes a
    second, ``psi_*`` the share of the time that something in it waited.
    """

    task_id: str
    cpu: float | None = None
    mem: float | None = None
    pids: float | None = None
    net_rx: float | None = None
    net_tx: float | None = None
    psi_cpu: float | None = None
    psi_mem: float | None = None
    psi_io: float | None = None


class Samples(PrivateStruct, frozen=True, kw_only=True, tag="samples"):
    """What this node's tasks use. A lost one is followed by the next.

    Attributes:
        age_ns: how long ago that was; clocks of nodes need not agree.
        no_psi: why this node cannot tell pressure, or "".
    """

    rows: tuple[TaskSample, ...]
    age_ns: int = 0
    no_psi: str = ""


class Farewell(PrivateStruct, frozen=True, kw_only=True, tag="farewell"):
    """This daemon ends on purpose.

    Attributes:
        back_within_ns: it is only restarting; silence is expected for this long. 0: it stops.
    """

    back_within_ns: int = 0


FromAgent = Union[  # noqa: UP007 - read at run time
    Register, Heartbeat, Report, Describe, EndpointsKnown, Samples, Farewell
]


# --- from the dispatcher -------------------------------------------------------------------------


class NodeNews(PrivateStruct, frozen=True, kw_only=True):
    """What a node has to know beyond its tasks.

    Attributes:
        heartbeat_ns: how often to send something.
        managers: all of them, so the agent can find the next leader.
        root_ca: the trusted root certificates in PEM.
        role: the role its certificate should have.
        renew: ask for a new certificate now, whatever its age.
        renew_asked: when that was asked last, so that asking again is news.
    """

    heartbeat_ns: int
    managers: tuple[ManagerPeer, ...] = ()
    root_ca: str = ""
    role: str = "worker"
    renew: bool = False
    renew_asked: int = 0


class Welcome(PrivateStruct, frozen=True, kw_only=True, tag="welcome"):
    """Registered."""

    cluster_id: str
    node_id: str
    session_id: str
    news: NodeNews


class News(PrivateStruct, frozen=True, kw_only=True, tag="news"):
    """Something in :class:`NodeNews` changed."""

    news: NodeNews


class AssignedTask(PrivateStruct, frozen=True, kw_only=True):
    """A task for this node, with what only the node may see.

    ``ports`` are the service's as allocated; the node binds those in host mode. ``by_node``: it was
    made for this node and has no slot.
    """

    task: Task
    service_name: str = ""
    service_labels: dict[str, str] = msgspec.field(default_factory=dict)
    registry_auth: str = ""
    log_driver: Driver | None = None
    ports: tuple[PortConfig, ...] = ()
    by_node: bool = False


class Dependency(PrivateStruct, frozen=True, kw_only=True):
    """A secret's or config's data; goes to the nodes that run a task using it, and no others."""

    id: str
    data: bytes
    templating: str = ""


class Assignments(PrivateStruct, frozen=True, kw_only=True, tag="assignments"):
    """What this node shall hold.

    Attributes:
        number: counts up from 1 in a session; a gap means messages were lost.
        more: the next message goes on with this one; they count as one, which begins here.
        complete: what is not listed is gone. Else only what is listed changes.
        put: tasks to take on, or whose desired state or spec changed.
        removed: tasks to stop, remove and forget.
        secrets, configs: data that tasks in ``put`` need and this node was not sent yet.
        networks: what this node has in the networks of tasks in ``put``, new or changed.
        dropped: ids of secrets, configs and networks that no task of this node uses any more.
    """

    number: int
    more: bool = False
    complete: bool = False
    put: tuple[AssignedTask, ...] = ()
    removed: tuple[str, ...] = ()
    secrets: tuple[Dependency, ...] = ()
    configs: tuple[Dependency, ...] = ()
    networks: tuple[HostNetwork, ...] = ()
    dropped: tuple[str, ...] = ()


class ReportTaken(PrivateStruct, frozen=True, kw_only=True, tag="report-taken"):
    """The statuses of that report are in the log."""

    number: int


FromDispatcher = Union[  # noqa: UP007 - read at run time
    Welcome, News, Assignments, EndpointChanges, ReportTaken
]


def decode_from_agent(data: bytes) -> FromAgent:
    """Decode what an agent sent.

    Raises:
        Undecodable: it is no message of this protocol.
    """
    return cast("FromAgent", unpack(data, FromAgent))  # type: ignore[arg-type] # a union


def decode_from_dispatcher(data: bytes) -> FromDispatcher:
    """Decode what a dispatcher sent.

    Raises:
        Undecodable: it is no message of this protocol.
    """
    return cast("FromDispatcher", unpack(data, FromDispatcher))  # type: ignore[arg-type] # a union
