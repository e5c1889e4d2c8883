"""How scaling stands for a service, in the API's words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.base import Time
from ..model.scalestatus import ScalingDecision, ScalingMetric, ScalingReport, ScalingRule
from ..model.scaling import OFF, scale_labels
from .decide import limits_at
from .expression import Comparison, bounds_of, comparisons, judge
from .metrics import SECOND
from .record import situation_of
from .tracking import track
from .words import value_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..model.objects import ServiceRow
    from .book import Window
    from .metrics import Frame
    from .policy import Policy

POINTS = 60
"""Values of a metric that are told: five minutes."""


def report_of(
    row: ServiceRow,
    policy: Policy | None,
    known: Window,
    errors: Mapping[str, str],
    now: int,
    *,
    count: int,
) -> ScalingReport:
    """Return how scaling stands for a service.

    Args:
        policy: its rules, None for none that count.
        known: what was measured and decided.
        errors: by metric, why it has no value, where that is known.
        count: how many tasks it has to have.
    """
    mode = scale_labels(row.api.Spec.Labels).get("mode", OFF) if policy is None else policy.mode
    scale = row.private.scale
    verdict, frames = known.verdict, known.frames
    told = ScalingReport(
        ID=row.api.ID,
        Name=row.api.Spec.Name,
        Mode=mode if scale_labels(row.api.Spec.Labels) or policy is not None else "",
        Count=count,
        Wanted=count if verdict is None else verdict.count,
        Decisions=decisions_of(row),
    )
    if policy is None:
        return told
    bounds = limits_at(policy, situation_of(row), now).bounds
    floor = scale if scale is not None and scale.until > now else None
    window = frames[-1].at - frames[0].at if frames else 0
    return replace(
        told,
        Min=bounds.least,
        Max=bounds.most,
        Floor=0 if floor is None else floor.floor,
        FloorUntil=None if floor is None else Time(floor.until),
        Reason="not looked at yet" if verdict is None else verdict.reason,
        WindowSeconds=window // SECOND,
        UpAt=None if verdict is None else Time(verdict.up_at),
        DownAt=None if verdict is None else Time(verdict.down_at),
        Rules=tuple(_rules(policy, frames, count, now)),
        Metrics=tuple(_metrics(policy, frames, errors)),
        Notes=policy.notes,
    )


def decisions_of(row: ServiceRow) -> tuple[ScalingDecision, ...]:
    """Return what scaling did to a service, newest first."""
    kept = () if row.private.scale is None else row.private.scale.decisions
    return tuple(
        ScalingDecision(
            At=Time(one.at),
            Rule=one.rule,
            From=one.before,
            To=one.after,
            Reason=one.reason,
            Values=one.values,
            Applied=one.applied,
        )
        for one in reversed(kept)
    )


def _rules(policy: Policy, frames: Sequence[Frame], count: int, now: int) -> Iterator[ScalingRule]:
    tracked = track(policy, frames, count) if frames else ()
    for at, target in enumerate(policy.targets):
        wanted = tracked[at].wanted if tracked else None
        state = "unknown" if wanted is None else f"wants {wanted}"
        yield ScalingRule(Kind="target", Text=target.text, State=state)
    for kind, condition, text in (
        ("up", policy.up, policy.up_text),
        ("down", policy.down, policy.down_text),
    ):
        if condition is not None:
            holds = judge(condition, frames, missing=policy.missing) if frames else None
            state = "unknown" if holds is None else str(holds).lower()
            yield ScalingRule(Kind=kind, Text=text, State=state)
    for window in policy.schedule:
        state = "true" if window.covers(now) else "false"
        yield ScalingRule(Kind="schedule", Text=window.text, State=state)


def _metrics(
    policy: Policy, frames: Sequence[Frame], errors: Mapping[str, str]
) -> Iterator[ScalingMetric]:
    seen: dict[str, Comparison] = {}
    for target in policy.targets:
        function = "sum" if target.per_replica else "avg"
        seen[target.metric] = Comparison(function, target.metric, ">", 0, "", target.base)
    for condition in (policy.up, policy.down):
        for one in comparisons(condition) if condition is not None else ():
            seen.setdefault(one.name, one)
    recent = frames[-POINTS:]
    for name, one in seen.items():
        values = [_value(one, frame) for frame in recent]
        now = values[-1] if values else None
        yield ScalingMetric(
            Name=name,
            Value="" if now is None else value_text(one.metric, now, one.base),
            History=tuple(values),
            Err=errors.get(one.metric, ""),
        )


def _value(comparison: Comparison, frame: Frame) -> float | None:
    low, high = bounds_of(comparison, frame)
    return low if low is not None and low == high else None
