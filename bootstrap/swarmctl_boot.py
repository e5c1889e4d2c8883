"""Starts swarmctl from its one-file archive: find the unpacked tree, put it first on the path, go.

Native code cannot be imported from a zip, so the first start unpacks what this interpreter needs
into a cache directory (``swarmctl_unpack``); every later start only checks that tree and uses it.
This module is all that a warm start runs, so it imports nothing that the interpreter has not loaded
anyway. Laws:

- A tree is used only when we own it, nobody else may write to it, it lies on a filesystem that may
  execute code, and every file still has the size it was unpacked with.
- A tree is named by the content of the archive and by the interpreter, so archives, interpreters
  and machines that share a home never meet in one.
- The running process holds a shared lock on its tree's marker; pruning removes no locked tree.

It must not know anything of swarmctl but the name of its ``main``.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from importlib.machinery import EXTENSION_SUFFIXES

from swarmctl_built import CONTENT, TARGETS  # type: ignore[import-not-found]  # by the build

ARCHIVE = os.path.abspath(sys.path[0])
MARKER = ".ok"  # written last: a line "<size> <path>" for every file of the tree
TOUCH_AFTER_S = 24 * 3600  # a marker's age says when the tree was last used, to the day
NEEDED_MB = 60
DAMAGED = "What was unpacked there may be damaged. The next start unpacks it anew, after:"

held: list[int] = []  # the marker's descriptor, open (and so locked) while we run


class Unusable(Exception):
    """A cache directory cannot serve; ``str(error)`` says why."""


def main() -> None:
    """Put the unpacked tree first on ``sys.path`` and run swarmctl; leaves by ``SystemExit``."""
    tree = find_tree(interpreter())
    if sys.path and os.path.abspath(sys.path[0]) == ARCHIVE:
        sys.path[0] = tree
    else:
        sys.path.insert(0, tree)
    try:
        from swarmctl.__main__ import main as swarmctl_main

        swarmctl_main()
    except ImportError as error:
        if not (error.path or "").startswith(tree):
            raise
        sys.exit(f"swarmctl: {error}\n{DAMAGED} rm -r {tree}")


def interpreter() -> str:
    """Return this interpreter's tag (``cpython-311-x86_64-linux-gnu``), or exit with a sentence."""
    tag = EXTENSION_SUFFIXES[0].strip(".").partition(".")[0]
    if not glibc():  # CPython 3.10 says gnu on musl, too
        tag = tag.replace("-linux-gnu", "-linux-musl")
    if tag in TARGETS:
        return tag
    sys.exit(f"swarmctl: {ARCHIVE} does not serve this interpreter ({tag}).\n{remedy(tag)}")


def glibc() -> str:
    """Return the version of this machine's glibc, "" where the C library is musl."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").rpartition(" ")[2]
    except (OSError, ValueError):
        return ""


def remedy(tag: str) -> str:
    """Say what the archive serves, and what to do with an interpreter that it does not."""
    machine = tag.partition("-")[2].partition("-")[2]
    served = [target.split("-", 2)[1:] for target in TARGETS]
    versions = [f"{found[0]}.{found[1:]}" for found in dict.fromkeys(one[0] for one in served)]
    machines = list(dict.fromkeys(one[1] for one in served))
    said = f"It serves CPython {', '.join(versions)} on {', '.join(machines)}.\n"
    if machine and machine not in machines:
        return f"{said}Build one for this machine: python3 build_zipapp.py --platform {machine}"
    names = [f"python{version}" for version in reversed(versions)]
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for name in names:
        if any(os.access(os.path.join(place, name), os.X_OK) for place in places):
            return f"{said}This host has one of those: {name} {ARCHIVE}"
    return f"{said}Install one of those, then run: {names[0]} {ARCHIVE}"


def find_tree(tag: str) -> str:
    """Return the directory of the unpacked tree, unpacking it first where that is needed."""
    name = f"{CONTENT}-{tag}"
    refused: list[str] = []
    for base in bases():
        tree = os.path.join(base, name)
        try:
            check_base(base)
            if not is_intact(tree):
                from swarmctl_unpack import unpack

                unpack(base, name)
        except (OSError, Unusable) as error:
            refused.append(f"  {base}: {error}")
            continue
        if refused and os.environ.get("SWARMCTL_CACHE"):
            print(f"swarmctl: SWARMCTL_CACHE is of no use:\n{refused[0]}", file=sys.stderr)
        return tree
    sys.exit(
        "swarmctl: found no directory to unpack its native code into:\n"
        + "\n".join(refused)
        + f"\nSet SWARMCTL_CACHE to a directory of your own with {NEEDED_MB} MB free, on a"
        " filesystem that is not mounted noexec."
    )


def bases() -> list[str]:
    """The cache directories to try, best first."""
    found = []
    if chosen := os.environ.get("SWARMCTL_CACHE"):
        found.append(os.path.abspath(chosen))
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        found.append(os.path.join(xdg, "swarmctl"))
    elif os.geteuid() != 0:
        found.append(os.path.expanduser("~/.cache/swarmctl"))
    if os.geteuid() == 0:
        found.append("/var/cache/swarmctl")
    # Named after the user, so that it is found again; check_base sees to it that it is theirs.
    temporary = os.environ.get("TMPDIR") or "/tmp"
    found.append(os.path.join(temporary, f"swarmctl-{os.geteuid()}"))
    return [base for base in found if os.path.isabs(base)]


def check_base(base: str) -> None:
    """Make ``base`` if it is not there.

    Raises:
        Unusable: somebody else could put code there, or code there may not run.
        OSError: it cannot be made.
    """
    if not os.path.isdir(base):
        os.makedirs(os.path.dirname(base), exist_ok=True)
        try:
            os.mkdir(base, 0o700)
        except FileExistsError:
            pass  # another first start was quicker
    check_owner(base)
    if os.statvfs(base).f_flag & os.ST_NOEXEC:
        raise Unusable("it lies on a filesystem mounted noexec")


def check_owner(directory: str) -> None:
    """Raise Unusable unless ``directory`` is a real directory that we alone may write to."""
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise Unusable("it is not a directory")
    if found.st_uid != os.geteuid():
        raise Unusable(f"it belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & 0o022:
        raise Unusable(f"others may write to it; chmod go-w {directory}")


def is_intact(tree: str) -> bool:
    """Is ``tree`` complete and as it was unpacked? Marks it as used, and keeps it locked if so.

    Raises:
        Unusable: the tree is there but somebody else could have written to it.
    """
    try:
        marker = os.open(os.path.join(tree, MARKER), os.O_RDONLY)
    except FileNotFoundError:
        return False
    check_owner(tree)
    try:
        fcntl.flock(marker, fcntl.LOCK_SH)
        if os.fstat(marker).st_mtime < time.time() - TOUCH_AFTER_S:
            os.utime(marker)
    except OSError:
        pass  # a read-only cache, or a filesystem without locks: nobody prunes there either
    with open(marker, encoding="utf-8", closefd=False) as lines:
        rows = [line.rstrip("\n").split(" ", 1) for line in lines]
    try:
        intact = bool(rows) and all(
            os.stat(f"{tree}/{path}").st_size == int(size) for size, path in rows
        )
    except (OSError, ValueError):
        intact = False
    if not intact:
        os.close(marker)
        return False
    held.append(marker)
    return True
