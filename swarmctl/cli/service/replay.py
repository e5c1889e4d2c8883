"""``service scaling --trace``: a written load through a service's rules, drawn.

The only place of the command line that knows how scaling decides: it is the leader's own code, so
what is drawn is what would be done.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec.structs import replace

from swarmctl.core.autoscaler.metrics import GAUGES, TASK_METRICS
from swarmctl.core.autoscaler.policy import policy_of
from swarmctl.core.autoscaler.replay import Load, replay
from swarmctl.core.errors import InvalidArgument
from swarmctl.core.model.codec import decode_json
from swarmctl.core.model.duration import parse_duration, parse_time
from swarmctl.core.model.labels import SCALE_PREFIX, SERVICES, check_labels
from swarmctl.core.model.scaling import METRIC
from swarmctl.core.model.spec import (
    ReplicatedService,
    ResourceRequirements,
    Resources,
    ServiceMode,
    ServiceSpec,
)

from ..api import path_to
from ..command import Failure
from .chart import Chart, Series, as_png, as_svg, clock_text, in_terminal
from .scaling import OFFLINE, SECOND, write_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from swarmctl.core.autoscaler.policy import Policy
    from swarmctl.core.autoscaler.replay import Step

    from ..command import Invocation

LOOKING = ("target", "up.when", "down.when")
DRAWN: dict[str, Callable[[Chart], bytes]] = {
    ".png": as_png,
    ".svg": lambda chart: as_svg(chart).encode(),
}
LOOKS_MAX = 500_000
"""A month of five seconds each."""
_CLOCK = re.compile(r"(\d{1,9}):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_WORD = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)
_SECONDS = re.compile(r"\d{1,12}(?:\.\d*)?", re.ASCII)


def run_trace(call: Invocation, labels: Mapping[str, str], name: str) -> None:
    """Replay a load and show how many tasks there would have been."""
    given = call.given
    picture = Path(given.text("output"))
    if given.text("output") and picture.suffix not in DRAWN:
        raise Failure(f"{picture}: pictures are .svg or .png")
    loads = read_trace(Path(given.text("trace")))
    spec = ServiceSpec() if name == OFFLINE else _spec_of(call, name)
    spec = _with_columns(_with_flags(call, spec, labels), loads)
    try:
        check_labels(spec.Labels, on=SERVICES)
        policy = policy_of(replace(spec, Mode=ServiceMode(Replicated=ReplicatedService())))
    except InvalidArgument as error:
        raise Failure(str(error)) from None
    if policy is None:
        raise Failure(f"{name} has no rules: give --scale-max and --scale-target, for example")
    _check_columns(policy, loads)
    if (loads[-1].at - loads[0].at) / (5 * SECOND) > LOOKS_MAX:
        raise Failure("the trace is longer than a month")
    count = max(policy.least, min(policy.most, given.number("replicas", policy.least)))
    start_ns = given.number("start-time", 5 * SECOND)
    steps = list(replay(policy, loads, count=count, start_ns=start_ns))
    if given.text("format") == "json":
        click.echo(json.dumps(_plain(steps)))
    else:
        chart = chart_of(Path(given.text("trace")).name, steps)
        click.echo("\n".join((*in_terminal(chart), "", *_summary(steps))))
    if given.text("output"):
        chart = chart_of(Path(given.text("trace")).name, steps)
        write_picture(picture, DRAWN[picture.suffix](chart))


def _spec_of(call: Invocation, name: str) -> ServiceSpec:
    found = call.api.get(path_to("services", name))
    return decode_json(msgspec.json.encode(found["Spec"]), ServiceSpec)


def _with_flags(call: Invocation, spec: ServiceSpec, labels: Mapping[str, str]) -> ServiceSpec:
    merged = {**spec.Labels, **labels}
    spec = replace(spec, Labels={key: value for key, value in merged.items() if value})
    cpu, memory = call.given.number("reserve-cpu"), call.given.number("reserve-memory")
    if not cpu and not memory:
        return spec
    template = spec.TaskTemplate
    before = (template.Resources.Reservations if template.Resources else None) or Resources()
    reserved = replace(
        before, NanoCPUs=cpu or before.NanoCPUs, MemoryBytes=memory or before.MemoryBytes
    )
    resources = replace(template.Resources or ResourceRequirements(), Reservations=reserved)
    return replace(spec, TaskTemplate=replace(template, Resources=resources))


def _with_columns(spec: ServiceSpec, loads: Sequence[Load]) -> ServiceSpec:
    """Return a spec in which columns that rules look at are metrics of the user's own."""
    labels = spec.Labels
    rules = " ".join(labels.get(f"{SCALE_PREFIX}{one}", "") for one in LOOKING)
    words = set(_WORD.findall(rules)) - {*TASK_METRICS, *GAUGES}
    columns = {name for load in loads for name in load.values} & words
    own = {f"{SCALE_PREFIX}{METRIC}{name}": "http://trace/" for name in sorted(columns)}
    return replace(spec, Labels={**own, **labels})


