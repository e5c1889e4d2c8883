"""``inspect``: objects as they are, as JSON, by a template, or told to a human."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from swarmctl.core.model.gotemplate import Template

from .api import DaemonError
from .command import Failure
from .flags import BOOL, TEXT, Flag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .api import Json

INSPECT_FLAGS = (
    Flag("format", TEXT, "json | Go TEMPLATE", short="f"),
    Flag("pretty", BOOL, "Print the information in a human friendly format"),
)


def write_objects(
    kind: str,
    references: Iterable[str],
    find: Callable[[str], Json],
    *,
    model: Callable[[], type],
    form: str = "",
    pretty: Callable[[Json], str] | None = None,
) -> None:
    """Print every object that is found; end with an error when one was not.

    Args:
        kind: what it is, for the error; "" for the daemon's own words.
        model: imports and returns the type, which tells templates what fields there are.
        form: the value of ``--format``.
        pretty: tells an object to a human; None for no such wish.

    Raises:
        Failure: one of them is not there, after the others were printed. SwarmError: any other.
    """
    if pretty is not None and form:
        raise Failure("--format is incompatible with human friendly format")
    template = Template(form) if form and form != "json" else None
    if template is not None:
        from swarmctl.core.model.codec import decode_json

        shape = model()
    found: list[Json] = []
    missing: list[str] = []
    for reference in references:
        try:
            found.append(find(reference))
        except DaemonError as error:
            if error.code != 404:
                raise
            missing.append(f"Error: no such {kind}: {reference}" if kind else str(error))
    if pretty is not None:
        click.echo("\n\n".join(pretty(one) for one in found))
    elif template is not None:
        for one in found:
            click.echo(template.render(decode_json(msgspec.json.encode(one), shape)))
    elif form == "json":
        click.echo(msgspec.json.encode(found).decode())
    else:
        click.echo(_indented(found))
    if missing:
        raise Failure("\n".join(missing))


def _indented(value: object) -> str:
    """Return JSON as ``inspect`` prints it: four spaces a level."""
    plain = msgspec.json.encode(value)
    return msgspec.json.format(plain, indent=4).decode() if value else plain.decode()
