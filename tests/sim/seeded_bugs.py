"""Bugs to plant outside the Raft core: each is one small change of the product's own source.

``BUGS[name].planted()`` replaces a piece of text in a function, compiles the function anew and puts
it where the old one was known, for the length of a ``with`` block. A piece of text that is not
there (any more) is an error, so no bug is ever silently absent.

They are what one could write by mistake: a check left out, an order turned round, a case forgotten.
``python -m tests.sim --bug NAME`` looks for one, ``--bug all`` for all of them.
"""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Patch(NamedTuple):
    """One change: in ``module``, in the function or method ``name``, ``old`` becomes ``new``."""

    module: str
    name: str
    old: str
    new: str


class Bug(NamedTuple):
    """Something that is wrong now.

    Attributes:
        sentence: what is wrong, in words.
        seeds: within how many seeds the simulator finds it.
    """

    sentence: str
    patches: tuple[Patch, ...]
    seeds: int = 12

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the bug for the length of the block."""
        undo: list[tuple[Any, str, Any]] = []
        try:
            for patch in self.patches:
                undo += _plant(patch)
            yield
        finally:
            for owner, name, former in reversed(undo):
                setattr(owner, name, former)


def _plant(patch: Patch) -> list[tuple[Any, str, Any]]:
    """Put a changed function in place; return what to put back."""
    owner: Any = import_module(f"swarmctl.{patch.module}")
    *path, name = patch.name.split(".")
    for each in path:
        owner = getattr(owner, each)
    former = inspect.getattr_static(owner, name)
    source = getattr(former, "planted_source", None) or textwrap.dedent(inspect.getsource(former))
    if source.count(patch.old) != 1:
        raise LookupError(f"{patch.module}.{patch.name} does not say {patch.old!r} once")
    names: dict[str, Any] = {}
    flags = __future__.annotations.compiler_flag
    source = source.replace(patch.old, patch.new)
    exec(compile(source, f"<{patch.name}>", "exec", flags), former.__globals__, names)
    changed = names[name]
    changed.planted_source = source
    if path:
        places = [(owner, name)]
    else:  # whoever has imported it knows it by itself
        places = [
            (module, known)
            for module in list(sys.modules.values())
            if getattr(module, "__name__", "").startswith(("swarmctl", "tests"))
            for known, value in list(vars(module).items())
            if value is former
        ]
    for place, known in places:
        setattr(place, known, changed)
    return [(place, known, former) for place, known in places]


STORE = "core.store.store"
RUNNER = "core.raft.runner"
ASSIGNMENTS = "core.dispatcher.assignments"
REPLICATED = "core.orchestrator.replicated"

BUGS = {
    "advance-goes-back": Bug(
        "a late report takes a task back to an earlier state",
        (Patch(STORE, "_advance", "report.State >= status.State and ", ""),),
        seeds=300,
    ),
    "update-of-any-version": Bug(
        "an update does not care whether its row has changed meanwhile",
        (Patch(STORE, "_update", "version_of(before) != version_of(row)", "False"),),
    ),
    "names-not-unique": Bug(
        "two services may have one name",
        (Patch(STORE, "_create", "conflict = _name_conflict(view, row)", "conflict = None"),),
    ),
    "conflicts-written": Bug(
        "a transaction whose requirement does not hold is written all the same",
        (
            Patch(
                STORE,
                "Store._judge",
                "for change in transaction.changes:",
                "for change in ():",
            ),
            Patch(
                STORE,
                "Store._judge",
                "scratch = self.view.overlay()",
                "scratch = self.view.overlay()\n"
                "    for change in transaction.changes:\n"
                "        conflict = lay(scratch, change, index, transaction.now)\n"
                "        if conflict is not None:\n"
                "            return conflict\n"
                "    self._write(scratch.written(), transaction.now, changes)",
            ),
        ),
    ),
    "answers-forgotten": Bug(
        "a request that comes again is judged again",
        (Patch(STORE, "Store.apply", "self.answer_of(transaction.request_id)", "None"),),
    ),
    "snapshot-without-answers": Bug(
        "a snapshot forgets which requests were answered",
        (Patch("core.store.dump", "dump", "tuple(answers)", "()"),),
    ),
    "time-of-the-applier": Bug(
        "what is written depends on which manager applies it",
        (
            Patch(
                STORE,
                "Store.apply",
                "index, transaction, changes)",
                "index, replace(transaction, now=transaction.now + id(self) % 997), changes)",
            ),
        ),
    ),
    "answers-before-fsync": Bug(
        "a manager answers before its disk has what it answers for",
        (
            Patch(
                RUNNER,
                "Runner._handle",
                "self._disk.append(message, self._stored)",
                "self._disk.append(message, self._stored)\n"
                "            self._answers.extend(message.responses)",
            ),
        ),
    ),
    "anothers-answer": Bug(
        "a proposal takes the answer of whatever was put in its place in the log",
        (
            Patch("core.raft.waiting", "Proposal.settle", "entry.term != self._term", "False"),
            Patch(RUNNER, "Runner._follow", "proposal.lose()", "pass"),
            Patch(
                RUNNER,
                "Runner._follow",
                "proposals, self._proposals = self._proposals, {}",
                "proposals = {}",
            ),
        ),
        seeds=100,
    ),
    "successor-does-not-wait": Bug(
        "a slot's next task starts while the one before it still stops",
        (
            Patch(
                "core.orchestrator.restart",
                "successor",
                "waits = bool(blocker or delay_ns)",
                "waits = bool(delay_ns)",
            ),
        ),
        seeds=60,
    ),
    "promotion-forgotten": Bug(
        "a task that waits for its time is not looked at when the time has come",
        (Patch("core.orchestrator.tend", "Tending._keep", "self.look_again(due)", "pass"),),
        seeds=60,
    ),
    "one-too-many": Bug(
        "a service that is scaled down keeps a slot too many",
        (Patch(REPLICATED, "decide", "len(taken) > wanted", "len(taken) > wanted + 1"),),
        seeds=60,
    ),
    "one-job-too-many": Bug(
        "a job's slot that is complete may be taken once more",
        (
            Patch("core.orchestrator.jobs", "decide", "if slot.done:", "if False:"),
            Patch(
                "core.store.indexes", "_task_keys", "<= TaskState.COMPLETE", "<= TaskState.RUNNING"
            ),
        ),
        seeds=60,
    ),
    "port-handed-out-twice": Bug(
        "a port without a number gets one that another service has",
        (
            Patch(
                "core.allocator.ports",
                "PortBook._next_free",
                "not self._view.holders(Index.INGRESS_PORT, key)",
                "True",
            ),
            Patch(
                "core.allocator.ports",
                "PortBook._need",
                "if not rivals:",
                "if True:\n        return ()\n    if not rivals:",
            ),
            Patch(
                "core.allocator.ports",
                "PortBook.allocate",
                "self._handed_out.update(dict.fromkeys(mine, service.api.ID))",
                "pass",
            ),
        ),
    ),
    "placements-not-booked": Bug(
        "what one pass has placed does not count for what it places next",
        (
            Patch(
                "core.scheduler.decide",
                "_Pass._assign",
                "self._ledger.book(holding)\n    self._booked.append(holding)",
                "pass",
            ),
        ),
        seeds=60,
    ),
    "ports-released-early": Bug(
        "a task that is to stop no longer holds its port and its CPUs",
        (
            Patch(
                "core.scheduler.resources",
                "Ledger._add_task",
                "if TaskState.ASSIGNED <= state <= TaskState.RUNNING and row.api.NodeID:",
                "if (\n        TaskState.ASSIGNED <= state <= TaskState.RUNNING\n"
                "        and row.api.NodeID\n        and wanted <= TaskState.RUNNING\n    ):",
            ),
        ),
    ),
    "secret-not-sent": Bug(
        "only the first message of a session carries secrets",
        (
            Patch(
                ASSIGNMENTS,
                "diff",
                "secrets = tuple(_new(wanted.secrets, sent.secrets))",
                "secrets = tuple(_new(wanted.secrets, sent.secrets)) if complete else ()",
            ),
        ),
        seeds=60,
    ),
    "wish-not-sent": Bug(
        "an agent is not told that a task it has shall stop",
        (Patch(ASSIGNMENTS, "_same", "a.DesiredState == b.DesiredState\n        and ", ""),),
    ),
    "removal-not-sent": Bug(
        "an agent is not told of tasks that are gone",
        (
            Patch(
                ASSIGNMENTS,
                "diff",
                "tuple(task_id for task_id in sent.tasks if task_id not in wanted.tasks)",
                "()",
            ),
        ),
    ),
    "stop-not-done": Bug(
        "an agent leaves alone what runs and shall stop",
        (
            Patch(
                "core.agent.step",
                "next_step",
                "Step.NOTHING if state >= TaskState.COMPLETE else Step.SHUTDOWN",
                "Step.NOTHING if state >= TaskState.RUNNING else Step.SHUTDOWN",
            ),
        ),
    ),
    "reaps-the-living": Bug(
        "the row of a task is deleted before the task has stopped",
        (
            Patch(
                "core.orchestrator.reaper",
                "_is_stopped",
                "state > TaskState.RUNNING or",
                "state > TaskState.STARTING or",
            ),
        ),
    ),
    "evicts-for-ever": Bug(
        "tasks are evicted from nodes that suit them",
        (
            Patch(
                "core.orchestrator.enforcer",
                "decide",
                "or not rest.take(task)",
                "or rest.take(task)",
            ),
        ),
    ),
    "rollout-stops": Bug(
        "an update waits for tasks that run already",
        (
            Patch(
                "core.orchestrator.rollout",
                "_held_until",
                "return until if until > now else None",
                "return max(until, now + 1)",
            ),
        ),
        seeds=60,
    ),
    "floor-forgotten": Bug(
        "an update replaces so many at a time, whatever is missing already",
        (
            Patch(
                "core.orchestrator.rollout",
                "_going_on",
                "max(0, config.Parallelism - held)",
                "config.Parallelism",
            ),
        ),
    ),
    "old-task-leaves-early": Bug(
        "start-first stops the old task though the new one does not run yet",
        (
            Patch(
                "core.orchestrator.overlap",
                "judge",
                "arrived = [task for task in running if any(task is one for one in wanted)]",
                "arrived = wanted",
            ),
        ),
        seeds=60,
    ),
}
