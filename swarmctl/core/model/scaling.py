"""Services that are scaled by conditions: which those are, and how many tasks they have now.

What scaling decided is kept beside the spec (``ServicePrivate.scale``), so nothing of the spec is
lost by it and nothing of it by the spec. Shown, and worked by, is the number in effect. Whoever
reads that and posts it back with something else changed has said nothing about the number. Whoever
posts another one has: it is the least that the service has for a while, and scaling goes on above
it. It never lowers what runs: whatever a stack file says each time it is deployed, load decides.

Labels of older add-ons are read as ours where a service has none of ours (:func:`scale_labels`).
Pure. What the labels' values mean is ``core/autoscaler``'s business, save the two bounds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..errors import FailedPrecondition
from .change import Kind, Ref
from .duration import format_duration
from .labels import SCALE_PREFIX
from .service import Scale, ScaleDecision
from .spec import ReplicatedService, ServiceMode
from .validate import MAX_REPLICAS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .objects import ServiceRow
    from .service import Service
    from .spec import ServiceSpec

DECISIONS_KEPT = 20
FLOOR_NS = 300_000_000_000
"""How long a number that a human gives holds as the least; the window of scaling down."""
SHOWN_NS = 30_000_000_000
"""How long a client may take from reading a number to posting it back."""
ACT, RECOMMEND, OFF = "act", "recommend", "off"

METRIC = "metric."
"""What the names of labels with the address of a metric begin with, after ``swarmctl.scale.``."""

_SECRET = re.compile(r"(?P<address>.*?),secret=(?P<name>[\w.-]+)", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?")
_ADDON, _ADDON_SWITCH = "swarm.autoscaler.", "swarm.autoscaler"
_VISUALIZER = "visualizer.autoscale."


class Bounds(NamedTuple):
    """The fewest and the most tasks that a service's labels allow."""

    least: int
    most: int

    def clamp(self, count: int) -> int:
        return max(self.least, min(self.most, count))


# --- which ---------------------------------------------------------------------------------------


def scale_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return what labels say about scaling, by name without ``swarmctl.scale.``; {}: nothing.

    Where none is ours, those of the add-ons that people have used so far are read, with the meaning
    and the defaults that they have there: jcwimer/docker-swarm-autoscaler,
    Integral-Systems/swarm-pilot (``swarm.autoscaler*``), yandeu/docker-swarm-visualizer
    (``visualizer.autoscale.*``).
    """
    own = {
        name[len(SCALE_PREFIX) :]: value
        for name, value in labels.items()
        if name.startswith(SCALE_PREFIX)
    }
    if own:
        return own
    if labels.get(_ADDON_SWITCH) == "true":
        return _of_addon(labels)
    if f"{_VISUALIZER}max" in labels:
        return _of_visualizer(labels)
    return {}


def has_aliases(labels: Mapping[str, str]) -> bool:
    """Return whether scaling goes by the labels of an add-on."""
    return bool(scale_labels(labels)) and not any(name.startswith(SCALE_PREFIX) for name in labels)


def _of_addon(labels: Mapping[str, str]) -> dict[str, str]:
    def number(default: str, *names: str) -> str:
        for name in names:
            value = labels.get(_ADDON + name, "").removesuffix("%")
            if _NUMBER.fullmatch(value):
                return value
        return default

    up = [f"cpu > {number('85', 'maximum_cpu')}%"]
    down = [f"cpu < {number('25', 'minimum_cpu')}%"]
    if any(f"{_ADDON}{name}_mem" in labels for name in ("minimum", "maximum")):
        up.append(f"mem > {number('85', 'maximum_mem')}%")
        down.append(f"mem < {number('25', 'minimum_mem')}%")
    return {
        "min": number("1", "min_replicas", "minimum"),
        "max": number("10", "max_replicas", "maximum"),
        "up.when": " or ".join(up),
        "down.when": " and ".join(down),
    }


def _of_visualizer(labels: Mapping[str, str]) -> dict[str, str]:
    def number(name: str, default: str) -> str:
        value = labels.get(_VISUALIZER + name, "").removesuffix("%")
        return str(round(float(value))) if _DECIMAL.fullmatch(value) else default

    return {
        "min": number("min", "1"),
        "max": number("max", "10"),
        "up.when": f"cpu > {number('up.cpu', '80')}%",
        "down.when": f"cpu < {number('down.cpu', '20')}%",
    }


def bounds_of(spec: ServiceSpec) -> Bounds | None:
    """Return the bounds of a service whose number scaling decides; None for any other."""
    labels = spec.Labels
    if not labels or spec.Mode.Replicated is None:
        return None
    found = scale_labels(labels)
    if not found or found.get("mode", ACT) != ACT:
        return None
    texts = found.get("min", "1"), found.get("max", "")
    if not all(map(_NUMBER.fullmatch, texts)):
        return None  # of an add-on: ours are checked when they are written
    least, most = map(int, texts)
    return Bounds(least, max(least, most)) if max(least, most) <= MAX_REPLICAS else None


# --- secrets of metric sources -------------------------------------------------------------------


def split_secret(text: str) -> tuple[str, str]:
    """Return a metric's address without its ``,secret=NAME``, and the name, "" for none."""
    match = _SECRET.fullmatch(text)
    return (match["address"], match["name"]) if match else (text, "")


