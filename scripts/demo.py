"""The main job, start to end, on this machine: build, init, create, kill, heal, leave.

Everything lives in one temporary directory (state, socket, cache of the archive), so a swarm that
already runs here is neither used nor touched; at the end nothing of it is left. Tasks are
containers when a Docker or Podman engine answers and has an image, else plain processes. Each step
prints what it does and how long it took; the first one that fails ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPO = Path(__file__).resolve().parent.parent
ARCHIVE = REPO / "dist" / "swarmctl.pyz"
ENGINES = {"docker": "/var/run/docker.sock", "podman": "/run/podman/podman.sock"}
IMAGES = ("alpine:latest", "busybox:latest")
REPLICAS = 2
STEP_TIMEOUT_S = 60.0
HEAL_TIMEOUT_S = 30.0
POLL_S = 0.05


class StepFailed(Exception):
    """A step did not do what it is here to show; ``str(error)`` says what happened instead."""


def main() -> None:
    """Build and run the steps; exits 1 when one fails."""
    parser = argparse.ArgumentParser(description="Build swarmctl and show its main job.")
    parser.add_argument("--build-only", action="store_true", help="build and start it, no swarm")
    options = parser.parse_args()
    started = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="swarmctl-demo-"))
    try:
        with step("build dist/swarmctl.pyz"):
            run([sys.executable, str(REPO / "build_zipapp.py")])
        swarm = Swarm(home)
        with step("first start, which unpacks it"):
            swarm("--version")
        with step("start again"):
            swarm("--version")
        if not options.build_only:
            main_job(swarm)
    except StepFailed as failure:
        print(f"\nFAILED: {failure}", flush=True)
        sys.exit(1)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"\nall of it took {time.monotonic() - started:.1f} s")


def main_job(swarm: Swarm) -> None:
    """What a user does on the first day."""
    executor, image, command = workload()
    what = f"containers of {image} on {executor}" if executor in ENGINES else "processes"
    print(f"tasks will be {what}")
    with swarm.daemon(executor):
        with step("swarmctl init"):
            address = f"127.0.0.1:{free_port()}"
            swarm("init", "--listen-addr", address, "--advertise-addr", address)
        try:
            with step(f"swarmctl service create --replicas {REPLICAS} {image}, until they run"):
                create = ["service", "create", "--name", "web", "--replicas", str(REPLICAS)]
                swarm(*create, image, *command)
            print(swarm("service", "ps", "web"))
            with step("kill one of them, wait until another runs in its place"):
                heal(swarm)
            print(swarm("service", "ps", "web"))
            with step("swarmctl leave --force, which stops the tasks"):
                left = [task["pid"] for task in swarm.running()]
                swarm("leave", "--force")
                wait_until(lambda: not any(map(alive, left)), "the tasks to end")
        except BaseException:
            with contextlib.suppress(StepFailed):  # tasks outlive their daemon, so not without this
                swarm("leave", "--force")
            raise


def heal(swarm: Swarm) -> None:
    """Kill the first task's process; return when as many as before run, none of them that one."""
    before = swarm.running()
    if len(before) != REPLICAS:
        raise StepFailed(f"{len(before)} tasks run instead of {REPLICAS}")
    victim = before[0]
    os.kill(victim["pid"], signal.SIGKILL)

    def healed() -> bool:
        now = swarm.running()
        return len(now) == REPLICAS and victim["id"] not in {task["id"] for task in now}

    wait_until(healed, "the replacement", HEAL_TIMEOUT_S)


class Swarm:
    """The command line, pointed at a daemon of our own below ``home``."""

    def __init__(self, home: Path) -> None:
        self._log = home / "daemon.log"
        self._socket = home / "swarmctl.sock"
        foreign = ("SWARMCTL_HOST", "SWARMCTL_TOKEN", "DOCKER_HOST")
        self._environment = {k: v for k, v in os.environ.items() if k not in foreign} | {
            "SWARMCTL_STATE_DIR": str(home / "state"),
            "SWARMCTL_SOCKET": str(self._socket),
            "SWARMCTL_CACHE": str(home / "cache"),
        }

    def __call__(self, *arguments: str) -> str:
        """Run one command and return what it printed."""
        return run([sys.executable, str(ARCHIVE), *arguments], self._environment)

    @contextlib.contextmanager
    def daemon(self, executor: str) -> Iterator[None]:
        """Run the daemon in the foreground of its own process for as long as the body takes."""
        command = [sys.executable, str(ARCHIVE), "daemon", "--executor", executor]
        with self._log.open("wb") as log:
            process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        try:
            with step("start the daemon"):
                wait_until(lambda: self._ready(process), "the daemon's socket")
            yield
        except StepFailed:
            print("\n--- the daemon's log\n" + self._log.read_text("utf-8", errors="replace"))
            raise
        finally:
            process.terminate()
            try:
                process.wait(STEP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ready(self, daemon: subprocess.Popen[bytes]) -> bool:
        if daemon.poll() is not None:
            raise StepFailed(f"the daemon ended with code {daemon.returncode}")
        return answers(self._socket)

    def running(self) -> list[dict[str, Any]]:
        """Return the service's running tasks as ``{"id": ..., "pid": ...}``."""
        wanted = ("--filter", "desired-state=running", "--no-trunc", "--quiet")
        names = self("service", "ps", "web", *wanted).split()
        tasks = json.loads(self("task", "inspect", *names)) if names else []
        return [
            {"id": task["ID"], "pid": task["Status"]["ContainerStatus"]["PID"]}
            for task in tasks
            if task["Status"]["State"] == "running"
        ]


def workload() -> tuple[str, str, list[str]]:
    """Return (executor, image, command): a container when an engine has an image, else a process.

    Nothing is pulled: a demonstration that waits for a registry shows the registry.
    """
    if os.geteuid() == 0:  # else the containers' processes are not ours to kill
        for executor, engine in ENGINES.items():
            for image in IMAGES:
                if engine_has(engine, image):
                    return executor, image, ["sleep", "1000"]
    return "process", "host", ["--", "sleep", "1000"]


def engine_has(socket_path: str, image: str) -> bool:
    """Does an engine answer at this socket, and hold ``image``? Both speak Docker's API."""
    engine = http.client.HTTPConnection("localhost", timeout=2)
    try:
        engine.sock = socket.socket(socket.AF_UNIX)
        engine.sock.settimeout(2)
        engine.sock.connect(socket_path)
        engine.request("GET", f"/images/{image}/json")
        return engine.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        engine.close()


def answers(path: Path) -> bool:
    """Does somebody listen on the unix socket at ``path``?"""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def alive(pid: int) -> bool:
    """Does process ``pid`` exist (and is more than a zombie)?"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return False
    return not stat.rpartition(")")[2].startswith(" Z")


def free_port() -> int:
    """Return a TCP port that nobody listens on, so that another swarm here keeps its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Run ``command`` and return its output; StepFailed with all it said when it fails."""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=STEP_TIMEOUT_S * 5
        )
    except subprocess.TimeoutExpired:
        raise StepFailed(f"{' '.join(command)} did not end") from None
    if done.returncode != 0:
        raise StepFailed(
            f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def wait_until(reached: Callable[[], bool], what: str, timeout_s: float = STEP_TIMEOUT_S) -> None:
    """Ask ``reached`` again and again; StepFailed when ``what`` does not come in time."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            raise StepFailed(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(POLL_S)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say what happens, and then how long it took."""
    print(f"{title} ... ", end="", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.2f} s", flush=True)


if __name__ == "__main__":
    main()
