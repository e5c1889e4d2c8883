"""``service rollback`` and ``service history``: the specs a service had, and going back to them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from swarmctl.core.model.duration import parse_time

from ..api import path_to
from ..command import ONE, Failure, command
from ..flags import UINT, Flag
from ..table import FORMAT_FLAG, NO_TRUNC_FLAG, write_list
from ..wording import age_of, plain_image
from .converge import wait_converged
from .flags import WAIT

if TYPE_CHECKING:
    from ..api import Json
    from ..command import Invocation

HEADERS = {
    "Version": "VERSION",
    "Created": "CREATED",
    "How": "HOW",
    "Image": "IMAGE",
    "Changes": "CHANGES",
}
DEFAULT = "\t".join(f"{{{{.{name}}}}}" for name in HEADERS)
CHANGES_WIDTH = 100


@command(
    "rollback [OPTIONS] SERVICE",
    "Revert changes to a service's configuration",
    *WAIT,
    Flag("to", UINT, "Version to go back to, see 'service history' (default: the one before)"),
    arity=ONE,
)
def rollback(call: Invocation) -> None:
    """Give a service an older spec and wait until its tasks are as that says."""
    given = call.given
    name = call.arguments[0]
    service = call.api.get(path_to("services", name))
    query = {"version": str(service["Version"]["Index"]), "rollback": "previous"}
    if "to" in given:
        number = given.number("to")
        if not number:
            raise Failure("invalid version 0: versions count from 1, see 'service history'")
        query["rollback"] = str(number)
    path = path_to("services", service["ID"], "update")
    answer = call.api.post(path, service["Spec"], query)
    for warning in (answer or {}).get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)
    click.echo(name)
    if not given.is_set("detach"):
        wait_converged(call.api, service["ID"], quiet=given.is_set("quiet"), back=True)


@command(
    "history [OPTIONS] SERVICE",
    "List the versions of a service that can be gone back to",
    FORMAT_FLAG,
    NO_TRUNC_FLAG,
    arity=ONE,
)
def history(call: Invocation) -> None:
    """Print the specs that are kept, newest first; a star marks the one of now."""
    revisions = call.api.get(path_to("services", call.arguments[0], "history"))
    now_ns = time.time_ns()
    whole = call.given.is_set("no-trunc")
    write_list(
        [_row(revision, now_ns, whole=whole) for revision in revisions],
        HEADERS,
        DEFAULT,
        asked=call.given.text("format"),
    )


def _row(revision: Json, now_ns: int, *, whole: bool) -> dict[str, Any]:
    container = revision["Spec"]["TaskTemplate"].get("ContainerSpec") or {}
    image = container.get("Image", "")
    changes = "; ".join(revision["Changes"])
    if not whole and len(changes) > CHANGES_WIDTH:
        changes = f"{changes[: CHANGES_WIDTH - 3]}..."
    return {
        "Version": f"{revision['Number']}{' *' if revision.get('Current') else ''}",
        "Created": age_of(parse_time(revision["CreatedAt"]), now_ns),
        "How": revision.get("How", ""),
        "Image": image if whole else plain_image(image),
        "Changes": changes,
    }
