"""An engine for these tests alone: its own network, data and socket, ended with the tests.

Docker's and Podman's differ in how they are started and in what survives their end. Both are asked
by Docker's API, past the executors under test, so none of these can hide a mistake of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker

from tests.e2e.lab.images import image_tar
from tests.e2e.lab.podman import podman_command, podman_environment, podman_missing, tag_for_hub
from tests.e2e.lab.unix_http import UnixClient
from tests.e2e.lab.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

REGISTRY = "127.0.0.1:5000"
LOGIN = {"username": "somebody", "password": "open-sesame"}
HASHED = "$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO"  # that password, by bcrypt
SILENT = "127.0.0.1:5999"
SILENT_REGISTRY = """
import socket
with socket.create_server(("127.0.0.1", 5999), backlog=64) as server:
    print("ready", flush=True)
    held = []
    while True:
        held.append(server.accept())
"""


class PrivateEngine:
    """An engine in a network namespace of its own, so that it changes no rules of the machine.

    Attributes:
        kind: of executor that drives it.
        unhealthy: what the executor calls the end of a task that failed its health check.
        default_network: the one of a container that asks for none.
    """

    kind = ""
    program = ""
    namespaces: tuple[str, ...] = ("--net",)
    unhealthy = ""
    default_network = ""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"{self.kind}-exec-"))
        self.socket = self.home / "engine.sock"
        (self.home / "run").mkdir()
        # What is mounted below it later, a tmpfs for secrets, the engine has to see as well.
        for how in (["--bind", self.home], ["--make-shared"]):
            subprocess.run(["mount", *how, self.home], check=True)
        begin = f"ip link set lo up; {self._own_mounts()} echo ready; exec sleep infinity"
        self._network = subprocess.Popen(
            ["unshare", *self.namespaces, "--propagation=slave", "sh", "-ec", begin],
            stdout=subprocess.PIPE,
        )
        assert self._network.stdout is not None
        assert self._network.stdout.readline() == b"ready\n"
        self.live_restore = False
        self._process: subprocess.Popen[bytes] | None = None
        self._log = (self.home / "log").open("ab")

    def _own_mounts(self) -> str:
        """Return a shell command that gives the engine what others of its kind would share."""
        return ""

    @classmethod
    def missing(cls) -> str | None:
        """Why no engine can be started here; None when one can."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return f"a {cls.kind} engine of our own needs Linux and root"
        wanted = {"busybox": "busybox-static", "nsenter": "util-linux"}
        wanted["docker-registry"] = "docker-registry"
        wanted |= {"dockerd": "docker.io"} if cls.program == "dockerd" else {}
        absent = [name for name in wanted if shutil.which(name) is None]
        if absent:
            return f"not on PATH: {', '.join(absent)}"
        return podman_missing() if cls.program == "podman" else None

    def command(self, *, live_restore: bool) -> list[str]:
        """Return what is started in the engine's network."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return variables for it beyond ours."""
        return {}

    def start(self, *, live_restore: bool = False) -> None:
        """Start it on the data there is, and wait until it has the tests' image.

        Args:
            live_restore: let containers live on when it ends; Podman's always do.
        """
        self.socket.unlink(missing_ok=True)
        self.live_restore = live_restore
        self._process = self.run_inside(
            self.command(live_restore=live_restore),
            output=self._log.fileno(),
            env=self.environment(),
        )
        eventually(self._answers, 60, what=self.program)
        if not self.api("GET", "/images/json"):
            self.api("POST", "/images/load", image_tar().read_bytes())
            self.name_image()

    def name_image(self) -> None:
        """Give the image that was loaded the name that services use."""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended; a stopped one has not."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: KILL to crash it, STOP to hang it, CONT to let it go on."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(10)

    def stop(self) -> None:
        """End it as an init system does."""
        if self._process is not None and self.is_running:
            self._process.terminate()
            self._process.wait(30)

    def close(self) -> None:
        """End everything and remove every trace."""
        self.stop()
        self._log.close()
        self._network.kill()
        self._network.communicate()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            mount = line.split()[4]
            if mount == str(self.home) or mount.startswith(f"{self.home}/"):
                subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def silent_registry(self) -> subprocess.Popen[bytes]:
        """A registry at 127.0.0.1:5999, as this engine sees it, that accepts and never answers."""
        stub = self.run_inside([sys.executable, "-c", SILENT_REGISTRY], output=subprocess.PIPE)
        assert stub.stdout is not None
        assert stub.stdout.readline() == b"ready\n"
        return stub

    def registry(self, *, guarded: bool = False) -> subprocess.Popen[bytes]:
        """A real registry at 127.0.0.1:5000, as this engine sees it.

        Args:
            guarded: lets in nobody but :data:`LOGIN`.
        """
        settings, users = self.home / "registry.yml", self.home / "users"
        users.write_text(f"{LOGIN['username']}:{HASHED}\n")
        settings.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {self.home}/registry}}}}\n"
            f"http: {{addr: '{REGISTRY}'}}\n"
            + (f"auth: {{htpasswd: {{realm: lab, path: {users}}}}}\n" if guarded else "")
        )
        return self.run_inside(
            ["docker-registry", "serve", str(settings)], output=self._log.fileno()
        )

    def push(self, image: str, repository: str, tag: str) -> None:
        """Copy a local image into a registry; it stays here under that name too."""
        self.api("POST", f"/images/{image}/tag", repo=repository, tag=tag)
        client = docker.APIClient(base_url=f"unix://{self.socket}", version="1.41")
        said: str = client.push(repository, tag=tag, auth_config=LOGIN)
        client.close()
        assert '"error"' not in said, said

    def run_inside(
        self, argv: Sequence[str], *, output: int, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in the engine's network; it is our own child, not a shell's."""
        return subprocess.Popen(
            [*self.inside(), *argv],
            stdout=output,
            stderr=self._log,
            env={**os.environ, **(env or {})},
        )

    def inside(self) -> list[str]:
        """Return the words before a command that is to run in the engine's network."""
        return ["nsenter", f"--target={self._network.pid}", *self.namespaces]

    def said_inside(self, *argv: str) -> str:
        """Run a command in the engine's network and return what it printed."""
        said, _ = self.run_inside(argv, output=subprocess.PIPE).communicate(timeout=10)
        return said.decode()

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

    def run_foreign(self, name: str, *, network: str = "", **labels: str) -> str:
        """A container that no executor made; returns its id.

        Args:
            network: "" for the engine's default.
        """
        body: dict[str, Any] = {"Image": "alpine:latest", "Cmd": ["sleep", "1000"]}
        # Podman would set more than this machine may allow.
        limits = [{"Name": one, "Soft": 4096, "Hard": 4096} for one in ("nofile", "nproc")]
        where = {"NetworkMode": network} if network else {}
        body |= {"Labels": labels, "HostConfig": {"Ulimits": limits, **where}}
        made: str = self.api("POST", "/containers/create", body, name=name)["Id"]
        self.api("POST", f"/containers/{made}/start")
        return made

    def remove_network(self, name: str) -> None:
        """Remove a network by hand; containers that have ended do not hold it."""
        self.api("DELETE", f"/networks/{name}")

    def remove_all(self) -> None:
        """Remove every container and network."""
        for row in self.api("GET", "/containers/json", all=1):
            with UnixClient(self.socket) as client:
                # Podman would grant ten seconds of grace.
                client.request("POST", f"/containers/{row['Id']}/kill")
                client.request("DELETE", f"/containers/{row['Id']}?force=1&v=1")
        self.api("POST", "/networks/prune")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            said = (self.home / "log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{self.program} ended with {self._process.returncode}:\n{said}")
        with UnixClient(self.socket, timeout_s=5) as client:
            return client.request("GET", "/_ping").status == 200


class DockerEngine(PrivateEngine):
    """A dockerd."""

    kind = "docker"
    program = "dockerd"
    unhealthy = "dockerexec: unhealthy container"
    default_network = "bridge"

    def command(self, *, live_restore: bool) -> list[str]:
        return [
            "dockerd",
            f"--host=unix://{self.socket}",
            f"--data-root={self.home}/data",
            f"--exec-root={self.home}/exec",
            f"--pidfile={self.home}/pid",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--shutdown-timeout=3",
            *(["--live-restore"] if live_restore else []),
        ]

    def close(self) -> None:
        """See :class:`PrivateEngine`; dockerd's containerd goes as well."""
        self.stop()
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            # Left behind only by a dockerd that was killed and not started again.
            os.kill(int((self.home / "exec/containerd/containerd.pid").read_text()), signal.SIGTERM)
        super().close()


class PodmanEngine(PrivateEngine):
    """A Podman service. Its containers are conmon's children and live on without it."""

    kind = "podman"
    program = "podman"
    namespaces = ("--net", "--mount")
    unhealthy = "unhealthy container"
    default_network = "podman"

    def _own_mounts(self) -> str:
        # Addresses that are taken are noted here by all Podmans of a machine, whatever their roots.
        return f"mkdir -p /run/containers; mount --bind {self.home}/run /run/containers;"

    @property
    def podman_home(self) -> Path:
        """Where it keeps everything."""
        return self.home

    def command(self, *, live_restore: bool) -> list[str]:
        return podman_command(self.podman_home, self.socket)

    def environment(self) -> dict[str, str]:
        return podman_environment(self.podman_home, insecure=(REGISTRY, SILENT))

    def name_image(self) -> None:
        tag_for_hub(self.socket)

    def remove_network(self, name: str) -> None:
        on_it = partial(
            self.api, "GET", "/v4.0.0/libpod/containers/json", all=1, filters={"network": [name]}
        )
        # Before conmon has cleaned up, the bridge would stay.
        eventually(lambda: {row["State"] for row in on_it()} <= {"exited"}, 10, what="cleanup")
        for row in on_it():
            body = {"Container": row["Id"], "Force": True}
            with UnixClient(self.socket) as client:  # which answers OK, and no JSON
                done = client.request("POST", f"/networks/{name}/disconnect", body)
            assert done.status == 200, done.body
        super().remove_network(name)

    def close(self) -> None:
        """See :class:`PrivateEngine`; containers go first, for nothing else would end them."""
        if self.is_running:
            self.signal(signal.SIGCONT)
        else:
            self.start()
        self.remove_all()
        super().close()


KINDS: dict[str, type[PrivateEngine]] = {"docker": DockerEngine, "podman": PodmanEngine}
