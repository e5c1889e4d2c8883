"""``swarmctl plugin``: what the daemon loaded, how it stands, and why something is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .api import DaemonError, Json
from .command import SOME, Failure, command
from .present import INSPECT_FLAGS, write_objects
from .table import FILTER_FLAG, FORMAT_FLAG, NO_TRUNC_FLAG, QUIET_FLAG, gathered, write_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .command import Invocation

HEADERS = {
    "Name": "NAME",
    "Version": "VERSION",
    "API": "API",
    "Kind": "KIND",
    "State": "STATE",
    "Why": "WHY",
    "Place": "PLACE",
    "Hooks": "HOOKS",
    "Failures": "FAILURES",
}
DEFAULT = "{{.Name}}\t{{.Version}}\t{{.API}}\t{{.Kind}}\t{{.State}}\t{{.Why}}"
FILTERS = ("name", "kind", "state")
WHY_LENGTH = 60


@command(
    "ls [OPTIONS]",
    "List the plugins of the daemon",
    FILTER_FLAG,
    FORMAT_FLAG,
    NO_TRUNC_FLAG,
    QUIET_FLAG._replace(help="Only display names"),
    aliases="swarmctl plugin ls, swarmctl plugin list",
)
def list_plugins(call: Invocation) -> None:
    """Print the plugins, in the order in which they were loaded, and those that were not."""
    given = call.given
    wanted = gathered(given.each("filter"))
    unknown = next((name for name in wanted if name not in FILTERS), None)
    if unknown is not None:
        raise Failure(f"invalid filter {unknown!r}: plugins have {', '.join(FILTERS)}")
    write_list(
        [
            _row(one, whole=given.is_set("no-trunc"))
            for one in _plugins(call)
            if _is_wanted(one, wanted)
        ],
        HEADERS,
        DEFAULT,
        asked=given.text("format"),
        quiet=given.is_set("quiet"),
    )


def _plugins(call: Invocation) -> list[Json]:
    found: list[Json] = call.api.get("/info").get("LoadedPlugins") or []
    return found


def _is_wanted(one: Json, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a plugin passes the filters; a name counts by its beginning, as in Docker."""
    for name, values in wanted.items():
        value = str(one.get(name.title()) or "")
        if not any(value.startswith(v) if name == "name" else value == v for v in values):
            return False
    return True


def _row(one: Json, *, whole: bool) -> dict[str, object]:
    why = str(one.get("Why") or "")
    if not whole and len(why) > WHY_LENGTH:
        why = why[: WHY_LENGTH - 1] + "…"
    row: dict[str, object] = {name: one.get(name, "") for name in HEADERS}
    row.update(ID=one["Name"], Why=why, Hooks=",".join(one.get("Hooks") or ()))
    return row


@command(
    "inspect [OPTIONS] PLUGIN [PLUGIN...]",
    "Display detailed information on one or more plugins",
    INSPECT_FLAGS[0],
    arity=SOME,
)
def inspect(call: Invocation) -> None:
    """Print plugins, whole."""
    known = {one["Name"]: one for one in reversed(_plugins(call)) if one["Name"]}

    def find(name: str) -> Json:
        if name not in known:
            raise DaemonError(404, f"no such plugin: {name}")
        return known[name]

    write_objects("plugin", call.arguments, find, model=_model, form=call.given.text("format"))


@command(
    "path",
    "Print the directory to import swarmctl.plugins from",
    text=(
        "For tests of a plugin where swarmctl is one file and no installed package:\n"
        "PYTHONPATH=$(swarmctl plugin path) python3 -m pytest, with the Python that runs swarmctl."
    ),
)
def path(_call: Invocation) -> None:
    """Print it; the archive has unpacked its packages there."""
    click.echo(Path(__file__).resolve().parents[2])


def _model() -> type:
    from swarmctl.core.model.loaded import LoadedPlugin

    return LoadedPlugin
