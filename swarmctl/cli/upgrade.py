"""``swarmctl upgrade FILE.pyz``: another release in place of this one; tasks do not notice.

The new file is run before anything is changed, replaces the old one in one step, and the daemon is
restarted with the arguments and settings that it has. A daemon that does not come back under the
new release gets the old one back. Laws:

- What is replaced is the file that the daemon runs, wherever this command was started from.
- The old file stays beside the new one as ``<name>.previous``.
- Only a daemon that swarmctl or systemd started is restarted; whoever else runs one does it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from swarmctl.__main__ import self_command
from swarmctl.core.model.change import FORMAT_LEVEL

from . import launch
from .command import ONE, Failure, command
from .flags import BOOL, Flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from .command import Invocation

CHECK_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.05


class Release(NamedTuple):
    """What an archive says of itself."""

    version: str
    format_level: int


class Running(NamedTuple):
    """The daemon behind the socket."""

    pid: int
    arguments: list[str]
    environment: dict[str, str]
    directory: Path
    by_systemd: bool

    @property
    def archive(self) -> Path | None:
        """The one-file archive that it runs; one that was named relatively is where it runs."""
        files = (self.directory / one for one in self.arguments[1:2])
        return next((one for one in files if zipfile.is_zipfile(one)), None)


@command(
    "upgrade [OPTIONS] FILE",
    "Replace swarmctl by another release and restart the daemon",
    Flag("force", BOOL, "Take an older release too, though it may not read what is stored"),
    Flag("no-restart", BOOL, "Replace the file only"),
    arity=ONE,
)
def upgrade(call: Invocation) -> None:
    """Check, replace, restart; what runs as tasks keeps running."""
    new = Path(call.arguments[0]).absolute()
    daemon = _daemon(call.socket)
    target = _target(daemon)
    if new == target or (new.exists() and new.samefile(target)):
        raise Failure(f"{new} is what is installed already")
    python = daemon.arguments[0] if daemon is not None else sys.executable
    release = inspect(new, python)
    if not call.given.is_set("force"):
        level = _level_of(target, python)
        if release.format_level < level:
            raise Failure(
                f"swarmctl {release.version} knows format level {release.format_level}, and the "
                f"installed one {level}: it may not read what is stored. --force takes it all the "
                "same"
            )
    previous = replace_file(target, new)
    click.echo(f"{target} is swarmctl {release.version} now; the one before is {previous}")
    if daemon is None or call.given.is_set("no-restart"):
        return
    still_there = _restart(daemon)
    if still_there is None:
        click.echo(
            f"WARNING: the daemon (pid {daemon.pid}) was started by neither systemd nor swarmctl; "
            "restart it the way it was started",
            err=True,
        )
        return
    if _answers(call, release.version, still_there):
        click.echo(f"The daemon runs swarmctl {release.version}")
        return
    _go_back(call, daemon, target, previous, release)


def inspect(archive: Path, python: str) -> Release:
    """Return what an archive is, having run it.

    Raises:
        Failure: it is no swarmctl, or does not run here.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            if "swarmctl_boot.py" not in opened.namelist():
                raise Failure(f"{archive} is no swarmctl archive")
            broken = opened.testzip()
    except OSError as error:
        raise Failure(f"{archive} cannot be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise Failure(f"{archive} is no swarmctl archive: {error}") from error
    if broken is not None:
        raise Failure(f"{archive} is damaged: {broken} does not have its checksum")
    command = [python, str(archive), "--socket=/dev/null/none", "version", "--format=json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False
        )
        client = json.loads(done.stdout)["Client"]
        return Release(client["Version"], client["FormatLevel"])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{archive} does not run: {error}") from error
    except (ValueError, KeyError, TypeError):
        raise Failure(f"{archive} does not run: {done.stderr.strip()[-1000:]}") from None


def replace_file(target: Path, new: Path) -> Path:
    """Put another file in a file's place, whole or not at all; return where the old one is.

    Raises:
        Failure: it cannot be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.new")
    previous = target.with_name(f"{target.name}.previous")
    kept = target.with_name(f".{target.name}.{os.getpid()}.previous")
    try:
        shutil.copyfile(new, partial)
        shutil.copymode(target, partial)
        status = target.stat()
        if os.geteuid() == 0:
            os.chown(partial, status.st_uid, status.st_gid)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.link(target, kept)
        kept.replace(previous)
        partial.replace(target)
    except OSError as error:
        for path in (partial, kept):
            path.unlink(missing_ok=True)
        raise Failure(f"{target} cannot be replaced: {error}") from error
    return previous


def _target(daemon: Running | None) -> Path:
    """Return the file to replace: the daemon's, else what this command runs from.

    Raises:
        Failure: there is none.
    """
    own = Path(self_command()[1])
    found = daemon.archive if daemon is not None else own if zipfile.is_zipfile(own) else None
    if found is None:
        raise Failure(
            "swarmctl runs from an installed package here, not from one file: upgrade the package"
        )
    return found.resolve()


def _level_of(target: Path, python: str) -> int:
    """Return the format level of what is installed, which need not be what this command is of."""
    if target == Path(self_command()[1]).resolve():
        return FORMAT_LEVEL
    try:
        return inspect(target, python).format_level
    except Failure:
        return FORMAT_LEVEL  # it is broken, and shall be mended by this


def _daemon(path: str) -> Running | None:
    """Return the daemon behind a socket, None when nobody listens there.

    Raises:
        Failure: it is not ours to look at.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return None
        data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = struct.unpack("3i", data)[0]
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="surrogateescape")
        directory = Path(f"/proc/{pid}/cwd").readlink()
    except OSError as error:
        raise Failure(f"the daemon (pid {pid}) is somebody else's: {error}") from error
    pairs = (one.partition("=") for one in variables.split("\0") if "=" in one)
    environment = {name: value for name, _, value in pairs}
    return Running(pid, arguments, environment, directory, _is_unit(pid))


