"""The cluster's own object: its settings, its tokens, and what its row hides.

Field by field after the Engine API (docker-api.md section 3.7).
"""

from __future__ import annotations

import msgspec

from .base import (
    I64,
    NEVER,
    SECOND,
    U32,
    U64,
    ApiStruct,
    Driver,
    PrivateStruct,
    Time,
    Version,
    printed,
)

RENEWALS_NS = 3 * SECOND
"""In how long a time only so many nodes are asked to renew (``ca/rotation.py``); an index has the
nodes asked by such spans."""


class TLSInfo(ApiStruct, frozen=True, kw_only=True):
    """Whom a node trusts and who signed its certificate (subject and key as DER)."""

    TrustRoot: str = ""
    CertIssuerSubject: bytes = b""
    CertIssuerPublicKey: bytes = b""


class OrchestrationConfig(ApiStruct, frozen=True, kw_only=True):
    """How much history is kept for each slot."""

    TaskHistoryRetentionLimit: I64 | None = None


class RaftConfig(ApiStruct, frozen=True, kw_only=True):
    """Raft settings; ticks are shown for compatibility."""

    SnapshotInterval: U64 = 0
    KeepOldSnapshots: U64 | None = None
    LogEntriesForSlowFollowers: U64 = 0
    ElectionTick: I64 = printed(0)
    HeartbeatTick: I64 = printed(0)


class DispatcherConfig(ApiStruct, frozen=True, kw_only=True):
    """How often agents report, in nanoseconds."""

    HeartbeatPeriod: I64 = 0


class ExternalCA(ApiStruct, frozen=True, kw_only=True):
    """A certificate signing service."""

    Protocol: str = printed("")
    URL: str = printed("")
    Options: dict[str, str] = msgspec.field(default_factory=dict)
    CACert: str = printed("")


class CAConfig(ApiStruct, frozen=True, kw_only=True):
    """Certificate lifetimes (nanoseconds) and signers. ``Signing*`` is never shown."""

    NodeCertExpiry: I64 = 0
    ExternalCAs: tuple[ExternalCA, ...] = ()
    SigningCACert: str = ""
    SigningCAKey: str = ""
    ForceRotate: U64 = 0


class TaskDefaults(ApiStruct, frozen=True, kw_only=True):
    """What tasks use when their spec says nothing."""

    LogDriver: Driver | None = None


class EncryptionConfig(ApiStruct, frozen=True, kw_only=True):
    """Whether managers need the unlock key to start."""

    AutoLockManagers: bool = printed(False)


class SwarmSpec(ApiStruct, frozen=True, kw_only=True):
    """The cluster's own settings."""

    Name: str = ""
    Labels: dict[str, str] = msgspec.field(default_factory=lambda: dict[str, str]())
    Orchestration: OrchestrationConfig = msgspec.field(
        default_factory=lambda: OrchestrationConfig()
    )
    Raft: RaftConfig = msgspec.field(default_factory=lambda: RaftConfig())
    Dispatcher: DispatcherConfig = msgspec.field(default_factory=lambda: DispatcherConfig())
    CAConfig: CAConfig = msgspec.field(default_factory=lambda: CAConfig())
    TaskDefaults: TaskDefaults = msgspec.field(default_factory=lambda: TaskDefaults())
    EncryptionConfig: EncryptionConfig = msgspec.field(default_factory=lambda: EncryptionConfig())


class ClusterInfo(ApiStruct, frozen=True, kw_only=True):
    """The cluster as the API shows it. Join tokens are put in by ``GET /swarm`` alone."""

    ID: str = ""
    Version: Version = msgspec.field(default_factory=lambda: Version())
    CreatedAt: Time = printed(NEVER)
    UpdatedAt: Time = printed(NEVER)
    Spec: SwarmSpec = msgspec.field(default_factory=lambda: SwarmSpec())
    TLSInfo: TLSInfo = msgspec.field(default_factory=lambda: TLSInfo())
    RootRotationInProgress: bool = printed(False)
    DataPathPort: U32 = printed(4789)
    DefaultAddrPool: tuple[str, ...] = printed(("10.0.0.0/8",))
    SubnetSize: U32 = printed(24)


class JoinTokens(ApiStruct, frozen=True, kw_only=True):
    """The two join tokens."""

    Worker: str = printed("")
    Manager: str = printed("")


class Swarm(ClusterInfo, frozen=True, kw_only=True):
    """``GET /swarm``: the cluster with its join tokens."""

    JoinTokens: JoinTokens = msgspec.field(default_factory=lambda: JoinTokens())


class RootRotation(PrivateStruct, frozen=True, kw_only=True):
    """A change of the swarm's root CA that is under way. Nodes trust the present root to its end.

    Attributes:
        ca_cert, ca_key: the root to come, in PEM; no key when an external CA holds it.
        cross_signed: the coming root's name and key, certified by the present root.
        worker_token, manager_token: the join tokens from its end on.
    """

    ca_cert: str = ""
    ca_key: str = ""
    cross_signed: str = ""
    worker_token: str = ""
    manager_token: str = ""


class ClusterPrivate(PrivateStruct, frozen=True, kw_only=True):
    """What the cluster's row holds beyond the API; most of it is secret.

    Attributes:
        format_level: the lowest format level among the managers.
        ca_cert, ca_key: the root CA that nodes trust, in PEM; no key when an external CA holds it.
        intermediates: certificates that lead from this root up to earlier ones, newest first; they
            go with every node certificate, for nodes that were away when the root changed.
        rotation: a change of root under way.
        worker_token, manager_token: the join tokens, whole.
        retired_tokens: one-way fingerprints of tokens that were rotated away.
        unlock_key: key encryption key with autolock on, else empty.
        rotated_from: the row's version from which a user last had tokens or that key replaced.
        removed_nodes: ids that may never come back, and when they were removed, nanoseconds.
        last_vni: the network number that was given out last; the next is looked for beyond it.
        last_subnets: the same of subnets chosen out of the pools, by family (``ipv4``, ``ipv6``).
        spec_index: log index at which the spec last changed.
    """

    format_level: int = 1
    ca_cert: str = ""
    ca_key: str = ""
    worker_token: str = ""
    manager_token: str = ""
    retired_tokens: tuple[str, ...] = ()
    unlock_key: bytes = b""
    rotated_from: int = 0
    removed_nodes: dict[str, int] = msgspec.field(default_factory=dict)
    intermediates: str = ""
    rotation: RootRotation | None = None
    last_vni: int = 0
    last_subnets: dict[str, str] = msgspec.field(default_factory=dict)
    spec_index: int = 0
