"""A service's labels as rules: what ``swarmctl.scale.*`` says, checked to the last unit.

A value that is wrong is refused when it is written, with a caret under the place. Labels of older
add-ons come as ours (``model/scaling.py``), and nobody is refused for them: what they lack is a
warning.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from ..errors import InvalidArgument
from ..model.duration import format_duration, parse_duration
from ..model.labels import SCALE_PREFIX
from ..model.scaling import ACT, METRIC, OFF, has_aliases, scale_labels, split_secret
from ..model.validate import MAX_REPLICAS
from .expression import Comparison, Expression, ExpressionError, comparisons, parse
from .metrics import CPU, EPSILON, GAUGES, MEM, SECOND, TASK_METRICS, UNITS, Bases
from .schedule import ScheduleError, TimeWindow, parse_schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..model.spec import ServiceSpec

TOLERANCE = 0.1
RULE_UP_NS = 30 * SECOND
DOWN_NS = 300 * SECOND
CPU_OF_ADDONS = 1.0
"""Cores that 100 % are in the labels of add-ons, where nothing is reserved: they count so."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_UNIT = re.compile(rf"\d({'|'.join(UNITS)})(?:\s+per\s+replica)?$")
_PER_REPLICA = re.compile(r"\s+per\s+replica$")
_COOLDOWN = re.compile(r"\s*(?:(up|down)=)?(\S*)\s*", re.ASCII)
_END_OF_HOST = re.compile(r"[/?#]")
MANY_CORES, FEW_BYTES = 10, 1024
"""Numbers without a unit that are so much, or so little, for one task were meant in percent."""
COOLDOWN_MAX_NS = 24 * 3600 * SECOND


class Step(NamedTuple):
    """How far one step goes: so many tasks, a share of those there are, or to a number."""

    tasks: int = 0
    share: float = 0.0
    to: int | None = None

    def reach(self, count: int, sign: int) -> int:
        """Return where a step from ``count`` ends; at least one task away."""
        if self.to is not None:
            return max(count, self.to) if sign > 0 else min(count, self.to)
        size = max(1, self.tasks, math.ceil(count * self.share - EPSILON))
        return count + sign * size


class Target(NamedTuple):
    """A metric that is to stay near a value.

    Attributes:
        value: in the metric's own unit; of one task, or for all of them if ``per_replica``.
        per_replica: the metric is a sum that every task takes its part of (jobs in a queue).
    """

    metric: str
    value: float
    per_replica: bool
    text: str
    base: float = 0.0


class Source(NamedTuple):
    """Where the values of a metric of the user's own come from.

    Attributes:
        kind: the name of the metric source, by the scheme.
        secret: name of the secret with its credentials, or "".
    """

    kind: str
    url: str
    secret: str


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one service.

    Attributes:
        up, down: conditions; a service may have targets, conditions, or both.
        up_by, down_by: the user's; None for the defaults, which differ for targets and conditions.
        cooldown_up, cooldown_down: the same, in nanoseconds.
        tolerance: how far from its target a metric may be, as a share.
        missing: what a metric without a value counts as: ``hold``, ``ignore`` or ``zero``.
        notes: what the user should know of them, in sentences.
    """

    least: int
    most: int
    targets: tuple[Target, ...] = ()
    up: Expression | None = None
    down: Expression | None = None
    up_by: Step | None = None
    down_by: Step | None = None
    cooldown_up: int | None = None
    cooldown_down: int | None = None
    tolerance: float = TOLERANCE
    missing: str = "hold"
    schedule: tuple[TimeWindow, ...] = ()
    sources: dict[str, Source] = msgspec.field(default_factory=lambda: dict[str, Source]())
    mode: str = ACT
    up_text: str = ""
    down_text: str = ""
    notes: tuple[str, ...] = ()

    @property
    def down_window(self) -> int:
        """How long load has to be low before anything is taken away."""
        return DOWN_NS if self.cooldown_down is None else self.cooldown_down

    def metrics(self) -> frozenset[str]:
        """Return every metric that the rules look at."""
        found = {target.metric for target in self.targets}
        for condition in (self.up, self.down):
            if condition is not None:
                found.update(one.metric for one in comparisons(condition))
        return frozenset(found)

    def pressure(self) -> frozenset[str]:
        """Return those of its metrics that only cgroup v2 tells."""
        return frozenset(metric for metric in self.metrics() if metric.startswith("psi."))


def policy_of(spec: ServiceSpec) -> Policy | None:
    """Return the rules of a service; None for one that has none, or whose mode is off.

    Raises:
        InvalidArgument: what they say is wrong, and where. Never of a spec that was checked.
    """
    labels = scale_labels(spec.Labels)
    if not labels or labels.get("mode") == OFF:
        return None
    return read_policy(spec, labels, lenient=has_aliases(spec.Labels))


def check_scaling(spec: ServiceSpec, *, no_psi: Callable[[], str] = str) -> None:
    """Check what a service's labels say about scaling.

    Args:
        no_psi: returns why no node can tell pressure, or ""; asked where a rule needs that.

    Raises:
        InvalidArgument: what is wrong, with a caret under the place where there is one.
    """
    labels = scale_labels(spec.Labels)
    if not labels or has_aliases(spec.Labels):
        return
    if spec.Mode.Replicated is None:
        raise InvalidArgument(
            f"labels {SCALE_PREFIX}* are for replicated services: others have no number to change"
        )
    if read_policy(spec, labels).pressure():
        why = no_psi()
        if why:
            raise InvalidArgument(f"psi metrics cannot be had here: {why}")


def scaling_warnings(spec: ServiceSpec) -> tuple[str, ...]:
    """Return what the user should know of a service's rules, in sentences."""
    try:
        policy = policy_of(spec)
    except InvalidArgument as error:  # of an add-on's labels
        return (f"its labels of an autoscaling add-on are not understood: {error}",)
    return () if policy is None else policy.notes


