"""Creates and starts are seen through, also when whoever asked is cancelled.

An engine goes on with a create or a start after its client has hung up. If the next step looked
too early it would find nothing, and the container that appears afterwards would be nobody's. So
these calls run in a nursery of the executor's own, and every later step of the same task waits for
them first. When the executor itself ends, the next daemon finds by looking what came of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from swarmctl.plugins import EngineUnavailable

from .calls import CHANGE_PATIENCE_S, LOOKUP_PATIENCE_S, Refused

if TYPE_CHECKING:
    from .calls import Engine


class _Change:
    """One call under way: set ``done``, and it has an answer or an error."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Any = None
        self.error: EngineUnavailable | Refused | None = EngineUnavailable("the executor has ended")


class Changes:
    """The creates and starts of one executor, at most one for each task (or network) at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: dict[str, _Change] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the calls until cancelled; those under way are then cut."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def post(self, task_id: str, path: str, body: object = None, **query: str) -> Any:
        """Change something of a task and return the decoded answer, None for none.

        Cancelled while it waits for its turn, nothing was asked; cancelled later, the call goes on.

        Raises:
            EngineUnavailable: no answer. Whether the request was carried out is unknown.
            Refused: the answer's status is 400 or above.
        """
        async with self._engine.changes:
            await self.settled(task_id)
            if self._nursery is None:
                raise EngineUnavailable("the executor has not been started")
            change = self._under_way[task_id] = _Change()
            name = f"{path} for task {task_id}"
            self._nursery.start_soon(self._carry_out, task_id, change, path, body, query, name=name)
            await change.done.wait()
        if change.error is not None:
            raise change.error
        return change.answer

    async def settled(self, task_id: str) -> None:
        """Wait until no change of this task is under way.

        Raises:
            EngineUnavailable: the engine takes too long over one.
        """
        with trio.move_on_after(LOOKUP_PATIENCE_S) as patience:
            while (change := self._under_way.get(task_id)) is not None:
                await change.done.wait()
        if patience.cancelled_caught:
            raise EngineUnavailable("the engine is still busy with an earlier step of this task")

    async def _carry_out(
        self, task_id: str, change: _Change, path: str, body: object, query: dict[str, str]
    ) -> None:
        try:
            change.answer = await self._engine.post(
                path, body, limiter=self._engine.unlimited, patience_s=CHANGE_PATIENCE_S, **query
            )
            change.error = None
        except (EngineUnavailable, Refused) as error:
            change.error = error
        finally:
            del self._under_way[task_id]
            change.done.set()
