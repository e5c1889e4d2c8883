"""Conditions: ``cpu > 80% for 1m or p95(latency_ms) > 300``, parsed and judged.

The grammar, in full (docs/design/scaling.md explains it)::

    condition   = both { "or" both }
    both        = held { "and" held }
    held        = term { "and" term } [ "for" DURATION ]
    term        = "not" term | "(" condition ")" | comparison
    comparison  = value OPERATOR NUMBER [ UNIT ]
    value       = NAME | FUNCTION "(" NAME ")"
    FUNCTION    = "avg" | "min" | "max" | "sum" | "p50" ... "p99"
    OPERATOR    = ">" | ">=" | "<" | "<=" | "==" | "!="

``for`` takes everything before it that ``and`` joins, back to the last ``for``, ``or`` or opening
parenthesis: in ``cpu < 30% and mem < 60% for 5m`` both have held for five minutes. A ``for`` inside
another is refused.

Judgement has three values: true, false, and None for what cannot be told. What is not known is not
guessed: a comparison is true or false only if it is so whatever the tasks without a sample use.
"""

from __future__ import annotations

import math
import operator
import re
from typing import TYPE_CHECKING, NamedTuple, Union

from ..model.duration import format_duration, parse_duration
from .metrics import (
    CPU,
    GAP_NS,
    GAUGES,
    MEM,
    NAMED,
    PERIOD_NS,
    TASK_METRICS,
    UNITS,
    WINDOW_NS,
    Bases,
    Frame,
    kind_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

DEPTH_MAX = 20
SHARE = "share"
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_KEYWORDS = ("and", "or", "not", "for")
_FUNCTION = re.compile(r"avg|min|max|sum|p[5-9]\d", re.ASCII)
_TOKEN = re.compile(
    r"\s*(?:(?P<duration>(?:\d+(?:\.\d+)?(?:ms|us|s|m|h)){2,})"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>[A-Za-z_][\w.]*)"
    r"|(?P<sign>>=|<=|==|!=|[><()%]))",
    re.ASCII,
)


