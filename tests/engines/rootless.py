"""A Podman of an ordinary user, who exists for it alone, in namespaces of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .private import PodmanEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

USER, UID = "swarmctl-rootless", 47110
FIRST_SUB_ID, SUB_IDS = 471_100_000, 65_536

# The files that make a user are laid over the machine's, where nobody else sees it; so is the
# device of slirp4netns, which not every machine opens to all.
ENTER = """
set -e
mount --make-rprivate /
[ -e "$1/tun" ] || mknod -m 666 "$1/tun" c 10 200
mount --bind "$1/tun" /dev/net/tun
for name in passwd group subuid subgid; do mount --bind "$1/etc/$name" "/etc/$name"; done
shift
exec setpriv --reuid={uid} --regid={uid} --clear-groups -- "$@"
"""


class RootlessPodman(PodmanEngine):
    """See :class:`PodmanEngine`; the socket is open to root as well."""

    def __init__(self) -> None:
        super().__init__()
        etc = self.home / "etc"
        etc.mkdir()
        home = self.home / "user"
        line = f"{USER}:x:{UID}:{UID}::{home}:/bin/sh\n"
        (etc / "passwd").write_text(Path("/etc/passwd").read_text() + line)
        (etc / "group").write_text(Path("/etc/group").read_text() + f"{USER}:x:{UID}:\n")
        for name in ("subuid", "subgid"):
            (etc / name).write_text(f"{USER}:{FIRST_SUB_ID}:{SUB_IDS}\n")
        self._state = home / "state"
        self._runtime = home / "runtime"
        for path in (home, self._state, self._runtime):
            path.mkdir(mode=0o700)
            os.chown(path, UID, UID)
        # In memory, as a user's runtime directory is: secrets are kept there.
        tmpfs = ["mount", "-t", "tmpfs", "-o", f"mode=0700,uid={UID},gid={UID}", "runtime"]
        subprocess.run([*tmpfs, self._runtime], check=True)
        self.home.chmod(0o711)
        self.socket = self._runtime / "podman.sock"

    @classmethod
    def missing(cls) -> str | None:
        """Why no such engine can be started here; None when it can."""
        wanted = {"newuidmap": "uidmap", "slirp4netns": "slirp4netns", "setpriv": "util-linux"}
        absent = [name for name in wanted if shutil.which(name) is None]
        if absent:
            return f"not on PATH: {', '.join(absent)}"
        return super().missing()

    @property
    def podman_home(self) -> Path:
        return self._state

    def environment(self) -> dict[str, str]:
        made = super().environment()
        for path in self._state.iterdir():
            os.chown(path, UID, UID)
        return {**made, "HOME": str(self.home / "user"), "XDG_RUNTIME_DIR": str(self._runtime)}

    def run_inside(
        self, argv: Sequence[str], *, output: int, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process of the user's."""
        return super().run_inside([*self._become_user(), *argv], output=output, env=env)

    def stop(self) -> None:
        """See :class:`PrivateEngine`.

        What Podman leaves behind ends as well: the process that holds the user's namespaces, and
        the service proper, its child in them, which it often does not tell of its own end.
        """
        begun = self._children()
        super().stop()
        with suppress(FileNotFoundError, ValueError):
            begun.append(int((self.podman_home / "tmp" / "pause.pid").read_text()))
        for pid in begun:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def command_of_user(self) -> list[str]:
        """Return the words before a command that the user runs in the engine's network."""
        return [*self.inside(), *self._become_user()]

    def directory_of_user(self, name: str) -> Path:
        """Make a directory of the user's."""
        made = self._state.parent / name
        made.mkdir(mode=0o700)
        os.chown(made, UID, UID)
        return made

    def _children(self) -> list[int]:
        threads = Path(f"/proc/{self._process.pid}/task") if self._process is not None else Path()
        listed = " ".join(one.read_text() for one in threads.glob("*/children"))
        return [int(pid) for pid in listed.split()]

    def _become_user(self) -> list[str]:
        script = ENTER.format(uid=UID)
        return ["unshare", "--mount", "sh", "-c", script, "sh", str(self.home)]