def read_policy(spec: ServiceSpec, labels: Mapping[str, str], *, lenient: bool = False) -> Policy:
    """Return rules, read.

    Args:
        spec: of the service, for what 100 % are.
        labels: by name without the prefix.
        lenient: they are an add-on's.
    """
    bases = bases_of(spec)
    if lenient and not bases.cpu:
        bases = bases._replace(cpu=CPU_OF_ADDONS)
    if lenient and not bases.mem and MEM in labels.get("up.when", ""):
        raise InvalidArgument("memory in % needs a memory reservation or limit")
    policy = _Reader(labels, bases).policy()
    return replace(policy, notes=tuple(_notes(policy, lenient=lenient)))


def _notes(policy: Policy, *, lenient: bool) -> Iterator[str]:
    if lenient:
        yield "scaling goes by the labels of an add-on, read as swarmctl.scale.*"
    if policy.up is not None and policy.down is None and not policy.targets:
        yield "nothing says when to scale down, so the number only grows"
    if policy.down is not None and policy.up is None and not policy.targets:
        yield "nothing says when to scale up, so the number only shrinks"
    looked_at = [(one.metric, one.value, one.base, one.text) for one in policy.targets]
    for condition in (policy.up, policy.down):
        found = comparisons(condition) if condition is not None else ()
        looked_at += [(one.metric, one.limit, one.base, one.text) for one in found]
    for metric, number, base, text in looked_at:
        if metric == CPU and not base and number >= MANY_CORES:
            yield f"{text} is {number:g} cores; a share of what a task reserves has a %"
        elif metric == MEM and 0 < number < FEW_BYTES:
            yield f"{text} is {number:g} bytes; a share of what a task reserves has a %"
        elif metric in policy.sources and _is_in_its_unit(metric, text):
            yield (
                f"{text} asks about {number:g}: units stand for seconds and bytes, and a number as "
                f"{metric} comes has none"
            )


def _is_in_its_unit(metric: str, text: str) -> bool:
    """Return whether a metric, by its name, comes in the very unit that it is compared in."""
    unit = _UNIT.search(text)
    if unit is None or UNITS[unit[1]][1] == 1:
        return False
    return metric.lower().endswith(f"_{unit[1].lower()}")


def bases_of(spec: ServiceSpec) -> Bases:
    """Return what 100 % of one task are: what it reserves, else its limit."""
    resources = spec.TaskTemplate.Resources
    if resources is None:
        return Bases()
    limits, reserved = resources.Limits, resources.Reservations
    cpu = (reserved.NanoCPUs if reserved else 0) or (limits.NanoCPUs if limits else 0)
    mem = (reserved.MemoryBytes if reserved else 0) or (limits.MemoryBytes if limits else 0)
    return Bases(cpu / 1e9, float(mem))


