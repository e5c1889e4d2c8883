"""``swarmctl upgrade``: a real archive in place of another, under a real daemon with real tasks."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path  # noqa: TC003 - fixtures are read at run time
from typing import TYPE_CHECKING

import pytest

from tests.archive import Host, cached_archive
from tests.daemon import Daemon
from tests.releases import another, replacing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def archive() -> Path:
    """An archive of the sources as they are."""
    return cached_archive()


@pytest.fixture
def daemon(tmp_path: Path, archive: Path) -> Iterator[Daemon]:
    """A daemon that runs from a copy of the archive, with plain processes as tasks."""
    installed = tmp_path / "swarmctl.pyz"
    shutil.copy(archive, installed)
    host = Host(tmp_path, installed)
    made = Daemon(tmp_path, [sys.executable, str(installed)], host.environment)
    yield made
    made.command("leave", "--force")
    made.end()


def found(daemon: Daemon) -> str:
    return daemon.command("version", "--format={{.Server.Version}}").stdout.strip()


def pid_of_task(daemon: Daemon) -> str:
    task = daemon.command("service", "ps", "-q", "--no-trunc", "web").stdout.split()[0]
    form = "--format={{.Status.ContainerStatus.PID}}"
    return daemon.command("task", "inspect", form, task).stdout.strip()


def test_the_daemon_comes_back_newer_and_tasks_do_not_notice(
    daemon: Daemon, archive: Path, tmp_path: Path
) -> None:
    """Checked, replaced in one step, restarted with its settings; the same process still runs."""
    daemon.detach("process")
    done = daemon.command("service", "create", "--name=web", "--detach", "host", "sleep", "600")
    assert done.returncode == 0, done.stderr
    daemon.until(lambda: daemon.runs("web"), "it does not run")
    pid = pid_of_task(daemon)
    new = another(archive, tmp_path / "new.pyz", "9.8.7", {})
    done = daemon.command("upgrade", str(new))
    assert (done.returncode, done.stderr) == (0, "")
    installed = f"{tmp_path}/swarmctl.pyz"
    assert done.stdout.splitlines() == [
        f"{installed} is swarmctl 9.8.7 now; the one before is {installed}.previous",
        "The daemon runs swarmctl 9.8.7",
    ]
    assert found(daemon) == "9.8.7"
    assert (tmp_path / "swarmctl.pyz").read_bytes() == new.read_bytes()
    assert (tmp_path / "swarmctl.pyz.previous").read_bytes() == archive.read_bytes()
    daemon.until(lambda: daemon.runs("web"), "it is not seen to run")
    assert pid_of_task(daemon) == pid
    os.kill(int(pid), 0)


def test_a_release_that_does_not_start_is_taken_back(
    daemon: Daemon, archive: Path, tmp_path: Path
) -> None:
    """The command fails in words, with the release before in place and the daemon running it."""
    daemon.detach("null")
    before = found(daemon)
    new = another(
        archive, tmp_path / "new.pyz", "9.8.7", {"daemon": "raise RuntimeError('broken')\n"}
    )
    done = daemon.command("upgrade", str(new))
    assert done.returncode == 1
    assert "did not start under swarmctl 9.8.7" in done.stderr
    assert "the release before is back in place and runs again" in done.stderr
    assert found(daemon) == before
    assert (tmp_path / "swarmctl.pyz").read_bytes() == archive.read_bytes()


def test_what_is_no_release_is_refused_before_anything_changes(
    daemon: Daemon, archive: Path, tmp_path: Path
) -> None:
    """No archive, a damaged one, one that does not run, the same one, an older format."""
    daemon.detach("null")
    junk = tmp_path / "junk.pyz"
    junk.write_bytes(b"junk")
    cut = tmp_path / "cut.pyz"
    cut.write_bytes(archive.read_bytes()[:-1000])
    flipped = bytearray(archive.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.pyz").write_bytes(flipped)
    crash = another(archive, tmp_path / "crash.pyz", "9.9.9", {"__main__": "1 / 0\n"})
    older = replacing(("\nFORMAT_LEVEL = 1\n", "\nFORMAT_LEVEL = 0\n"))
    old = another(archive, tmp_path / "old.pyz", "0.0.9", {"core/model/change": older})
    for path, text in (
        (junk, "junk.pyz is no swarmctl archive"),
        (tmp_path / "none.pyz", "none.pyz cannot be read: No such file or directory"),
        (cut, "cut.pyz is no swarmctl archive"),
        (tmp_path / "flipped.pyz", "flipped.pyz is damaged: "),
        (crash, "ZeroDivisionError"),
        (tmp_path / "swarmctl.pyz", "is what is installed already"),
        (old, "swarmctl 0.0.9 knows format level 0, and the installed one 1"),
    ):
        done = daemon.command("upgrade", str(path))
        assert done.returncode == 1
        assert text in done.stderr
    (tmp_path / "other").mkdir()
    host = Host(tmp_path / "other", old)
    host.environment["SWARMCTL_CACHE"] = str(tmp_path / "cache")
    done = host.start_command(f"--socket={tmp_path}/sock", "upgrade", str(old))
    assert "knows format level 0, and the installed one 1" in done.stderr
    assert (tmp_path / "swarmctl.pyz").read_bytes() == archive.read_bytes()
    assert not (tmp_path / "swarmctl.pyz.previous").exists()


def test_what_a_relative_path_means_is_the_daemons_affair(archive: Path, tmp_path: Path) -> None:
    """The file that the daemon runs is replaced, wherever the command runs."""
    installed = tmp_path / "swarmctl.pyz"
    shutil.copy(archive, installed)
    host = Host(tmp_path, installed)
    daemon = Daemon(tmp_path, [sys.executable, os.path.relpath(installed)], host.environment)
    try:
        daemon.start()
        daemon.until(lambda: found(daemon), "it does not answer")
        new = another(archive, tmp_path / "new.pyz", "9.8.7", {})
        done = host.start_command(f"--socket={tmp_path}/sock", "upgrade", str(new))
        assert done.returncode == 0, done.stderr
        assert installed.read_bytes() == new.read_bytes()
    finally:
        daemon.end()


def test_a_daemon_of_somebody_elses_making_is_left_to_them(
    daemon: Daemon, archive: Path, tmp_path: Path
) -> None:
    """In the foreground, under another supervisor: the file is replaced, the daemon goes on."""
    daemon.start()
    daemon.until(lambda: found(daemon), "it does not answer")
    done = daemon.command("upgrade", str(another(archive, tmp_path / "new.pyz", "9.8.7", {})))
    assert done.returncode == 0
    assert "restart it the way it was started" in done.stderr
    assert daemon.process is not None
    time.sleep(0.2)
    assert daemon.process.poll() is None


def test_what_a_live_daemon_runs_from_is_not_pruned(
    daemon: Daemon, archive: Path, tmp_path: Path
) -> None:
    """Another release tidies the cache: trees unused for a month go, but for those in use."""
    daemon.detach("null")
    (live,) = (tmp_path / "cache").glob("*-cpython-*")
    unused = live.with_name("0" * 20 + live.name[20:])
    unused.mkdir()
    (unused / ".ok").touch()
    month_ago = time.time() - 31 * 24 * 3600
    for tree in (live, unused):
        os.utime(tree / ".ok", (month_ago, month_ago))
    new = another(archive, tmp_path / "new.pyz", "9.8.7", {})
    (tmp_path / "other").mkdir()
    host = Host(tmp_path / "other", new)
    host.environment["SWARMCTL_CACHE"] = str(tmp_path / "cache")
    assert "9.8.7" in host.start().stdout
    assert live.is_dir()
    assert not unused.exists()
    assert daemon.command("node", "ls").returncode == 0
