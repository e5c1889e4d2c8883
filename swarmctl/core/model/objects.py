"""The cluster's objects as the API shows them, their private halves, and the store's rows.

A row is an API object beside what the API must never show; ``api/present.py`` sees only ``.api``.
"""

from __future__ import annotations

from typing import Union

import msgspec

from .base import (
    NEVER,
    U32,
    U64,
    ApiStruct,
    Driver,
    Platform,
    PrivateStruct,
    Time,
    Version,
    printed,
)
from .cluster import ClusterInfo, ClusterPrivate, TLSInfo
from .service import Service, ServicePrivate
from .spec import Resources
from .task import Task, TaskPrivate, place_of, task_name

# --- node ----------------------------------------------------------------------------------------


class NodeSpec(ApiStruct, frozen=True, kw_only=True):
    """What an administrator wants of a node."""

    Name: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    Role: str = printed("worker")
    Availability: str = printed("active")


class PluginDescription(ApiStruct, frozen=True, kw_only=True):
    """An engine plugin found on a node."""

    Type: str = ""
    Name: str = ""


class EngineDescription(ApiStruct, frozen=True, kw_only=True):
    """The engine under an executor. ``Labels`` carries ``swarmctl.executor``, its kind."""

    EngineVersion: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=dict)
    Plugins: tuple[PluginDescription, ...] = ()


class NodeDescription(ApiStruct, frozen=True, kw_only=True):
    """What a node says of itself."""

    Hostname: str = ""
    Platform: Platform = msgspec.field(default_factory=lambda: Platform())
    Resources: Resources = msgspec.field(default_factory=lambda: Resources())
    Engine: EngineDescription = msgspec.field(default_factory=lambda: EngineDescription())
    TLSInfo: TLSInfo = msgspec.field(default_factory=lambda: TLSInfo())


class NodeStatus(ApiStruct, frozen=True, kw_only=True):
    """Whether a node answers: ``unknown``, ``down``, ``ready`` or ``disconnected``."""

    State: str = ""
    Message: str = ""
    Addr: str = ""


class ManagerStatus(ApiStruct, frozen=True, kw_only=True):
    """A manager's standing in the consensus group; filled on reads, never stored."""

    Leader: bool = False
    Reachability: str = ""
    Addr: str = ""


class Node(ApiStruct, frozen=True, kw_only=True):
    """A node as the API shows it."""

    ID: str = ""
    Version: Version = msgspec.field(default_factory=lambda: Version())
    CreatedAt: Time = printed(NEVER)
    UpdatedAt: Time = printed(NEVER)
    Spec: NodeSpec = msgspec.field(default_factory=lambda: NodeSpec())
    Description: NodeDescription = msgspec.field(default_factory=lambda: NodeDescription())
    Status: NodeStatus = msgspec.field(default_factory=lambda: NodeStatus())
    ManagerStatus: ManagerStatus | None = None


class NodePrivate(PrivateStruct, frozen=True, kw_only=True):
    """What a node's row holds beyond the API.

    Attributes:
        role: the role its certificates are issued for; follows ``Spec.Role``.
        raft_id: its number among the managers, 0 for a worker.
        manager_addr: where it listens as a manager, "" for a worker.
        public_key: sha256 fingerprint of its newest certificate's key, in hex.
        previous_key: the same of the key it proved to hold when it asked for that certificate; its
            only one, should the answer have been lost.
        renew_issuer, renew_asked: which CA it was last asked to have a certificate of (a name made
            by ``ca/rotation.py``), and when, nanoseconds.
        status_since: when ``Status.State`` last changed, nanoseconds as the leader stamped it.
        grace_until: until when silence is expected (a restart it announced), nanoseconds.
        can_run: False while its executor's engine does not answer.
        network_driver: what carries traffic there, "" while nothing does.
        host_network: its tasks have its own network instead of places on the swarm's.
        data_path_addr: where other nodes reach it below the overlays; "" for ``Status.Addr``.
        spec_index: log index at which the spec last changed.
        format_level: of a manager's release (model/change.py), as it said when it came.
        reachable: of a manager: the leader hears from it, as it last noted.
    """

    role: str = "worker"
    raft_id: int = 0
    manager_addr: str = ""
    public_key: str = ""
    previous_key: str = ""
    renew_issuer: str = ""
    renew_asked: int = 0
    status_since: int = 0
    grace_until: int = 0
    can_run: bool = True
    network_driver: str = ""
    host_network: bool = False
    data_path_addr: str = ""
    spec_index: int = 0
    format_level: int = 1
    reachable: bool = True


