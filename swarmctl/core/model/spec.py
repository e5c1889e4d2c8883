"""What users ask for: service specs and everything that hangs on them.

Field by field after the Engine API (docker-api.md sections 3.2 to 3.4). Spec is the user's intent:
only API calls and rollback write it. This module knows no rules; those are in validate.py.
"""

from __future__ import annotations

import msgspec

from .base import I64, U32, U64, ApiStruct, Driver, Platform, printed

# --- resources, restart, placement ---------------------------------------------------------------


class NamedResourceSpec(ApiStruct, frozen=True, kw_only=True):
    """One named generic resource, such as ``gpu=UUID1``."""

    Kind: str = ""
    Value: str = ""


class DiscreteResourceSpec(ApiStruct, frozen=True, kw_only=True):
    """A count of a generic resource, such as ``fpga=2``."""

    Kind: str = ""
    Value: I64 = printed(0)


class GenericResource(ApiStruct, frozen=True, kw_only=True):
    """Either a named or a discrete generic resource."""

    NamedResourceSpec: NamedResourceSpec | None = None
    DiscreteResourceSpec: DiscreteResourceSpec | None = None


class Limit(ApiStruct, frozen=True, kw_only=True):
    """What a task may use at most: CPU in 1e-9 cores, memory in bytes, processes."""

    NanoCPUs: I64 = 0
    MemoryBytes: I64 = 0
    Pids: I64 = 0


class Resources(ApiStruct, frozen=True, kw_only=True):
    """What a task reserves, or a node offers: CPU in 1e-9 cores, memory in bytes."""

    NanoCPUs: I64 = 0
    MemoryBytes: I64 = 0
    GenericResources: tuple[GenericResource, ...] = ()


class ResourceRequirements(ApiStruct, frozen=True, kw_only=True):
    """Limits and reservations of one task."""

    Limits: Limit | None = None
    Reservations: Resources | None = None


class RestartPolicy(ApiStruct, frozen=True, kw_only=True):
    """When a stopped task gets a successor. Durations in nanoseconds."""

    Condition: str = ""
    Delay: I64 | None = None
    MaxAttempts: U64 | None = None
    Window: I64 | None = None


class SpreadOver(ApiStruct, frozen=True, kw_only=True):
    """A label to spread over, such as ``node.labels.zone``."""

    SpreadDescriptor: str = ""


class PlacementPreference(ApiStruct, frozen=True, kw_only=True):
    """One level of the spread tree."""

    Spread: SpreadOver | None = None


class Placement(ApiStruct, frozen=True, kw_only=True):
    """Which nodes may run a task, and how tasks are laid out over them."""

    Constraints: tuple[str, ...] = ()
    Preferences: tuple[PlacementPreference, ...] = ()
    MaxReplicas: U64 = 0
    Platforms: tuple[Platform, ...] = ()


class NetworkAttachmentConfig(ApiStruct, frozen=True, kw_only=True):
    """A network that tasks join; ``Target`` is a name on input, an id once stored."""

    Target: str = ""
    Aliases: tuple[str, ...] = ()
    DriverOpts: dict[str, str] = msgspec.field(default_factory=dict)


# --- the container -------------------------------------------------------------------------------


class BindOptions(ApiStruct, frozen=True, kw_only=True):
    """Options of a bind mount."""

    Propagation: str = ""
    NonRecursive: bool = False
    CreateMountpoint: bool = False
    ReadOnlyNonRecursive: bool = False
    ReadOnlyForceRecursive: bool = False


class VolumeOptions(ApiStruct, frozen=True, kw_only=True):
    """Options of a volume mount."""

    NoCopy: bool = False
    Labels: dict[str, str] = msgspec.field(default_factory=dict)
    Subpath: str = ""
    DriverConfig: Driver | None = None


class ImageOptions(ApiStruct, frozen=True, kw_only=True):
    """Options of an image mount."""

    Subpath: str = ""


class TmpfsOptions(ApiStruct, frozen=True, kw_only=True):
    """Options of a tmpfs mount: size in bytes, mode as permission bits."""

    SizeBytes: I64 = 0
    Mode: U32 = 0
    Options: tuple[tuple[str, ...], ...] = ()


