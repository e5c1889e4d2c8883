"""``service explain`` and ``task explain``: why something does not run, told to a human.

The daemon gives the facts (docs/design/placement.md); here they get columns and ages. ``--format``
takes ``json`` and Go templates, as ``inspect`` does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from swarmctl.core.model.duration import parse_time

from .api import path_to
from .command import ONE, command
from .flags import TEXT, Flag
from .table import aligned
from .wording import age_of, capitalized, human_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .api import Json
    from .command import Invocation

FORMAT = Flag("format", TEXT, "json | Go TEMPLATE", short="f")
REASONS_FIRST = "NODE\tFILTER\tNEEDS\tHAS"


@command(
    "explain [OPTIONS] TASK",
    "Tell why a task does not run",
    FORMAT,
    arity=ONE,
    text=(
        "Shows what the task waits for; while it looks for a node, what every node says to it: "
        "which filter refuses, what the task needs and what the node has; and the last failures."
    ),
)
def explain_task(call: Invocation) -> None:
    """Print what the daemon says of one task."""
    found = call.api.get(path_to("tasks", call.arguments[0], "explain"))
    _write(call, found, _task_model, _task_text)


@command(
    "explain [OPTIONS] SERVICE",
    "Tell why tasks of a service do not run",
    FORMAT,
    arity=ONE,
    text=(
        "Shows how many tasks run, what the others wait for, what every node says to those that "
        "look for one, and the last failures."
    ),
)
def explain_service(call: Invocation) -> None:
    """Print what the daemon says of one service."""
    found = call.api.get(path_to("services", call.arguments[0], "explain"))
    _write(call, found, _service_model, _service_text)


def _write(
    call: Invocation,
    found: Json,
    model: Callable[[], type],
    text: Callable[[Json, int], Iterator[str]],
) -> None:
    form = call.given.text("format")
    if not form:
        click.echo("\n".join(text(found, time.time_ns())))
        return
    import msgspec

    plain = msgspec.json.encode(found)
    if form == "json":
        click.echo(plain.decode())
        return
    from swarmctl.core.model.codec import decode_json
    from swarmctl.core.model.gotemplate import Template

    click.echo(Template(form).render(decode_json(plain, model())))


def _task_model() -> type:
    from swarmctl.core.model.explain import TaskExplanation

    return TaskExplanation


def _service_model() -> type:
    from swarmctl.core.model.explain import ServiceExplanation

    return ServiceExplanation


# --- told ----------------------------------------------------------------------------------------


def _service_text(found: Json, now_ns: int) -> Iterator[str]:
    yield f"{found['Name']}: {found['Running']} of {found['Wanted']} tasks run"
    for note in found["Notes"]:
        yield f"  {note}"
    for task in found["Tasks"]:
        yield from _task_lines(task, now_ns)
    if found["More"]:
        yield f"  and {found['More']} more"
    yield from _node_lines(found["Nodes"])
    yield from _failure_lines(found["Failures"], now_ns)


def _task_text(found: Json, now_ns: int) -> Iterator[str]:
    yield f"{found['Name']} ({found['ID']}): {found['Text']}"
    yield from _task_lines(found, now_ns, name=False)
    yield from _node_lines(found["Nodes"])
    yield from _failure_lines(found["Failures"], now_ns)


def _task_lines(task: Json, now_ns: int, *, name: bool = True) -> Iterator[str]:
    since = human_duration((now_ns - parse_time(task["Since"])) / 1e9).lower()
    state = f"{capitalized(task['State'])} for {since}"
    wanted = task["DesiredState"]
    if wanted not in ("running", task["State"]):
        state += f", to be {wanted}"
    yield f"  {task['Name']} ({task['ID']}): {state}" if name else f"  {state}"
    for wait in task["Waits"]:
        yield f"    {wait['Text']}{_left(wait, now_ns)}"


def _left(wait: Json, now_ns: int) -> str:
    until = wait.get("Until")
    if not until:
        return ""
    seconds = max(0.0, (parse_time(until) - now_ns) / 1e9)
    return f", for another {human_duration(seconds).lower()} at the most"


def _node_lines(nodes: Iterable[Json]) -> Iterator[str]:
    rows = [REASONS_FIRST]
    for node in nodes:
        name = node["Name"] or node["ID"]
        if node["Fits"]:
            rows.append(f"{name}\t\t\tfits now")
        for refusal in node["Refusals"]:
            rows.append(f"{name}\t{refusal['Filter']}\t{refusal['Needs']}\t{refusal['Has']}")
            name = ""
    if len(rows) > 1:
        yield ""
        yield from aligned(rows)


def _failure_lines(failures: Iterable[Json], now_ns: int) -> Iterator[str]:
    for at, failure in enumerate(failures):
        if not at:
            yield ""
            yield "Last failures:"
        code = failure.get("ExitCode")
        ended = failure["State"] if code is None else f"{failure['State']}, exit code {code}"
        where = f" on {failure['Node']}" if failure["Node"] else ""
        age = age_of(parse_time(failure["At"]), now_ns)
        yield f"  {age}{where}: {ended}: {failure['Err']} (task {failure['TaskID']})"