def read_trace(path: Path) -> list[Load]:
    """Return the load that a CSV file holds: a column ``time``, then one for each metric.

    Times are seconds, ``HH:MM:SS``, durations or RFC 3339; they only go up.

    Raises:
        Failure: it cannot be read, and where.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{path} cannot be read: it is no text in UTF-8") from None
    reader = csv.reader(io.StringIO(text))
    rows = [(reader.line_num, row) for row in reader if row and not row[0].lstrip().startswith("#")]
    names = [name.strip() for name in rows[0][1]] if rows else []
    if len(names) < 2 or names[0] != "time":
        raise Failure(f"{path}: the first line has to name the columns: time,METRIC...")
    loads: list[Load] = []
    for number, row in rows[1:]:
        try:
            loads.append(_load(names, row, loads[-1].at if loads else None))
        except ValueError as error:
            raise Failure(f"{path}, line {number}: {error}") from None
    if len(loads) < 2:
        raise Failure(f"{path}: a trace has at least two lines of values")
    return loads


def _load(names: Sequence[str], row: Sequence[str], after: int | None) -> Load:
    """Return what one line holds.

    Raises:
        ValueError: it is wrong, and why.
    """
    if len(row) != len(names):
        raise ValueError(f"{len(row)} columns, and the first line names {len(names)}")
    at = _moment(row[0].strip())
    if after is not None and at <= after:
        raise ValueError("time has to go up")
    cells = zip(names[1:], row[1:], strict=True)
    return Load(at, {name: _number(cell) for name, cell in cells if cell.strip()})


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{cell.strip()!r} is no amount of load: a plain number is expected")
    return value


def _moment(text: str) -> int:
    match = _CLOCK.fullmatch(text)
    if match is not None:
        first, second, third = match.groups()
        if third is None:
            raise ValueError(
                f"{text!r} could be hours or minutes: {first}:{second}:00 or {int(first)}m{second}s"
            )
        return ((int(first) * 60 + int(second)) * 60 + int(third)) * SECOND
    if _SECONDS.fullmatch(text):
        return int(float(text) * SECOND)
    try:
        return parse_time(text) if "T" in text else parse_duration(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: seconds, HH:MM:SS, a duration (1h30m) or RFC 3339 are"
        ) from None


def _check_columns(policy: Policy, loads: Sequence[Load]) -> None:
    have = {name for load in loads for name in load.values}
    lacking = sorted(policy.metrics() - have - set(GAUGES))
    if lacking:
        raise Failure(f"the trace has no column {lacking[0]}, which a rule looks at")


# --- shown ---------------------------------------------------------------------------------------


def chart_of(title: str, steps: Sequence[Step]) -> Chart:
    """Return the chart of a replay."""
    names = dict.fromkeys(name for step in steps for name in step.load)
    loads = tuple(Series(name, [step.load.get(name) for step in steps]) for name in names)
    seconds = (steps[-1].at - steps[0].at) / SECOND
    tasks = Series("tasks", [float(step.tasks) for step in steps])
    return Chart(f"tasks under {title}", seconds, tasks, loads)


def _summary(steps: Sequence[Step]) -> list[str]:
    changes = [step for step in steps if step.verdict.count != step.tasks]
    period_s = (steps[-1].at - steps[0].at) / max(1, len(steps) - 1) / SECOND
    hours = sum(step.tasks for step in steps) * period_s / 3600
    counts = [step.tasks for step in steps]
    told = [
        f"{min(counts)} to {max(counts)} tasks, {hours:.1f} task hours, {len(changes)} changes",
        "",
    ]
    shown = changes if len(changes) <= 20 else [*changes[:10], *changes[-10:]]
    for step in shown:
        moment = clock_text((step.at - steps[0].at) / SECOND)
        told.append(f"  {moment:>8}  {step.tasks} -> {step.verdict.count}: {step.verdict.reason}")
    if len(shown) < len(changes):
        told.insert(12, f"  ... and {len(changes) - 20} more in between")
    return told


def _plain(steps: Sequence[Step]) -> list[dict[str, object]]:
    return [
        {
            "Seconds": (step.at - steps[0].at) / SECOND,
            "Tasks": step.tasks,
            "Ready": step.ready,
            "Load": dict(step.load),
            "Used": dict(step.used),
            "Next": step.verdict.count,
            "Reason": step.verdict.reason,
        }
        for step in steps
    ]