# --- secret, config, network ---------------------------------------------------------------------


class SecretSpec(ApiStruct, frozen=True, kw_only=True):
    """A secret as the user names it. ``Data`` is read from a request and never kept here."""

    Name: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    Data: bytes = b""
    Driver: Driver | None = None
    Templating: SpecDriver | None = None


SpecDriver = Driver  # a field may not be annotated with the name of its neighbour


class Secret(ApiStruct, frozen=True, kw_only=True):
    """A secret as the API shows it: one version of what goes by its name.

    Attributes:
        Revision: counts the versions that ever went by the name; the highest is what it means.
            Ours, Docker's clients skip it; Docker's one version is the first, and not printed.
        Newest: id of the version that the name means, where that is another one; computed for
            answers, never stored.
    """

    ID: str = ""
    Version: Version = msgspec.field(default_factory=lambda: Version())
    CreatedAt: Time = printed(NEVER)
    UpdatedAt: Time = printed(NEVER)
    Spec: SecretSpec = msgspec.field(default_factory=lambda: SecretSpec())
    Revision: U32 = 1
    Newest: str = ""


class SecretPrivate(PrivateStruct, frozen=True, kw_only=True):
    """The secret itself."""

    data: bytes = b""
    spec_index: int = 0


class ConfigSpec(ApiStruct, frozen=True, kw_only=True):
    """A config; its data is shown, but kept out of files all the same."""

    Name: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    Data: bytes = b""
    Templating: Driver | None = None


class Config(ApiStruct, frozen=True, kw_only=True):
    """A config as the API shows it; ``Revision`` and ``Newest`` are as a secret's."""

    ID: str = ""
    Version: Version = msgspec.field(default_factory=lambda: Version())
    CreatedAt: Time = printed(NEVER)
    UpdatedAt: Time = printed(NEVER)
    Spec: ConfigSpec = msgspec.field(default_factory=lambda: ConfigSpec())
    Revision: U32 = 1
    Newest: str = ""


class ConfigPrivate(PrivateStruct, frozen=True, kw_only=True):
    """A config has nothing to hide but bookkeeping."""

    spec_index: int = 0


class IPAMConfig(ApiStruct, frozen=True, kw_only=True):
    """One subnet of a network."""

    Subnet: str = ""
    IPRange: str = ""
    Gateway: str = ""
    AuxiliaryAddresses: dict[str, str] = msgspec.field(default_factory=dict)


class IPAM(ApiStruct, frozen=True, kw_only=True):
    """Address management of a network."""

    Driver: str = printed("")
    Options: dict[str, str] | None = printed(None)
    Config: tuple[IPAMConfig, ...] | None = printed(None)


class ConfigFrom(ApiStruct, frozen=True, kw_only=True):
    """Another network whose settings are taken."""

    Network: str = printed("")


class NetworkSpec(ApiStruct, frozen=True, kw_only=True):
    """``POST /networks/create``: what the user asks for."""

    Name: str = ""
    Driver: str = ""
    Scope: str = ""
    EnableIPv4: bool | None = None
    EnableIPv6: bool | None = None
    IPAM: IPAM | None = None
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    ConfigFrom: ConfigFrom | None = None
    Options: dict[str, str] = msgspec.field(default_factory=dict)
    Labels: dict[str, str] = msgspec.field(default_factory=dict)
    CheckDuplicate: bool = False


class SubnetUse(ApiStruct, frozen=True, kw_only=True):
    """How many addresses of a subnet are in use, and how many are left to give."""

    IPsInUse: U64 = printed(0)
    DynamicIPsAvailable: U64 = printed(0)


class IPAMStatus(ApiStruct, frozen=True, kw_only=True):
    """The use of a network's subnets, by subnet."""

    Subnets: dict[str, SubnetUse] = msgspec.field(default_factory=lambda: dict[str, SubnetUse]())


class NetworkStatus(ApiStruct, frozen=True, kw_only=True):
    """A network's use, in the words of Engine API 1.52.

    Attributes:
        IPAM: computed on reads, never stored.
        Err: why it, or a node that needs it, got no addresses; ours, Docker's clients skip it.
    """

    IPAM: IPAMStatus = msgspec.field(default_factory=lambda: IPAMStatus())
    Err: str = ""


