"""Removing directory trees whose content belongs to a task, without being led elsewhere.

A task's user may have put symbolic links, mounts or unwritable directories there. Nothing is
followed: every step goes through the descriptor of the directory it is about, and mounts are taken
off first, since a directory that is mounted elsewhere looks like any other.
"""

from __future__ import annotations

import contextlib
import os

from . import mounts


def remove_tree(path: str) -> bool:
    """Remove ``path`` and all below it; True when nothing is left of it.

    Where something is mounted that cannot be taken off, nothing is removed.
    """
    if not os.path.lexists(path):
        return True
    if not mounts.let_go(path):
        return False
    with contextlib.suppress(OSError):
        for _, folders, files, descriptor in os.fwalk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, 0o700)  # a cache made read-only can be emptied all the same
            for name in files:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=descriptor)
            for name in folders:
                with contextlib.suppress(OSError):
                    _remove_entry(name, descriptor)
        os.rmdir(path)
    return not os.path.lexists(path)


def is_empty(path: str) -> bool:
    """Is ``path`` a directory with nothing in it, or not there at all?"""
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _remove_entry(name: str, descriptor: int) -> None:
    try:
        os.rmdir(name, dir_fd=descriptor)
    except NotADirectoryError:  # a symbolic link to a directory is listed among directories
        os.unlink(name, dir_fd=descriptor)
