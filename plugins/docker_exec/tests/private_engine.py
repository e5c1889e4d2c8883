"""A Docker engine for these tests alone: its own network, data and socket, ended with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker

from tests.e2e.lab.images import image_tar
from tests.e2e.lab.unix_http import UnixClient
from tests.e2e.lab.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

SILENT_REGISTRY = """
import socket
with socket.create_server(("127.0.0.1", 5999), backlog=64) as server:
    print("ready", flush=True)
    held = []
    while True:
        held.append(server.accept())
"""


def missing() -> str | None:
    """Why no engine can be started here; None when one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Docker engine of our own needs Linux and root"
    wanted = {"dockerd": "docker.io", "busybox": "busybox-static", "nsenter": "util-linux"}
    wanted["docker-registry"] = "docker-registry"
    absent = [name for name in wanted if shutil.which(name) is None]
    return f"not on PATH: {', '.join(absent)}" if absent else None


class PrivateEngine:
    """A dockerd in a network namespace of its own, so that it changes no rules of the machine."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="dexec-"))
        self.socket = self.home / "docker.sock"
        self._network = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert self._network.stdout is not None
        assert self._network.stdout.readline() == b"ready\n"
        self.live_restore = False
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._log = (self.home / "log").open("ab")

    def start(self, *, live_restore: bool = False) -> None:
        """Start dockerd on the data there is, and wait until it has the tests' image."""
        self.socket.unlink(missing_ok=True)
        self.live_restore = live_restore
        self._dockerd = self.run_inside(
            [
                "dockerd",
                f"--host=unix://{self.socket}",
                f"--data-root={self.home}/data",
                f"--exec-root={self.home}/exec",
                f"--pidfile={self.home}/pid",
                "--exec-opt=native.cgroupdriver=cgroupfs",
                "--shutdown-timeout=3",
                *(["--live-restore"] if live_restore else []),
            ],
            output=self._log.fileno(),
        )
        eventually(self._answers, 60, what="dockerd")
        if not self.api("GET", "/images/json"):
            self.api("POST", "/images/load", image_tar().read_bytes())

    @property
    def is_running(self) -> bool:
        """Whether dockerd has not ended; a stopped one has not."""
        return self._dockerd is not None and self._dockerd.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send dockerd a signal: KILL to crash it, STOP to hang it, CONT to let it go on."""
        assert self._dockerd is not None
        self._dockerd.send_signal(number)
        if number == signal.SIGKILL:
            self._dockerd.wait(10)

    def stop(self) -> None:
        """End dockerd as an init system does."""
        if self._dockerd is not None and self.is_running:
            self._dockerd.terminate()
            self._dockerd.wait(30)

    def close(self) -> None:
        """End everything and remove every trace."""
        self.stop()
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            # Left behind only by a dockerd that was killed and not started again.
            os.kill(int((self.home / "exec/containerd/containerd.pid").read_text()), signal.SIGTERM)
        self._log.close()
        self._network.kill()
        self._network.communicate()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            mount = line.split()[4]
            if mount.startswith(f"{self.home}/"):
                subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def silent_registry(self) -> subprocess.Popen[bytes]:
        """A registry at 127.0.0.1:5999, as this engine sees it, that accepts and never answers."""
        stub = self.run_inside([sys.executable, "-c", SILENT_REGISTRY], output=subprocess.PIPE)
        assert stub.stdout is not None
        assert stub.stdout.readline() == b"ready\n"
        return stub

    def registry(self) -> subprocess.Popen[bytes]:
        """A real registry at 127.0.0.1:5000, as this engine sees it."""
        settings = self.home / "registry.yml"
        settings.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {self.home}/registry}}}}\n"
            "http: {addr: '127.0.0.1:5000'}\n"
        )
        return self.run_inside(
            ["docker-registry", "serve", str(settings)], output=self._log.fileno()
        )

    def push(self, image: str, repository: str, tag: str) -> None:
        """Copy a local image into a registry; it stays here under that name too."""
        self.api("POST", f"/images/{image}/tag", repo=repository, tag=tag)
        client = docker.APIClient(base_url=f"unix://{self.socket}", version="1.41")
        said: str = client.push(repository, tag=tag, auth_config={"username": "anybody"})
        client.close()
        assert '"error"' not in said, said

    def run_inside(self, argv: Sequence[str], *, output: int) -> subprocess.Popen[bytes]:
        """Start a process in the engine's network; it is our own child, not a shell's."""
        net = f"--net=/proc/{self._network.pid}/ns/net"
        return subprocess.Popen(["nsenter", net, *argv], stdout=output, stderr=self._log)

    def api(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """One call on a connection of its own, by the standard library's client."""
        with UnixClient(self.socket) as client:
            return client.call(method, path, body, query=query)

    def events_of(self, kind: str, action: str) -> int:
        """How often the engine told of such an event since it started."""
        until, filters = str(int(time.time()) + 1), {"type": [kind], "event": [action]}
        with UnixClient(self.socket) as client:
            said = client.request(
                "GET", "/events", query={"since": "1", "until": until, "filters": filters}
            )
        return len(said.body.splitlines())

    def running(self) -> dict[str, str]:
        """Every running container of this engine, whoever made it: name -> id."""
        return {row["Names"][0][1:]: row["Id"] for row in self.api("GET", "/containers/json")}

    def run_foreign(self, name: str, **labels: str) -> str:
        """A container that no executor made; returns its id."""
        body = {"Image": "alpine:latest", "Cmd": ["sleep", "1000"], "Labels": labels}
        made: str = self.api("POST", "/containers/create", body, name=name)["Id"]
        self.api("POST", f"/containers/{made}/start")
        return made

    def remove_all(self) -> None:
        """Remove every container and network."""
        for row in self.api("GET", "/containers/json", all=1):
            with UnixClient(self.socket) as client:
                client.request("DELETE", f"/containers/{row['Id']}?force=1&v=1")
        self.api("POST", "/networks/prune")

    def _answers(self) -> bool:
        assert self._dockerd is not None
        if self._dockerd.poll() is not None:
            said = (self.home / "log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"dockerd ended with {self._dockerd.returncode}:\n{said}")
        with UnixClient(self.socket, timeout_s=5) as client:
            return client.request("GET", "/_ping").status == 200
