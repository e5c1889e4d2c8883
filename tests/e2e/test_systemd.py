"""A daemon under a real systemd: its unit, its restart, and upgrades of the file that it runs.

Systemd is the first process of a namespace inside a lab host. It reads this machine's programs and
no unit of this machine's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.archive import cached_archive
from tests.e2e.lab import Lab, eventually
from tests.releases import another

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.e2e.lab import Host

SYSTEMD = "/lib/systemd/systemd"
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not Path(SYSTEMD).exists(), reason="needs Debian's systemd"),
]
# Only the /proc of the namespace around it tells how to enter from there.
BOOT = f"""
cut -d' ' -f4 /proc/self/stat >"$1/pid"
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount --bind "$1/units" /etc/systemd/system
export container=lab SYSTEMD_UNIT_PATH=/etc/systemd/system
exec {SYSTEMD} --system --unit=multi-user.target --log-target=console --show-status=no
"""
TARGETS = ("basic", "multi-user", "network-online", "shutdown", "sysinit")
TASK = ("--detach", "host", "sleep", "6543")


class Box:
    """A host that systemd runs, with an archive of swarmctl in a directory of its own."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self.program = folder / "swarmctl.pyz"
        (folder / "units").mkdir()
        for name in TARGETS:
            unit = f"[Unit]\nDescription={name}\nDefaultDependencies=no\n"
            (folder / "units" / f"{name}.target").write_text(unit)
        self.unit = "/etc/systemd/system/swarmctl.service"
        self._boot()

    def _boot(self) -> None:
        apart = ["--pid", "--fork", "--kill-child", "--mount", "--cgroup", "--propagation=private"]
        command = ["unshare", *apart, "sh", "-ec", BOOT, "sh", self._folder]
        with (self._folder / "systemd.log").open("wb") as log:
            self._host.popen(command, stdout=log, stderr=log)
        is_up = ["systemctl", "is-active", "--quiet", "multi-user.target"]
        eventually(lambda: self.run(*is_up, check=False).returncode == 0, what="systemd")

    def run(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command beside systemd."""
        pid = (self._folder / "pid").read_text().strip()
        enter = ["nsenter", f"--target={pid or 0}", "--pid", "--mount", "--cgroup", "--"]
        return self._host.run(
            [*enter, *map(str, words)],
            check=check,
            env={"SWARMCTL_CACHE": str(self._folder / "cache")},
        )

    def swarmctl(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the archive."""
        return self.run(sys.executable, self.program, *words, check=check)

    @property
    def version(self) -> str:
        """What the daemon is."""
        return self.swarmctl("version", "--format={{.Server.Version}}").stdout.strip()

    @property
    def daemon(self) -> int:
        """The id of the unit's process."""
        asked = ("systemctl", "show", "--property=MainPID", "--value", "swarmctl.service")
        return int(self.run(*asked).stdout)

    def task(self) -> str:
        """The id of the one process that runs as a task; an AssertionError while it is not seen."""
        form = "--format={{.CurrentState}}"
        said = self.swarmctl("service", "ps", form, "web", check=False).stdout
        assert said.startswith("Running")
        return self.run("pgrep", "--exact", "--full", "sleep 6543").stdout.strip()


@pytest.fixture(scope="module")
def archive() -> Path:
    """An archive of the sources as they are."""
    return cached_archive()


@pytest.fixture(scope="module")
def box(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A host on which a unit of ours runs a swarm of one, with one task that is a process."""
    folder = tmp_path_factory.mktemp("box")
    folder.chmod(0o755)
    with Lab(1) as lab:
        made = Box(lab[0], folder)
        shutil.copy(archive, made.program)
        done = made.swarmctl("install-service", "--executor=process", f"--state-dir={folder}/state")
        assert done.stdout == "Installed and started swarmctl.service\n"
        address = f"{lab[0].address}:2377"
        made.swarmctl("init", f"--advertise-addr={address}")
        made.swarmctl("service", "create", "--name=web", *TASK)
        eventually(made.task, 20, what="the task to run")
        yield made


def test_systemd_finds_no_fault_with_the_units(box: Box) -> None:
    """Neither the confined unit nor the one for plain processes has an option it does not know."""
    for executor in ("docker", "process"):
        text = box.swarmctl("install-service", "--print", f"--executor={executor}").stdout
        unit = box.program.parent / executor / "swarmctl.service"
        unit.parent.mkdir()
        unit.write_text(text)
        done = box.run("systemd-analyze", "verify", unit)
        assert (done.stdout, done.stderr) == ("", "")
    assert box.run("systemctl", "is-enabled", "swarmctl.service").stdout == "enabled\n"


def test_a_killed_daemon_is_started_again(box: Box) -> None:
    """Systemd brings it back, and it adopts the process that runs."""
    before, task = box.daemon, box.task()
    box.run("kill", "-KILL", before)
    eventually(lambda: box.daemon not in (0, before), what="another daemon")
    assert eventually(box.task, 20, what="the task to be seen again") == task


def test_an_upgrade_restarts_the_unit_and_no_task(box: Box, archive: Path, tmp_path: Path) -> None:
    """The same unit runs the new release; one that does not start is taken back."""
    before, task, version = box.daemon, box.task(), box.version
    new = another(archive, tmp_path / "new.pyz", "9.8.7", {})
    done = box.swarmctl("upgrade", new)
    assert done.stdout.splitlines()[-1] == "The daemon runs swarmctl 9.8.7"
    assert box.version == "9.8.7" != version
    assert box.daemon not in (0, before)
    assert eventually(box.task, 20, what="the task to be seen again") == task

    fault = {"daemon": "raise RuntimeError('broken')\n"}
    done = box.swarmctl(
        "upgrade", another(archive, tmp_path / "bad.pyz", "9.9.9", fault), check=False
    )
    assert done.returncode == 1
    assert "the release before is back in place and runs again" in done.stderr
    assert box.version == "9.8.7"
    assert eventually(box.task, 20, what="the task to be seen again") == task


def test_a_daemon_beside_the_unit_is_not_the_units(box: Box, archive: Path, tmp_path: Path) -> None:
    """One that swarmctl started gets its own release back; the unit's daemon is left alone."""
    unit, folder = box.daemon, box.program.parent / "beside"
    folder.mkdir()
    program = folder / "beside.pyz"
    shutil.copy(archive, program)

    def beside(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return box.run(sys.executable, program, f"--socket={folder}/sock", *words, check=check)

    places = (f"--state-dir={folder}/state", "--listen-addr=127.0.0.1:2477")
    beside("init", "--executor=null", "--advertise-addr=127.0.0.1:2477", *places)
    fault = {"daemon": "raise RuntimeError('broken')\n"}
    bad = another(archive, tmp_path / "bad.pyz", "9.9.9", fault)
    done = beside("upgrade", bad, check=False)
    assert "the release before is back in place and runs again" in done.stderr
    assert box.daemon == unit
    beside("leave", "--force")
    box.run("kill", *box.run("pgrep", "--full", f"{program} daemon").stdout.split())
