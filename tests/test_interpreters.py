"""One archive under every interpreter that it serves: 3.10 to 3.13, as far as this host has them.

Where they are looked for: :func:`tests.archive.interpreters`. Fewer than three are no proof, so
then the first test is skipped, and in CI fails.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.archive import REPO, VERSIONS, Host, cached_archive, interpreters, worked
from tests.daemon import Daemon
from tests.plugins.outside.rig import write_plugin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEAST = 3


@pytest.fixture(scope="session")
def archive() -> Path:
    """One file for all of them, built by the interpreter that runs the tests."""
    return cached_archive()


@pytest.fixture(params=interpreters().items(), ids=lambda one: one[0])
def host(request: pytest.FixtureRequest, tmp_path: Path, archive: Path) -> Host:
    return Host(tmp_path, archive, request.param[1])


def test_enough_interpreters_are_found() -> None:
    """The archive is shown to run under at least three of the four; where that matters, in CI,
    fewer are a failure like everything that is skipped."""
    if len(interpreters()) < LEAST:
        pytest.skip(f"found {interpreters()}; name more in SWARMCTL_TEST_PYTHONS")


def test_one_file_is_small(archive: Path) -> None:
    """Four interpreters on two machines are below 20 MB."""
    assert archive.stat().st_size < 20_000_000


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
