"""Mounts: the tmpfs of secrets, and whatever tasks have mounted in their directories.

A task of root's sees the host's own file system and may mount what it likes there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def let_go(path: str) -> bool:
    """Unmount what is mounted at or below ``path``; True when nothing is any more.

    What is in a file system that was mounted there stays in it. Where ``path`` itself is a symbolic
    link, nothing is below it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    top = os.fsencode(os.path.join(os.path.realpath(folder), name))
    for point in reversed(_points(top)):  # the last one is on top
        with contextlib.suppress(OSError):
            call("umount2", point, _MNT_DETACH | _UMOUNT_NOFOLLOW)
    return not _points(top)


def call(name: str, *arguments: object) -> None:
    """Make a call of the C library's.

    Raises:
        OSError: it failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    converted = [
        ctypes.c_ulong(argument) if isinstance(argument, int) else argument
        for argument in arguments
    ]
    if getattr(libc, name)(*converted) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _points(top: bytes) -> list[bytes]:
    with open("/proc/self/mountinfo", "rb") as file:
        fields = (line.split(b" ")[4] for line in file)
        points = [_ESCAPED.sub(lambda octal: bytes([int(octal[1], 8)]), one) for one in fields]
    return [point for point in points if point == top or point.startswith(top + b"/")]
