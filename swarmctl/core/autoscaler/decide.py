"""How many tasks a service is to have: one function of its rules, what was measured, and the time.

The order of things, each with the last word over those before it:

1. Targets and conditions say what they want. Up beats down; the largest answer wins.
2. Down waits: a target takes the most it wanted within the window, a condition the cooldown. What
   cannot be told holds still, and so does a window that is not full.
3. A step goes so far and no further.
4. Never more than there is room for.
5. Never beyond the bounds: labels, schedule, a human's number for a while.
6. Never while an update or a rollback is under way, or the service is stopped.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..model.scaling import Bounds
from ..model.service import ScaleDecision
from .expression import bounds_of as comparison_bounds
from .expression import comparisons, judge
from .metrics import GAP_NS, PERIOD_NS, SECOND
from .policy import RULE_UP_NS, Step
from .tracking import Answer, Tracked, together, track
from .words import value_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .expression import Expression
    from .metrics import Frame
    from .policy import Policy

WITHIN_NS = 15 * SECOND
UP_TASKS, UP_SHARE = 4, 1.0
"""A target adds that many tasks within that time at most, or doubles them, and takes some away once
within it; as HPA does."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What of a service counts beside its rules and its load.

    Attributes:
        count: how many tasks it has to have now.
        floor, until: a human's number is the least until that time.
        decisions: what scaling did to it, oldest first.
        holds: why nothing may change now, or "".
        room: how many tasks more could be placed, None for unknown.
    """

    count: int
    floor: int = 0
    until: int = 0
    decisions: tuple[ScaleDecision, ...] = ()
    holds: str = ""
    room: int | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with a service now, and what led there.

    Attributes:
        count: how many tasks it is to have.
        rule: what decided; "" where nothing changes.
        reason: a sentence, also of why nothing changes.
        values: what the rules looked at, by metric; one that has no value is left out.
        capped: more was wanted than there is room for.
        answer: what the targets want together now, for the window of scaling down.
        up_at, down_at: before these times, in nanoseconds, no rule can change the number.
    """

    count: int
    rule: str
    reason: str
    bounds: Bounds
    values: dict[str, float]
    answer: Answer | None = None
    capped: bool = False
    up_at: int = 0
    down_at: int = 0


class _Wish(NamedTuple):
    number: int
    rule: str
    reason: str
    capped: bool = False


def decide(
    policy: Policy,
    situation: Situation,
    frames: Sequence[Frame],
    answers: Sequence[Answer],
    now: int,
) -> Verdict:
    """Return how many tasks a service is to have, and why.

    Args:
        frames: its window, oldest first; may be empty.
        answers: of the targets, at earlier decisions, oldest first.
        now: wall time in nanoseconds, not before the last frame.
    """
    bounds, bound_by = bounds_at(policy, situation, now)
    tracked = track(policy, frames, situation.count) if frames else ()
    answer = Answer(now, together(tracked, policy, situation.count)) if frames else None
    times = _times(policy, situation, now)
    wish = _Wish(situation.count, "", situation.holds)
    if not situation.holds:
        known = (*answers, *([answer] if answer else ()))
        wish = _wish(policy, situation, frames, known, bounds.most, now)
        wish = _within(wish, situation, bounds, bound_by)
    return Verdict(
        count=wish.number,
        rule=wish.rule if wish.number != situation.count else "",
        reason=wish.reason,
        bounds=bounds,
        values=values_of(policy, frames, tracked),
        answer=answer if policy.targets else None,
        capped=wish.capped,
        up_at=times[0],
        down_at=times[1],
    )


def bounds_at(policy: Policy, situation: Situation, now: int) -> tuple[Bounds, str]:
    """Return the bounds that hold at a time, and what makes the lower one."""
    least, most, by = policy.least, policy.most, "bounds"
    covering = [window for window in policy.schedule if window.covers(now)]
    for window in covering:
        if window.most is not None:
            most = min(most, window.most)
    for window in covering:
        if window.least is not None and window.least > least:
            least, by = min(window.least, policy.most), f"schedule {window.text}"
    most = max(most, least)  # of two windows that contradict each other, more tasks win
    if situation.until > now and situation.floor > least:
        least, by = min(situation.floor, most), "floor"
    return Bounds(least, most), by


