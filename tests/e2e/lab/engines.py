"""An engine of a host's own, Docker's or Podman's: started, stopped, killed, paused, restarted."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

from .images import IMAGE, image_tar
from .podman import podman_cli, podman_command, podman_environment, tag_for_hub
from .unix_http import UnixClient
from .waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from .hosts import Host
    from .processes import HostProcess

_READY_S = 60.0
# More than dockerd's own patience with its containers (15 s), so that only a hung one runs into it.
_STOP_S = 30.0


class Engine:
    """The engine of one host; made by :meth:`Host.start_engine`. Its data outlives its process.

    Either kind speaks Docker's API, by which tests look past swarmctl.

    Attributes:
        socket: its API's socket, the same path inside the host and outside. Inside it is at
            Docker's own default, ``/run/docker.sock``, too.
        process: the running engine; None before the first start.
        log: the file that holds what it says.
        kind: ``docker`` or ``podman``.
        images: what the lab's image is called here.
        stops_containers: whether its containers end with it, unless asked to live on.
    """

    kind = "docker"
    program = "dockerd"
    images: tuple[str, ...] = (IMAGE,)
    stops_containers = True

    def __init__(self, host: Host) -> None:
        self.host = host
        self.socket: Path = self._socket()
        self.log: Path = host.state_dir / f"{self.program}.log"
        self.process: HostProcess | None = None
        self._live_restore = False

    @property
    def url(self) -> str:
        """What ``DOCKER_HOST`` and ``--engine`` take."""
        return f"unix://{self.socket}"

    def client(self, *, timeout_s: float = 60.0) -> UnixClient:
        """A new connection to its API. The caller closes it; one for each thread."""
        return UnixClient(self.socket, timeout_s=timeout_s)

    def api(
        self, method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> Any:
        """One API call on a connection of its own; see :meth:`UnixClient.call`."""
        with self.client() as client:
            return client.call(method, path, body, query=query)

    # --- its life ---------------------------------------------------------------------------

    def start(self, *, live_restore: bool = False, wait: bool = True) -> None:
        """Start it on this host's data.

        Args:
            live_restore: keep containers while it is away (Docker refuses a swarm then; Podman
                always does).
            wait: see :meth:`Host.start_engine`.

        Raises:
            RuntimeError: it runs already, or it ended instead of getting ready; holds its log.
        """
        if self.process is not None and self.process.running:
            raise RuntimeError(f"{self.host.name} runs its {self.program} already")
        self._live_restore = live_restore
        self.socket.unlink(missing_ok=True)  # a killed one leaves it
        self.socket.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = self.host.popen(
                self._command(), stdout=log, stderr=subprocess.STDOUT, env=self._environment()
            )
        if wait:
            self.wait_until_ready()

    def _socket(self) -> Path:
        return self.host.state_dir / "run" / "docker.sock"

    def _environment(self) -> dict[str, str]:
        return {}

    def _command(self) -> list[str]:
        state, name = self.host.state_dir, self.host.name
        return [
            "dockerd",
            f"--host=unix://{self.socket}",
            f"--data-root={state}/data",
            f"--exec-root={state}/exec",
            f"--pidfile={state}/docker.pid",
            f"--containerd-namespace={name}",
            f"--containerd-plugins-namespace=p{name}",
            "--exec-opt=native.cgroupdriver=cgroupfs",  # no systemd in a lab host
            f"--insecure-registry={self.host.lab.names.subnet}",
            *(["--live-restore"] if self._live_restore else []),
        ]

    def wait_until_ready(self) -> None:
        """Wait until it answers, and load the lab's image if it has not got it.

        Raises:
            RuntimeError: it ended instead; holds the end of its log.
        """
        eventually(
            self._answers, _READY_S, every_s=0.02, what=f"{self.program} on {self.host.name}"
        )
        with self.client() as client:
            if not client.call("GET", "/images/json"):
                client.call("POST", "/images/load", image_tar().read_bytes())
                self._name_image()

    def _name_image(self) -> None:
        """Give the image that was loaded the name that services use."""

    def lost_power(self) -> None:
        """Forget what a machine forgets that was switched off; only Podman needs to be told."""

    def _answers(self) -> bool:
        if self.process is None or not self.process.running:
            said = self.log.read_text(errors="replace")[-4000:]
            raise RuntimeError(f"{self.program} on {self.host.name} ended at once:\n{said}")
        with self.client(timeout_s=5) as client:
            return client.request("GET", "/_ping").status == 200

    def stop(self) -> None:
        """Stop it as an init system does: SIGTERM, then wait for its end."""
        if self.process is not None:
            self.resume()
            self.process.terminate(_STOP_S)

    def kill(self) -> None:
        """SIGKILL to the engine alone; its containers live on and wait for the next one."""
        if self.process is not None:
            self.process.kill()

    def restart(self, *, live_restore: bool | None = None) -> None:
        """Stop and start again, by default as it was started last."""
        self.stop()
        self.start(live_restore=self._live_restore if live_restore is None else live_restore)

    def pause(self) -> None:
        """Hang it (SIGSTOP): its socket takes connections and never answers."""
        if self.process is not None:
            self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End :meth:`pause`."""
        if self.process is not None:
            self.process.signal(signal.SIGCONT)

    # --- its containers ---------------------------------------------------------------------

    def containers(self, *, label: str | None = None, running: bool = False) -> list[Any]:
        """Its containers as ``GET /containers/json`` lists them.

        Args:
            label: only those that carry it (``key`` or ``key=value``).
            running: only those that run; by default stopped ones too.
        """
        query: dict[str, Any] = {"all": "0" if running else "1"}
        if label is not None:
            query["filters"] = {"label": [label]}
        listed: list[Any] = self.api("GET", "/containers/json", query=query)
        return listed

    def run_container(self, body: dict[str, Any], *, name: str | None = None) -> str:
        """Create a container and start it, as ``docker run -d`` does; returns its id."""
        with self.client() as client:
            return run_container(client, body, name=name)

    def container_pid(self, container: str) -> int:
        """The first process of a container that runs, by the id that it has for us."""
        seen = self.api("GET", f"/containers/{container}/json")
        return self.host.pid_here(seen["State"]["Pid"])

    def remove_container(self, container: str) -> None:
        """Kill and remove a container."""
        self.api("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})


class PodmanEngine(Engine):
    """The Podman service of one host. Inside it is at Podman's own default, too."""

    kind = "podman"
    program = "podman"
    images = ("docker.io/library/alpine:latest", "localhost/alpine:latest")
    stops_containers = False

    def _socket(self) -> Path:
        return self.host.state_dir / "run" / "podman" / "podman.sock"

    @property
    def _home(self) -> Path:
        return self.host.state_dir / "podman"

    def cli(self, *args: str) -> list[str]:
        """Return a command line of Podman itself on this engine's state, for the host to run."""
        return [*podman_cli(self._home), *args]

    def cli_environment(self) -> dict[str, str]:
        """Return what :meth:`cli` needs in its environment."""
        return self._environment()

    def _environment(self) -> dict[str, str]:
        registries = [f"{host.address}:5000" for host in self.host.lab.hosts]
        return podman_environment(self._home, insecure=registries)

    def _command(self) -> list[str]:
        return podman_command(self._home, self.socket)

    def _name_image(self) -> None:
        tag_for_hub(self.socket)

    def run_container(self, body: dict[str, Any], *, name: str | None = None) -> str:
        """As on Docker. Asked by API, Podman wants a million files where the spec names none."""
        limits = [{"Name": one, "Soft": 4096, "Hard": 8192} for one in ("nofile", "nproc")]
        of_host = {"Ulimits": limits, **body.get("HostConfig", {})}
        return super().run_container({**body, "HostConfig": of_host}, name=name)

    def lost_power(self) -> None:
        """What a machine has below /run is lost with its power; Podman tells by that."""
        script = (
            f"for at in $(awk '{{print $2}}' /proc/mounts | grep ^{self._home}/ | tac); "
            f"do umount -l $at; done; rm -rf {self._home}/runroot {self._home}/tmp"
        )
        self.host.run(["sh", "-c", script])


KINDS: dict[str, type[Engine]] = {"docker": Engine, "podman": PodmanEngine}


def run_container(client: UnixClient, body: dict[str, Any], *, name: str | None = None) -> str:
    """As :meth:`Engine.run_container`, on a connection of the caller's."""
    query = {"name": name} if name else None
    created: str = client.call("POST", "/containers/create", body, query=query)["Id"]
    client.call("POST", f"/containers/{created}/start")
    return created
