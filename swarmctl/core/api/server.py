"""The API's front door: a unix socket that speaks the Docker Engine's HTTP API.

    request -> route.py picks a handler -> handler -> reply

One task for each connection. What a handler raises is one request's answer (wire/http_server.py):
a SwarmError its own status and Docker's text, since clients match on it; a bug a 500.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import NotManager, Unimplemented
from ..node import LocalState
from ..wire.http1 import error_response
from ..wire.http_server import serve_http
from . import configs, logs, networks, nodes, secrets, services, swarm, system, tasks
from .call import Call
from .route import API_VERSION, Match, find_route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import trio

    from ..clock import Clock
    from ..manager.manager import Manager
    from ..node import LocalNode
    from ..wire.http1 import Request
    from ..wire.http_server import Connection, Reply

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


class PluginLine(NamedTuple):
    """A loaded plugin, for ``plugin ls``."""

    name: str
    version: str
    api: int


class ApiServer:
    """Answers requests about this node and its swarm.

    Args:
        plugins: what is loaded here.
        product_version: this release's.
    """

    def __init__(
        self,
        node: LocalNode,
        plugins: Sequence[PluginLine],
        product_version: str,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self.node = node
        self.plugins = plugins
        self.product_version = product_version
        self.clock = clock
        self.new_id = new_id

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
        if self.node.state is LocalState.INACTIVE:
            raise NotManager(NO_SWARM)
        if self.node.state is LocalState.ERROR:
            raise NotManager(f"{NOT_READY} {self.node.error}".strip())
        raise NotManager(NOT_READY if self.node.is_manager else A_WORKER)

    async def _answer(self, request: Request, _connection: Connection) -> Reply:
        match = find_route(request.method, request.path)
        if match is None:
            return error_response(404, "page not found")
        return await self._handle(match, request)

    async def _handle(self, match: Match, request: Request) -> Reply:
        handler = HANDLERS.get(match.route.handler)
        if match.route.needs_manager:
            self.manager()
        if handler is None:
            raise Unimplemented(
                f"{request.method} {match.path} is not available in this release of swarmctl"
            )
        return await handler(self, Call(request, match.params, match.version))


HANDLERS: dict[str, Callable[[ApiServer, Call], Awaitable[Reply]]] = {
    f"{module.__name__.rpartition('.')[2]}.{name}": handler
    for module in (system, swarm, nodes, services, tasks, logs, secrets, configs, networks)
    for name, handler in module.HANDLERS.items()
}