def _within(wish: _Wish, situation: Situation, bounds: Bounds, bound_by: str) -> _Wish:
    """Return a wish within the bounds; one that they push says so."""
    count = bounds.clamp(wish.number)
    if count == wish.number:
        return wish
    if count > wish.number:
        reason = f"at least {bounds.least} ({bound_by})"
    else:
        reason = f"at most {bounds.most}"
    if count == situation.count:
        wanted = f"; {wish.reason}" if wish.reason else ""
        return _Wish(count, "", f"{reason}{wanted}", wish.capped)
    rule = (
        wish.rule if (wish.number - situation.count) * (count - situation.count) > 0 else bound_by
    )
    return _Wish(count, rule, f"{wish.reason}; {reason}" if rule == wish.rule else reason)


# --- what is wanted ------------------------------------------------------------------------------


def _wish(
    policy: Policy,
    situation: Situation,
    frames: Sequence[Frame],
    answers: Sequence[Answer],
    most: int,
    now: int,
) -> _Wish:
    count = situation.count
    if not frames or now - frames[-1].at > 3 * PERIOD_NS:
        return _Wish(count, "", "nothing was measured yet")
    tracked = track(policy, frames, count)
    upward = _upward(policy, situation, frames, tracked, now)
    if upward.number > count:
        return _capped(upward, situation, most)
    if upward.rule:  # it wants more and waits
        return upward._replace(rule="")
    return _downward(policy, situation, frames, (tracked, answers), now)


def _upward(
    policy: Policy,
    situation: Situation,
    frames: Sequence[Frame],
    tracked: Sequence[Tracked],
    now: int,
) -> _Wish:
    """Return the largest number that a rule wants, if it is more."""
    count = situation.count
    wishes: list[_Wish] = []
    for one in tracked:
        if one.wanted is not None and one.wanted > count:
            reach = _target_reach(policy, situation, now)
            text = f"{one.target.metric} is {_value(one)}, target {one.target.text}"
            wishes.append(
                _waiting(
                    policy,
                    situation,
                    now,
                    0,
                    _Wish(min(one.wanted, reach), f"target {one.target.text}", text),
                )
            )
    if policy.up is not None and judge(policy.up, frames, missing=policy.missing):
        reach = (policy.up_by or Step(tasks=1)).reach(count, 1)
        text = f"{policy.up_text} ({_seen(policy.up, frames)})"
        wishes.append(
            _waiting(
                policy, situation, now, RULE_UP_NS, _Wish(reach, f"up when {policy.up_text}", text)
            )
        )
    return max(wishes, key=lambda wish: wish.number, default=_Wish(count, "", ""))


def _waiting(policy: Policy, situation: Situation, now: int, default: int, wish: _Wish) -> _Wish:
    """Return a wish for more, or that it waits for the cooldown."""
    if wish.number <= situation.count:
        return wish._replace(number=situation.count, reason=f"{wish.reason}; one step at a time")
    wait = default if policy.cooldown_up is None else policy.cooldown_up
    since = last_step(situation, now, up_only=True)
    if since is not None and now - since < wait:
        return wish._replace(number=situation.count, reason=f"{wish.reason}; cooling down")
    return wish


def _target_reach(policy: Policy, situation: Situation, now: int) -> int:
    """Return how many tasks a target may have at the most now."""
    within = max(WITHIN_NS, policy.cooldown_up or 0)
    began = situation.count
    for decision in reversed(situation.decisions):
        if not decision.applied or now - min(decision.at, now) >= within:
            break
        began = min(began, decision.before)
    if policy.up_by is not None:
        return policy.up_by.reach(began, 1)
    return max(Step(tasks=UP_TASKS).reach(began, 1), Step(share=UP_SHARE).reach(began, 1))


def _capped(wish: _Wish, situation: Situation, most: int) -> _Wish:
    """Return a wish as far as there is room; what the bounds cut off anyway needs none."""
    wanted = min(wish.number, most)
    if situation.room is None or wanted <= situation.count + situation.room:
        return wish
    count = situation.count + max(0, situation.room)
    return _Wish(count, wish.rule, f"capped: no room for {wanted} tasks; {wish.reason}", True)


def _downward(
    policy: Policy,
    situation: Situation,
    frames: Sequence[Frame],
    targets: tuple[Sequence[Tracked], Sequence[Answer]],
    now: int,
) -> _Wish:
    """Return a smaller number if everybody who has a say wants one: the largest of theirs."""
    count = situation.count
    wishes: list[_Wish] = []
    if policy.targets:
        wishes.append(_lowest_of_targets(policy, situation, *targets, now))
    if policy.down is not None:
        wishes.append(_down_condition(policy, situation, frames, now))
    if not wishes:
        return _Wish(count, "", "no rule wants a change")
    wish = max(wishes, key=lambda each: each.number)
    if wish.number >= count:
        return _Wish(count, "", wish.reason)
    unknown = policy.up is not None and judge(policy.up, frames, missing=policy.missing) is None
    if unknown and policy.missing == "hold":
        return _Wish(count, "", f"whether {policy.up_text} cannot be told")
    return wish


