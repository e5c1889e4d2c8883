"""A daemon as its users run it, with the null executor and files of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WITHIN_S = 30.0


class Daemon:
    """One daemon with the null executor and a plugin directory of its own.

    Args:
        command: what swarmctl is; by default this checkout.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = (sys.executable, "-m", "swarmctl"),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._swarmctl = command
        self._environment = dict(os.environ) if environment is None else environment
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self, **settings: str) -> None:
        rows = {"plugin_dir": str(self.plugins), "executor": "null", **settings}
        config = self.folder / "swarmctl.toml"
        config.write_text("".join(f'{name} = "{value}"\n' for name, value in rows.items()))
        command = [
            *(*self._swarmctl, "daemon", f"--config={config}"),
            *(f"--socket={self.folder}/sock", f"--state-dir={self.folder}/state"),
        ]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env=self._environment)

    def detach(self, executor: str, *words: str) -> None:
        """Have ``init`` start it in the background, or the command that is given."""
        self.address = f"127.0.0.1:{free_port()}"
        done = self.command(
            *(words[:1] or ("init",)),
            *(f"--state-dir={self.folder}/state", f"--executor={executor}"),
            *(f"--listen-addr={self.address}", f"--advertise-addr={self.address}"),
            *words[1:],
        )
        assert done.returncode == 0, done.stderr

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        socket_path = f"--socket={self.folder}/sock"
        return subprocess.run(
            [*self._swarmctl, socket_path, *words],
            capture_output=True,
            env=self._environment,
            text=True,
            timeout=60,
        )

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def init(self) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.until(lambda: self.command("version").returncode == 0, "it does not answer")
        done = self.command("init", f"--listen-addr={address}", f"--advertise-addr={address}")
        assert done.returncode == 0, done.stderr

    def plugin(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.command("plugin", "inspect", name).stdout)
        return found  # type: ignore[no-any-return]

    def runs(self, service: str) -> bool:
        form = "--format={{.CurrentState}}"
        return self.command("service", "ps", form, service).stdout.startswith("Running")

    def children(self) -> list[int]:
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for one in tasks.glob("*/children") for pid in one.read_text().split()]

    def end(self) -> None:
        """Kill it, if it is there, and whoever serves its socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(f"{self.folder}/sock")
                data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                os.kill(struct.unpack("3i", data)[0], signal.SIGKILL)
            except OSError:
                pass  # nobody does
        if self.process is not None:
            self.process.kill()
            self.process.wait()
