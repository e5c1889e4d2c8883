"""``service stop`` and ``service start``: no tasks for a while, and nothing of the spec lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from swarmctl.core.errors import SwarmError

from ..api import filters_of, path_to
from ..command import SOME, Failure, command
from .converge import wait_converged
from .flags import WAIT
from .progress import NUMBERS, RUNNING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api import Api
    from ..command import Invocation

LOOK_EVERY_S = 0.2


@command(
    "stop [OPTIONS] SERVICE [SERVICE...]",
    "Stop all tasks of one or more services and keep their specs",
    WAIT[0],
    arity=SOME,
    text=(
        "A stopped service asks for 0 replicas until it is started, or until somebody sets another "
        "number. It can be updated meanwhile. Jobs cannot be stopped."
    ),
)
def stop(call: Invocation) -> None:
    """Stop services, then wait until their tasks have ended."""
    _switch(call, "stop", lambda service_id: _wait_stopped(call.api, service_id))


@command(
    "start [OPTIONS] SERVICE [SERVICE...]",
    "Start one or more stopped services",
    *WAIT,
    arity=SOME,
    text="A service starts with the number of replicas that it was stopped with.",
)
def start(call: Invocation) -> None:
    """Start services, then wait until they run."""
    quiet = call.given.is_set("quiet")
    _switch(call, "start", lambda service_id: wait_converged(call.api, service_id, quiet=quiet))


def _switch(call: Invocation, verb: str, wait: Callable[[str], None]) -> None:
    """Tell every service named; one that cannot does not keep the others."""
    errors: list[str] = []
    told: list[tuple[str, str]] = []
    for name in call.arguments:
        try:
            service = call.api.get(path_to("services", name))
            call.api.post(path_to("services", service["ID"], verb))
        except SwarmError as error:
            errors.append(str(error))
        else:
            told.append((name, service["ID"]))
    for name, service_id in told:
        try:
            if not call.given.is_set("detach"):
                wait(service_id)
        except (Failure, SwarmError) as error:
            errors.append(f"{name}: {error}")
        else:
            click.echo(name)
    if errors:
        raise Failure("\n".join(errors))


def _wait_stopped(api: Api, service_id: str) -> None:
    """Wait until no task of a service can be running."""
    wanted = filters_of({"service": [service_id]})
    while True:
        tasks = api.get("/tasks", wanted)
        if all(_is_over(task["Status"]["State"]) for task in tasks):
            return
        time.sleep(LOOK_EVERY_S)


def _is_over(state: str) -> bool:
    return NUMBERS.get(state, RUNNING + 1) > RUNNING
