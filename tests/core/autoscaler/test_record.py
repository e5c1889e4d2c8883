"""What of a verdict is written beside the service (core/autoscaler/record.py)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.autoscaler.decide import Verdict
from swarmctl.core.autoscaler.metrics import SECOND
from swarmctl.core.autoscaler.policy import policy_of
from swarmctl.core.autoscaler.record import recorded, situation_of
from swarmctl.core.model.base import Time
from swarmctl.core.model.objects import ServiceRow
from swarmctl.core.model.scaling import DECISIONS_KEPT, Bounds
from swarmctl.core.model.service import Scale, Service, ServicePrivate, UpdateStatus
from tests.core.autoscaler.load import EPOCH, spec_of

RULES = {"max": "20", "target": "cpu=50%"}


def row_of(count: int, **labels: str) -> ServiceRow:
    """A service that has so many tasks, by its spec and by scaling."""
    return ServiceRow(
        api=Service(ID="s", Spec=spec_of(count, **{**RULES, **labels})),
        private=ServicePrivate(scale=Scale(count=count)),
    )


def write(row: ServiceRow, count: int, now: int = EPOCH, *, capped: bool = False) -> ServiceRow:
    """Have a verdict written; the row as it was where nothing is."""
    policy = policy_of(row.api.Spec)
    assert policy is not None
    verdict = Verdict(
        count=count,
        rule="target cpu=50%" if count != situation_of(row).count else "",
        reason="cpu is 90%, target cpu=50%",
        bounds=Bounds(1, 20),
        values={"cpu": 0.9},
        capped=capped,
    )
    return recorded(row, policy, verdict, now) or row


def steps(row: ServiceRow) -> list[tuple[str, int, int, bool]]:
    assert row.private.scale is not None
    return [(one.rule, one.before, one.after, one.applied) for one in row.private.scale.decisions]


def test_a_change_is_written_with_its_reason_and_nothing_else_is() -> None:
    """Rule, values, from and to; a verdict that changes nothing costs no entry of the log."""
    row = row_of(2)
    assert write(row, 2) is row
    found = write(row, 4)
    assert steps(found) == [("target cpu=50%", 2, 4, True)]
    assert found.private.scale is not None
    (step,) = found.private.scale.decisions
    assert (step.at, step.reason, step.values) == (
        EPOCH,
        "cpu is 90%, target cpu=50%",
        {"cpu": 0.9},
    )
    assert situation_of(found).count == 4


def test_the_last_decisions_are_kept() -> None:
    """However often a service is scaled, its row stays small."""
    row = row_of(2)
    for at in range(3 * DECISIONS_KEPT):
        row = write(row, 3 + at % 2, EPOCH + at * SECOND)
    kept = steps(row)
    assert len(kept) == DECISIONS_KEPT
    assert kept[-1][2] == 4


def test_that_there_is_no_room_is_noted_now_and_then() -> None:
    """Every ten minutes, however often it is found."""
    row = row_of(4)
    for seconds in range(0, 1205, 5):
        row = write(row, 4, EPOCH + seconds * SECOND, capped=True)
    assert steps(row) == [("capped", 4, 4, False)] * 3


def test_recommendations_change_nothing_and_are_noted_once_a_minute() -> None:
    """Each with the number that was recommended before; one that is taken back has no rule."""
    row = row_of(2, mode="recommend")
    for at, count in enumerate((4, 5, 6, 6, 2)):
        row = write(row, count, EPOCH + at * 30 * SECOND)
    assert steps(row) == [
        ("target cpu=50%", 2, 4, False),
        ("target cpu=50%", 4, 6, False),
        ("", 6, 2, False),
    ]
    assert situation_of(row).count == 2


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("updating", "an update is under way"),
        ("rollback_started", "a rollback is under way"),
        ("completed", ""),
        ("paused", ""),
    ],
)
def test_what_holds_still(state: str, why: str) -> None:
    """A rollout in either direction holds the number, and a stop does."""
    row = row_of(2)
    rolled = replace(row, api=replace(row.api, UpdateStatus=UpdateStatus(State=state)))
    assert situation_of(rolled).holds == why
    assert situation_of(replace(row, api=replace(row.api, Stopped=Time(EPOCH)))).holds
