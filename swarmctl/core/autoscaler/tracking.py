"""Target tracking: how many tasks a service needs for a metric to come near its target.

The arithmetic is that of Kubernetes' horizontal pod autoscaler (pkg/controller/podautoscaler,
replica_calculator.go): the number now times value over target, rounded up, and nothing within the
tolerance. What is young or not ready counts as idle when more are wanted; what gave no sample
counts as idle when more are wanted and as busy when fewer are. None of that may turn the direction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from .expression import aggregate
from .metrics import CPU, EPSILON, SECOND, TASK_METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .metrics import Frame
    from .policy import Policy, Target

SMOOTH_NS = 10 * SECOND
"""A task's value is its mean over this long, two samples; benchmarks/scaling.py compares."""


class Tracked(NamedTuple):
    """What one target wants: None where its metric has no value; ``value`` as it was found."""

    target: Target
    wanted: int | None
    value: float | None


class Answer(NamedTuple):
    """What all targets together wanted at one time; None: nothing can be said."""

    at: int
    wanted: int | None


def track(policy: Policy, frames: Sequence[Frame], count: int) -> tuple[Tracked, ...]:
    """Return what each target of a service wants at the last frame.

    Args:
        count: how many tasks it has.
    """
    return tuple(_track(target, policy, frames, count) for target in policy.targets)


def together(tracked: Sequence[Tracked], policy: Policy, count: int) -> int | None:
    """Return what the targets want together: the largest answer wins.

    A metric without a value keeps the others from taking anything away, not from adding.
    """
    wanted = [one.wanted for one in tracked if one.wanted is not None]
    if not wanted:
        return None
    most = max(wanted)
    if len(wanted) < len(tracked) and policy.missing == "hold":
        return max(most, count) if most != count else count
    return most


def answer_of(policy: Policy, frames: Sequence[Frame]) -> Answer:
    """Return what the targets wanted at a window's last frame, as a new leader has to find out."""
    frame = frames[-1]
    count = len(frame.tasks)
    return Answer(frame.at, together(track(policy, frames, count), policy, count))


def _track(target: Target, policy: Policy, frames: Sequence[Frame], count: int) -> Tracked:
    frame = frames[-1]
    if target.metric in policy.sources:
        values = frame.named.get(target.metric, ())
        value = aggregate("sum" if target.per_replica else "avg", values)
        if value is None and policy.missing == "zero":
            value = 0.0
        return Tracked(target, _of_service(target, policy, value, count, frame), value)
    return _of_tasks(target, policy, frames, count)


def _of_service(
    target: Target, policy: Policy, value: float | None, count: int, frame: Frame
) -> int | None:
    if value is None or not math.isfinite(value):
        return None
    working = count if target.per_replica else sum(task.ready for task in frame.tasks)
    if not working:
        return None
    ratio = value / (target.value * (count if target.per_replica else 1))
    if abs(ratio - 1) <= policy.tolerance + EPSILON:
        return count
    return _up(ratio * working)


def _of_tasks(target: Target, policy: Policy, frames: Sequence[Frame], count: int) -> Tracked:
    known, unready, missing = _groups(target.metric, frames)
    if not known:
        zero = policy.missing == "zero" and bool(missing)
        return Tracked(target, 0 if zero else None, 0.0 if zero else None)
    value = math.fsum(known) / len(known)
    ratio = value / target.value
    if policy.missing != "hold":
        known = known + [0.0] * missing if policy.missing == "zero" else known
        missing = 0
    if not missing and not (unready and ratio > 1):
        if abs(ratio - 1) <= policy.tolerance + EPSILON:
            return Tracked(target, count, value)
        return Tracked(target, _up(math.fsum(known) / target.value), value)
    filled = list(known)
    if ratio < 1:
        filled += [max(target.base, target.value)] * missing
    else:
        filled += [0.0] * (missing + unready)
    second = math.fsum(filled) / len(filled) / target.value
    turned = (ratio < 1) != (second < 1)
    if turned or abs(second - 1) <= policy.tolerance + EPSILON:
        return Tracked(target, count, value)
    wanted = _up(second * len(filled))
    against = wanted > count if second < 1 else wanted < count
    return Tracked(target, count if against else wanted, value)


def _groups(metric: str, frames: Sequence[Frame]) -> tuple[list[float], int, int]:
    """Return the values of working tasks, how many are not up to work, how many gave none."""
    assert metric in TASK_METRICS, "others are the user's own"
    since = frames[-1].at - SMOOTH_NS
    sums: dict[str, list[float]] = {}
    for index in range(len(frames) - 1, -1, -1):
        if frames[index].at <= since:
            break
        for task in frames[index].tasks:
            if metric in task.values and (task.settled or metric != CPU):
                sums.setdefault(task.task_id, []).append(task.values[metric])
    known: list[float] = []
    unready = missing = 0
    for task in frames[-1].tasks:
        if not task.ready or (metric == CPU and not task.settled):
            unready += 1
        elif metric not in task.values:
            missing += 1
        else:
            values = sums[task.task_id]
            known.append(math.fsum(values) / len(values))
    return known, unready, missing


def _up(number: float) -> int:
    """Round up; what lies a hair above a whole number is that number."""
    return max(0, math.ceil(number - EPSILON))