class ExpressionError(ValueError):
    """The text is no condition; ``at`` is the place, counted in characters."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.at = at


class Comparison(NamedTuple):
    """One value against a number.

    Attributes:
        limit: in the metric's own unit; a percentage is resolved.
        text: as it was written.
        base: what 100 % are, for showing a value as it was asked for; 0: not as a percentage.
    """

    function: str
    metric: str
    sign: str
    limit: float
    text: str
    base: float = 0.0

    @property
    def name(self) -> str:
        """What its value is called: the metric, with the function where that is not the mean."""
        return self.metric if self.function == "avg" else f"{self.function}({self.metric})"


class Not(NamedTuple):
    """The opposite."""

    term: Expression


class Every(NamedTuple):
    """All of them (``and``)."""

    terms: tuple[Expression, ...]


class AnyOf(NamedTuple):
    """At least one of them (``or``)."""

    terms: tuple[Expression, ...]


class Held(NamedTuple):
    """It has been so for a time."""

    term: Expression
    duration_ns: int


Expression = Union[Comparison, Not, Every, AnyOf, Held]  # noqa: UP007 - named before it exists


def parse(text: str, bases: Bases, named: Collection[str] = ()) -> Expression:
    """Return a condition, parsed.

    Args:
        bases: what 100 % of a task's CPU and memory are.
        named: the user's own metrics.

    Raises:
        ExpressionError: it is none, and where.
    """
    return _Parser(text, bases, named).parse()


class _Token(NamedTuple):
    kind: str  # duration, number, name, sign, end
    text: str
    at: int


class _Parser:
    def __init__(self, text: str, bases: Bases, named: Collection[str]) -> None:
        self._text, self._bases, self._named = text, bases, named
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression:
        found = self._condition()
        token = self._peek()
        if token.kind != "end":
            raise ExpressionError(f"{token.text!r} is not expected here", token.at)
        return found

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _is(self, word: str) -> bool:
        if self._peek().text != word or self._peek().kind == "end":
            return False
        self._next += 1
        return True

    def _condition(self) -> Expression:
        terms = [self._both()]
        while self._is("or"):
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else AnyOf(tuple(terms))

    def _both(self) -> Expression:
        done: list[Expression] = []
        since_for = [self._term()]
        while True:
            at = self._peek().at
            if self._is("for"):
                if not since_for:
                    raise ExpressionError("'for' has nothing before it", at)
                term = since_for[0] if len(since_for) == 1 else Every(tuple(since_for))
                if _has_held(term):
                    raise ExpressionError("a 'for' inside another has no meaning", at)
                done.append(Held(term, self._duration()))
                since_for = []
            elif self._is("and"):
                since_for.append(self._term())
            else:
                break
        terms = (*done, *since_for)
        return terms[0] if len(terms) == 1 else Every(terms)

    def _term(self) -> Expression:
        token = self._peek()
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ExpressionError(f"more than {DEPTH_MAX} levels", token.at)
        try:
            if self._is("not"):
                return Not(self._term())
            if self._is("("):
                found = self._condition()
                if not self._is(")"):
                    raise ExpressionError("')' is missing", self._peek().at)
                return found
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Comparison:
        first = self._take()
        if first.kind != "name" or first.text in _KEYWORDS:
            what = repr(first.text) if first.kind != "end" else "nothing"
            raise ExpressionError(f"a metric is expected, such as cpu, not {what}", first.at)
        function, metric = "avg", first
        if self._is("("):
            if not _FUNCTION.fullmatch(first.text):
                raise ExpressionError(
                    f"{first.text!r} is no function: avg, min, max, sum, p50 to p99", first.at
                )
            function, metric = first.text, self._take()
            if not self._is(")"):
                raise ExpressionError("')' is missing", self._peek().at)
        kind = self._kind_of(metric)
        if kind is not NAMED and metric.text in GAUGES and function != "avg":
            raise ExpressionError(
                f"{metric.text} is one number of the whole service and takes no function", first.at
            )
        sign = self._take()
        if sign.text not in _COMPARE:
            raise ExpressionError("a comparison is expected: > >= < <= == !=", sign.at)
        number = self._peek()
        limit, base = self._limit(metric.text, kind)
        if kind == SHARE and limit > 1 and function != "sum":
            raise ExpressionError(f"{metric.text} is a share, 100% (1) at most", number.at)
        text = self._text[first.at : self._end_of_last()]
        return Comparison(function, metric.text, sign.text, limit, text, base)

    def _kind_of(self, metric: _Token) -> str:
        kind = NAMED if metric.text in self._named else kind_of(metric.text)
        if metric.kind == "name" and kind is not None:
            return kind
        known = ", ".join((*TASK_METRICS, *GAUGES, *sorted(self._named)))
        raise ExpressionError(f"{metric.text!r} is no metric; there are {known}", metric.at)

    def _limit(self, metric: str, kind: str) -> tuple[float, float]:
        """Return a number in the metric's unit, and what 100 % are if it was a percentage."""
        number = self._take()
        if number.kind != "number":
            raise ExpressionError("a number is expected", number.at)
        unit = self._peek()
        touches = unit.at == number.at + len(number.text)
        if unit.text not in UNITS:
            if touches and unit.kind == "name":
                raise _bad_unit(metric, kind, unit)
            return float(number.text), 0.0
        if not touches:
            raise ExpressionError(f"no space is between a number and its unit {unit.text}", unit.at)
        self._take()
        value, base = _resolved(float(number.text), unit, metric, kind, self._bases)
        return value, base

    def _duration(self) -> int:
        start = self._peek()
        end = start.at
        while self._peek().kind in ("number", "name", "duration") and self._peek().at == end:
            token = self._take()
            end = token.at + len(token.text)
        text = self._text[start.at : end]
        try:
            duration = parse_duration(text)
        except ValueError:
            raise ExpressionError("a duration is expected, such as 1m or 30s", start.at) from None
        if not PERIOD_NS <= duration <= WINDOW_NS:
            raise ExpressionError(
                f"windows are from {format_duration(PERIOD_NS)} to {format_duration(WINDOW_NS)} "
                "long",
                start.at,
            )
        return duration

    def _end_of_last(self) -> int:
        last = self._tokens[self._next - 1]
        return last.at + len(last.text)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise ExpressionError(f"{text[at]!r} is not expected here", at)
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    found.append(_Token("end", "", len(text.rstrip())))
    return found


def _resolved(
    number: float, unit: _Token, metric: str, kind: str, bases: Bases
) -> tuple[float, float]:
    measures, factor = UNITS[unit.text]
    if measures == SHARE and metric in (CPU, MEM) and kind is not NAMED:
        base = bases.of(metric)
        if not base:
            word = "cpu" if metric == CPU else "memory"
            raise ExpressionError(
                f"{metric} in % is of what a task reserves, or of its limit, and this service has "
                f"neither (--reserve-{word}, --limit-{word})",
                unit.at,
            )
        return number * factor * base, base
    if kind not in (NAMED, measures):
        raise _bad_unit(metric, kind, unit)
    return number * factor, 1.0 if measures == SHARE else 0.0


