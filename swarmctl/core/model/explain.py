"""Why something does not run: what ``GET /tasks/{id}/explain`` and the same of a service answer.

Ours: Docker has no such routes. Computed from the tables for each answer and never stored. Numbers
carry their units and are meant to be read; whoever wants to compute has the objects themselves.
"""

from __future__ import annotations

from .base import NEVER, ApiStruct, Time, printed
from .task import TaskState


class Refusal(ApiStruct, frozen=True, kw_only=True):
    """Why a node cannot run a task: the filter that says so, what is needed, what is there."""

    Filter: str = printed("")
    Needs: str = printed("")
    Has: str = printed("")


class NodeVerdict(ApiStruct, frozen=True, kw_only=True):
    """One node, and every filter that refuses it; none: the task fits there now."""

    ID: str = printed("")
    Name: str = printed("")
    Fits: bool = printed(False)
    Refusals: tuple[Refusal, ...] = printed(())


class Wait(ApiStruct, frozen=True, kw_only=True):
    """One thing that a task waits for.

    Attributes:
        For: ``service``, ``allocation``, ``node``, ``agent``, ``image``, ``predecessor``,
            ``delay``, ``start`` or ``health``.
        Text: a sentence without its subject.
        Until: when it ends at the latest, if that is known.
    """

    For: str = printed("")
    Text: str = printed("")
    Until: Time | None = None


class LastFailure(ApiStruct, frozen=True, kw_only=True):
    """How a task ended badly.

    Attributes:
        ExitCode: of its process, None when there was none.
    """

    At: Time = printed(NEVER)
    TaskID: str = printed("")
    NodeID: str = printed("")
    Node: str = printed("")
    State: TaskState = printed(TaskState.FAILED)
    ExitCode: int | None = None
    Err: str = printed("")


class TaskExplanation(ApiStruct, frozen=True, kw_only=True):
    """One task: where it stands, what it waits for, what nodes say to it.

    Attributes:
        Name: of service and slot, or node for a task without slots.
        Text: all of it in one sentence.
        Nodes: verdicts while it looks for a node; of a service's tasks, which are alike, only one
            has them.
    """

    ID: str = printed("")
    Name: str = printed("")
    ServiceID: str = printed("")
    State: TaskState = printed(TaskState.NEW)
    DesiredState: TaskState = printed(TaskState.NEW)
    Since: Time = printed(NEVER)
    NodeID: str = printed("")
    Node: str = printed("")
    Text: str = printed("")
    Waits: tuple[Wait, ...] = printed(())
    Nodes: tuple[NodeVerdict, ...] = printed(())
    Failures: tuple[LastFailure, ...] = printed(())


class ServiceExplanation(ApiStruct, frozen=True, kw_only=True):
    """A service: how many of its tasks run, and why the others do not.

    Attributes:
        Text: all of it in one sentence.
        Notes: what holds for the service as a whole: stopped, an update that paused, slots that
            ended for good.
        Tasks: those that should run and do not; ``More`` is how many more there are.
        Nodes: verdicts for tasks that look for a node.
        Failures: the last ones of all its tasks, the newest first.
    """

    ID: str = printed("")
    Name: str = printed("")
    Running: int = printed(0)
    Wanted: int = printed(0)
    Text: str = printed("")
    Notes: tuple[str, ...] = printed(())
    Tasks: tuple[TaskExplanation, ...] = printed(())
    More: int = printed(0)
    Nodes: tuple[NodeVerdict, ...] = printed(())
    Failures: tuple[LastFailure, ...] = printed(())
