"""What a Docker engine speaks, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins.engine import (
    Body,
    Inspection,
    Json,
    Listed,
    PullRequest,
    Refused,
)

from .describe import description, stats_sample
from .level import NEWEST, OLDEST, ApiLevel
from .logs import read_logs
from .networks import DockerNetworks
from .reference import Reference
from .translate import create_body, place_config
from .transport import TRANSPORT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import PurePath

    from swarmctl.plugins import (
        ExecutorDescription,
        LogLine,
        LogOptions,
        NodeIdentity,
        TaskStats,
    )
    from swarmctl.plugins.engine import Container, Endpoint, Engine, NetworkWords, TaskFiles
    from swarmctl.plugins.model import TaskAssignment

UNHEALTHY = "dockerexec: unhealthy container"  # Docker's own words: tools match on them
PODMAN = "Podman Engine"


class DockerDialect:
    """Implements :class:`swarmctl.plugins.engine.Dialect`."""

    name = "docker"
    title = "Docker"
    endpoint = "unix:///var/run/docker.sock"
    transport = TRANSPORT
    events: Sequence[str] = ("die", "destroy", "health_status")
    removal: Mapping[str, str] = {"force": "1", "v": "1"}  # never changed
    networks: NetworkWords = DockerNetworks()
    probe: Callable[[Container], Awaitable[None]] | None = None

    def agree(self, version: Json) -> str:
        """Speak the newest API version that both sides know."""
        if any(part.get("Name") == PODMAN for part in version.get("Components") or ()):
            raise ValueError("is Podman's; start with --executor podman")
        newest = ApiLevel.parse(version["ApiVersion"])
        oldest = ApiLevel.parse(version.get("MinAPIVersion") or str(OLDEST))
        if newest < OLDEST or oldest > NEWEST:
            raise ValueError(f"speaks API {oldest} to {newest}; {OLDEST} to {NEWEST} can be used")
        return f"/v{min(newest, NEWEST)}"

    def body(
        self, assignment: TaskAssignment, identity: NodeIdentity, *, prefix: str, files: TaskFiles
    ) -> Body:
        """Return the body of ``POST /containers/create``."""
        level = ApiLevel.parse(prefix.removeprefix("/v"))
        return create_body(assignment, identity, level=level, files=files.binds(assignment))

    def profile(self, assignment: TaskAssignment) -> bytes:
        """Return nothing: Docker takes a seccomp profile in the body."""
        return b""

    async def complete(self, engine: Engine, assignment: TaskAssignment, body: Body) -> Body:
        """Return the body as it is: Docker looks after volumes and bind sources itself."""
        return body

    def is_no_image(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.Dialect`."""
        return error.status == 404 and "no such image" in str(error).lower()

    def is_no_network(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.Dialect`."""
        return error.status == 404 and "network" in str(error)

    def is_name_taken(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.Dialect`."""
        return error.status == 409

    def is_not_running(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.Dialect`."""
        return error.status in (404, 409)

    def place_body(self, container_id: str, place: Endpoint) -> Body | None:
        """Return the body of ``POST /networks/{id}/connect``."""
        return {"Container": container_id, "EndpointConfig": place_config(place)}

    def inspection(self, body: Json) -> Inspection:
        """Read an answer of ``GET /containers/{id}/json``."""
        return Inspection(body, unhealthy=UNHEALTHY)

    def listed(self, row: Json) -> Listed:
        """Read one element of ``GET /containers/json``."""
        return Listed.read(row)

    async def sample(self, engine: Engine, container_id: str) -> TaskStats | None:
        """Ask for one sample, without the second one that Docker waits for by default."""
        query = {"stream": "0", "one-shot": "1"}
        return stats_sample(await engine.get(f"/containers/{container_id}/stats", **query))

    def read_logs(
        self,
        engine: Engine,
        look: Callable[[], Awaitable[Inspection | None]],
        options: LogOptions,
    ) -> AsyncIterator[LogLine]:
        """See :func:`.logs.read_logs`."""
        return read_logs(engine, look, options)

    def files_dir(self, state_dir: PurePath) -> PurePath:
        """Return a directory that only root can look into."""
        return state_dir / "docker" / "files"

    def description(self, info: Json, *, hostname: str) -> ExecutorDescription:
        """Read ``GET /info``."""
        return description(info, hostname=hostname)

    def image_name(self, image: str) -> str:
        """Return an image's name as it is; Docker knows its own short names."""
        return image

    def pull(self, image: str) -> PullRequest:
        """Return how Docker pulls: name and tag apart."""
        name, tag = Reference.parse(image)
        return PullRequest("/images/create", {"fromImage": name, "tag": tag})
