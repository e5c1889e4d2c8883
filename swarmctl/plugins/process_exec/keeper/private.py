"""Secrets and configs as files in memory, one directory for each task.

For root that memory is a tmpfs of our own, mounted once below the state directory (and kept out of
swap where the kernel can); for anybody else a directory of ours in /dev/shm. A task's directory
belongs to the task's user alone: the usual mode 0444 of a secret is meant for the inside of a
container, and here everybody could read it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat

from . import mounts
from .trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .frames import Message

TMPFS_BYTES = 256 * 1024 * 1024  # an upper bound; memory is taken as files are written
KINDS = ("secrets", "configs")
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


class PrivateFiles:
    """The tmpfs, and what tasks have in it.

    Args:
        root: the executor's directory below the state directory.
        key: a name for it that is unique on this host.
    """

    def __init__(self, root: str, key: str) -> None:
        self._mounts = os.geteuid() == 0
        self.base = f"{root}/private" if self._mounts else f"/dev/shm/swarmctl-{key}"  # noqa: S108

    def folder(self, task_id: str, kind: str) -> str:
        """Return where a task finds its files of one kind."""
        return f"{self.base}/{task_id}/{kind}"

    def write(self, task_id: str, kind: str, files: list[Message], owner: int) -> None:
        """Write a task's files of one kind.

        Args:
            files: each with ``path`` below the folder, ``data`` in base64, ``uid``, ``gid`` (None
                leaves the owner), ``mode``.
            owner: uid that may enter the task's directory.

        Raises:
            OSError: the files cannot be made.
        """
        self._open_base()
        folder = self.folder(task_id, kind)
        for path in (os.path.dirname(folder), folder):
            _make_folder(path, owner)
        for file in files:
            *parents, _ = file["path"].split("/")
            for depth in range(len(parents)):
                _make_folder("/".join([folder, *parents[: depth + 1]]), owner)
            _write_file(f"{folder}/{file['path']}", file)

    def drop(self, task_id: str) -> None:
        """Forget a task's files, if it has any."""
        remove_tree(f"{self.base}/{task_id}")

    def keep_only(self, task_ids: set[str]) -> None:
        """Drop the files of every task that is not named."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.base):
                if name not in task_ids:
                    self.drop(name)

    def close(self) -> None:
        """Give the memory back if no task has files any more."""
        with contextlib.suppress(OSError):
            if os.listdir(self.base):
                return
            if self._mounts:
                mounts.let_go(self.base)
            os.rmdir(self.base)

    def _open_base(self) -> None:
        if self._mounts:
            os.makedirs(self.base, mode=0o711, exist_ok=True)
            if not os.path.ismount(self.base):
                _mount_tmpfs(self.base)
            return
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.base, 0o700)
        status = os.lstat(self.base)
        # In a directory that all may write to, somebody else could have been first.
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(1, "belongs to somebody else", self.base)
        if status.st_mode & 0o077:
            raise PermissionError(1, "is open to others", self.base)


def _make_folder(path: str, owner: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        if owner != os.geteuid():
            os.chown(path, owner, -1)


def _write_file(path: str, file: Message) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a start that was cut short
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        view = memoryview(base64.b64decode(file["data"]))
        while view:
            view = view[os.write(descriptor, view) :]
        if file["uid"] is not None:
            os.fchown(descriptor, file["uid"], file["gid"])
        os.fchmod(descriptor, file["mode"] & 0o777)
    finally:
        os.close(descriptor)


def _mount_tmpfs(path: str) -> None:
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    options = f"mode=0711,size={TMPFS_BYTES}"
    target = os.fsencode(path)
    try:
        mounts.call("mount", b"swarmctl", target, b"tmpfs", flags, f"{options},noswap".encode())
    except OSError:  # kernels before 6.4 do not know noswap
        mounts.call("mount", b"swarmctl", target, b"tmpfs", flags, options.encode())