class ClusterOptions(ApiStruct, frozen=True, kw_only=True):
    """Options of a cluster volume mount; it has none."""


class Mount(ApiStruct, frozen=True, kw_only=True):
    """One mount: bind, volume, tmpfs, npipe, cluster or image."""

    Type: str = ""
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: BindOptions | None = None
    VolumeOptions: VolumeOptions | None = None
    ImageOptions: ImageOptions | None = None
    TmpfsOptions: TmpfsOptions | None = None
    ClusterOptions: ClusterOptions | None = None


class CredentialSpec(ApiStruct, frozen=True, kw_only=True):
    """Windows managed service account."""

    Config: str = ""
    File: str = ""
    Registry: str = ""


class SELinuxContext(ApiStruct, frozen=True, kw_only=True):
    """SELinux labels of the container."""

    Disable: bool = printed(False)
    User: str = printed("")
    Role: str = printed("")
    Type: str = printed("")
    Level: str = printed("")


class SeccompOpts(ApiStruct, frozen=True, kw_only=True):
    """Seccomp mode ``default``, ``unconfined`` or ``custom`` with a profile."""

    Mode: str = ""
    Profile: bytes = b""


class AppArmorOpts(ApiStruct, frozen=True, kw_only=True):
    """AppArmor mode ``default`` or ``disabled``."""

    Mode: str = ""


class Privileges(ApiStruct, frozen=True, kw_only=True):
    """Security options. The two first keys are printed even when null, as Docker does."""

    CredentialSpec: CredentialSpec | None = printed(None)
    SELinuxContext: SELinuxContext | None = printed(None)
    Seccomp: SeccompOpts | None = None
    AppArmor: AppArmorOpts | None = None
    NoNewPrivileges: bool = printed(False)


class HealthConfig(ApiStruct, frozen=True, kw_only=True):
    """A health check. Durations in nanoseconds; 0 inherits the image's."""

    Test: tuple[str, ...] = ()
    Interval: I64 = 0
    Timeout: I64 = 0
    StartPeriod: I64 = 0
    StartInterval: I64 = 0
    Retries: I64 = 0


class DNSConfig(ApiStruct, frozen=True, kw_only=True):
    """Resolver settings of the container."""

    Nameservers: tuple[str, ...] = ()
    Search: tuple[str, ...] = ()
    Options: tuple[str, ...] = ()


class FileTarget(ApiStruct, frozen=True, kw_only=True):
    """Where a secret or config appears; ``Mode`` as permission bits (292 is 0444)."""

    Name: str = printed("")
    UID: str = printed("")
    GID: str = printed("")
    Mode: U32 = printed(0)


class RuntimeTarget(ApiStruct, frozen=True, kw_only=True):
    """A config that the runtime itself reads; it has no file."""


class SecretReference(ApiStruct, frozen=True, kw_only=True):
    """A secret that a task may read."""

    File: FileTarget | None = None
    SecretID: str = printed("")
    SecretName: str = printed("")


class ConfigReference(ApiStruct, frozen=True, kw_only=True):
    """A config that a task may read."""

    File: FileTarget | None = None
    Runtime: RuntimeTarget | None = None
    ConfigID: str = printed("")
    ConfigName: str = printed("")


class Ulimit(ApiStruct, frozen=True, kw_only=True):
    """One resource limit of the process."""

    Name: str = printed("")
    Hard: I64 = printed(0)
    Soft: I64 = printed(0)


class ContainerSpec(ApiStruct, frozen=True, kw_only=True):
    """What runs: image, command, environment and everything a container has."""

    Image: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=dict)
    Command: tuple[str, ...] = ()
    Args: tuple[str, ...] = ()
    Hostname: str = ""
    Env: tuple[str, ...] = ()
    Dir: str = ""
    User: str = ""
    Groups: tuple[str, ...] = ()
    Privileges: Privileges | None = None
    Init: bool | None = None
    StopSignal: str = ""
    TTY: bool = False
    OpenStdin: bool = False
    ReadOnly: bool = False
    Mounts: tuple[Mount, ...] = ()
    StopGracePeriod: I64 | None = None
    Healthcheck: HealthConfig | None = None
    Hosts: tuple[str, ...] = ()
    DNSConfig: DNSConfig | None = None
    Secrets: tuple[SecretReference, ...] = ()
    Configs: tuple[ConfigReference, ...] = ()
    Isolation: str = ""
    Sysctls: dict[str, str] = msgspec.field(default_factory=dict)
    CapabilityAdd: tuple[str, ...] = ()
    CapabilityDrop: tuple[str, ...] = ()
    Ulimits: tuple[Ulimit, ...] = ()
    OomScoreAdj: I64 = 0