# --- restarting ----------------------------------------------------------------------------------


def _restart(daemon: Running) -> Callable[[], bool] | None:
    """Restart the daemon by whoever started it; None when that is nobody that we know.

    Returns:
        What tells whether the new one is still there.
    """
    if daemon.by_systemd:
        is_up = _restart_unit()
        return lambda: is_up
    if "--detached" not in daemon.arguments:
        return None
    if not _ends(daemon.pid):
        raise Failure(f"the daemon (pid {daemon.pid}) does not end; it runs the old release")
    return _start(daemon)


def _restart_unit() -> bool:
    """Have systemd restart the daemon; return whether it got ready."""
    try:
        launch.systemctl("restart", launch.UNIT.name)
    except Failure:
        return False  # what that means is said by who asked
    return True


def _start(daemon: Running) -> Callable[[], bool]:
    """Start a detached daemon as it was started; return what tells whether it is still there."""
    process = subprocess.Popen(
        daemon.arguments,
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    return lambda: process.poll() is None


def _is_unit(pid: int) -> bool:
    if not launch.SYSTEMD_RUNS.is_dir():
        return False
    said = launch.systemctl("show", "--property=MainPID", "--value", launch.UNIT.name)
    return said.strip() == str(pid)


def _ends(pid: int) -> bool:
    """Tell a daemon to end; return whether it does."""
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_TIMEOUT_S
    while _is_there(pid):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _answers(call: Invocation, version: str, still_there: Callable[[], bool]) -> bool:
    """Return whether the daemon comes back as the release that it should be."""
    there = launch.wait_for_daemon(call.api, still_there)
    return there and call.api.get("/version")["Version"] == version


def _go_back(
    call: Invocation, daemon: Running, target: Path, previous: Path, release: Release
) -> None:
    """Put the old file back and start it.

    Raises:
        Failure: always; it says what came of it.
    """
    previous.replace(target)
    if daemon.by_systemd:
        _restart_unit()
    else:
        now = _daemon(call.socket)
        if now is None or _ends(now.pid):
            _start(daemon)
    back = "runs again" if launch.wait_for_daemon(call.api) else "does not start either"
    raise Failure(
        f"the daemon did not start under swarmctl {release.version} (its log says why); the "
        f"release before is back in place and {back}"
    )