class NetworkTask(ApiStruct, frozen=True, kw_only=True):
    """A task that runs in a network; ``Info`` tells its host's address."""

    Name: str = printed("")
    EndpointID: str = printed("")
    EndpointIP: str = printed("")
    Info: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())


class NetworkService(ApiStruct, frozen=True, kw_only=True):
    """A service in a network, with its tasks that run.

    Attributes:
        LocalLBIndex: of Docker's load balancer; always 0.
    """

    VIP: str = printed("")
    Ports: tuple[str, ...] = printed(())
    LocalLBIndex: int = printed(0)
    Tasks: tuple[NetworkTask, ...] = printed(())


class Network(ApiStruct, frozen=True, kw_only=True):
    """A network as the API shows it (docker-api.md section 3.9).

    Attributes:
        Services: who is in it, by name; shown to those who ask for all.
    """

    Name: str = printed("")
    Id: str = printed("")
    Created: Time = printed(NEVER)
    Scope: str = printed("swarm")
    Driver: str = printed("")
    EnableIPv4: bool = printed(True)
    EnableIPv6: bool = printed(False)
    IPAM: IPAM = msgspec.field(default_factory=lambda: IPAM())
    Internal: bool = printed(False)
    Attachable: bool = printed(False)
    Ingress: bool = printed(False)
    ConfigFrom: ConfigFrom = msgspec.field(default_factory=lambda: ConfigFrom())
    ConfigOnly: bool = printed(False)
    Containers: dict[str, dict[str, str]] | None = printed(None)
    Options: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    Labels: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    Status: NetworkStatus | None = None
    Services: dict[str, NetworkService] | None = None

    @property
    def ID(self) -> str:  # noqa: N802 - every other object calls it so
        """The network's id, under the name that every other object gives it."""
        return self.Id


class NetworkPrivate(PrivateStruct, frozen=True, kw_only=True):
    """What a network's row holds beyond the API; versions are not shown for networks.

    Attributes:
        spec: what its user asked for; never changes.
        vni: its number on the wire; 0 until it has that and its subnets, which then stay.
        gateways: its address on each node that runs tasks in it, CIDR form, one per family.
        rooms: the addresses on a node that are for plain containers there, as one subnet of each
            family; only of an attachable network.
        cursors: by subnet, the address that was given out last; the next is looked for beyond it.
    """

    spec: NetworkSpec = msgspec.field(default_factory=lambda: NetworkSpec())
    version: int = 0
    updated_at: int = 0
    vni: int = 0
    gateways: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    rooms: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    cursors: dict[str, str] = msgspec.field(default_factory=dict)
    spec_index: int = 0


# --- rows ----------------------------------------------------------------------------------------


class ClusterRow(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="cluster"):
    """The one row of the cluster table."""

    api: ClusterInfo
    private: ClusterPrivate = msgspec.field(default_factory=lambda: ClusterPrivate())


class NodeRow(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="node"):
    """A row of the node table."""

    api: Node
    private: NodePrivate = msgspec.field(default_factory=lambda: NodePrivate())


class ServiceRow(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="service"):
    """A row of the service table."""

    api: Service
    private: ServicePrivate = msgspec.field(default_factory=lambda: ServicePrivate())


class TaskRow(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="task"):
    """A row of the task table."""

    api: Task
    private: TaskPrivate = msgspec.field(default_factory=lambda: TaskPrivate())

    @property
    def place(self) -> str:
        """Where in its service it stands: its slot's number, or the node that it was made for."""
        return place_of(self.api, by_node=self.private.by_node)

    @property
    def name(self) -> str:
        """Its display name."""
        private = self.private
        return task_name(private.service_name, self.api, by_node=private.by_node)


class SecretRow(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="secret"):
    """A row of the secret table."""

    api: Secret
    private: SecretPrivate = msgspec.field(default_factory=lambda: SecretPrivate())


class ConfigRow(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="config"):
    """A row of the config table."""

    api: Config
    private: ConfigPrivate = msgspec.field(default_factory=lambda: ConfigPrivate())


class NetworkRow(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="network"):
    """A row of the network table."""

    api: Network
    private: NetworkPrivate = msgspec.field(default_factory=lambda: NetworkPrivate())


Row = Union[  # noqa: UP007 - msgspec reads it at run time on 3.10 too
    ClusterRow, NodeRow, ServiceRow, TaskRow, SecretRow, ConfigRow, NetworkRow
]
