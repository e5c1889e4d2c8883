"""A service as the API shows it, and its private half."""

from __future__ import annotations

import msgspec

from .base import NEVER, U64, ApiStruct, PrivateStruct, Time, Version, printed
from .spec import EndpointSpec, PortConfig, ServiceSpec


class EndpointVirtualIP(ApiStruct, frozen=True, kw_only=True):
    """A service's address on one network, in CIDR form."""

    NetworkID: str = ""
    Addr: str = ""


class Endpoint(ApiStruct, frozen=True, kw_only=True):
    """How a service is reached, as allocated."""

    Spec: EndpointSpec = msgspec.field(default_factory=lambda: EndpointSpec())
    Ports: tuple[PortConfig, ...] = ()
    VirtualIPs: tuple[EndpointVirtualIP, ...] = ()


class UpdateStatus(ApiStruct, frozen=True, kw_only=True):
    """How far an update or rollback is."""

    State: str = ""
    StartedAt: Time | None = None
    CompletedAt: Time | None = None
    Message: str = ""


class ServiceStatus(ApiStruct, frozen=True, kw_only=True):
    """Counts of a service's tasks; computed for a list, never stored."""

    RunningTasks: U64 = printed(0)
    DesiredTasks: U64 = printed(0)
    CompletedTasks: U64 = printed(0)


class JobStatus(ApiStruct, frozen=True, kw_only=True):
    """Which run of a job this is."""

    JobIteration: Version = msgspec.field(default_factory=lambda: Version())
    LastExecution: Time | None = None


def next_run(spec: ServiceSpec, before: JobStatus | None, now_ns: int) -> JobStatus | None:
    """Return a job's status as its next run begins; every update begins one. None: it is no job.

    Args:
        before: of the run before, None for a new job.
    """
    if spec.Mode.ReplicatedJob is None and spec.Mode.GlobalJob is None:
        return None
    number = 0 if before is None else before.JobIteration.Index + 1
    return JobStatus(JobIteration=Version(Index=number), LastExecution=Time(now_ns))


class ServiceStop(ApiStruct, frozen=True, kw_only=True):
    """That the user stopped a service, and since when; ours, Docker's clients skip it.

    Attributes:
        Replicas: how many it starts with again; put in where it is shown, never stored.
    """

    Since: Time = printed(NEVER)
    Replicas: int | None = None


class Service(ApiStruct, frozen=True, kw_only=True):
    """A service as the API shows it.

    Attributes:
        Stopped: no task of it is to run, whatever its mode asks for (model/stopping.py).
        Warnings: what the spec asks for and this release does not do, in sentences; ours, Docker's
            clients skip it. Computed for ``GET /services/{id}``, never stored.
    """

    ID: str = ""
    Version: Version = msgspec.field(default_factory=lambda: Version())
    CreatedAt: Time = printed(NEVER)
    UpdatedAt: Time = printed(NEVER)
    Spec: ServiceSpec = msgspec.field(default_factory=lambda: ServiceSpec())
    PreviousSpec: ServiceSpec | None = None
    Endpoint: Endpoint = msgspec.field(default_factory=lambda: Endpoint())
    UpdateStatus: UpdateStatus | None = None
    ServiceStatus: ServiceStatus | None = None
    JobStatus: JobStatus | None = None
    Stopped: ServiceStop | None = None
    Warnings: tuple[str, ...] = ()


class RestartRecord(PrivateStruct, frozen=True, kw_only=True):
    """How often one slot was restarted at one spec version.

    Attributes:
        spec_version: counting starts anew when the spec changes.
        attempts: restarts since then.
        times: when the last of them happened, in nanoseconds; kept only with a window.
    """

    spec_version: int = 0
    attempts: int = 0
    times: tuple[int, ...] = ()


class RolloutRecord(PrivateStruct, frozen=True, kw_only=True):
    """How an update (or rollback) went so far, as far as tasks do not tell.

    Attributes:
        spec_version: the update it is about; that of another one counts for nothing.
        slots: how many places had to be replaced when it began; what failures are a ratio of.
        failures: tasks of it that failed and were dealt with.
        since: log index it began after; what failed before is no failure of it.
    """

    spec_version: int = 0
    slots: int = 0
    failures: int = 0
    since: int = 0


class Revision(PrivateStruct, frozen=True, kw_only=True):
    """A spec that a service once had.

    Attributes:
        number: 1 for the spec it was created with, one more with every change.
        at: when it became the spec, in nanoseconds.
        how: what made it the spec, in words.
        registry_auth: the pull credentials that went with it; secret.
    """

    number: int
    at: int
    how: str
    spec: ServiceSpec
    registry_auth: str = ""


class ScaleDecision(PrivateStruct, frozen=True, kw_only=True):
    """One step that scaling took, or would have taken, and why.

    Attributes:
        at: wall time in nanoseconds.
        rule: which of the service's rules; ``floor`` for a human's number; "" for a recommendation
            that holds no longer.
        values: what was measured then, by metric, in the metric's own unit.
        reason: a sentence.
        applied: False where the service's mode is to recommend only.
    """

    at: int
    rule: str
    before: int
    after: int
    reason: str
    values: dict[str, float] = msgspec.field(default_factory=lambda: dict[str, float]())
    applied: bool = True


class Scale(PrivateStruct, frozen=True, kw_only=True):
    """What scaling decided for a service, kept apart from its spec (model/scaling.py).

    Attributes:
        count: how many tasks it has; what it would have, where the mode is to recommend only.
        floor, until: a human's number is the least until that time, in nanoseconds.
        decisions: the last ones, oldest first.
    """

    count: int
    floor: int = 0
    until: int = 0
    decisions: tuple[ScaleDecision, ...] = ()


class ServicePrivate(PrivateStruct, frozen=True, kw_only=True):
    """What a service's row holds beyond the API.

    Attributes:
        spec_index: log index at which the spec last changed; also the version that tasks carry.
        previous_spec_index: the same of ``PreviousSpec``.
        registry_auth, previous_registry_auth: pull credentials; secret.
        restarts: restart counters by slot (as text) or node id.
        rollout: of the update under way, or of the last one.
        revision, revised_at, revised_how: number, time and maker of the present spec, as in
            :class:`Revision`; no time: that of creation.
        revisions: the specs before, oldest first.
        due: ids of older versions of secrets and configs; where the spec still names one when the
            tasks are replaced anyway, the newest version takes its place.
        scale: what scaling decided, where the service's labels ask for it.
    """

    spec_index: int = 0
    previous_spec_index: int = 0
    registry_auth: str = ""
    previous_registry_auth: str = ""
    restarts: dict[str, RestartRecord] = msgspec.field(default_factory=dict)
    rollout: RolloutRecord | None = None
    revision: int = 1
    revised_at: int = 0
    revised_how: str = "created"
    revisions: tuple[Revision, ...] = ()
    due: tuple[str, ...] = ()
    scale: Scale | None = None