class PluginPrivilege(ApiStruct, frozen=True, kw_only=True):
    """A permission that an engine plugin asks for."""

    Name: str = ""
    Description: str = ""
    Value: tuple[str, ...] = ()


class PluginSpec(ApiStruct, frozen=True, kw_only=True):
    """An engine plugin as a service; decoded so that it can be refused by name."""

    Name: str = ""
    Remote: str = ""
    Privileges: tuple[PluginPrivilege, ...] = msgspec.field(default=(), name="privileges")
    Disabled: bool = msgspec.field(default=False, name="disabled")
    Env: tuple[str, ...] = msgspec.field(default=(), name="env")


class NetworkAttachmentSpec(ApiStruct, frozen=True, kw_only=True):
    """A plain container's place on an attachable network."""

    ContainerID: str = printed("")


# --- task and service ----------------------------------------------------------------------------


class TaskSpec(ApiStruct, frozen=True, kw_only=True):
    """How each task of a service runs."""

    PluginSpec: PluginSpec | None = None
    ContainerSpec: ContainerSpec | None = None
    NetworkAttachmentSpec: NetworkAttachmentSpec | None = None
    Resources: ResourceRequirements | None = None
    RestartPolicy: RestartPolicy | None = None
    Placement: Placement | None = None
    Networks: tuple[NetworkAttachmentConfig, ...] = ()
    LogDriver: Driver | None = None
    ForceUpdate: U64 = printed(0)
    Runtime: str = ""


class ReplicatedService(ApiStruct, frozen=True, kw_only=True):
    """So many tasks, kept running."""

    Replicas: U64 | None = None


class GlobalService(ApiStruct, frozen=True, kw_only=True):
    """One task on every fitting node."""


class ReplicatedJob(ApiStruct, frozen=True, kw_only=True):
    """So many tasks, run to completion."""

    MaxConcurrent: U64 | None = None
    TotalCompletions: U64 | None = None


class GlobalJob(ApiStruct, frozen=True, kw_only=True):
    """One task on every fitting node, run to completion."""


class ServiceMode(ApiStruct, frozen=True, kw_only=True):
    """Exactly one of the four modes."""

    Replicated: ReplicatedService | None = None
    Global: GlobalService | None = None
    ReplicatedJob: ReplicatedJob | None = None
    GlobalJob: GlobalJob | None = None


class UpdateConfig(ApiStruct, frozen=True, kw_only=True):
    """How an update (or rollback) rolls through the slots. Durations in nanoseconds."""

    Parallelism: U64 = printed(0)
    Delay: I64 = 0
    FailureAction: str = ""
    Monitor: I64 = 0
    MaxFailureRatio: float = printed(0.0)
    Order: str = printed("")


RollingConfig = UpdateConfig  # a field may not be annotated with the name of its neighbour


class PortConfig(ApiStruct, frozen=True, kw_only=True):
    """A published port; ``PublishedPort`` 0 asks for one of 30000 to 32767."""

    Name: str = ""
    Protocol: str = ""
    TargetPort: U32 = 0
    PublishedPort: U32 = 0
    PublishMode: str = ""


class EndpointSpec(ApiStruct, frozen=True, kw_only=True):
    """How the service is reached."""

    Mode: str = ""
    Ports: tuple[PortConfig, ...] = ()


class ServiceSpec(ApiStruct, frozen=True, kw_only=True):
    """The user's whole wish for one service."""

    Name: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    TaskTemplate: TaskSpec = msgspec.field(default_factory=lambda: TaskSpec())
    Mode: ServiceMode = msgspec.field(default_factory=lambda: ServiceMode())
    UpdateConfig: UpdateConfig | None = None
    RollbackConfig: RollingConfig | None = None
    Networks: tuple[NetworkAttachmentConfig, ...] = ()
    EndpointSpec: EndpointSpec | None = None
