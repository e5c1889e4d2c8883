"""What an engine's answers about a container mean. Pure: JSON in, our words out.

The JSON is Docker's; a dialect of another engine hands in the same facts under Docker's names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from swarmctl.plugins import ExitStatus, TaskObservation
from swarmctl.plugins.model import (
    NANOSECONDS_PER_SECOND,
    ContainerStatus,
    PortConfig,
    PortStatus,
    parse_time,
)

from .labels import CLUSTER_LABEL, NODE_LABEL, TASK_LABEL
from .spec import DEFAULT_STOP_GRACE_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmctl.plugins import NodeIdentity

UNHEALTHY = "unhealthy container"
OUT_OF_MEMORY = "container ran out of memory"
DEFAULT_HEALTH_RETRIES = 3
RUNNING = ("running", "paused", "stopping")
"""States in which there is a process; the last is Podman's, of a container that is to end."""


class Inspection(NamedTuple):
    """One answer of ``GET /containers/{id}/json``.

    Attributes:
        unhealthy: what the end of a container is put down to that failed its health check.
    """

    body: dict[str, Any]
    unhealthy: str = UNHEALTHY

    @property
    def container_id(self) -> str:
        return str(self.body["Id"])

    @property
    def labels(self) -> dict[str, str]:
        return self.body["Config"].get("Labels") or {}

    @property
    def never_started(self) -> bool:
        return bool(self._state["Status"] == "created")

    @property
    def is_running(self) -> bool:
        """Whether its process exists; a paused one does."""
        return bool(self._state.get("Running"))

    @property
    def has_health_check(self) -> bool:
        test = (self.body["Config"].get("Healthcheck") or {}).get("Test") or []
        return bool(test) and test != ["NONE"]

    @property
    def is_healthy(self) -> bool | None:
        """True or False as the health check says; None without one, or before its first verdict."""
        status = (self._state.get("Health") or {}).get("Status")
        return {"healthy": True, "unhealthy": False}.get(str(status))

    @property
    def stop_signal(self) -> str:
        return self.body["Config"].get("StopSignal") or "SIGTERM"

    @property
    def stop_timeout_s(self) -> int:
        """The grace it was created with, in seconds."""
        timeout = self.body["Config"].get("StopTimeout")
        return DEFAULT_STOP_GRACE_NS // NANOSECONDS_PER_SECOND if timeout is None else int(timeout)

    @property
    def networks(self) -> frozenset[str]:
        """The names of the networks it is on."""
        return frozenset(self.body["NetworkSettings"].get("Networks") or ())

    @property
    def has_tty(self) -> bool:
        return bool(self.body["Config"].get("Tty"))

    def exit_status(self) -> ExitStatus:
        """How it ended; only for a container that has."""
        finished = parse_time(self._state.get("FinishedAt") or "0001-01-01T00:00:00Z")
        return ExitStatus(
            code=self._state.get("ExitCode", 0), error=self._exit_cause(), finished_at=finished
        )

    def observation(self, ports: Sequence[PortConfig]) -> TaskObservation:
        """What is seen now. ``ports`` are those that were asked for; their names are kept.

        A container that was not started tells nothing: PID 0 would mean that it has ended.
        """
        container = ContainerStatus(
            ContainerID=self.container_id,
            PID=self._state.get("Pid", 0) if self.is_running else 0,
            ExitCode=self._state.get("ExitCode", 0),
        )
        return TaskObservation(
            container=None if self.never_started else container,
            ports=self._bound_ports(ports),
            healthy=self.is_healthy if self.is_running else None,
        )

    def is_of(self, identity: NodeIdentity) -> bool:
        """Whether it is this node's to touch."""
        return is_ours(self.labels, identity)

    def _exit_cause(self) -> str:
        if self._state.get("OOMKilled"):
            return OUT_OF_MEMORY
        # The status alone says nothing: the engine calls every ended container unhealthy.
        health = self._state.get("Health") or {}
        retries = (self.body["Config"].get("Healthcheck") or {}).get("Retries")
        if health.get("FailingStreak", 0) >= (retries or DEFAULT_HEALTH_RETRIES):
            return self.unhealthy
        return str(self._state.get("Error") or "")

    def _bound_ports(self, wanted: Sequence[PortConfig]) -> PortStatus | None:
        bound = {
            (int(target), protocol, int(binding["HostPort"]))
            for key, bindings in (self.body["NetworkSettings"].get("Ports") or {}).items()
            for target, _, protocol in [key.partition("/")]
            for binding in bindings or []
            if binding.get("HostPort")
        }
        names = {(port.TargetPort, port.Protocol or "tcp"): port.Name for port in wanted}
        if not bound:
            return None
        return PortStatus(
            Ports=tuple(
                PortConfig(
                    Name=names.get((target, protocol), ""),
                    Protocol=protocol,
                    TargetPort=target,
                    PublishedPort=published,
                    PublishMode="host",
                )
                for target, protocol, published in sorted(bound)
            )
        )

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.body["State"]
        return state


class Listed(NamedTuple):
    """A container of ours in the list of all."""

    container_id: str
    task_id: str
    is_running: bool
    verdict: str

    @classmethod
    def read(cls, row: dict[str, Any]) -> Listed:
        """Read one element of ``GET /containers/json``."""
        status = row.get("Status") or ""
        return cls(
            container_id=row["Id"],
            task_id=(row.get("Labels") or {}).get(TASK_LABEL, ""),
            is_running=row.get("State") in RUNNING,
            verdict=next((word for word in ("unhealthy", "healthy") if f"({word})" in status), ""),
        )


def is_ours(labels: dict[str, str], identity: NodeIdentity) -> bool:
    """Whether these labels are of a container that this node made."""
    return (
        labels.get(CLUSTER_LABEL) == identity.cluster_id
        and labels.get(NODE_LABEL) == identity.node_id
        and TASK_LABEL in labels
    )
