"""What of a verdict is written beside the service, and what of a service a verdict rests on. Pure.

Nothing is written while nothing changes. A change of the number is, with its reason; and that there
is no room, at most every ten minutes. Where the mode is only to recommend, the number in the row is
the last recommendation, and a change of it is noted once a minute at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.rolling import ROLLBACK_STARTED, UPDATING
from ..model.scaling import ACT, replicas_of, with_decision
from ..model.service import Scale, ScaleDecision
from .decide import Situation
from .metrics import SECOND

if TYPE_CHECKING:
    from ..model.objects import ServiceRow
    from .decide import Verdict
    from .policy import Policy

CAPPED_EVERY_NS = 600 * SECOND
RECOMMENDED_EVERY_NS = 60 * SECOND
CAPPED = "capped"


def situation_of(row: ServiceRow) -> Situation:
    """Return what counts of a service beside its rules and its load."""
    scale = row.private.scale
    return Situation(
        count=replicas_of(row),
        floor=0 if scale is None else scale.floor,
        until=0 if scale is None else scale.until,
        decisions=() if scale is None else scale.decisions,
        holds=why_still(row),
    )


def why_still(row: ServiceRow) -> str:
    """Return why a service's number may not change now, or ""."""
    if row.api.Stopped is not None:
        return "the service is stopped"
    status = row.api.UpdateStatus
    if status is not None and status.State == UPDATING:
        return "an update is under way"
    if status is not None and status.State == ROLLBACK_STARTED:
        return "a rollback is under way"
    return ""


def recorded(row: ServiceRow, policy: Policy, verdict: Verdict, now: int) -> ServiceRow | None:
    """Return the service with what was decided, None where there is nothing to write."""
    count = replicas_of(row)
    scale = row.private.scale or Scale(count=count)
    acts = policy.mode == ACT
    before = count if acts else scale.count
    last = scale.decisions[-1] if scale.decisions else None
    since_last = CAPPED_EVERY_NS if last is None else now - min(last.at, now)
    if verdict.count == before:
        was_capped = last is not None and last.rule == CAPPED
        if not (acts and verdict.capped) or (was_capped and since_last < CAPPED_EVERY_NS):
            return None
    elif not acts and since_last < RECOMMENDED_EVERY_NS:
        return None
    decision = ScaleDecision(
        at=now,
        rule=verdict.rule or (CAPPED if verdict.capped else ""),
        before=before,
        after=verdict.count,
        reason=verdict.reason,
        values=verdict.values,
        applied=acts and verdict.count != before,
    )
    written = replace(
        scale, count=verdict.count, decisions=with_decision(scale.decisions, decision)
    )
    return replace(row, private=replace(row.private, scale=written))
