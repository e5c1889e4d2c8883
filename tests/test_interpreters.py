"""One archive under every interpreter that it serves: 3.10 to 3.13, as far as this host has them.

They are looked for on PATH, in /usr/bin, under pyenv, and in SWARMCTL_TEST_PYTHONS (paths, colons
between them). Fewer than three are no proof, so then the first test fails.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.archive import REPO, Host, cached_archive, worked
from tests.daemon import Daemon
from tests.plugins.outside.rig import write_plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
LEAST = 3


@cache
def interpreters() -> dict[str, str]:
    """Return an interpreter for each version that is found, by its own path (no wrapper)."""
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


@pytest.fixture(scope="session")
def archive() -> Path:
    """One file for all of them, built by the interpreter that runs the tests."""
    return cached_archive("--python", *VERSIONS)


@pytest.fixture(params=interpreters().items(), ids=lambda one: one[0])
def host(request: pytest.FixtureRequest, tmp_path: Path, archive: Path) -> Host:
    return Host(tmp_path, archive, request.param[1])


def test_enough_interpreters_are_found() -> None:
    """The archive is shown to run under at least three of the four."""
    assert len(interpreters()) >= LEAST, (
        f"found {interpreters()}; name more in SWARMCTL_TEST_PYTHONS"
    )


def test_one_file_is_small(archive: Path) -> None:
    """Four interpreters on this machine fit into 12 MB; all of both machines are below 20."""
    assert archive.stat().st_size < 12_000_000


def test_it_starts_cold_and_warm(host: Host) -> None:
    """The first start unpacks one tree, made for this interpreter, and the second only uses it."""
    assert worked(host.start())
    (tree,) = host.trees()
    assert "-cpython-3" in tree.name
    before = tree.stat().st_mtime_ns
    assert worked(host.start("-I"))
    assert [one.stat().st_mtime_ns for one in host.trees()] == [before]


@pytest.fixture
def daemon(host: Host, tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path, host.command()[:-1], host.environment)
    yield made
    made.end()


def test_a_swarm_runs_a_service_by_a_plugin_of_somebody_else(daemon: Daemon) -> None:
    """From init to running tasks: native code, the API, and a plugin's child from the archive."""
    carbon = (REPO / "examples" / "carbon.py").read_text()
    write_plugin(daemon.plugins, carbon, "carbon")
    daemon.start(scheduler="carbon")
    daemon.init()
    done = daemon.command("service", "create", "--name=web", "--detach", "nginx")
    assert done.returncode == 0, done.stderr
    daemon.until(lambda: daemon.runs("web"), "it does not run")
    found = daemon.plugin("carbon")
    assert (found["State"], found["Failures"]) == ("isolated", 0), found
    version = json.loads(daemon.command("version", "--format=json").stdout)
    assert version["Client"]["PythonVersion"].rpartition(".")[0] in VERSIONS
