"""Starting a responder: this very program, in a process and session of its own.

It needs libraries, so unlike the process executor's keeper it cannot run from an archive of its own
source; it gets the daemon's own path to them. Where that is the tree that the one-file archive
unpacked, it also gets the tree's lock, so that nobody prunes what it runs from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from swarmctl.core.errors import SwarmError
from swarmctl.plugins.detaching import start_detached

from .control import LOG

if TYPE_CHECKING:
    from .responder import Settings

PACKAGE = "swarmctl.plugins.overlay.dns"
LIBRARIES = ("dnspython", "msgspec", "trio")
# The first process ends at once, so that the daemon is not the responder's parent.
PROGRAM = (
    "import json, os, sys; os.fork() and os._exit(0); os.setsid(); "
    "sys.path[:] = json.loads(sys.argv.pop(1)); "
    f"from {PACKAGE}.responder import main; main()"
)


class ResponderUnavailable(SwarmError):
    """No responder could be started; the text says why."""


@cache
def build() -> str:
    """Return what names this program: a responder of another build is replaced."""
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(importlib.resources.files(PACKAGE).iterdir(), key=lambda one: one.name):
        if file.name.endswith(".py"):
            digest.update(file.read_bytes())
    for library in LIBRARIES:
        digest.update(importlib.metadata.version(library).encode())
    return digest.hexdigest()[:16]


async def spawn_responder(root: Path, settings: Settings | None = None) -> None:
    """Start a responder and return when it answers, or when one of this build does already.

    Cancelling leaves one that was started: it serves, and is found again.

    Raises:
        ResponderUnavailable: it could not be started.
    """
    options = "{}" if settings is None else msgspec.json.encode(settings).decode()
    command = [sys.executable, "-I", "-c", PROGRAM, _path(), str(root), build(), options]
    try:
        log = await trio.to_thread.run_sync(_open_log, root)
        try:
            # The lock of the tree that the one-file archive unpacked for us, if we run from one.
            tree = getattr(sys.modules.get("swarmctl_boot"), "held", ())
            answer = await start_detached(command, stderr=log, pass_fds=tree)
        finally:
            os.close(log)
    except OSError as error:
        raise ResponderUnavailable(f"the DNS responder cannot start: {error}") from error
    if answer not in ("ready", "held"):
        reason = answer.removeprefix("error: ") or f"it said nothing; see {root}/responder.log"
        raise ResponderUnavailable(f"the DNS responder cannot start: {reason}")


def _path() -> str:
    """Return where our own modules and libraries are found, for a process that starts elsewhere."""
    return json.dumps([str(Path(entry).absolute()) for entry in sys.path if entry])


def _open_log(root: Path) -> int:
    return os.open(root / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
