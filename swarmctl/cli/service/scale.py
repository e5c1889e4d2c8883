"""``service scale``: another number of tasks, for one service or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from swarmctl.core.errors import SwarmError

from ..api import path_to
from ..command import SOME, Failure, command
from ..flags import parse_uint
from .converge import wait_converged
from .flags import WAIT

if TYPE_CHECKING:
    from ..command import Invocation


@command(
    "scale SERVICE=REPLICAS [SERVICE=REPLICAS...]",
    "Scale one or multiple replicated services",
    WAIT[0],
    arity=SOME,
)
def scale(call: Invocation) -> None:
    """Scale every service named, then wait for each; one that fails does not keep the others."""
    errors: list[str] = []
    scaled: list[str] = []
    wanted = [_wanted(text) for text in call.arguments]
    for name, number in wanted:
        try:
            scaled.append(_scale_one(call, name, number))
        except (ValueError, SwarmError) as error:
            errors.append(f"{name}: {error}")
        else:
            click.echo(f"{name} scaled to {int(number)}")
    if not call.given.is_set("detach"):
        for service_id in scaled:
            try:
                wait_converged(call.api, service_id, quiet=False)
            except (Failure, SwarmError) as error:
                errors.append(f"{service_id}: {error}")
    if errors:
        raise Failure("\n".join(errors))


def _wanted(text: str) -> tuple[str, str]:
    name, equals, number = text.partition("=")
    if not equals:
        raise Failure(
            f"invalid scale specifier '{text}'; it must be SERVICE=REPLICAS.\n"
            "See 'swarmctl service scale --help'."
        )
    return name, number


def _scale_one(call: Invocation, name: str, number: str) -> str:
    """Send one service its number; return its id."""
    try:
        replicas = parse_uint(number)
    except ValueError as error:
        raise ValueError(f"invalid replicas value {number}: {error}") from None
    service = call.api.get(path_to("services", name))
    mode = service["Spec"]["Mode"]
    if mode.get("Replicated") is not None:
        mode["Replicated"]["Replicas"] = replicas
    elif mode.get("ReplicatedJob") is not None:
        mode["ReplicatedJob"]["TotalCompletions"] = replicas
    else:
        raise ValueError("scale can only be used with replicated or replicated-job mode")
    answer = call.api.post(
        path_to("services", service["ID"], "update"),
        service["Spec"],
        {"version": str(service["Version"]["Index"])},
    )
    for warning in (answer or {}).get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)
    service_id: str = service["ID"]
    return service_id
