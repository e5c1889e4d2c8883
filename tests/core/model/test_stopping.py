"""Stopped services: what is shown, what a client means by posting it back, what cannot be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.errors import FailedPrecondition
from swarmctl.core.model.base import Time
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import (
    GlobalJob,
    GlobalService,
    ReplicatedJob,
    ReplicatedService,
    ServiceMode,
    ServiceSpec,
)
from swarmctl.core.model.stopping import as_in_effect, as_posted, started, stopped
from tests.core.pipeline.world import spec

NOW = 1_700_000_000_000_000_000


def service(replicas: int = 3) -> Service:
    return Service(ID="web", Spec=spec(replicas=replicas))


def replicas(wanted: ServiceSpec) -> int | None:
    assert wanted.Mode.Replicated is not None
    return wanted.Mode.Replicated.Replicas


def with_replicas(wanted: ServiceSpec, number: int) -> ServiceSpec:
    mode = ServiceMode(Replicated=ReplicatedService(Replicas=number))
    return replace(wanted, Mode=mode)


def test_a_stopped_service_asks_for_nothing_and_tells_its_former_number() -> None:
    """The spec that is stored keeps it; the one that is shown says 0."""
    stored = stopped(service(), NOW)
    shown = as_in_effect(stored)
    assert replicas(stored.Spec) == 3
    assert replicas(shown.Spec) == 0
    assert shown.Stopped is not None
    assert (shown.Stopped.Since, shown.Stopped.Replicas) == (Time(NOW), 3)
    assert as_in_effect(service()) == service()


def test_what_is_posted_back_keeps_it_stopped_and_its_number() -> None:
    """docker service update reads 0, changes the image, and posts 0."""
    stored = stopped(service(), NOW)
    posted = with_replicas(spec(image="nginx:2"), 0)
    kept, stop = as_posted(stored, posted)
    assert replicas(kept) == 3
    assert kept.TaskTemplate == posted.TaskTemplate
    assert stop == stored.Stopped


def test_another_number_starts_it() -> None:
    """docker service scale web=5 means it."""
    kept, stop = as_posted(stopped(service(), NOW), with_replicas(spec(), 5))
    assert (replicas(kept), stop) == (5, None)


def test_a_service_that_runs_is_posted_as_it_is() -> None:
    """0 is a number like any other for a service that was not stopped."""
    kept, stop = as_posted(service(), with_replicas(spec(), 0))
    assert (replicas(kept), stop) == (0, None)


def test_stopping_and_starting_again_change_nothing() -> None:
    """Both are what they say however often they are said."""
    once = stopped(service(), NOW)
    assert stopped(once, NOW + 5) is once
    back = started(once)
    assert back == service()
    assert started(back) is back


def test_a_global_service_can_be_stopped() -> None:
    """It has no number to keep; it runs everywhere again."""
    everywhere = replace(service(), Spec=replace(spec(), Mode=ServiceMode(Global=GlobalService())))
    stored = stopped(everywhere, NOW)
    assert as_in_effect(stored) == stored
    assert as_posted(stored, stored.Spec) == (stored.Spec, stored.Stopped)
    assert started(stored) == everywhere


@pytest.mark.parametrize(
    "mode", [ServiceMode(ReplicatedJob=ReplicatedJob()), ServiceMode(GlobalJob=GlobalJob())]
)
def test_a_job_cannot_be_stopped(mode: ServiceMode) -> None:
    """Starting it again would not go on where it was."""
    with pytest.raises(FailedPrecondition, match="is a job and cannot be stopped"):
        stopped(replace(service(), Spec=replace(spec(), Mode=mode)), NOW)


def test_a_service_scaled_to_nothing_has_no_former_number() -> None:
    """The error says what would be right."""
    with pytest.raises(FailedPrecondition, match="set one with scale web=N"):
        started(service(0))
