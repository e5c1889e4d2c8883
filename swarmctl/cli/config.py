"""``swarmctl config``: data that tasks read as files, and that anybody may look at."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from . import payload
from .api import path_to
from .command import NONE, SOME, Arity, command
from .flags import Flag
from .payload import Noun
from .present import INSPECT_FLAGS, write_objects
from .service.values import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .api import Json
    from .command import Invocation

CONFIG = Noun("config", ("ID", "Name", "Revision", "CreatedAt", "UpdatedAt"))


@command(
    "create [OPTIONS] CONFIG file|-",
    "Create a config from a file or STDIN",
    Flag("label", LABEL, "Config labels", short="l"),
    payload.TEMPLATE_FLAG,
    arity=Arity(2, 2),
)
def create(call: Invocation) -> None:
    """Create a config."""
    payload.create(call, CONFIG, call.arguments[1], {})


@command(
    "ls [OPTIONS]",
    "List configs",
    *payload.LS_FLAGS,
    arity=NONE,
    aliases="swarmctl config ls, swarmctl config list",
)
def list_configs(call: Invocation) -> None:
    """Print the swarm's configs."""
    payload.write_table(call, CONFIG)


@command(
    "inspect [OPTIONS] CONFIG [CONFIG...]",
    "Display detailed information on one or more configs",
    *INSPECT_FLAGS,
    arity=SOME,
)
def inspect(call: Invocation) -> None:
    """Print configs, whole."""
    write_objects(
        "",
        call.arguments,
        lambda reference: call.api.get(path_to("configs", reference)),
        model=_model,
        form=call.given.text("format"),
        pretty=_pretty if call.given.is_set("pretty") else None,
    )


def _model() -> type:
    from swarmctl.core.model.objects import Config

    return Config


def _pretty(config: Json) -> str:
    return "\n".join(_pretty_lines(config))


def _pretty_lines(config: Json) -> Iterator[str]:
    yield f"ID:\t\t\t{config['ID']}"
    yield f"Name:\t\t\t{config['Spec']['Name']}"
    yield from payload.pretty_labels(config)
    yield f"Created at:            \t{payload.pretty_time(config['CreatedAt'])}"
    yield f"Updated at:            \t{payload.pretty_time(config['UpdatedAt'])}"
    yield "Data:"
    yield base64.b64decode(config["Spec"].get("Data", "")).decode(errors="replace")


@command(
    "update [OPTIONS] CONFIG [file|-]",
    "Make a new version of a config, or change its labels",
    *payload.UPDATE_FLAGS,
    arity=Arity(1, 2),
    text=payload.UPDATE_TEXT,
)
def update(call: Invocation) -> None:
    """Update a config."""
    payload.update(call, CONFIG)


@command(
    "rm CONFIG [CONFIG...]",
    "Remove one or more configs",
    arity=SOME,
    aliases="swarmctl config rm, swarmctl config remove",
    text="By name a config goes with all its versions; by the id of an older version, that one.",
)
def remove(call: Invocation) -> None:
    """Remove configs."""
    payload.remove(call, CONFIG)


@command(
    "prune [OPTIONS]",
    "Remove older versions of configs that nothing uses",
    *payload.PRUNE_FLAGS,
    arity=NONE,
)
def prune(call: Invocation) -> None:
    """Remove unused versions."""
    payload.prune(call, CONFIG)
