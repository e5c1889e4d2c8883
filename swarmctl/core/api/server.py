"""The API's front door: a unix socket that speaks the Docker Engine's HTTP API.

    request -> route.py picks a handler -> handler -> reply
                                       |
                                       +-> forward.py -> the leader's handler -> reply

One task for each connection. What a handler raises is one request's answer (wire/http_server.py):
a SwarmError its own status and Docker's text, since clients match on it; a bug a 500.

Laws:
- What is the cluster's is answered by the manager that leads, wherever it was asked; output is read
  by the manager that was asked, so that following it outlasts a leader.
- A leader that is lost is no answer. The request is asked again, of whoever leads next, under the
  same request id; a request whose first attempt took effect gets that attempt's answer, whatever a
  later one finds. When nobody leads for ``LEADER_WAIT_S``, the client hears that.
- Nothing goes on as the leader's that this manager began while it led and leads no longer.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..agent.executor import EngineHost
from ..errors import (
    BadRequest,
    LostLeadership,
    ManagerLocked,
    NoLeader,
    NotManager,
    SwarmError,
    Unimplemented,
)
from ..manager.forward import LEADER_WAIT_S
from ..node import LocalState
from ..together import run_until_first
from ..wire.calls import LinkClosed
from ..wire.http1 import error_response
from ..wire.http_server import StreamedResponse, serve_http
from . import (
    backup,
    configs,
    doctor,
    events,
    explain,
    logs,
    networks,
    nodes,
    scaling,
    secrets,
    services,
    swarm,
    system,
    tasks,
)
from .call import Call
from .forward import METHOD, SAFE_METHODS, Origin, forward, serve_forwarded
from .proxy import pass_on
from .route import API_VERSION, By, find_route
from .write import first_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from ..clock import Clock
    from ..manager.manager import Manager
    from ..model.loaded import LoadedPlugin
    from ..node import LocalNode
    from ..scheduler.outside import Judge
    from ..wire.http1 import Request
    from ..wire.http_server import Connection, Reply, SendChunk
    from ..wire.link import Link
    from .route import Match

ASK_AGAIN_FIRST_S = 0.02
ASK_AGAIN_MAX_S = 0.5

NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)
A_WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster "
    "state. Please run this command on a manager node or promote the current node to a manager."
)
NOT_READY = (
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the "
    "cluster."
)


log = logging.getLogger(__name__)


class ApiServer:
    """Answers requests about this node and its swarm.

    Args:
        plugins: returns how each plugin stands here.
        product_version: this release's.
        strategies: names of the schedulers that a service may choose from.
        judges: filters of plugins, as the scheduler asks them while this manager leads.
    """

    def __init__(
        self,
        node: LocalNode,
        plugins: Callable[[], Sequence[LoadedPlugin]],
        product_version: str,
        clock: Clock,
        new_id: Callable[[], str],
        *,
        strategies: Collection[str] = (),
        judges: Collection[Judge] = (),
    ) -> None:
        self.node = node
        self.plugins = plugins
        self.product_version = product_version
        self.clock = clock
        self.new_id = new_id
        self.strategies = strategies
        self.judges = judges
        node.manager_streams[METHOD] = partial(serve_forwarded, self._answer_forwarded)

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Serve until cancelled."""
        await serve_http(
            listeners,
            self._answer,
            streams_body=self._leaves_body,
            common_headers=(
                ("Api-Version", API_VERSION),
                ("Docker-Experimental", "false"),
                ("Ostype", "linux"),
                ("Server", f"swarmctl/{self.product_version} (linux)"),
            ),
            clock=self.clock,
            task_status=task_status,
        )

    def manager(self) -> Manager:
        """Return this node as a manager.

        Raises:
            NotManager: it is none; the text says what it is instead.
        """
        manager = self.node.manager
        if manager is not None:
            return manager
        if self.node.state is LocalState.LOCKED:
            raise ManagerLocked
        if self.node.state is LocalState.INACTIVE:
            raise NotManager(NO_SWARM)
        if self.node.state is LocalState.ERROR:
            raise NotManager(f"{NOT_READY} {self.node.error}".strip())
        raise NotManager(NOT_READY if self.node.is_manager else A_WORKER)

    # --- requests of clients here ---

    def _leaves_body(self, request: Request) -> bool:
        """True for uploads that are larger than a request should be, and for an engine's."""
        try:
            match = find_route(request.method, request.path)
        except BadRequest:  # the answer says so
            return False
        if match is None:
            return isinstance(self.node.executor, EngineHost)
        return match.route.handler == "backup.restore"

    async def _answer(self, request: Request, connection: Connection) -> Reply:
        match = find_route(request.method, request.path)
        if match is None:
            if isinstance(self.node.executor, EngineHost):
                return await pass_on(self.node.executor.engine_socket, request, connection)
            return error_response(404, "page not found")
        request_id = "" if request.method in SAFE_METHODS else self.new_id()
        origin = Origin(self.node.node_id, request_id, connection.peer)
        call = Call(request, match.params, match.version, origin, connection.receive_body)
        by = match.route.by
        if by in (By.NODE, By.MANAGER) or (by is By.EITHER and self.node.manager is None):
            return await self._handle(match, call)
        return await self._have_answered(match, call)

    async def _have_answered(self, match: Match, call: Call) -> Reply:
        """Have the leader answer, and the next one when it is lost.

        Raises:
            NotManager: this node is none.
            NoLeader: nobody leads.
            LostLeadership: one leader after the other was lost.
        """
        give_up_at = trio.current_time() + LEADER_WAIT_S
        pause_s = ASK_AGAIN_FIRST_S
        while True:
            manager = self.manager()
            changed = manager.leadership_changed
            try:
                return await self._ask(manager, match, call, give_up_at)
            except (NoLeader, LostLeadership, LinkClosed) as error:
                if trio.current_time() + pause_s >= give_up_at:
                    raise NoLeader if isinstance(error, LinkClosed) else error from error
                log.info("%s %s is asked again: %s", call.request.method, match.path, error)
            with trio.move_on_after(pause_s):
                await changed.wait()
            pause_s = min(2 * pause_s, ASK_AGAIN_MAX_S)

    async def _ask(self, manager: Manager, match: Match, call: Call, give_up_at: float) -> Reply:
        """Have a request answered by the leader of this moment, here or elsewhere."""
        if manager.leading:
            return await self._lead(manager, match, call)
        link = None
        with trio.move_on_at(give_up_at):
            link = await manager.leader_link()
        if link is None:
            raise NoLeader
        replies: list[Reply] = []
        async with AsyncExitStack() as stack:

            async def ask() -> None:
                replies.append(await forward(stack, link, call.request, call.origin))

            await run_until_first(ask, partial(_wait_led_elsewhere, manager, link))
            if not replies:
                raise NoLeader
            reply = replies[0]
            if isinstance(reply, StreamedResponse):
                return reply._replace(aclose=stack.pop_all().aclose)
            return reply

    # --- requests that other managers pass on ---

    async def _answer_forwarded(self, request: Request, origin: Origin) -> Reply:
        """Answer as the leader.

        Raises:
            NoLeader, LostLeadership: this is not the leader, or no longer.
        """
        manager = self.node.manager
        if manager is None:
            raise NoLeader
        match = find_route(request.method, request.path)
        if match is None or match.route.by is By.NODE:
            return error_response(404, "page not found")
        return await self._lead(manager, match, Call(request, match.params, match.version, origin))

    # --- answering ---

    async def _lead(self, manager: Manager, match: Match, call: Call) -> Reply:
        """Answer as the leader, and only while that lasts."""
        with manager.while_leading():
            try:
                reply = await self._handle(match, call)
            except (NoLeader, LostLeadership):
                raise
            except SwarmError:
                # What stands in the way may be what an earlier attempt of this request has made.
                applied = manager.answer_of(call.origin.request_id)
                if applied is None:
                    raise
                return first_answer(applied)
        if isinstance(reply, StreamedResponse) and reply.endless:
            return reply._replace(write=partial(_write_while_leading, manager, reply.write))
        return reply

    async def _handle(self, match: Match, call: Call) -> Reply:
        handler = HANDLERS.get(match.route.handler)
        if handler is None:
            raise Unimplemented(
                f"{call.request.method} {match.path} is not available in this release of swarmctl"
            )
        return await handler(self, call)


async def _write_while_leading(
    manager: Manager, write: Callable[[SendChunk], Awaitable[None]], send: SendChunk
) -> None:
    with manager.while_leading():
        await write(send)


async def _wait_led_elsewhere(manager: Manager, link: Link) -> None:
    """Sleep until a link does not lead to the leader any more.

    Raises:
        NoLeader: nobody leads, or this manager does now.
    """
    while True:
        changed = manager.leadership_changed
        if await manager.leader_link() is not link:
            return
        await changed.wait()


HANDLERS: dict[str, Callable[[ApiServer, Call], Awaitable[Reply]]] = {
    f"{module.__name__.rpartition('.')[2]}.{name}": handler
    for module in (
        *(system, swarm, backup, nodes, services, tasks, explain, scaling),
        *(events, logs, secrets, configs, networks, doctor),
    )
    for name, handler in module.HANDLERS.items()
}
