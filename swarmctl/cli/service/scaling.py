"""``service scaling``: why a scaled service has the number of tasks it has; and rules tried out.

With ``--dry-run`` the daemon judges other rules by the load that there is, and sets none. With
``--trace`` nothing is asked but the service's rules: a load that is written down is replayed here
(core/autoscaler/replay.py) and the number of tasks drawn.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from swarmctl.core.model.duration import format_duration, parse_time

from ..api import path_to
from ..command import ONE, Failure, command
from ..flags import BOOL, BYTES, DECIMAL, DURATION, TEXT, UINT, Flag
from ..table import aligned
from ..wording import age_of
from .chart import sparkline
from .flags import EXTENSIONS
from .spec import extensions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ..api import Json
    from ..command import Invocation

SECOND = 1_000_000_000
OFFLINE = "test"
"""The name that stands for no service: all rules come from flags."""

RULES = tuple(flag for flag in EXTENSIONS if flag.name.startswith("scale-"))
FLAGS = (
    Flag("dry-run", BOOL, "Judge the rules that flags name by the load there is; set nothing"),
    Flag("format", TEXT, "json", short="f"),
    Flag("output", TEXT, "Draw the replay into this file (.svg, .png)", short="o"),
    Flag("replicas", UINT, "With --trace: tasks at the beginning (default --scale-min)"),
    Flag("reserve-cpu", DECIMAL, "With --trace: what 100% CPU of a task are"),
    Flag("reserve-memory", BYTES, "With --trace: what 100% memory of a task are"),
    Flag("start-time", DURATION, "With --trace: how long a task starts", default="5s"),
    Flag("trace", TEXT, "Replay this load (CSV: time,METRIC... of all tasks together)"),
    *RULES,
)


@command(
    "scaling [OPTIONS] SERVICE",
    "Tell why a service has as many tasks as it has, and try rules",
    *FLAGS,
    arity=ONE,
    text=(
        "Shows a service's rules, what they see, what they did, and when the next step can be. "
        "--dry-run judges the rules that flags name instead, by the load there is. --trace FILE "
        "puts a load that is written down through the rules, and through those that flags name; "
        "with the word test for the service all rules come from flags, and no daemon is asked. "
        "Times are seconds, HH:MM:SS, durations (1h30m) or RFC 3339; a column holds what all tasks "
        "use together, and one that is no built-in metric is a metric of your own."
    ),
)
def scaling(call: Invocation) -> None:
    """Print how scaling stands, or what rules would do."""
    given, name = call.given, call.arguments[0]
    form = given.text("format")
    if form not in ("", "json"):
        raise Failure(f"unknown format {form!r}: json, or none")
    try:
        labels = extensions(given)
    except ValueError as error:
        raise Failure(str(error)) from None
    if given.text("trace"):
        from .replay import run_trace

        run_trace(call, labels, name)
        return
    for flag in ("output", "replicas", "start-time", "reserve-cpu", "reserve-memory"):
        if flag in given:
            raise Failure(f"--{flag} goes with --trace only")
    if labels and not given.is_set("dry-run"):
        raise Failure(
            "rules are set by service update; --dry-run tries them on the load there is, --trace "
            "FILE on one that is written down"
        )
    if given.is_set("dry-run"):
        path = path_to("services", name, "scaling")
        found: Json = call.api.post(path, {"Labels": labels})
    else:
        found = call.api.get(path_to("services", name, "scaling"))
    if form:
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(lines(found, time.time_ns())))


def lines(found: Json, now_ns: int) -> Iterator[str]:
    """Yield what there is to say of one service."""
    if not found["Mode"]:
        yield f"{_counted(found)}; it is not scaled by conditions"
        return
    if found["Mode"] == "off":
        yield f"{_counted(found)}; scaling by conditions is off"
        yield from _decisions(found["Decisions"], now_ns)
        return
    yield _head(found)
    yield f"  {found['Reason']}"
    yield from (f"  {text}" for text in _times(found, now_ns))
    yield from (f"  note: {note}" for note in found["Notes"])
    yield from _rules(found["Rules"])
    yield from _metrics(found["Metrics"], found["WindowSeconds"])
    yield from _decisions(found["Decisions"], now_ns)


def _counted(found: Json) -> str:
    return f"{found['Name']}: {found['Count']} task{'' if found['Count'] == 1 else 's'}"


def _head(found: Json) -> str:
    bounds = f"from {found['Min']} to {found['Max']}"
    head = f"{_counted(found)}, {bounds} ({found['Mode']})"
    if found.get("DryRun"):
        return f"{head}; these rules would make it {found['Wanted']}"
    if found["Mode"] == "recommend" and found["Wanted"] != found["Count"]:
        return f"{head}; {found['Wanted']} are recommended"
    return head


def _times(found: Json, now_ns: int) -> Iterator[str]:
    if found.get("DryRun"):
        return
    up, down = (_until(found.get(key), now_ns) for key in ("UpAt", "DownAt"))
    if up is not None and down is not None:
        up = "no further" if found["Count"] >= found["Max"] else up or "now"
        down = "no further" if found["Count"] <= found["Min"] else down or "now"
        yield f"can grow {up}, shrink {down}, if load asks for it"
    floor = _until(found.get("FloorUntil"), now_ns)
    if floor:
        yield f"{found['Floor']} is the least for now, set by hand ({floor.removeprefix('in ')})"


def _until(text: str | None, now_ns: int) -> str | None:
    """Return how long it is until a time, "" if that is past; None for no time."""
    if not text:
        return None
    left = parse_time(text) - now_ns
    seconds = -(-left // SECOND)
    return f"in {format_duration(seconds * SECOND)}" if seconds > 0 else ""


def _rules(rules: Iterable[Json]) -> Iterator[str]:
    rows = ["RULE\tSTATE\tCONDITION"]
    rows += [f"{rule['Kind']}\t{rule['State']}\t{rule['Text']}" for rule in rules]
    if len(rows) > 1:
        yield ""
        yield from aligned(rows)


def _metrics(metrics: Iterable[Json], window_s: int) -> Iterator[str]:
    rows = [f"METRIC\tNOW\tLAST {format_duration(min(window_s, 300) * SECOND)}"]
    for metric in metrics:
        line = sparkline(metric["History"], 60)
        told = "; ".join(filter(None, (line, metric.get("Err", ""))))
        rows.append(f"{metric['Name']}\t{metric['Value'] or 'no value'}\t{told}")
    if len(rows) > 1:
        yield ""
        yield from aligned(rows)


def _decisions(decisions: Iterable[Json], now_ns: int) -> Iterator[str]:
    rows = ["WHEN\tFROM\tTO\tWHY"]
    for one in decisions:
        said = "" if one["Applied"] or one["From"] == one["To"] else " (only recommended)"
        when = age_of(parse_time(one["At"]), now_ns)
        rows.append(f"{when}\t{one['From']}\t{one['To']}\t{one['Reason']}{said}")
    if len(rows) > 1:
        yield ""
        yield from aligned(rows)


def write_picture(path: Path, data: bytes) -> None:
    """Write a file, or say why not."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None
