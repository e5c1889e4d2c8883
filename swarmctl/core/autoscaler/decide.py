"""How many tasks a service is to have: one function of its rules, what was measured, and the time.

The order of things, each with the last word over those before it:

1. Targets and conditions say what they want. Up beats down; the largest answer wins.
2. Down waits: a target takes the most it wanted within the window, a condition the cooldown; so
   does a target whose cooldown is longer than windows are. What cannot be told holds still, and so
   does a window that is not full.
3. A step goes so far and no further.
4. Never more than there is room for.
5. Never beyond the bounds: labels, schedule, a human's number for a while.
6. Never while an update or a rollback is under way, or the service is stopped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..model.scaling import Bounds
from ..model.service import ScaleDecision
from .expression import bounds_of as comparison_bounds
from .expression import comparisons, judge
from .metrics import GAP_NS, PERIOD_NS, SECOND, WINDOW_NS
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


class Limits(NamedTuple):
    """The bounds that hold at a time, and what makes each of them: ``bounds`` for the labels."""

    bounds: Bounds
    least_by: str
    most_by: str


class _Wish(NamedTuple):
    number: int
    rule: str
    reason: str
    capped: bool = False


class _Sight(NamedTuple):
    """All that a decision rests on; ``answers`` end with the present one."""

    policy: Policy
    situation: Situation
    frames: Sequence[Frame]
    tracked: Sequence[Tracked]
    answers: Sequence[Answer]
    now: int

    def judge(self, condition: Expression) -> bool | None:
        return judge(condition, self.frames, missing=self.policy.missing)


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
    limits = limits_at(policy, situation, now)
    tracked = track(policy, frames, situation.count) if frames else ()
    answer = Answer(now, together(tracked, policy, situation.count)) if tracked else None
    known = answers if answer is None else (*answers, answer)
    sight = _Sight(policy, situation, frames, tracked, known, now)
    wish = _Wish(situation.count, "", situation.holds)
    if not situation.holds:
        wish = _within(_wish(sight, limits.bounds.most), situation, limits)
    return Verdict(
        count=wish.number,
        rule=wish.rule if wish.number != situation.count else "",
        reason=wish.reason,
        bounds=limits.bounds,
        values=_values(sight),
        answer=answer,
        capped=wish.capped,
        up_at=_up_at(sight),
        down_at=_down_at(sight),
    )


def limits_at(policy: Policy, situation: Situation, now: int) -> Limits:
    """Return the bounds that hold at a time."""
    least, most = policy.least, policy.most
    least_by = most_by = "bounds"
    covering = [window for window in policy.schedule if window.covers(now)]
    for window in covering:
        if window.most is not None and window.most < most:
            most, most_by = window.most, f"schedule {window.text}"
    for window in covering:
        if window.least is not None and window.least > least:
            least, least_by = min(window.least, policy.most), f"schedule {window.text}"
    if most < least:  # of two windows that contradict each other, more tasks win
        most, most_by = least, least_by
    if situation.until > now and situation.floor > least:
        least, least_by = min(situation.floor, most), "floor"
    return Limits(Bounds(least, most), least_by, most_by)


def _within(wish: _Wish, situation: Situation, limits: Limits) -> _Wish:
    """Return a wish within the bounds; one that they push says so."""
    bounds = limits.bounds
    count = bounds.clamp(wish.number)
    if count == wish.number:
        return wish
    if count > wish.number:
        bound_by, reason = limits.least_by, f"at least {bounds.least} ({limits.least_by})"
    else:
        bound_by, reason = limits.most_by, f"at most {bounds.most} ({limits.most_by})"
    if count == situation.count:
        wanted = f"; {wish.reason}" if wish.reason else ""
        return _Wish(count, "", f"{reason}{wanted}", wish.capped)
    if (wish.number - situation.count) * (count - situation.count) > 0:  # it goes less far
        return _Wish(count, wish.rule, f"{wish.reason}; {reason}")
    return _Wish(count, bound_by, reason)


# --- what is wanted ------------------------------------------------------------------------------


def _wish(sight: _Sight, most: int) -> _Wish:
    count = sight.situation.count
    if not sight.frames or sight.now - sight.frames[-1].at > GAP_NS:
        return _Wish(count, "", "nothing was measured yet")
    upward = _upward(sight)
    if upward.number > count:
        return _capped(upward, sight.situation, most)
    if upward.rule:  # it wants more and waits
        return upward._replace(rule="")
    return _downward(sight)


def _upward(sight: _Sight) -> _Wish:
    """Return the largest number that a rule wants, if it is more."""
    policy, count = sight.policy, sight.situation.count
    wishes: list[_Wish] = []
    for one in sight.tracked:
        if one.wanted is not None and one.wanted > count:
            number = min(one.wanted, _target_reach(sight))
            wishes.append(
                _waiting(sight, 0, _Wish(number, f"target {one.target.text}", _told(one)))
            )
    if policy.up is not None and sight.judge(policy.up):
        reach = (policy.up_by or Step(tasks=1)).reach(count, 1)
        text = f"{policy.up_text} ({_seen(policy.up, sight.frames)})"
        wishes.append(_waiting(sight, RULE_UP_NS, _Wish(reach, f"up when {policy.up_text}", text)))
    return max(wishes, key=lambda wish: wish.number, default=_Wish(count, "", ""))


def _waiting(sight: _Sight, default: int, wish: _Wish) -> _Wish:
    """Return a wish for more, or that it waits for the cooldown.

    Args:
        default: how long it waits after a step up where the labels do not say.
    """
    count, policy = sight.situation.count, sight.policy
    if wish.number <= count:
        return wish._replace(number=count, reason=f"{wish.reason}; one step at a time")
    wait = default if policy.cooldown_up is None else policy.cooldown_up
    since = _last_step(sight.situation, sight.now, up_only=True)
    if since is not None and sight.now - since < wait:
        return wish._replace(number=count, reason=f"{wish.reason}; cooling down")
    return wish


def _target_reach(sight: _Sight) -> int:
    """Return how many tasks a target may have at the most now."""
    policy, situation, now = sight.policy, sight.situation, sight.now
    within = max(WITHIN_NS, policy.cooldown_up or 0)
    began = situation.count
    for decision in reversed(situation.decisions):
        if now - min(decision.at, now) >= within:
            break
        if decision.applied:
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


def _downward(sight: _Sight) -> _Wish:
    """Return a smaller number if everybody who has a say wants one: the largest of theirs."""
    policy, count = sight.policy, sight.situation.count
    wishes: list[_Wish] = []
    if policy.targets:
        wishes.append(_lowest_of_targets(sight))
    if policy.down is not None:
        wishes.append(_down_condition(sight, policy.down))
    if not wishes:
        return _Wish(count, "", "no rule wants a change")
    wish = max(wishes, key=lambda each: each.number)
    if wish.number >= count:
        return _Wish(count, "", wish.reason)
    if policy.up is not None and policy.missing == "hold" and sight.judge(policy.up) is None:
        return _Wish(count, "", f"whether {policy.up_text} cannot be told")
    return wish


def _lowest_of_targets(sight: _Sight) -> _Wish:
    policy, count, now = sight.policy, sight.situation.count, sight.now
    missing = [one.target.metric for one in sight.tracked if one.wanted is None]
    if missing and (policy.missing == "hold" or len(missing) == len(sight.tracked)):
        return _Wish(count, "", f"{', '.join(missing)} has no value")
    text = ", ".join(map(_told, sight.tracked))
    start = now - _window_of(policy)
    recent = [
        each.wanted
        for each in sight.answers
        if each.wanted is not None and (each.at > start or each.at == now)
    ]
    wanted = max(recent, default=count)
    if wanted >= count:
        return _Wish(count, "", text)
    if _low_at(sight) > now:
        return _Wish(count, "", f"{text}; it has not been low for long enough")
    since = _last_step(sight.situation, now)
    if since is not None and now - since < WITHIN_NS:
        return _Wish(count, "", f"{text}; one step at a time")
    if since is not None and policy.down_window > WINDOW_NS and now - since < policy.down_window:
        return _Wish(count, "", f"{text}; cooling down")
    reach = policy.down_by.reach(count, -1) if policy.down_by is not None else 0
    rule = " ".join(["target", *(one.target.text for one in sight.tracked)])
    return _Wish(max(wanted, reach), rule, text)


def _window_of(policy: Policy) -> int:
    """Return how far back targets look before they take tasks away; nobody remembers more."""
    return min(policy.down_window, WINDOW_NS)


def _low_at(sight: _Sight) -> int:
    """Return when, at the earliest, a window can be full of answers that want fewer tasks."""
    count, now, window = sight.situation.count, sight.now, _window_of(sight.policy)
    began = now
    for each in reversed(sight.answers):
        if began - each.at > GAP_NS or each.at <= now - window:
            break
        if each.wanted is None:
            continue  # a hole, if it lasts
        if each.wanted >= count:
            return each.at + window
        began = each.at
    return max(now, began + window - 2 * PERIOD_NS)


def _down_condition(sight: _Sight, condition: Expression) -> _Wish:
    policy, count = sight.policy, sight.situation.count
    holds = sight.judge(condition)
    seen = _seen(condition, sight.frames)
    if not holds:
        text = "not so" if holds is False else "cannot be told"
        return _Wish(count, "", f"{policy.down_text}: {text} ({seen})")
    since = _last_step(sight.situation, sight.now)
    if since is not None and sight.now - since < policy.down_window:
        return _Wish(count, "", f"{policy.down_text} ({seen}); cooling down")
    reach = max(1, (policy.down_by or Step(tasks=1)).reach(count, -1))
    return _Wish(reach, f"down when {policy.down_text}", f"{policy.down_text} ({seen})")


# --- times and words -----------------------------------------------------------------------------


def _last_step(situation: Situation, now: int, *, up_only: bool = False) -> int | None:
    """Return when the number last changed; a time that is yet to come counts as now."""
    for decision in reversed(situation.decisions):
        if decision.applied and (decision.after > decision.before or not up_only):
            return min(decision.at, now)
    return None


def _up_at(sight: _Sight) -> int:
    policy, now = sight.policy, sight.now
    step = _last_step(sight.situation, now, up_only=True)
    default = RULE_UP_NS if policy.up is not None and not policy.targets else 0
    wait = default if policy.cooldown_up is None else policy.cooldown_up
    return now if step is None else max(now, step + wait)


def _down_at(sight: _Sight) -> int:
    policy, now = sight.policy, sight.now
    step = _last_step(sight.situation, now)
    at = now
    if policy.targets:
        at = max(at, _low_at(sight), now if step is None else step + WITHIN_NS)
    if step is not None and (policy.down is not None or policy.down_window > WINDOW_NS):
        at = max(at, step + policy.down_window)
    return at


def _values(sight: _Sight) -> dict[str, float]:
    """Return what the rules see now, by metric."""
    policy, frames = sight.policy, sight.frames
    values = {one.target.metric: one.value for one in sight.tracked if one.value is not None}
    for condition in (policy.up, policy.down):
        for one in comparisons(condition) if condition is not None and frames else ():
            low, high = comparison_bounds(one, frames[-1])
            if low is not None and low == high and math.isfinite(low):
                values.setdefault(one.name, low)
    return values


def _seen(condition: Expression, frames: Sequence[Frame]) -> str:
    found: dict[str, None] = {}
    for one in comparisons(condition):
        low, high = comparison_bounds(one, frames[-1])
        told = (
            value_text(one.metric, low, one.base) if low is not None and low == high else "unknown"
        )
        found[f"{one.name} {told}"] = None
    return ", ".join(found)


def _told(tracked: Tracked) -> str:
    target, value = tracked.target, tracked.value
    told = "unknown" if value is None else value_text(target.metric, value, target.base)
    return f"{target.metric} is {told}, target {target.text}"
