"""How scaling stands for a service: what ``GET /services/{id}/scaling`` answers.

Ours: Docker has no such route. Values come as numbers and as people read them.
"""

from __future__ import annotations

import msgspec

from .base import NEVER, ApiStruct, Time, printed


class ScalingRule(ApiStruct, frozen=True, kw_only=True):
    """One rule: ``target``, ``up``, ``down`` or ``schedule``, and how it stands.

    Attributes:
        State: ``true``, ``false``, ``unknown`` for conditions; for a target what it wants.
    """

    Kind: str = printed("")
    Text: str = printed("")
    State: str = printed("")


class ScalingMetric(ApiStruct, frozen=True, kw_only=True):
    """What one metric is, on average over the tasks.

    Attributes:
        Value: as people read it; "" while there is none.
        History: its values, oldest first, some seconds apart; null where it had none.
        Err: why there is no value, where that is known.
    """

    Name: str = printed("")
    Value: str = printed("")
    History: tuple[float | None, ...] = printed(())
    Err: str = ""


class ScalingDecision(ApiStruct, frozen=True, kw_only=True):
    """One step that was taken, or would have been."""

    At: Time = printed(NEVER)
    Rule: str = printed("")
    From: int = printed(0)
    To: int = printed(0)
    Reason: str = printed("")
    Values: dict[str, float] = msgspec.field(default_factory=dict)
    Applied: bool = printed(True)


class ScalingReport(ApiStruct, frozen=True, kw_only=True):
    """A service's rules, what they see, and what they did.

    Attributes:
        Mode: ``act``, ``recommend``, ``off``; "" for a service without rules.
        Min, Max: the bounds that hold now.
        Count: how many tasks it has to have; Wanted: what the rules want now.
        Floor: a human's number, the least until ``FloorUntil``.
        Reason: why the number is what it is.
        WindowSeconds: how far back its window goes.
        UpAt, DownAt: when the next step in either direction can be taken, if load asks for it.
        Notes: what the user should know of the rules.
        DryRun: the rules are not set; they were only looked at.
    """

    ID: str = printed("")
    Name: str = printed("")
    Mode: str = printed("")
    Min: int = printed(0)
    Max: int = printed(0)
    Count: int = printed(0)
    Wanted: int = printed(0)
    Floor: int = 0
    FloorUntil: Time | None = None
    Reason: str = printed("")
    WindowSeconds: int = printed(0)
    UpAt: Time | None = None
    DownAt: Time | None = None
    Rules: tuple[ScalingRule, ...] = printed(())
    Metrics: tuple[ScalingMetric, ...] = printed(())
    Decisions: tuple[ScalingDecision, ...] = printed(())
    Notes: tuple[str, ...] = printed(())
    DryRun: bool = False


class ScalingTest(ApiStruct, frozen=True, kw_only=True):
    """``POST /services/{id}/scaling``: rules to look at and not to set.

    Attributes:
        Labels: take the place of the service's labels of the same names; "" takes one away.
    """

    Labels: dict[str, str] = msgspec.field(default_factory=dict)
