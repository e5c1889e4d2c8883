"""What a Podman engine speaks, put together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.engine import (
    Body,
    Inspection,
    Json,
    Listed,
    PullRequest,
    Refused,
    container_spec,
    quoted,
)

from . import answers
from .describe import description, stats_sample
from .health import RHYTHM_LABEL, Prober, health_keys
from .images import full_name, names_of
from .limits import limits_here, with_limits
from .logs import read_logs
from .mounts import bind_sources, volumes_to_make
from .networks import PodmanNetworks
from .translate import create_body, profile_of
from .transport import TRANSPORT
from .version import OLDEST, PodmanVersion, prefix_for, version_in

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
    from swarmctl.plugins.model import Mount, TaskAssignment

COMPONENT = "Podman Engine"
OF_ROOT = "/run"


class PodmanDialect:
    """Implements :class:`swarmctl.plugins.engine.Dialect`.

    Args:
        runtime_dir: where this user's Podman has its socket; ``/run`` for root. It is in memory
            for users, who cannot mount a tmpfs.
    """

    name = "podman"
    title = "Podman"
    transport = TRANSPORT
    events: Sequence[str] = ("died", "remove", "health_status")
    removal: Mapping[str, str] = {"force": "1", "volumes": "1", "timeout": "0"}  # never changed
    networks: NetworkWords = PodmanNetworks()

    def __init__(self, runtime_dir: str = OF_ROOT) -> None:
        self._runtime_dir = runtime_dir
        self.endpoint = f"unix://{runtime_dir}/podman/podman.sock"
        self.probe: Callable[[Container], Awaitable[None]] | None = Prober()
        self._disk = trio.CapacityLimiter(1)

    def agree(self, version: Json) -> str:
        """Speak the engine's own version of libpod's API."""
        components = version.get("Components") or ()
        text = next((one["Version"] for one in components if one.get("Name") == COMPONENT), "")
        if not text:
            raise ValueError("is not Podman's; start with --executor docker")
        found = PodmanVersion.parse(text)
        if found < OLDEST:
            raise ValueError(f"is Podman {text}; {OLDEST} is the oldest that can be used")
        return prefix_for(found)

    def body(
        self, assignment: TaskAssignment, identity: NodeIdentity, *, prefix: str, files: TaskFiles
    ) -> Body:
        """Return the body of ``POST /libpod/containers/create``, as far as the spec tells."""
        list(volumes_to_make(container_spec(assignment).Mounts))  # refuses what cannot be made
        return create_body(
            assignment,
            identity,
            version=version_in(prefix),
            files=files.binds(assignment),
            profile=files.profile(assignment),
        )

    def profile(self, assignment: TaskAssignment) -> bytes:
        """Return the spec's own seccomp profile; libpod reads it from a file."""
        return profile_of(assignment)

    async def complete(self, engine: Engine, assignment: TaskAssignment, body: Body) -> Body:
        """Name the image as it is known here, merge its health check, make volumes, see to binds.

        All of that Docker's engine does by itself.
        """
        spec = container_spec(assignment)
        name, image = await self._image(engine, spec.Image)
        health, rhythm = health_keys(spec.Healthcheck, image.get("Healthcheck") or {})
        await trio.to_thread.run_sync(see_to_binds, spec.Mounts, limiter=self._disk)
        own_limits = await trio.to_thread.run_sync(limits_here, limiter=self._disk)
        for volume in volumes_to_make(spec.Mounts):
            await self._make_volume(engine, volume)
        completed: Body = {**body, "image": name, "r_limits": with_limits(body, own_limits)}
        if health is not None:
            labels: Mapping[str, str] = body["labels"]  # type: ignore[assignment] # create_body()'s
            completed["labels"] = {**labels, RHYTHM_LABEL: str(rhythm)}
            completed["healthconfig"] = health
        return completed

    def is_no_image(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.Dialect`."""
        text = str(error).lower()
        return "no such image" in text or "image not known" in text

    def is_no_network(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.Dialect`."""
        text = str(error).lower()
        return "network not found" in text or "unable to find network" in text

    def is_name_taken(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.Dialect`."""
        return error.status == 409 or "is already in use" in str(error)

    def is_not_running(self, error: Refused) -> bool:
        """See :class:`swarmctl.plugins.engine.Dialect`."""
        return error.status in (404, 409) or "state improper" in str(error)

    def place_body(self, container_id: str, place: Endpoint) -> Body | None:
        """Return None: a create takes all networks."""
        return None

    def inspection(self, body: Json) -> Inspection:
        """Read an answer of ``GET /containers/{id}/json``."""
        return answers.inspection(body)

    def listed(self, row: Json) -> Listed:
        """Read one element of ``GET /containers/json``."""
        return answers.listed(row)

    async def sample(self, engine: Engine, container_id: str) -> TaskStats | None:
        """Ask for one sample."""
        raw = await engine.get("/containers/stats", containers=container_id, stream="false")
        return stats_sample(raw)

    def read_logs(
        self,
        engine: Engine,
        look: Callable[[], Awaitable[Inspection | None]],
        options: LogOptions,
    ) -> AsyncIterator[LogLine]:
        """See :func:`.logs.read_logs`."""
        return read_logs(engine, look, options)

    def files_dir(self, state_dir: PurePath) -> PurePath:
        """Return a directory of the node's own that can be in memory."""
        if self._runtime_dir == OF_ROOT:
            return state_dir / "podman" / "files"
        # Two nodes of one user keep apart by their state directories.
        return Path(self._runtime_dir) / "swarmctl" / str(state_dir).strip("/").replace("/", "-")

    def description(self, info: Json, *, hostname: str) -> ExecutorDescription:
        """Read ``GET /info``."""
        return description(info, hostname=hostname)

    def image_name(self, image: str) -> str:
        """Return the full name; a pull brings that one up to date and no other."""
        return full_name(image)

    def pull(self, image: str) -> PullRequest:
        """Return how Podman pulls."""
        query = {"reference": full_name(image), "policy": "always"}
        return PullRequest("/images/pull", query, asking=b"Trying to pull")

    async def _image(self, engine: Engine, wanted: str) -> tuple[str, Json]:
        """Find an image here. Returns the name by which it is known and what is known of it.

        Raises:
            Refused: it is not here (:meth:`is_no_image`).
            EngineUnavailable: the engine does not answer.
        """
        for name in names_of(wanted):
            try:
                found: Json = await engine.get(f"/images/{quoted(name)}/json")
            except Refused as error:
                if error.status != 404:
                    raise
            else:
                return name, found
        raise Refused(404, f"no such image: {wanted}")

    async def _make_volume(self, engine: Engine, volume: Body) -> None:
        try:
            await engine.get(f"/volumes/{quoted(str(volume['Name']))}/json")
            return
        except Refused as error:
            if error.status != 404:
                raise
        try:
            await engine.change("/volumes/create", volume)
        except Refused as error:
            if "already exists" not in str(error):  # a neighbour's doing, just now
                raise ExecutorError(f"volume {volume['Name']} cannot be made: {error}") from error


def see_to_binds(mounts: Sequence[Mount]) -> None:
    """Check that what is to be bound exists; make what may be made. In a thread.

    Raises:
        ExecutorError: it does not, in Docker's words.
    """
    for source in bind_sources(mounts):
        path = Path(source.path)
        try:
            if path.exists():
                continue
            if source.make:
                path.mkdir(parents=True)
                continue
        except OSError as error:
            what = "made" if source.make else "seen"
            raise ExecutorError(f"bind source {source.path} cannot be {what}: {error}") from error
        raise ExecutorError(
            f'invalid mount config for type "bind": bind source path does not exist: {source.path}'
        )