class _Reader:
    """Reads one service's labels; whatever is wrong is raised with its place."""

    def __init__(self, labels: Mapping[str, str], bases: Bases) -> None:
        self._labels, self._bases = labels, bases
        self._sources = {
            name[len(METRIC) :]: self._source(name)
            for name in sorted(labels)
            if name.startswith(METRIC)
        }

    def policy(self) -> Policy:
        labels = self._labels
        least, most = self._bounds()
        up_cool, down_cool = self._cooldown()
        policy = Policy(
            least=least,
            most=most,
            targets=tuple(self._targets()),
            up=self._condition("up.when"),
            down=self._condition("down.when"),
            up_by=self._step("up.by"),
            down_by=self._step("down.by"),
            cooldown_up=up_cool,
            cooldown_down=down_cool,
            tolerance=self._tolerance(),
            missing=labels.get("missing", "hold"),
            schedule=self._schedule(least, most),
            sources=self._sources,
            mode=labels.get("mode", ACT),
            up_text=labels.get("up.when", ""),
            down_text=labels.get("down.when", ""),
        )
        if not (policy.targets or policy.up or policy.down or policy.schedule):
            raise InvalidArgument(
                f"labels {SCALE_PREFIX}* say nothing of when to scale: {SCALE_PREFIX}target, "
                f"{SCALE_PREFIX}up.when, {SCALE_PREFIX}down.when or {SCALE_PREFIX}schedule does"
            )
        self._check_pairs(policy)
        return policy

    def _check_pairs(self, policy: Policy) -> None:
        for name, needs in (("up.by", policy.up), ("down.by", policy.down)):
            if name in self._labels and needs is None and not policy.targets:
                raise self._wrong(name, f"it needs {name[:-2]}when or target", 0)
        if "tolerance" in self._labels and not policy.targets:
            raise self._wrong("tolerance", "it needs target", 0)
        if "cooldown" in self._labels and not (policy.targets or policy.up or policy.down):
            raise self._wrong("cooldown", "it needs target, up.when or down.when", 0)
        unused = sorted(set(policy.sources) - policy.metrics())
        if unused:
            raise self._wrong(METRIC + unused[0], "no rule looks at this metric", 0)

    def _wrong(self, name: str, text: str, at: int) -> InvalidArgument:
        value = self._labels[name]
        return InvalidArgument(f"label {SCALE_PREFIX + name!r}: {text}\n  {value}\n  {' ' * at}^")

    def _bounds(self) -> tuple[int, int]:
        labels = self._labels
        if "max" not in labels:
            raise InvalidArgument(f"label {SCALE_PREFIX + 'max'!r} is needed to scale a service")
        least, most = int(labels.get("min", "1")), int(labels["max"])
        if least < 1:
            raise self._wrong("min", "at least 1; a service that is to have none is stopped", 0)
        if most > MAX_REPLICAS:
            raise self._wrong("max", f"a service has {MAX_REPLICAS} tasks at most", 0)
        if least > most:
            raise self._wrong(
                "min" if "min" in labels else "max", f"min is {least} and max is {most}", 0
            )
        return least, most

    def _condition(self, name: str) -> Expression | None:
        text = self._labels.get(name)
        if text is None:
            return None
        try:
            return parse(text, self._bases, self._sources)
        except ExpressionError as error:
            raise self._wrong(name, str(error), error.at) from None

    def _targets(self) -> Iterator[Target]:
        text = self._labels.get("target", "")
        start = 0
        seen: set[str] = set()
        for part in text.split(",") if text else ():
            target = self._target(part, start)
            if target.metric in seen:
                raise self._wrong("target", f"{target.metric} is there twice", start)
            seen.add(target.metric)
            yield target
            start += len(part) + 1

    def _target(self, part: str, start: int) -> Target:
        plain = _PER_REPLICA.sub("", part)
        per_replica = plain != part
        name, equals, value = plain.partition("=")
        if not equals:
            raise self._wrong("target", "METRIC=VALUE is expected", start)
        try:  # it is a comparison in other words, so that units mean the same in both
            found = parse(f"{name}>{value}", self._bases, self._sources)
        except ExpressionError as error:
            raise self._wrong("target", str(error), start + error.at) from None
        if not isinstance(found, Comparison) or found.function != "avg":
            raise self._wrong("target", "METRIC=VALUE is expected", start)
        at = start + len(name) + 1
        if found.limit <= 0:
            raise self._wrong("target", "a target is more than 0", at)
        if found.metric in GAUGES:
            raise self._wrong(
                "target",
                f"{found.metric} does not fall as tasks are added, so it is no target",
                start,
            )
        if per_replica and found.metric in TASK_METRICS and found.metric not in self._sources:
            raise self._wrong("target", f"{found.metric} is of one task already", start)
        return Target(found.metric, found.limit, per_replica, part.strip(), found.base)

    def _step(self, name: str) -> Step | None:
        text = self._labels.get(name)
        if text is None:
            return None
        if text.startswith("to="):
            return Step(to=int(text[3:]))
        number = int(text.rstrip("%").lstrip("+-"))
        if not number:
            raise self._wrong(name, "a step of 0 leads nowhere", 0)
        if not text.endswith("%"):
            return Step(tasks=number)
        if name == "down.by" and number > 100:
            raise self._wrong(name, "there are no more than 100% to take away", 0)
        return Step(share=number / 100)

    def _cooldown(self) -> tuple[int | None, int | None]:
        text = self._labels.get("cooldown")
        if text is None:
            return None, None
        found: dict[str, int] = {}
        start = 0
        for part in text.split(","):
            match = _COOLDOWN.fullmatch(part)
            if match is None:
                raise self._wrong("cooldown", "up=DURATION,down=DURATION is expected", start)
            at = start + match.start(2)
            try:
                duration = parse_duration(match[2])
            except ValueError:
                raise self._wrong(
                    "cooldown", "a duration is expected, such as 30s or 5m", at
                ) from None
            if not 0 <= duration <= COOLDOWN_MAX_NS:
                longest = format_duration(COOLDOWN_MAX_NS)
                raise self._wrong("cooldown", f"a cooldown is from 0s to {longest} long", at)
            for word in [match[1]] if match[1] else ["up", "down"]:
                if word in found:
                    raise self._wrong("cooldown", f"{word} is there twice", start)
                found[word] = duration
            start += len(part) + 1
        return found.get("up"), found.get("down")

    def _tolerance(self) -> float:
        text = self._labels.get("tolerance")
        if text is None:
            return TOLERANCE
        percent = int(text.rstrip("%"))
        if percent >= 100:
            raise self._wrong("tolerance", "with 100% or more nothing would ever happen", 0)
        return percent / 100

    def _schedule(self, least: int, most: int) -> tuple[TimeWindow, ...]:
        text = self._labels.get("schedule")
        if text is None:
            return ()
        try:
            windows = parse_schedule(text)
        except ScheduleError as error:
            raise self._wrong("schedule", str(error), error.at) from None
        for window in windows:
            for bound in (window.least, window.most):
                if bound is not None and not least <= bound <= most:
                    raise self._wrong(
                        "schedule",
                        f"{bound} is not within the bounds of the service, {least} to {most}",
                        window.at,
                    )
        return windows

    def _source(self, label: str) -> Source:
        name, text = label[len(METRIC) :], self._labels[label]
        if not _NAME.fullmatch(name):
            raise self._wrong(label, f"{name!r} is no name for a metric: letters, digits and _", 0)
        if name in TASK_METRICS or name in GAUGES:
            raise self._wrong(label, f"{name} is a metric that is there already", 0)
        url, secret = split_secret(text)
        host = _END_OF_HOST.split(url.partition("//")[2] or url, maxsplit=1)[0]
        if "@" in host:
            raise InvalidArgument(  # the value is not shown: it has a password in it
                f"label {SCALE_PREFIX + label!r}: credentials do not belong into a label, which "
                "everybody can read; keep them in a secret and add ,secret=NAME"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise self._wrong(label, f"it is no address: {error}", 0) from None
        kind, plus, transport = parts.scheme.partition("+")
        if not plus:
            kind, transport = "json", parts.scheme
        if transport not in ("http", "https") or not parts.hostname or port == 0:
            raise self._wrong(
                label, "an address is expected, such as prometheus+http://HOST:9090?query=...", 0
            )
        return Source(kind, url.partition("+")[2] if plus else url, secret)
