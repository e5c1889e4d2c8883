"""A Docker engine of a host's own: started, stopped, killed, paused, restarted."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

from .images import image_tar
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
    """The dockerd of one host; made by :meth:`Host.start_dockerd`. Its data outlives its process.

    Attributes:
        socket: its API's socket, the same path inside the host and outside. Inside it is at
            Docker's own default, ``/run/docker.sock``, too.
        process: the running dockerd; None before the first start.
        log: the file that holds what dockerd says.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.socket: Path = host.state_dir / "run" / "docker.sock"
        self.log: Path = host.state_dir / "dockerd.log"
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
        """Start dockerd on this host's data.

        Args:
            live_restore: keep containers while dockerd is away (Docker refuses a swarm then).
            wait: see :meth:`Host.start_dockerd`.

        Raises:
            RuntimeError: it runs already, or it ended instead of getting ready; holds its log.
        """
        if self.process is not None and self.process.running:
            raise RuntimeError(f"{self.host.name} runs a dockerd already")
        self._live_restore = live_restore
        self.socket.unlink(missing_ok=True)  # a killed dockerd leaves it
        with self.log.open("ab") as log:
            self.process = self.host.popen(self._command(), stdout=log, stderr=subprocess.STDOUT)
        if wait:
            self.wait_until_ready()

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
        eventually(self._answers, _READY_S, every_s=0.02, what=f"dockerd on {self.host.name}")
        with self.client() as client:
            if not client.call("GET", "/images/json"):
                client.call("POST", "/images/load", image_tar().read_bytes())

    def _answers(self) -> bool:
        if self.process is None or not self.process.running:
            said = self.log.read_text(errors="replace")[-4000:]
            raise RuntimeError(f"dockerd on {self.host.name} ended at once:\n{said}")
        with self.client(timeout_s=5) as client:
            return client.request("GET", "/_ping").status == 200

    def stop(self) -> None:
        """Stop it as an init system does: SIGTERM, then wait for its end."""
        if self.process is not None:
            self.resume()
            self.process.terminate(_STOP_S)

    def kill(self) -> None:
        """SIGKILL to dockerd alone; the containers' shims live on and wait for the next one."""
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

    def remove_container(self, container: str) -> None:
        """Kill and remove a container."""
        self.api("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})


def run_container(client: UnixClient, body: dict[str, Any], *, name: str | None = None) -> str:
    """As :meth:`Engine.run_container`, on a connection of the caller's."""
    query = {"name": name} if name else None
    created: str = client.call("POST", "/containers/create", body, query=query)["Id"]
    client.call("POST", f"/containers/{created}/start")
    return created
