"""What ``swarmctl secret`` and ``swarmctl config`` share: everything but names and columns.

Data comes from a file or standard input and is in no argument, no environment and no output but a
config's own.
"""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from swarmctl.core.model.base import Time
from swarmctl.core.model.duration import parse_time
from swarmctl.core.model.gofunctions import go_text

from .api import DaemonError, filters_of, path_to
from .command import Failure
from .flags import BOOL, LIST, TEXT, Flag
from .service.values import LABEL
from .table import FILTER_FLAG, FORMAT_FLAG, QUIET_FLAG, gathered, write_list
from .task_table import natural
from .wording import human_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .api import Json
    from .command import Invocation

STDIN = "-"
HEADERS = {
    "ID": "ID",
    "Name": "NAME",
    "Revision": "REVISION",
    "Driver": "DRIVER",
    "CreatedAt": "CREATED",
    "UpdatedAt": "UPDATED",
    "Labels": "LABELS",
}
LS_FLAGS = (
    Flag("all", BOOL, "Show older versions, too", short="a"),
    FILTER_FLAG,
    FORMAT_FLAG,
    QUIET_FLAG,
)
TEMPLATE_FLAG = Flag("template-driver", TEXT, "Template driver")
UPDATE_FLAGS = (
    Flag("label-add", LABEL, "Add or update a label"),
    Flag("label-rm", LIST, "Remove a label if exists"),
    Flag("no-roll", BOOL, "Let services go on until their tasks are replaced for another reason"),
)
UPDATE_TEXT = (
    "With a file, or - for standard input, a new version is made, which the name means from then\n"
    "on. Services that used the newest version until then are updated to use it; those that name\n"
    "an older one keep it. Without a file only labels change."
)
PRUNE_FLAGS = (Flag("force", BOOL, "Do not prompt for confirmation", short="f"),)


class Noun(NamedTuple):
    """Which of the two it is.

    Attributes:
        columns: of its table, without the revision.
    """

    word: str
    columns: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"{self.word}s"


# --- create, update ------------------------------------------------------------------------------


def create(call: Invocation, noun: Noun, source: str, extra: Json) -> None:
    """Create one and print its id.

    Args:
        source: file to read, ``-`` for standard input, "" for no data.
        extra: further fields of its spec.
    """
    labels = dict(call.given.each("label"))
    spec: Json = {"Name": call.arguments[0], "Labels": labels, "Data": _encoded(source), **extra}
    driver = call.given.text("template-driver")
    if driver:
        spec["Templating"] = {"Name": driver}
    click.echo(call.api.post(f"/{noun.path}/create", spec)["ID"])


def update(call: Invocation, noun: Noun) -> None:
    """Make a new version, or change labels."""
    reference, *sources = call.arguments
    found: Json = call.api.get(path_to(noun.path, reference))
    labels = _changed_labels(call, found["Spec"].get("Labels") or {})
    if not sources:
        if not call.given.any_of("label-add", "label-rm"):
            raise Failure(
                f"nothing to update: name a file (or - for standard input), or change labels of "
                f"{noun.word} {reference}"
            )
        spec = {**found["Spec"], "Labels": labels}
        query = {"version": str(found["Version"]["Index"])}
        call.api.post(path_to(noun.path, found["ID"], "update"), spec, query)
        click.echo(reference)
        return
    body: Json = {"Data": _encoded(sources[0])}
    if call.given.any_of("label-add", "label-rm"):
        body["Labels"] = labels
    query = {"roll": "false" if call.given.is_set("no-roll") else "true"}
    made = call.api.post(path_to(noun.path, reference, "versions"), body, query)
    click.echo(made["ID"])
    for line in _consequences(made, noun):
        click.echo(line, err=True)


def _consequences(made: Json, noun: Noun) -> Iterator[str]:
    """Say what a new version does to services."""
    if made["Unchanged"]:
        yield f"the {noun.word} is as it was: no new version was made"
    moving, waiting = made["Moving"], made["Waiting"]
    if moving["Count"]:
        verb = "is" if moving["Count"] == 1 else "are"
        yield f"{_services(moving)} {verb} updated to use it"
    if waiting["Count"]:
        one = waiting["Count"] == 1
        verb, whose = ("goes", "its") if one else ("go", "their")
        yield (
            f"{_services(waiting)} {verb} on with an older version until {whose} tasks are "
            "replaced for another reason"
        )


