"""What tasks have written, read at any manager. Only the leader reaches the nodes that have it.

    the leader     its link to the node -> lines
    any other      a stream to the leader, which hands the node's chunks on

Nothing is kept here: a reader that is slow makes the node wait, by the streams' credit. A stream
breaks with the link under it; whoever reads goes on from its place (``agent/place.py``).
"""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from ..agent.logs import LogChunk, LogsRequest, read_logs
from ..errors import NoLeader, Unavailable
from ..model.base import PrivateStruct
from ..model.codec import pack, unpack
from .calls import OUTPUT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from ..agent.executor import LogOptions
    from ..dispatcher.server import Dispatcher
    from ..raft.runner import Runner
    from ..wire.link import Link
    from ..wire.stream import LinkStream
    from .forward import Leader


THROUGH_LEADER_MAX = 512
"""Half of what a peer serves on one link (``wire/calls.py``)."""


class OutputRequest(PrivateStruct, frozen=True, kw_only=True):
    """A manager that does not lead asks for the output of a task on some node."""

    node_id: str
    logs: LogsRequest


class Outputs:
    """Reads the output of tasks."""

    def __init__(self, runner: Runner, leader: Leader, dispatcher: Dispatcher) -> None:
        self._runner = runner
        self._leader = leader
        self._dispatcher = dispatcher
        self._through_leader = 0

    async def read(
        self, node_id: str, task_id: str, options: LogOptions
    ) -> AsyncGenerator[LogChunk, None]:
        """Yield a task's output; close it (``aclosing``) when done early.

        Raises:
            NotFound: its node does not have the task.
            FailedPrecondition: its output cannot be read.
            Unavailable, NoLeader: the node, its engine or the leader is out of reach just now.
        """
        request = LogsRequest(task_id=task_id, options=options)
        if self._runner.leading:
            async with aclosing(self._from_node(node_id, request)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        link = await self._leader.link()
        body = pack(OutputRequest(node_id=node_id, logs=request))
        with self._place():
            async with link.open_stream(OUTPUT, body) as stream:
                stream.end()
                async for packed in stream:
                    yield unpack(packed, LogChunk)

    async def serve(self, _link: Link, stream: LinkStream) -> None:
        """Read a task's output for another manager. A stream method; one hop is enough.

        Raises:
            NoLeader: this manager does not lead. Otherwise as :meth:`read`.
        """
        if not self._runner.leading:
            raise NoLeader
        request = unpack(stream.body, OutputRequest)
        async with aclosing(self._from_node(request.node_id, request.logs)) as chunks:
            async for chunk in chunks:
                await stream.send(pack(chunk))

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Take one of the places there are on the link to the leader.

        Raises:
            Unavailable: all are taken; this manager's other calls need room too.
        """
        if self._through_leader >= THROUGH_LEADER_MAX:
            raise Unavailable(
                f"this manager reads {THROUGH_LEADER_MAX} outputs through the leader already; the "
                "leader itself can be asked for more"
            )
        self._through_leader += 1
        try:
            yield
        finally:
            self._through_leader -= 1

    async def _from_node(
        self, node_id: str, request: LogsRequest
    ) -> AsyncGenerator[LogChunk, None]:
        link = self._dispatcher.connected(node_id)
        if link is None:
            raise Unavailable("it is not in session with the leader")
        async with aclosing(read_logs(link, request.task_id, request.options)) as chunks:
            async for chunk in chunks:
                yield chunk
