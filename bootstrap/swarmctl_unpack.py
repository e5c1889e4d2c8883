"""The first start of an archive: unpack it, compile it, name it, and tidy what nobody uses.

Laws:

- A tree appears whole or not at all: it is made under a temporary name and renamed. Only a damaged
  tree is repaired in place, file by file, because a running daemon may import from it any time.
- First starts at the same moment wait for one another; when the lock does not work (some network
  filesystems) they do the work twice and the rename decides.
- What swarmctl may import is compiled here: where PYTHONDONTWRITEBYTECODE is set or the cache is
  read-only, the interpreter would do it again at every start.

It must not know anything of swarmctl, and uses the standard library alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from typing import TYPE_CHECKING, BinaryIO

from swarmctl_boot import ARCHIVE, MARKER, Unusable, glibc, is_intact

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_GLIBC = (2, 28)  # what the native wheels in the archive were built against
OLDEST_MUSL = (1, 2, 4)  # the first that knows the packed relocations in them; others crash
MUSL_LOADER = f"/lib/ld-musl-{os.uname().machine}.so.1"
UNUSED_AFTER_S = 30 * 24 * 3600
ABANDONED_AFTER_S = 24 * 3600
BOOTSTRAP = {"__main__.py", "swarmctl_boot.py", "swarmctl_built.py", "swarmctl_unpack.py"}
# A third of all the code, and nothing that we show is highlighted: rich only brings it along.
NOT_COMPILED = "pygments/"
_TREE = re.compile(r"[0-9a-f]{20}-cpython-[\w-]+")
_TAGGED = re.compile(r"\.(cpython-\d+)-[\w-]+\.so$")


def unpack(base: str, name: str) -> None:
    """Make the tree ``name`` in ``base``, or repair it.

    Raises:
        Unusable: the disk lies.
        OSError: no space, no permission; nothing is left behind.
    """
    check_libc()
    tree = os.path.join(base, name)
    with only_one(os.path.join(base, ".lock")):
        if is_intact(tree):
            return
        if os.path.isdir(tree):
            fill(tree, name)
        else:
            make(tree, base, name)
    if not is_intact(tree):
        raise Unusable("what was unpacked there did not stay as written")
    prune(base, keep=name)


def make(tree: str, base: str, name: str) -> None:
    """Unpack under a temporary name, then let the tree appear whole."""
    fresh = tempfile.mkdtemp(prefix=".new-", dir=base)
    try:
        fill(fresh, name)
        os.rename(fresh, tree)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not os.path.isdir(tree):  # else somebody else's rename came first
            raise


def check_libc() -> None:
    """Exit with a sentence where the C library is older than what the archive was built for."""
    found, name = glibc(), "glibc"
    oldest: tuple[int, ...] = OLDEST_GLIBC
    if not found:
        found, name, oldest = musl(), "musl", OLDEST_MUSL
    if found and tuple(int(part) for part in found.split(".")) < oldest:
        sys.exit(
            f"swarmctl: this machine has {name} {found}, and the native code in {ARCHIVE} needs"
            f" {'.'.join(map(str, oldest))} or newer: run it on a newer system"
        )


def musl() -> str:
    """Return the version of this machine's musl, as its loader tells it; "" if it does not."""
    if not os.path.exists(MUSL_LOADER):
        return ""
    import subprocess

    said = subprocess.run([MUSL_LOADER], capture_output=True, check=False).stderr
    version = re.search(rb"^Version ([\d.]+)", said, re.MULTILINE)
    return version[1].decode() if version else ""


@contextlib.contextmanager
def only_one(path: str) -> Iterator[None]:
    """Hold an exclusive lock on ``path``, as far as the filesystem knows locks."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def fill(tree: str, name: str) -> None:
    """Write every file of the tree ``name`` into the directory ``tree``, the marker last."""
    written: list[tuple[int, str]] = []
    with zipfile.ZipFile(ARCHIVE) as archive:
        for entry in archive.infolist():
            path = place(entry.filename, name.partition("-")[2])
            if path is None:
                continue
            data = archive.read(entry)
            write_whole(os.path.join(tree, path), data)
            written.append((len(data), path))
            if path.endswith(".py") and (compiled := compile_one(path, data)):
                write_whole(os.path.join(tree, cache_from_source(path)), compiled)
                written.append((len(compiled), cache_from_source(path)))
    rows = "".join(f"{size} {path}\n" for size, path in written)
    write_whole(os.path.join(tree, MARKER), rows.encode())


def place(path: str, tag: str) -> str | None:
    """Where an archive's member goes in the tree of interpreter ``tag``; None when it does not.

    ``native/x86_64-linux-gnu/cffi/_x.cpython-311-x86_64-linux-gnu.so`` goes to ``cffi/`` for the
    interpreter whose tag is in its name; ``x.abi3.so`` goes to every one of that machine.
    """
    if not path.startswith("native/"):
        return None if path in BOOTSTRAP else path
    _, machine, inner = path.split("/", 2)
    if not tag.endswith(f"-{machine}"):
        return None
    tagged = _TAGGED.search(inner)
    return inner if tagged is None or tag.startswith(f"{tagged[1]}-") else None


def write_whole(path: str, data: bytes) -> None:
    """Write a file that appears complete, or not at all."""
    partial = f"{path}.{os.getpid()}.new"
    try:
        with open_in_any_case(partial) as file:
            file.write(data)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def open_in_any_case(path: str) -> BinaryIO:
    """Open ``path`` for writing; make its directory when that is missing."""
    try:
        return open(path, "wb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "wb")


def compile_one(path: str, source: bytes) -> bytes | None:
    """Return what goes into the ``.pyc`` of ``path``, or None where there is none.

    It is never compared with its source again (flag 1, PEP 552): a changed source has another tree.
    """
    if path.startswith(NOT_COMPILED):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's escape sequences
            code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None  # some packages carry files for other Pythons
    header = MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash(source)
    return header + marshal.dumps(code)


def prune(base: str, keep: str) -> None:
    """Remove the trees in ``base`` that nothing used for 30 days and nothing runs from."""
    now = time.time()
    for entry in os.scandir(base):
        path = entry.path
        try:
            if entry.name.startswith((".new-", ".old-")):
                if entry.stat().st_mtime < now - ABANDONED_AFTER_S:
                    shutil.rmtree(path, ignore_errors=True)
            elif entry.name != keep and _TREE.fullmatch(entry.name):
                with open(os.path.join(path, MARKER), "rb") as marker:
                    if os.fstat(marker.fileno()).st_mtime > now - UNUSED_AFTER_S:
                        continue
                    fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    old = tempfile.mkdtemp(prefix=".old-", dir=base)
                    os.rename(path, old)
                    shutil.rmtree(old, ignore_errors=True)
        except OSError:
            continue  # in use, or being removed by another first start
