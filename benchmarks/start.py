"""How long the one file takes to start, beside the same code installed in a virtual environment.

    python -m benchmarks.start [--rounds 15] [--cold 3] [--only 3.12]

For each CPython from 3.10 to 3.13 that this host has: the archive with an empty cache (cold), with
its cache (warm), and the same sources with the same libraries in a virtual environment, warm
starts interleaved. Commands: ``--version``, which imports next to nothing; ``service ls`` of a
running daemon; and the daemon itself until its socket answers. Prints medians, and warm starts
as a ratio to those of the virtual environment (aim: at most 2). Needs the package index, for the
virtual environments.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.archive import REPO, VERSIONS, Host, cached_archive, interpreters
from tests.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECTS = (REPO, REPO / "plugins/docker_exec", REPO / "plugins/podman_exec")
AIM = 2.0


def main() -> int:
    """Print a table row by row; the exit status is 1 when a ratio is above the aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cold", type=int, default=3)
    parser.add_argument("--only", choices=VERSIONS)
    options = parser.parse_args()
    found = {v: p for v, p in interpreters().items() if options.only in (None, v)}
    archive = cached_archive()
    print(f"{archive.stat().st_size / 1e6:.1f} MB; medians of {options.rounds} warm starts")
    print(f"{'':8}{'command':16}{'cold':>9}{'warm':>9}{'venv':>9}{'warm/venv':>11}")
    worst = 0.0
    for version, python in found.items():
        with tempfile.TemporaryDirectory() as folder:
            environment = installed(python, Path(folder) / "venv")
            bench = Bench(Path(folder), archive, python, environment, options.rounds, options.cold)
            for name, run in (
                ("--version", bench.version),
                ("service ls", bench.service_ls),
                ("daemon", bench.daemon),
            ):
                cold, warm, venv = run()
                worst = max(worst, warm / venv)
                print(
                    f"{version:8}{name:16}{cold:>7.0f}ms{warm:>7.0f}ms{venv:>7.0f}ms"
                    f"{warm / venv:>11.2f}",
                    flush=True,
                )
    print(f"worst ratio {worst:.2f}, aim {AIM:.0f}")
    return int(worst > AIM)


def installed(python: str, folder: Path) -> str:
    """Install the sources and the locked libraries into ``folder``; returns its ``swarmctl``."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(REPO / "requirements.lock")], check=True)
    sources = [copied(project, folder / "sources" / project.name) for project in PROJECTS]
    subprocess.run([*pip, "--no-deps", *map(str, sources)], check=True, cwd=folder)
    return str(folder / "bin" / "swarmctl")


def copied(project: Path, target: Path) -> Path:
    """Copy what a project is built from: setuptools leaves a second copy where it builds."""
    for package in project.glob("swarmctl*/__init__.py"):
        shutil.copytree(package.parent, target / package.parent.name)
    for name in ("pyproject.toml", "README.md"):
        if (project / name).exists():
            shutil.copy(project / name, target / name)
    return target


class Bench:
    """One interpreter's starts.

    Args:
        folder: for everything that is made.
        venv: the command in the virtual environment.
    """

    def __init__(
        self, folder: Path, archive: Path, python: str, venv: str, rounds: int, cold: int
    ) -> None:
        self._rounds = rounds
        self._cold = cold
        self._folder = folder
        (folder / "host").mkdir()
        self._host = Host(folder / "host", archive, python)
        self._archive = self._host.command()[:-1]
        self._venv = [str(Path(venv).with_name("python")), venv]

    def version(self) -> tuple[float, float, float]:
        """Median milliseconds of ``swarmctl --version``: cold, warm, in the environment."""
        return self._compare(lambda command: self._run([*command, "--version"]))

    def service_ls(self) -> tuple[float, float, float]:
        """The same of ``swarmctl service ls`` with ten services to list."""
        (self._folder / "served").mkdir()
        daemon = Daemon(self._folder / "served", self._archive, self._host.environment)
        try:
            daemon.start()
            daemon.init()
            for number in range(10):
                daemon.command("service", "create", f"--name=s{number}", "--detach", "nginx")
            socket = f"--socket={daemon.folder}/sock"
            return self._compare(lambda command: self._run([*command, socket, "service", "ls"]))
        finally:
            daemon.end()

    def daemon(self) -> tuple[float, float, float]:
        """The same of a daemon without a swarm, until its socket takes connections."""
        return self._compare(self._daemon_until_ready)

    def _compare(self, once: Callable[[list[str]], float]) -> tuple[float, float, float]:
        cold = []
        cache = self._host.environment["SWARMCTL_CACHE"]
        for number in range(self._cold):
            self._host.environment["SWARMCTL_CACHE"] = f"{cache}-{number}-{time.monotonic_ns()}"
            cold.append(once(self._archive))
        self._host.environment["SWARMCTL_CACHE"] = cache
        once(self._archive)
        once(self._venv)
        warm, venv = [], []
        for _ in range(self._rounds):
            warm.append(once(self._archive))
            venv.append(once(self._venv))
        return statistics.median(cold), statistics.median(warm), statistics.median(venv)

    def _run(self, command: list[str]) -> float:
        started = time.perf_counter()
        done = subprocess.run(
            command, env=self._host.environment, cwd=self._host.cwd, capture_output=True
        )
        taken = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(f"{command} failed: {done.stderr.decode()}")
        return taken * 1000

    def _daemon_until_ready(self, command: list[str]) -> float:
        with (
            tempfile.TemporaryDirectory(dir=self._folder) as name,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
        ):
            told.bind(f"{name}/told")  # as systemd would have it
            told.settimeout(60)
            environment = self._host.environment | {"NOTIFY_SOCKET": f"{name}/told"}
            daemon = Daemon(Path(name), command, environment)
            started = time.perf_counter()
            daemon.start()
            try:
                told.recv(100)
                return (time.perf_counter() - started) * 1000
            finally:
                daemon.end()


if __name__ == "__main__":
    sys.exit(main())
