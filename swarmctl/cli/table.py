"""Lists: the aligned table, ``--format`` in its forms, and ``--quiet``.

A row is what the docker CLI calls a context: the columns by the names that templates use, as text.
Layout is that of Go's tabwriter as Docker sets it up: columns at least ten wide, three apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from swarmctl.core.model.gofunctions import Columns, go_json
from swarmctl.core.model.gotemplate import Template

from .flags import BOOL, TEXT, Flag, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TABLE = "table"
_MIN_WIDTH = 10
_GAP = 3


def parse_filter(text: str) -> tuple[str, str]:
    """Return key and value of a filter.

    Raises:
        ValueError: in Docker's words.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


FILTER = Kind("filter", parse_filter, many=True)
FORMAT_FLAG = Flag("format", TEXT, "json | table | table TEMPLATE | Go TEMPLATE")
FILTER_FLAG = Flag("filter", FILTER, "Filter output based on conditions provided", short="f")
QUIET_FLAG = Flag("quiet", BOOL, "Only display IDs", short="q")
NO_TRUNC_FLAG = Flag("no-trunc", BOOL, "Do not truncate output")
NO_RESOLVE_FLAG = Flag("no-resolve", BOOL, "Do not map IDs to Names")


def write_list(
    rows: Iterable[Mapping[str, Any]],
    headers: Mapping[str, str],
    default: str,
    *,
    asked: str = "",
    quiet: bool = False,
) -> None:
    """Print rows as the flags ask.

    Args:
        headers: column name -> its header in a table.
        default: the template of the plain table, columns apart by tabs.
        asked: the value of ``--format``.
        quiet: only ids; an explicit format other than ``table`` wins, as in Docker.

    Raises:
        TemplateError: the format cannot be understood.
    """
    form = asked or TABLE
    rows = [Columns(row) for row in rows]
    if form == "json":
        for row in rows:
            click.echo(go_json(row))
        return
    if form == TABLE:
        form = "{{.ID}}" if quiet else f"table {default}"
    form = form.replace("\\t", "\t").replace("\\n", "\n")
    if not form.startswith("table "):
        template = Template(form)
        for row in rows:
            click.echo(template.render(row))
        return
    template = Template(form.removeprefix("table ").strip(" "))
    lines = [template.render(Columns(headers)), *(template.render(row) for row in rows)]
    for line in aligned(lines):
        click.echo(line)


def aligned(lines: Sequence[str]) -> list[str]:
    """Return lines with their tab-separated cells in columns."""
    table = [line.split("\t") for line in lines]
    widths: dict[int, int] = {}
    for cells in table:
        for at, cell in enumerate(cells[:-1]):
            widths[at] = max(widths.get(at, _MIN_WIDTH), len(cell) + _GAP)
    return [
        "".join(cell.ljust(widths[at]) for at, cell in enumerate(cells[:-1])) + cells[-1]
        for cells in table
    ]


def gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return filters by key."""
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found
