"""What the scheduler asks of plugins that answer later, because they run outside this process.

Deciding stays a plain synchronous function: a stand-in for such a plugin gives the answer that it
has, or raises :class:`~swarmctl.core.errors.AnswerAwaited` and remembers the question. When a pass
is over (``send``) what it asked goes out as one batch, on the rows as the pass saw them, and the
loop looks again when the answers are there. They count as far as they still fit: a placement as far
as every filter has room now, a verdict while the node is as it was judged.

An in-process scheduler is none of this; nothing here knows processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from ..errors import AnswerAwaited
from ..model.base import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..model.change import Ref
    from ..model.objects import TaskRow
    from ..store.view import View
    from .resources import Place

AWAIT_NS = 2 * SECOND
"""A pass that waits for an answer looks again after so long, should nobody wake it."""


@runtime_checkable
class Outsider(Protocol):
    """A stand-in for a plugin that answers later.

    Attributes:
        busy: questions are with the plugin; until they are answered none is taken.
    """

    @property
    def busy(self) -> bool: ...

    def note(self, touched: set[Ref] | None) -> None:
        """Learn which rows changed since the last call (None: any may have)."""
        ...

    def listen(self, wake: Callable[[], None]) -> None:
        """Have a function called whenever answers have come."""
        ...

    def send(self, view: View, *, waits: bool) -> None:
        """The pass is over: have what it asked answered, on the rows of ``view``.

        Args:
            waits: somebody waits, for this answer or another one, and comes back for all of them.
        """
        ...


class Blame(NamedTuple):
    """A filter that refused some nodes first: how many, and the sentence for them."""

    nodes: int
    sentence: str


class Verdict(NamedTuple):
    """What a plugin's filters say of a task and some nodes.

    Attributes:
        rooms: how many such tasks a node takes, by node id; a node that is not in it was not
            judged as it is now, and gets none this time.
        blamed: the filters that refused nodes.
    """

    rooms: Mapping[str, int]
    blamed: tuple[Blame, ...]


class Judge(Outsider, Protocol):
    """All filters of one plugin; they run after ours.

    Attributes:
        name: the plugin's.
    """

    name: str

    def judge(self, task: TaskRow, places: Sequence[Place]) -> Verdict:
        """Return what the filters say of a task and the nodes that ours let pass.

        Raises:
            AnswerAwaited: not known yet.
        """
        ...

    def told(self, task: TaskRow) -> Mapping[str, str]:
        """Return why nodes were refused when this was last asked, by node id; for users."""
        ...


def ask_all(judges: Sequence[Judge], task: TaskRow, places: Sequence[Place]) -> list[Verdict]:
    """Return what every plugin's filters say; all are asked before one is waited for.

    Raises:
        AnswerAwaited: one is not known yet.
    """
    verdicts: list[Verdict] = []
    for judge in judges:
        try:
            verdicts.append(judge.judge(task, places))
        except AnswerAwaited:
            continue
    if len(verdicts) < len(judges):
        raise AnswerAwaited
    return verdicts
