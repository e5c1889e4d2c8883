"""The one-file archive for tests: built once, and started as on a host of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
SOURCES = (
    "swarmctl",
    "plugins",
    "bootstrap",
    "build_zipapp.py",
    "pyproject.toml",
    "requirements.lock",
)
START_TIMEOUT_S = 60
VERSIONS = ("3.10", "3.11", "3.12", "3.13")


@cache
def interpreters() -> dict[str, str]:
    """Return an interpreter for each version that is found, by its own path (no wrapper).

    They are looked for on PATH, in /usr/bin, under pyenv, and in SWARMCTL_TEST_PYTHONS (paths,
    colons between them).
    """
    named = [Path(one) for one in os.environ.get("SWARMCTL_TEST_PYTHONS", "").split(":") if one]
    places = [Path(one) for v in VERSIONS if (one := shutil.which(f"python{v}"))]
    places += [Path("/usr/bin") / f"python{version}" for version in VERSIONS]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places += sorted(pyenv.glob("versions/3.*/bin/python3"))
    ask = (
        "import sys; print('%d.%d' % sys.version_info[:2], sys.implementation.name, sys.executable)"
    )
    found: dict[str, str] = {}
    for place in (*named, *places):
        if not place.exists():
            continue
        said = subprocess.run([place, "-c", ask], capture_output=True, text=True)
        words = said.stdout.split()
        if said.returncode == 0 and words[1] == "cpython" and words[0] in VERSIONS:
            found.setdefault(words[0], words[2])
    return dict(sorted(found.items()))


def build(output: Path, *options: str, checkout: Path = REPO, **environment: str) -> None:
    command = [sys.executable, str(checkout / "build_zipapp.py"), "--output", str(output), *options]
    subprocess.run(command, check=True, env=os.environ | environment, cwd=output.parent)


def cached_archive(*options: str) -> Path:
    """Return an archive of the sources as they are, built once for each state of them."""
    digest = hashlib.sha256(sys.version.encode())
    for name in SOURCES:
        for path in sorted([REPO / name, *(REPO / name).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(REPO)}\0".encode() + path.read_bytes())
    folder = REPO / "build" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    kind = hashlib.sha256(repr(options).encode()).hexdigest()[:6]
    built = folder / f"{kind}-{digest.hexdigest()[:20]}.pyz"
    if not built.exists():
        for old in folder.glob(f"{kind}-*.pyz"):
            old.unlink()
        build(built, *options)
    return built


class Host:
    """What a start of the archive sees of the world: its own home, caches and variables."""

    def __init__(self, folder: Path, archive: Path, python: str = sys.executable) -> None:
        self.archive = archive
        self._python = python
        self.cwd = folder / "elsewhere"
        self.cwd.mkdir()
        self.cache = folder / "cache"
        # XDG_CACHE_HOME comes second in line, and is where a refused SWARMCTL_CACHE leads to.
        self.second = folder / "xdg" / "swarmctl"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder),
            "SWARMCTL_CACHE": str(self.cache),
            "XDG_CACHE_HOME": str(self.second.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, *options: str) -> list[str]:
        return [self._python, *options, str(self.archive), "--version"]

    def start(self, *options: str, within: str = "") -> subprocess.CompletedProcess[str]:
        """Run ``swarmctl --version``; ``within`` is shell for a mount namespace of its own."""
        command = self.command(*options)
        if within:
            command = ["unshare", "-m", "sh", "-ec", f'{within}; exec "$@"', "sh", *command]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.cwd,
            timeout=START_TIMEOUT_S,
        )

    def start_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the archive."""
        return subprocess.run(
            [*self.command()[:-1], *words],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.cwd,
            timeout=START_TIMEOUT_S,
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run ``code`` with the unpacked tree, and no site-packages, on the path."""
        (tree,) = self.trees()
        return subprocess.run(
            [self._python, "-S", "-c", code],
            capture_output=True,
            text=True,
            env=self.environment | {"PYTHONPATH": str(tree)},
            cwd=self.cwd,
            timeout=START_TIMEOUT_S,
        )

    def trees(self, base: Path | None = None) -> list[Path]:
        """The unpacked trees, and any remains beside them."""
        base = base or self.cache
        found = sorted(base.iterdir()) if base.exists() else []
        return [path for path in found if path.name != ".lock"]


def worked(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether a start printed the version; an AssertionError when it failed."""
    assert done.returncode == 0, done.stderr
    return done.stdout.startswith("swarmctl version ")
