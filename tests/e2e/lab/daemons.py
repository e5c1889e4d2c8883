"""The swarmctl daemon of a host: started in the foreground, its log in a file, killed at will."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from .unix_http import UnixClient
from .waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from .hosts import Host
    from .processes import HostProcess

_READY_S = 30.0
_NAME = "swarmctl"


class Daemon:
    """``swarmctl daemon`` on one host; made by :meth:`Host.start_daemon`. Its state outlives it.

    Further ones beside it, under other names, are made by hand: they keep state, socket and log
    apart, and cleaning a host kills them, but their state stays until the lab ends.

    Attributes:
        socket: its API's socket, the same path inside the host and outside.
        state_dir: its state directory.
        process: the running daemon; None before the first start.
        log: the file that holds what it says.
    """

    def __init__(self, host: Host, name: str = _NAME) -> None:
        self.host = host
        self.socket: Path = _socket(host, name)
        self.state_dir: Path = _state_dir(host, name)
        self.log: Path = host.state_dir / f"{name}.log"
        self.process: HostProcess | None = None

    def start(self, *args: str, engine: bool | None = None) -> None:
        """Start it, and wait until its socket answers ``GET /_ping``.

        Args and errors are those of :meth:`Host.start_daemon`.

        Raises:
            RuntimeError: it runs already, or it ended instead of answering; holds its log.
        """
        if self.process is not None and self.process.running:
            raise RuntimeError(f"{self.host.name} runs a swarmctl daemon already")
        self.socket.parent.mkdir(exist_ok=True)
        self.socket.unlink(missing_ok=True)  # else the answer could be waited for on a dead one
        command = [
            *self.host.lab.swarmctl_command,
            "daemon",
            f"--state-dir={self.state_dir}",
            f"--socket={self.socket}",
        ]
        if engine if engine is not None else self.host.engine is not None:
            if self.host.engine is None:
                raise RuntimeError(f"{self.host.name} has no engine: call start_engine first")
            command.append(f"--engine={self.host.engine.url}")
        with self.log.open("ab") as log:
            self.process = self.host.popen([*command, *args], stdout=log, stderr=subprocess.STDOUT)
        eventually(self._answers, _READY_S, every_s=0.02, what=f"swarmctl on {self.host.name}")

    def client(self, *, timeout_s: float = 60.0) -> UnixClient:
        """A new connection to its API. The caller closes it; one for each thread."""
        return UnixClient(self.socket, timeout_s=timeout_s)

    def api(
        self, method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> Any:
        """One API call on a connection of its own; see :meth:`UnixClient.call`."""
        with self.client() as client:
            return client.call(method, path, body, query=query)

    def kill(self) -> None:
        """SIGKILL to the daemon alone; what it has started lives on."""
        if self.process is not None:
            self.process.kill()

    def terminate(self, timeout_s: float = 15.0) -> int:
        """SIGTERM, then wait; returns its exit code. See :meth:`HostProcess.terminate`."""
        if self.process is None:
            raise RuntimeError(f"{self.host.name} runs no swarmctl daemon")
        return self.process.terminate(timeout_s)

    def _answers(self) -> bool:
        if self.process is None or not self.process.running:
            said = self.log.read_text(errors="replace")[-4000:]
            raise RuntimeError(f"swarmctl daemon on {self.host.name} ended at once:\n{said}")
        with self.client(timeout_s=5) as client:
            return client.request("GET", "/_ping").status == 200


def daemon_environment(host: Host) -> dict[str, str]:
    """The variables that make every swarmctl command in a host find that host's daemon."""
    return {
        "SWARMCTL_STATE_DIR": str(_state_dir(host)),
        "SWARMCTL_SOCKET": str(_socket(host)),
    }


def _state_dir(host: Host, name: str = _NAME) -> Path:
    return host.state_dir / name


def _socket(host: Host, name: str = _NAME) -> Path:
    return host.state_dir / "run" / name / "swarmctl.sock"
