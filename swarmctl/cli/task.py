"""``swarmctl task``: single tasks, for those who have an id and want to know all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .api import path_to
from .command import SOME, command
from .flags import BOOL, Flag
from .present import INSPECT_FLAGS, write_objects
from .table import gathered
from .task_table import PS_FLAGS, find_tasks, write_tasks

if TYPE_CHECKING:
    from .command import Invocation


@command(
    "ls [OPTIONS]",
    "List the tasks of the swarm",
    *PS_FLAGS,
    Flag("all", BOOL, "Show tasks that have ended, too", short="a"),
    aliases="swarmctl task ls, swarmctl task list",
)
def list_tasks(call: Invocation) -> None:
    """Print every task that should run; with ``--all`` those that have ended, too."""
    filters = gathered(call.given.each("filter"))
    if not call.given.is_set("all") and "desired-state" not in filters:
        filters["desired-state"] = ["ready", "running", "complete"]
    tasks = find_tasks(call.api, filters)
    write_tasks(call, tasks, whole_ids=call.given.is_set("quiet"))


@command(
    "inspect [OPTIONS] TASK [TASK...]",
    "Display detailed information on one or more tasks",
    INSPECT_FLAGS[0],
    arity=SOME,
)
def inspect(call: Invocation) -> None:
    """Print tasks, whole."""
    write_objects(
        "",
        call.arguments,
        lambda reference: call.api.get(path_to("tasks", reference)),
        model=_model,
        form=call.given.text("format"),
    )


def _model() -> type:
    from swarmctl.core.model.task import Task

    return Task
