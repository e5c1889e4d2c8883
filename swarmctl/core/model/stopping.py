"""Stopped services: what a client sees of one, and what it means when one is posted back.

A stop is kept beside the spec, so nothing of the spec is lost by it. Shown is what is in effect: a
replicated service asks for 0 replicas while it is stopped. Whoever reads it and posts it back
with something else changed, as ``docker service update`` does, has said nothing about the number;
the service stays stopped and keeps it. Whoever posts another number has: the service starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import FailedPrecondition
from .base import Time
from .service import Service, ServiceStop
from .spec import ReplicatedService, ServiceMode

if TYPE_CHECKING:
    from .spec import ServiceSpec


def as_in_effect(service: Service) -> Service:
    """Return a service as clients see it: one that is stopped asks for no replicas."""
    if service.Stopped is None or service.Spec.Mode.Replicated is None:
        return service
    return replace(
        service,
        Spec=_with_replicas(service.Spec, 0),
        Stopped=replace(service.Stopped, Replicas=_replicas(service.Spec)),
    )


def as_posted(service: Service, posted: ServiceSpec) -> tuple[ServiceSpec, ServiceStop | None]:
    """Return the spec that a client means by what it posts, and whether the service stays stopped.

    Args:
        posted: normalized.
    """
    if service.Stopped is None or posted.Mode.Replicated is None:
        return posted, service.Stopped
    if _replicas(posted) == 0 and service.Spec.Mode.Replicated is not None:
        return _with_replicas(posted, _replicas(service.Spec)), service.Stopped
    return posted, None


def stopped(service: Service, now_ns: int) -> Service:
    """Return a service as one that is to run no task; one that is stopped already as it is.

    Raises:
        FailedPrecondition: a job, which ends by itself.
    """
    mode = service.Spec.Mode
    if mode.ReplicatedJob is not None or mode.GlobalJob is not None:
        raise FailedPrecondition(
            f"service {service.Spec.Name} is a job and cannot be stopped: it ends by itself; "
            "remove it to end it now"
        )
    if service.Stopped is not None:
        return service
    return replace(service, Stopped=ServiceStop(Since=Time(now_ns)))


def started(service: Service) -> Service:
    """Return a service as one that runs again; one that was not stopped as it is.

    Raises:
        FailedPrecondition: it was not stopped, and would run nothing all the same.
    """
    if service.Stopped is not None:
        return replace(service, Stopped=None)
    if service.Spec.Mode.Replicated is not None and not _replicas(service.Spec):
        name = service.Spec.Name
        raise FailedPrecondition(
            f"service {name} was not stopped: it asks for 0 replicas, so there is no number to "
            f"bring it back to; set one with scale {name}=N"
        )
    return service


def _replicas(spec: ServiceSpec) -> int:
    mode = spec.Mode.Replicated
    return 1 if mode is None or mode.Replicas is None else mode.Replicas


def _with_replicas(spec: ServiceSpec, replicas: int) -> ServiceSpec:
    return replace(spec, Mode=ServiceMode(Replicated=ReplicatedService(Replicas=replicas)))
