"""Secrets and configs of tasks, as files in memory: a tmpfs under the node's state directory.

Blocking: used in threads. Each task has a directory, each file its own owner and mode, and the
engine binds file by file, so no task can reach another's. Nothing is ever written to a disk: where
no tmpfs can be had, a task with secrets is refused. The tmpfs outlives the daemon, as containers
do, and goes when its last file goes.

An engine that does not see this directory (another mount namespace) refuses to create the
container, because the source of a bind has to exist; files cannot arrive empty.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from swarmctl.plugins import ExecutorError

from .spec import FileBind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePath

    from swarmctl.plugins.model import SecretFile, TaskAssignment

MOUNT_TIMEOUT_S = 10
IN_MEMORY = ("tmpfs", "ramfs")
PROFILE = "profile"
IDS = 2**32 - 1  # of users and of groups; the last means nobody


class TaskFiles:
    """The files of this node's tasks. One thread at a time."""

    def __init__(self, root: PurePath) -> None:
        """``root``: absolute path of a directory that is this executor's alone."""
        self._root = Path(root)

    def binds(self, assignment: TaskAssignment) -> list[FileBind]:
        """Say where a task's files will be and where they show inside; writes nothing."""
        home = self._root / assignment.task.ID
        return [
            FileBind(str(home / str(number)), target)
            for number, (_, target) in enumerate(_targets(assignment))
        ]

    def profile(self, assignment: TaskAssignment) -> str:
        """Say where the task's profile will be, a file for the engine's own eyes."""
        return str(self._root / assignment.task.ID / PROFILE)

    def write(self, assignment: TaskAssignment, profile: bytes = b"") -> None:
        """Write a task's files anew. Its container may not have been started yet.

        Raises:
            ExecutorError: they cannot be kept in memory here.
        """
        files = [file for file, _ in _targets(assignment)]
        if not files and not profile:
            return
        home = self._root / assignment.task.ID
        try:
            self._mount()
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(mode=0o700)
            for number, file in enumerate(files):
                _write(home / str(number), file)
            if profile:
                (home / PROFILE).write_bytes(profile)
        except (OSError, subprocess.SubprocessError) as error:
            raise ExecutorError(
                f"secrets and configs cannot be kept in memory at {self._root}: {_short(error)}"
            ) from error

    def remove(self, task_id: str) -> None:
        """Remove a task's files, if it has any."""
        shutil.rmtree(self._root / task_id, ignore_errors=True)

    def task_ids(self) -> list[str]:
        """The tasks that have files here."""
        try:
            return sorted(home.name for home in self._root.iterdir())
        except FileNotFoundError:
            return []

    def close(self) -> None:
        """Unmount the tmpfs when no task has files on it."""
        if self._root.is_mount() and not self.task_ids():
            # A lazy unmount: somebody may just look into it.
            subprocess.run(
                ["umount", "-l", self._root],
                check=False,
                capture_output=True,
                timeout=MOUNT_TIMEOUT_S,
            )

    def _mount(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _file_system(self._root) in IN_MEMORY:
            return
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "mode=0700,nosuid,nodev", "swarmctl", self._root],
            check=True,
            capture_output=True,
            timeout=MOUNT_TIMEOUT_S,
        )


def _targets(assignment: TaskAssignment) -> Iterator[tuple[SecretFile, str]]:
    """Each file and its absolute path inside; relative ones go where Docker puts them."""
    for base, files in (("/run/secrets", assignment.secrets), ("/", assignment.configs)):
        for file in files:
            yield file, os.path.join(base, file.target)  # noqa: PTH118 # a path in the container


def _write(path: Path, file: SecretFile) -> None:
    if not (_is_id(file.uid) and _is_id(file.gid)):
        raise ExecutorError(
            f'owner "{file.uid}:{file.gid}" of {file.target} must be two numbers below {IDS}'
        )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(file.data)
        _give(out.fileno(), file)
        os.fchmod(out.fileno(), file.mode & 0o7777)


def _is_id(text: str) -> bool:
    return text.isdecimal() and int(text) < IDS


def _give(descriptor: int, file: SecretFile) -> None:
    """Make a file its owner's. An engine without root shows our own files as root's."""
    owner = int(file.uid), int(file.gid)
    if os.geteuid() == 0:
        os.fchown(descriptor, *owner)
    elif owner != (0, 0):
        raise ExecutorError(
            f"{file.target} cannot belong to {file.uid}:{file.gid}: without root, files are 0:0's"
        )


def _file_system(path: Path) -> str:
    """The kind of file system that ``path`` is on."""
    best, kind = "", ""
    wanted = path.resolve()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        if len(mount) >= len(best) and wanted.is_relative_to(mount):  # the last one is on top
            best, kind = mount, after.split()[0]
    return kind


def _short(error: OSError | subprocess.SubprocessError) -> str:
    """The error without file contents and command lines; mount's own words where it has any."""
    if isinstance(error, subprocess.CalledProcessError):
        return str(error.stderr.decode(errors="replace").strip())
    return str(error)
