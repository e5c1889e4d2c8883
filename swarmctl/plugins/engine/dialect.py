"""What an engine speaks: everything in which container engines differ, as one Protocol.

The rest of this package drives any engine with Docker's model of containers: create, start, events,
kill, remove. An executor for one hands in an object that keeps this Protocol and knows the engine's
paths, bodies and words; it holds no state of tasks and owns nothing that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import PurePath

    from swarmctl.plugins import (
        ExecutorDescription,
        LogLine,
        LogOptions,
        NodeIdentity,
        TaskStats,
    )
    from swarmctl.plugins.model import HostNetwork, TaskAssignment

    from .calls import Engine, Refused
    from .container import Container
    from .endpoints import Endpoint
    from .files import TaskFiles
    from .inspection import Inspection, Listed
    from .line import Transport

Json = dict[str, Any]
Body = dict[str, object]


class PullRequest(NamedTuple):
    """How an image is pulled: ``POST`` this path, below the engine's prefix, with this query.

    Attributes:
        asking: words of a line of progress that does not mean that the registry has answered.
    """

    path: str
    query: Mapping[str, str]
    asking: bytes = b"\n"  # in no line


class SeenNetwork(NamedTuple):
    """A network of the engine.

    Attributes:
        configs: subnet and gateway of each of its subnets; "" for what is not told.
        own_choice: first and last address in each subnet that the engine chooses from by itself,
            where it is not the whole.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    configs: Sequence[tuple[str, str]]
    own_choice: Sequence[tuple[str, str]] = ()


class NetworkWords(Protocol):
    """What an engine calls networks.

    Attributes:
        list_path: where they are listed; ``POST /networks/create`` makes one on every engine.
        arrivals: the filter of events after which other containers may be on a network, or fewer.
    """

    list_path: str
    arrivals: Mapping[str, Sequence[str]]

    def seen(self, row: Json) -> SeenNetwork:
        """Read one element of the list."""
        ...

    def body(self, network: HostNetwork, identity: NodeIdentity) -> Body:
        """Return what makes the bridge of a network on this host.

        Raises:
            ExecutorError: the network has what this engine cannot give.
        """
        ...

    def own_choice(self, network: HostNetwork) -> list[tuple[str, str]]:
        """Return first and last address of each family that the engine may choose by itself."""
        ...

    def making(self, network: HostNetwork) -> AbstractAsyncContextManager[None]:
        """Return what holds while a network is made.

        The network driver may have made its bridge, which some engines would not make theirs.
        """
        ...

    def exists_already(self, error: Refused) -> bool:
        """Return whether a create was refused because there is one of that name."""
        ...

    def is_in_use(self, error: Refused) -> bool:
        """Return whether a removal was refused because containers are on the network."""
        ...

    async def remove(self, engine: Engine, network: SeenNetwork) -> None:
        """Remove a network; containers that have ended do not keep it.

        Raises:
            Refused, EngineUnavailable: as the engine's calls do.
        """
        ...


class Dialect(Protocol):
    """One kind of engine.

    Attributes:
        name: the executor's, also that of its directory below the state directory.
        title: the engine's, for sentences.
        endpoint: where the engine listens by default.
        transport: the library that reaches it.
        events: about which of its containers' events bells ring.
        removal: the query that removes a container with its anonymous volumes, running or not.
        networks: what it calls networks.
        probe: runs a container's health check, on time, until cancelled or of no more use; None
            for an engine that does so by itself.
    """

    name: str
    title: str
    endpoint: str
    transport: Transport
    events: Sequence[str]
    removal: Mapping[str, str]
    networks: NetworkWords
    probe: Callable[[Container], Awaitable[None]] | None

    def agree(self, version: Json) -> str:
        """Return the prefix of all paths for an engine that answers so to ``GET /version``.

        Raises:
            ValueError: it cannot be used; the text goes on "the engine at unix://... ".
        """
        ...

    # --- containers ---

    def body(
        self,
        assignment: TaskAssignment,
        identity: NodeIdentity,
        *,
        prefix: str,
        files: TaskFiles,
    ) -> Body:
        """Return what to create for a task, as far as the spec alone tells. Pure.

        Args:
            prefix: what was agreed upon with the engine.
            files: says where the task's files will be; nothing is written yet.

        Raises:
            ExecutorError: the spec asks for what this engine does not have.
        """
        ...

    def profile(self, assignment: TaskAssignment) -> bytes:
        """Return what has to lie in :meth:`.files.TaskFiles.profile` when the task is created."""
        ...

    async def complete(self, engine: Engine, assignment: TaskAssignment, body: Body) -> Body:
        """Return the body with what only the engine or the host can tell; make volumes.

        Called anew for every try, right before it; may be cancelled and repeated.

        Raises:
            ExecutorError: the host lacks what the spec names.
            Refused, EngineUnavailable: as the engine's calls do.
        """
        ...

    def is_no_image(self, error: Refused) -> bool:
        """Return whether a create was refused because the image is not here."""
        ...

    def is_no_network(self, error: Refused) -> bool:
        """Return whether a create or start was refused because a network is not here."""
        ...

    def is_name_taken(self, error: Refused) -> bool:
        """Return whether a create was refused because there is a container of that name."""
        ...

    def is_not_running(self, error: Refused) -> bool:
        """Return whether a signal was refused because the container does not run, or is gone."""
        ...

    def place_body(self, container_id: str, place: Endpoint) -> Body | None:
        """Return what connects a container to a further network; None if create took them all."""
        ...

    def inspection(self, body: Json) -> Inspection:
        """Read an answer of ``GET /containers/{id}/json``."""
        ...

    def listed(self, row: Json) -> Listed:
        """Read one element of ``GET /containers/json``."""
        ...

    async def sample(self, engine: Engine, container_id: str) -> TaskStats | None:
        """Measure a running container; None when it has just ended.

        Raises:
            Refused, EngineUnavailable: as the engine's calls do.
        """
        ...

    def read_logs(
        self,
        engine: Engine,
        look: Callable[[], Awaitable[Inspection | None]],
        options: LogOptions,
    ) -> AsyncIterator[LogLine]:
        """Give a container's output; see :meth:`swarmctl.plugins.TaskController.logs`."""
        ...

    # --- the engine and its host ---

    def files_dir(self, state_dir: PurePath) -> PurePath:
        """Return the directory that holds the files of tasks; it has to be on a tmpfs in the end.

        Args:
            state_dir: the node's.
        """
        ...

    def description(self, info: Json, *, hostname: str) -> ExecutorDescription:
        """Read ``GET /info``. ``hostname`` is the node's, "" to take the engine's."""
        ...

    def image_name(self, image: str) -> str:
        """Return the name by which an image of a spec is looked for."""
        ...

    def pull(self, image: str) -> PullRequest:
        """Return how an image is pulled."""
        ...
