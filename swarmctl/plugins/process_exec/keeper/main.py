"""Becoming the keeper: detach, take the lock, tell the starter, serve.

    python3 -I -S keeper-<hash>.pyz <directory> <key> <build> [<idle seconds>]

One line on stdout says how it went: ``ready``, ``held`` (another keeper has the lock) or
``error: ...``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import sys

from .clients import Listener
from .server import IDLE_S, Keeper

LOCK, LOG = "keeper.lock", "keeper.log"
MAX_LOG_BYTES = 1024 * 1024
OOM_SCORE_ADJ = -900  # killing the keeper frees nothing and costs everybody's exit codes
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Run as the keeper of the directory in ``sys.argv``."""
    root, key, build = sys.argv[1:4]
    idle_s = float(sys.argv[4]) if len(sys.argv) > 4 else IDLE_S
    if os.fork():
        os._exit(0)  # so that the daemon is not our parent, and need not wait for us
    os.setsid()
    os.umask(0o077)
    os.chdir(root)
    _open_log()
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _tell("held")
        return
    try:
        listener = _become_keeper(root)
        keeper = Keeper(root, key, build, _raise_file_limit(), idle_s)
    except OSError as error:
        _tell(f"error: {error}")
        raise
    _tell("ready")
    try:
        keeper.run(listener)
    finally:
        listener.close()


def _become_keeper(root: str) -> Listener:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(OOM_SCORE_ADJ))
    return Listener(root)


def _raise_file_limit() -> tuple[int, int]:
    """Allow ourselves as many files as we may have; return what tasks get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


def _open_log() -> None:
    """Let stdin be nothing and stderr the log, kept small."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > MAX_LOG_BYTES:
        os.ftruncate(log, 0)
    os.dup2(log, 2)
    os.close(log)


def _tell(line: str) -> None:
    """Say the one line to whoever started us, and let go of the pipe."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())
    os.dup2(2, 1)