def _lowest_of_targets(
    policy: Policy,
    situation: Situation,
    tracked: Sequence[Tracked],
    answers: Sequence[Answer],
    now: int,
) -> _Wish:
    count = situation.count
    missing = [one.target.metric for one in tracked if one.wanted is None]
    if missing and (policy.missing == "hold" or len(missing) == len(tracked)):
        return _Wish(count, "", f"{', '.join(missing)} has no value")
    window = policy.down_window
    recent = [each for each in answers if each.at > now - window and each.wanted is not None]
    text = ", ".join(
        f"{one.target.metric} is {_value(one)}, target {one.target.text}" for one in tracked
    )
    wanted = max((each.wanted or 0 for each in recent), default=count)
    if wanted >= count:
        return _Wish(count, "", text)
    if not _is_full([each.at for each in recent], now - window):
        return _Wish(count, "", f"{text}; it has not been low for long enough")
    since = last_step(situation, now)
    if since is not None and now - since < WITHIN_NS:
        return _Wish(count, "", f"{text}; one step at a time")
    reach = policy.down_by.reach(count, -1) if policy.down_by is not None else 0
    rule = " ".join(["target", *(one.target.text for one in tracked)])
    return _Wish(max(wanted, reach), rule, text)


def _is_full(times: Sequence[int], start: int) -> bool:
    """Return whether something was known from a time on until now, but for a moment."""
    gaps = (later - earlier for earlier, later in pairwise(times))
    return times[0] - start <= 2 * PERIOD_NS and all(gap <= GAP_NS for gap in gaps)


def _down_condition(
    policy: Policy, situation: Situation, frames: Sequence[Frame], now: int
) -> _Wish:
    count = situation.count
    assert policy.down is not None, "who asks has looked"
    holds = judge(policy.down, frames, missing=policy.missing)
    seen = _seen(policy.down, frames)
    if not holds:
        text = "not so" if holds is False else "cannot be told"
        return _Wish(count, "", f"{policy.down_text}: {text} ({seen})")
    since = last_step(situation, now)
    if since is not None and now - since < policy.down_window:
        return _Wish(count, "", f"{policy.down_text} ({seen}); cooling down")
    reach = max(1, (policy.down_by or Step(tasks=1)).reach(count, -1))
    return _Wish(reach, f"down when {policy.down_text}", f"{policy.down_text} ({seen})")


# --- times and words -----------------------------------------------------------------------------


def last_step(situation: Situation, now: int, *, up_only: bool = False) -> int | None:
    """Return when the number last changed; a time that is yet to come counts as now."""
    for decision in reversed(situation.decisions):
        if decision.applied and (decision.after > decision.before or not up_only):
            return min(decision.at, now)
    return None


def _times(policy: Policy, situation: Situation, now: int) -> tuple[int, int]:
    up, step = last_step(situation, now, up_only=True), last_step(situation, now)
    default = RULE_UP_NS if policy.up is not None and not policy.targets else 0
    wait = default if policy.cooldown_up is None else policy.cooldown_up
    up_at = now if up is None else max(now, up + wait)
    down_at = now if step is None else max(now, step + policy.down_window)
    return up_at, down_at


def values_of(
    policy: Policy, frames: Sequence[Frame], tracked: Sequence[Tracked]
) -> dict[str, float]:
    """Return what the rules see now, by metric."""
    values = {one.target.metric: one.value for one in tracked if one.value is not None}
    for condition in (policy.up, policy.down):
        for one in comparisons(condition) if condition is not None and frames else ():
            low, high = comparison_bounds(one, frames[-1])
            name = one.metric if one.function == "avg" else f"{one.function}({one.metric})"
            if low is not None and low == high and math.isfinite(low):
                values.setdefault(name, low)
    return values


def _seen(condition: Expression, frames: Sequence[Frame]) -> str:
    found: dict[str, None] = {}
    for one in comparisons(condition):
        low, high = comparison_bounds(one, frames[-1])
        name = one.metric if one.function == "avg" else f"{one.function}({one.metric})"
        told = (
            value_text(one.metric, low, one.base) if low is not None and low == high else "unknown"
        )
        found[f"{name} {told}"] = None
    return ", ".join(found)


def _value(tracked: Tracked) -> str:
    if tracked.value is None:
        return "unknown"
    return value_text(tracked.target.metric, tracked.value, tracked.target.base)