def _services(named: Json) -> str:
    names = list(named["Names"])
    more = named["Count"] - len(names)
    if more:
        names.append(f"{more} more")
    word = "service" if named["Count"] == 1 else "services"
    return f"{word} {', '.join(names)}"


def _changed_labels(call: Invocation, labels: Json) -> Json:
    changed = {**labels, **dict(call.given.each("label-add"))}
    for key in call.given.each("label-rm"):
        changed.pop(key, None)
    return changed


def _encoded(source: str) -> str:
    """Return what a source holds, in base64.

    Raises:
        Failure: it cannot be read.
    """
    if not source:
        return ""
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise Failure(f'error reading content from "{source}": {error.strerror}') from error
    return base64.b64encode(data).decode()


# --- ls, inspect ---------------------------------------------------------------------------------


def write_table(call: Invocation, noun: Noun) -> None:
    """Print the newest version of each; with ``--all`` every version, the newest first."""
    given = call.given
    every = given.is_set("all")
    query = filters_of(gathered(given.each("filter")))
    found: list[Json] = call.api.get(f"/{noun.path}", {**query, "all": "1"} if every else query)
    found.sort(key=_revision, reverse=True)
    found.sort(key=lambda one: natural(one["Spec"]["Name"]))
    columns = [name for name in noun.columns if every or name != "Revision"]
    now_ns = time.time_ns()
    write_list(
        [_row(one, noun, now_ns) for one in found],
        {name: HEADERS[name] for name in (*noun.columns, "Labels")},
        "\t".join(f"{{{{.{name}}}}}" for name in columns),
        asked=given.text("format"),
        quiet=given.is_set("quiet"),
    )


def _row(found: Json, noun: Noun, now_ns: int) -> dict[str, Any]:
    labels = found["Spec"].get("Labels") or {}
    row = {
        "ID": found["ID"],
        "Name": found["Spec"]["Name"],
        "Revision": str(_revision(found)),
        "Driver": (found["Spec"].get("Driver") or {}).get("Name", ""),
        "CreatedAt": _ago(found["CreatedAt"], now_ns),
        "UpdatedAt": _ago(found["UpdatedAt"], now_ns),
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
    }
    return {name: row[name] for name in (*noun.columns, "Labels")}


def _revision(found: Json) -> int:
    revision: int = found.get("Revision", 1)  # the first is not printed, as Docker has no others
    return revision


def _ago(text: str, now_ns: int) -> str:
    return f"{human_duration((now_ns - parse_time(text)) / 1e9)} ago"


def pretty_time(text: str) -> str:
    """Return a time as the docker CLI prints it for humans."""
    return go_text(Time(parse_time(text))).lower()


def pretty_labels(found: Json) -> Iterator[str]:
    """Yield the lines of an object's labels, if it has any."""
    labels = found["Spec"].get("Labels") or {}
    if labels:
        yield "Labels:"
        for key in sorted(labels):
            yield f" - {key}={labels[key]}" if labels[key] else f" - {key}"


# --- rm, prune -----------------------------------------------------------------------------------


def remove(call: Invocation, noun: Noun) -> None:
    """Remove what is named; one that cannot be removed does not keep the others."""
    errors: list[str] = []
    for reference in call.arguments:
        try:
            call.api.delete(path_to(noun.path, reference))
        except DaemonError as error:
            errors.append(str(error))
        else:
            click.echo(reference)
    if errors:
        raise Failure("\n".join(errors))


def prune(call: Invocation, noun: Noun) -> None:
    """Remove the older versions that nothing uses."""
    if not call.given.is_set("force"):
        click.echo(
            f"WARNING! This will remove all older versions of {noun.path} that are not used by a "
            "service,\nby the spec before its present one, or by a task.\n"
            "Are you sure you want to continue? [y/N] ",
            nl=False,
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return
    gone = call.api.post(f"/{noun.path}/prune")["Deleted"] or ()
    if gone:
        click.echo(f"Deleted {noun.word.capitalize()} Versions:")
    for payload_id in gone:
        click.echo(payload_id)
