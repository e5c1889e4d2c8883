"""``swarmctl secret``: data that tasks read as files and that nobody else is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import payload
from .api import path_to
from .command import NONE, SOME, Arity, command
from .flags import TEXT, Flag
from .payload import Noun
from .present import INSPECT_FLAGS, write_objects
from .service.values import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .api import Json
    from .command import Invocation

SECRET = Noun("secret", ("ID", "Name", "Revision", "Driver", "CreatedAt", "UpdatedAt"))
ONE_OR_TWO = Arity(1, 2)


@command(
    "create [OPTIONS] SECRET [file|-]",
    "Create a secret from a file or STDIN as content",
    Flag("driver", TEXT, "Secret driver", short="d"),
    Flag("label", LABEL, "Secret labels", short="l"),
    payload.TEMPLATE_FLAG,
    arity=ONE_OR_TWO,
)
def create(call: Invocation) -> None:
    """Create a secret."""
    source = call.arguments[1] if len(call.arguments) > 1 else ""
    driver = call.given.text("driver")
    payload.create(call, SECRET, source, {"Driver": {"Name": driver}} if driver else {})


@command(
    "ls [OPTIONS]",
    "List secrets",
    *payload.LS_FLAGS,
    arity=NONE,
    aliases="swarmctl secret ls, swarmctl secret list",
)
def list_secrets(call: Invocation) -> None:
    """Print the swarm's secrets."""
    payload.write_table(call, SECRET)


@command(
    "inspect [OPTIONS] SECRET [SECRET...]",
    "Display detailed information on one or more secrets",
    *INSPECT_FLAGS,
    arity=SOME,
)
def inspect(call: Invocation) -> None:
    """Print secrets, whole but for what they hide."""
    write_objects(
        "",
        call.arguments,
        lambda reference: call.api.get(path_to("secrets", reference)),
        model=_model,
        form=call.given.text("format"),
        pretty=_pretty if call.given.is_set("pretty") else None,
    )


def _model() -> type:
    from swarmctl.core.model.objects import Secret

    return Secret


def _pretty(secret: Json) -> str:
    return "\n".join(_pretty_lines(secret))


def _pretty_lines(secret: Json) -> Iterator[str]:
    yield f"ID:              {secret['ID']}"
    yield f"Name:            {secret['Spec']['Name']}"
    yield from payload.pretty_labels(secret)
    yield f"Driver:          {(secret['Spec'].get('Driver') or {}).get('Name', '')}"
    yield f"Created at:      {payload.pretty_time(secret['CreatedAt'])}"
    yield f"Updated at:      {payload.pretty_time(secret['UpdatedAt'])}"


@command(
    "update [OPTIONS] SECRET [file|-]",
    "Make a new version of a secret, or change its labels",
    *payload.UPDATE_FLAGS,
    arity=ONE_OR_TWO,
    text=payload.UPDATE_TEXT,
)
def update(call: Invocation) -> None:
    """Update a secret."""
    payload.update(call, SECRET)


@command(
    "rm SECRET [SECRET...]",
    "Remove one or more secrets",
    arity=SOME,
    aliases="swarmctl secret rm, swarmctl secret remove",
    text="By name a secret goes with all its versions; by the id of an older version, that one.",
)
def remove(call: Invocation) -> None:
    """Remove secrets."""
    payload.remove(call, SECRET)


@command(
    "prune [OPTIONS]",
    "Remove older versions of secrets that nothing uses",
    *payload.PRUNE_FLAGS,
    arity=NONE,
)
def prune(call: Invocation) -> None:
    """Remove unused versions."""
    payload.prune(call, SECRET)
