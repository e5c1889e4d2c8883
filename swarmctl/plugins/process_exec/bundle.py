"""The keeper's program as one file, and starting it.

The keeper runs from an archive of its own package, written into the state directory under a name
that holds its hash: so it runs whether swarmctl itself runs from a zipapp, a checkout or an
installed package, and goes on running when swarmctl is replaced by another version.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import os
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import trio

from swarmctl.plugins import EngineUnavailable
from swarmctl.plugins.detaching import start_detached

KEEPER_PACKAGE = "swarmctl.plugins.process_exec.keeper"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same source gives the same bytes
_MAIN = b"from keeper.main import main\n\nmain()\n"


class Bundle(NamedTuple):
    """The keeper's archive and the hash that names it."""

    build: str
    content: bytes


@cache
def bundle() -> Bundle:
    """Return this version's keeper."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # unpacking needs no zlib
        archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
        folder = importlib.resources.files(KEEPER_PACKAGE)
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".py"):
                name = zipfile.ZipInfo(f"keeper/{file.name}", _EPOCH)
                archive.writestr(name, file.read_bytes())
    content = buffer.getvalue()
    return Bundle(hashlib.sha256(content).hexdigest()[:16], content)


def directory_key(root: Path) -> str:
    """Return a short name for ``root``, unique among all directories on this machine.

    By device and inode too: hosts that are mount namespaces of one machine share its paths.
    """
    status = root.stat()
    text = f"{os.path.realpath(root)}:{status.st_dev}:{status.st_ino}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


async def spawn_keeper(root: Path, *, idle_s: float | None = None) -> None:
    """Start a keeper for ``root`` and return when it listens, or when another one does.

    Cancelling leaves a keeper that was started; it ends by itself when nobody uses it.

    Raises:
        EngineUnavailable: it could not be started; the text says why.
    """
    if not sys.executable:
        raise EngineUnavailable("the keeper cannot start: this Python does not know its own path")
    try:
        program = await trio.to_thread.run_sync(_write_program, root)
        command = [sys.executable, "-I", "-S", str(program), str(root), directory_key(root)]
        command += [bundle().build, *([] if idle_s is None else [str(idle_s)])]
        answer = await start_detached(command)
        if answer == "ready":
            await trio.to_thread.run_sync(_drop_other_programs, root, program)
    except OSError as error:
        raise EngineUnavailable(f"the keeper cannot start: {error}") from error
    if answer not in ("ready", "held"):
        reason = answer.removeprefix("error: ") or f"it said nothing; see {root}/keeper.log"
        raise EngineUnavailable(f"the keeper cannot start: {reason}")


def _write_program(root: Path) -> Path:
    """Write the archive, if it is not there."""
    build, content = bundle()
    path = root / f"keeper-{build}.pyz"
    try:
        if path.read_bytes() == content:
            return path
    except FileNotFoundError:
        pass
    # Whole or not at all, also when several daemons or a crash are at it at once.
    descriptor, fresh = tempfile.mkstemp(prefix="keeper-", suffix=".new", dir=root)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(fresh).replace(path)
    return path


def _drop_other_programs(root: Path, program: Path) -> None:
    """Remove what earlier versions left; ours has the lock, so none of them runs."""
    for path in root.glob("keeper-*.pyz"):
        if path != program:
            path.unlink(missing_ok=True)