def _bad_unit(metric: str, kind: str, unit: _Token) -> ExpressionError:
    fitting = [name for name, (measures, _) in UNITS.items() if kind in (measures, NAMED)]
    if metric in (CPU, MEM):
        fitting.insert(0, "%")
    may = f"may have {', '.join(fitting)} or no unit" if fitting else "has no unit"
    return ExpressionError(f"{unit.text!r} is no unit of {metric}, which {may}", unit.at)


def _has_held(expression: Expression) -> bool:
    if isinstance(expression, Held):
        return True
    if isinstance(expression, Not):
        return _has_held(expression.term)
    return isinstance(expression, (Every, AnyOf)) and any(map(_has_held, expression.terms))


# --- judging -------------------------------------------------------------------------------------


def comparisons(expression: Expression) -> list[Comparison]:
    """Return every comparison of a condition, in order."""
    if isinstance(expression, Comparison):
        return [expression]
    if isinstance(expression, (Not, Held)):
        return comparisons(expression.term)
    return [one for term in expression.terms for one in comparisons(term)]


def judge(
    expression: Expression, frames: Sequence[Frame], at: int = -1, *, missing: str = "hold"
) -> bool | None:
    """Return whether a condition holds at a frame; None if that cannot be told.

    Args:
        frames: the window, oldest first.
        at: index of the frame; the last by default.
        missing: what a value that is not known counts as: ``hold`` (nothing can be told), ``zero``,
            or ``ignore`` (the other operands of ``and`` and ``or`` decide).
    """
    if isinstance(expression, Comparison):
        return _compare(expression, frames[at], missing)
    if isinstance(expression, Not):
        found = judge(expression.term, frames, at, missing=missing)
        return None if found is None else not found
    if isinstance(expression, Held):
        return _judge_held(expression, frames, at, missing)
    found_all = [judge(term, frames, at, missing=missing) for term in expression.terms]
    if missing == "ignore":
        found_all = [one for one in found_all if one is not None] or [None]
    decisive = isinstance(expression, AnyOf)  # one of these settles it
    if decisive in found_all:
        return decisive
    return None if None in found_all else not decisive


def _judge_held(held: Held, frames: Sequence[Frame], at: int, missing: str) -> bool | None:
    at %= len(frames)
    start = frames[at].at - held.duration_ns
    verdict: bool | None = True
    later = frames[at].at
    for index in range(at, -1, -1):
        frame = frames[index]
        if frame.at < start:
            break
        found = judge(held.term, frames, index, missing=missing)
        if found is False:
            return False
        if found is None and index != at:
            continue  # a moment that nothing is known of: a hole, if it lasts
        if found is None or later - frame.at > GAP_NS:
            verdict = None
        later = frame.at
    return verdict if later <= start + PERIOD_NS else None


def _compare(comparison: Comparison, frame: Frame, missing: str) -> bool | None:
    lowest, highest = bounds_of(comparison, frame)
    if missing == "zero":
        lowest = highest = 0.0 if lowest is None else lowest
    if lowest is None or highest is None:
        return None
    compare = _COMPARE[comparison.sign]
    if lowest == highest:
        return compare(lowest, comparison.limit)
    if comparison.sign in ("==", "!="):
        inside = lowest <= comparison.limit <= highest
        return None if inside else comparison.sign == "!="
    ends = {compare(lowest, comparison.limit), compare(highest, comparison.limit)}
    return ends.pop() if len(ends) == 1 else None


def bounds_of(comparison: Comparison, frame: Frame) -> tuple[float | None, float | None]:
    """Return the least and the largest that a value may be, the same where all of it is known.

    Of a task that gave no sample anything between nothing and everything may be true.
    """
    metric = comparison.metric
    if metric in frame.named:
        value = aggregate(comparison.function, frame.named[metric])
        return value, value
    if metric in GAUGES:
        value = frame.gauges.get(metric)
        return value, value
    settled = [task for task in frame.tasks if task.settled]
    known = [task.values[metric] for task in settled if metric in task.values]
    if not known:
        return None, None
    unknown = len(settled) - len(known)
    if not unknown:
        value = aggregate(comparison.function, known)
        return value, value
    return (
        aggregate(comparison.function, [*known, *[0.0] * unknown]),
        aggregate(comparison.function, [*known, *[math.inf] * unknown]),
    )


def aggregate(function: str, values: Sequence[float]) -> float | None:
    """Return one number for those of all replicas; None for none."""
    if not values:
        return None
    if function == "avg":
        return math.fsum(values) / len(values) if math.inf not in values else math.inf
    if function == "sum":
        return math.fsum(values) if math.inf not in values else math.inf
    if function in ("min", "max"):
        return min(values) if function == "min" else max(values)
    rank = math.ceil(int(function[1:]) / 100 * len(values))  # the nearest rank
    return sorted(values)[rank - 1]