def source_secrets(labels: Mapping[str, str]) -> set[str]:
    """Return the names of the secrets that a service's metrics are read with."""
    prefix = SCALE_PREFIX + METRIC
    found = {split_secret(text)[1] for label, text in labels.items() if label.startswith(prefix)}
    return found - {""}


def named_secret(name: str) -> Ref:
    """Return what a service refers to whose label names a secret.

    That is the name, whatever version of the secret it means at the time.
    """
    return Ref(Kind.SECRET, f"name/{name.lower()}")


# --- how many ------------------------------------------------------------------------------------


def replicas_of(row: ServiceRow) -> int:
    """Return how many tasks a replicated service has to have now, whoever says so."""
    asked = asked_replicas(row.api.Spec)
    bounds = bounds_of(row.api.Spec)
    if bounds is None:
        return asked
    return bounds.clamp(asked if row.private.scale is None else row.private.scale.count)


def asked_replicas(spec: ServiceSpec) -> int:
    """Return the number that a spec itself names."""
    mode = spec.Mode.Replicated
    return 1 if mode is None or mode.Replicas is None else mode.Replicas


def as_scaled(row: ServiceRow) -> Service:
    """Return a service with the number in effect in its spec, as clients see it."""
    if row.api.Spec.Mode.Replicated is None:
        return row.api
    count = replicas_of(row)
    if count == asked_replicas(row.api.Spec):
        return row.api
    return replace(row.api, Spec=with_replicas(row.api.Spec, count))


def with_replicas(spec: ServiceSpec, count: int) -> ServiceSpec:
    """Return a spec that names another number."""
    return replace(spec, Mode=ServiceMode(Replicated=ReplicatedService(Replicas=count)))


# --- what a client means -------------------------------------------------------------------------


class Posted(NamedTuple):
    """What a client means by a spec that it posts.

    Attributes:
        spec: as it is to be stored.
        scale: what is kept beside it.
        warning: what to tell the client, or "".
    """

    spec: ServiceSpec
    scale: Scale | None
    warning: str = ""


def as_meant(row: ServiceRow | None, posted: ServiceSpec, now: int, *, named: bool) -> Posted:
    """Return what is meant by a spec, where scaling decides the number.

    Args:
        row: the service as it is, None for a new one.
        posted: normalized.
        named: it names a number; a stack file need not.

    Raises:
        FailedPrecondition: 0, which scaling would not leave.
    """
    bounds = bounds_of(posted)
    if bounds is None:
        # What was shown is what is asked for now; what was recommended is still worth showing.
        kept = None if row is None or not scale_labels(posted.Labels) else row.private.scale
        return Posted(posted, kept)
    number = asked_replicas(posted)
    if row is None or bounds_of(row.api.Spec) is None:
        count = bounds.clamp(number if named else bounds.least)
        before = None if row is None else row.private.scale
        decisions = () if before is None else before.decisions
        warning = ""
        if named and count != number:
            warning = f"{_scaled(posted.Name, bounds)}: {number} is beyond that, so it has {count}"
        return Posted(posted, Scale(count=count, decisions=decisions), warning)
    scale = row.private.scale or Scale(count=replicas_of(row))
    present = bounds.clamp(scale.count)
    stored = with_replicas(posted, asked_replicas(row.api.Spec))
    if not named or number in (present, replicas_of(row), *_lately(scale, now)):
        return Posted(stored, scale)
    name = posted.Name
    if not number:
        raise FailedPrecondition(
            f"{_scaled(name, bounds)}: to have none of it run, stop it (service stop {name})"
        )
    floor = bounds.clamp(number)
    count = max(present, floor)
    decision = ScaleDecision(
        at=now, rule="floor", before=present, after=count, reason=f"scaled to {number} by hand"
    )
    decisions = scale.decisions if count == present else with_decision(scale.decisions, decision)
    changed = replace(scale, count=count, floor=floor, until=now + FLOOR_NS, decisions=decisions)
    warning = _floor_warning(name, bounds, number, count)
    return Posted(with_replicas(posted, number), changed, warning)


def _lately(scale: Scale, now: int) -> set[int]:
    """Return the numbers that were shown a moment ago: a client may be posting one back."""
    recent = [one for one in scale.decisions if now - one.at < SHOWN_NS]
    return {number for one in recent for number in (one.before, one.after)}


def _floor_warning(name: str, bounds: Bounds, number: int, count: int) -> str:
    floor = bounds.clamp(number)
    beyond = "" if floor == number else f"{number} is beyond that, so "
    now = f"; it has {count} now" if count != floor else ""
    lasts = format_duration(FLOOR_NS)
    return (
        f"{_scaled(name, bounds)}: {beyond}{floor} is the least for {lasts} and resets nothing{now}"
    )


def _scaled(name: str, bounds: Bounds) -> str:
    return f"service {name} is scaled automatically, from {bounds.least} to {bounds.most} tasks"


def with_decision(
    decisions: tuple[ScaleDecision, ...], decision: ScaleDecision
) -> tuple[ScaleDecision, ...]:
    """Return the decisions that are kept, with one more."""
    return (*decisions, decision)[-DECISIONS_KEPT:]
