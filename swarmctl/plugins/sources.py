"""Where plugins come from, and how one is imported.

- built-ins, and distributions of the project itself: always;
- installed distributions with an entry point in the group ``swarmctl`` (those baked into the
  one-file archive too): when the configuration names the entry point;
- single files and wheels in the plugin directory: all of them.

The daemon runs as root, so nothing is imported that another user of the host could have put there:
the directory, what lies in it and what leads to it belong to root or to us, and nobody else may
write. A wheel is used where it lies; one without an entry point of ours is a library for others.
"""

from __future__ import annotations

import configparser
import importlib
import importlib.metadata
import importlib.util
import os
import re
import stat
import sys
import traceback
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..core.errors import SwarmError

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "swarmctl"
_NATIVE = re.compile(r"\.(so|pyd|dylib)$")
# What reading a file of any bytes as an archive raises; RuntimeError for one that is encrypted.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    UnicodeDecodeError,
    zipfile.BadZipFile,
    zlib.error,
)


class PluginError(SwarmError):
    """A plugin cannot be used; the text names it and the cause."""


class Candidate(NamedTuple):
    """An entry point of our group."""

    name: str
    module: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a plugin's code is.

    Attributes:
        name: what the configuration calls it.
        kind: ``built-in``, ``project``, ``installed``, ``file`` or ``wheel``.
        module: what to import; "" for a file.
        path: of the file or wheel, else "".
    """

    name: str
    kind: str
    module: str = ""
    path: str = ""

    @property
    def is_ours(self) -> bool:
        """True for what is made and tested with swarmctl."""
        return self.kind in ("built-in", "project")

    @property
    def place(self) -> str:
        """Where the code is, in a word: a module or a path."""
        return self.path or self.module


def installed() -> list[Candidate]:
    """Return every entry point of our group in this environment, by name."""
    found = importlib.metadata.entry_points(group=GROUP)
    return sorted({Candidate(point.name, point.value) for point in found})


def in_directory(directory: Path) -> Iterator[Source | PluginError]:
    """Yield the plugins of a plugin directory, and why some that lie there are none.

    Wheels are put at the end of ``sys.path``, so that they can shadow nothing.
    """
    if not directory.is_dir():
        return
    try:
        require_ours_alone(directory)
        for parent in directory.resolve().parents:
            _require_no_stranger(parent)
    except PluginError as error:
        yield error
        return
    for path in sorted(directory.iterdir()):
        try:
            if path.suffix == ".py":
                require_ours_alone(path)
                yield Source(name=path.stem, kind="file", path=str(path))
            elif path.suffix == ".whl":
                require_ours_alone(path)
                yield from in_wheel(path)
        except PluginError as error:
            yield error


def at(path: Path) -> list[Source]:
    """Return the plugins of one file or wheel, wherever it lies.

    Raises:
        PluginError: it holds none.
    """
    if path.suffix == ".whl":
        found = in_wheel(path)
        if not found:
            raise PluginError(f"{path} has no entry point in the group {GROUP!r}")
        return found
    if path.suffix != ".py" or not path.is_file():
        raise PluginError(f"{path} is no Python file and no wheel")
    return [Source(name=path.stem, kind="file", path=str(path))]


def in_wheel(path: Path) -> list[Source]:
    """Return the plugins of a wheel; none for one that only others need.

    Raises:
        PluginError: it cannot be used where it lies.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            table = next((n for n in names if n.endswith(".dist-info/entry_points.txt")), None)
            text = archive.read(table).decode() if table is not None else ""
    except _UNREADABLE as error:
        raise PluginError(f"{path} is no wheel: {error}") from error
    native = next((name for name in names if _NATIVE.search(name)), None)
    if native is not None:
        raise PluginError(
            f"{path} holds native code ({native}), which cannot be used from a wheel: install it, "
            "or bake it into swarmctl.pyz with build_zipapp.py --with"
        )
    points = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    points.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    try:
        points.read_string(text, table or "")
    except configparser.Error as error:
        words = " ".join(str(error).split())
        raise PluginError(f"the entry points of {path} cannot be read: {words}") from error
    _put_on_path(path)
    rows = points[GROUP].items() if points.has_section(GROUP) else ()
    return [
        Source(name=name, kind="wheel", module=module.strip(), path=str(path))
        for name, module in rows
    ]


def bring_in(source: Source) -> object:
    """Import a plugin's module.

    Raises:
        PluginError: it cannot be imported; the text says why.
    """
    try:
        if source.path:
            _bring_wheels(Path(source.path).parent)
        if source.kind == "file":
            return _import_file(Path(source.path))
        return importlib.import_module(source.module)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f'plugin "{source.name}" cannot be imported from {source.place}: {cause(error)}'
            + _remedy(source, error)
        ) from error


def cause(error: BaseException) -> str:
    """Return an error in a line, with the place in the plugin where it was raised."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"  # which says the place
    frames = [] if isinstance(error, ImportError) else traceback.extract_tb(error.__traceback__)
    where = "".join(f" ({Path(one.filename).name}:{one.lineno})" for one in frames[-1:])
    return f"{error!r}{where}"


def _remedy(source: Source, error: BaseException) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return ""
    if source.path:
        return f"; put a wheel that holds {error.name} beside it"
    return f"; install {error.name}, or bake it in: build_zipapp.py --with"


def _bring_wheels(directory: Path) -> None:
    """Let a plugin import from the wheels that lie beside it."""
    for path in sorted(directory.glob("*.whl")):
        try:
            require_ours_alone(path)
        except PluginError:
            continue  # said where the directory is read
        _put_on_path(path)


def _put_on_path(wheel: Path) -> None:
    if str(wheel) not in sys.path:
        sys.path.append(str(wheel))


def _import_file(file: Path) -> object:
    spec = importlib.util.spec_from_file_location(f"swarmctl_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where classes look for their module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


# --- who could have written it -------------------------------------------------------------------


def require_ours_alone(path: Path) -> None:
    """Raise PluginError unless a file or directory can only have been written by root or us."""
    try:
        statuses = (path.lstat(), path.stat())
    except OSError as error:
        raise PluginError(f"{path} cannot be read: {error.strerror}") from error
    for status in statuses:
        is_link = stat.S_ISLNK(status.st_mode)
        if status.st_uid not in (0, os.geteuid()):
            raise PluginError(
                f"{path} belongs to user {status.st_uid}, who could make the daemon run anything: "
                f"chown root {path}"
            )
        if not is_link and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PluginError(
                f"{path} could have been written by others: make it yours and take the write "
                f"permission from group and others (chmod go-w {path})"
            )


def _require_no_stranger(parent: Path) -> None:
    """Raise PluginError where somebody else could put another directory in our one's place."""
    status = parent.stat()
    open_to_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
    if status.st_uid not in (0, os.geteuid()) or open_to_all:
        raise PluginError(
            f"the plugin directory lies in {parent}, where others could put another one: no plugin "
            "is loaded from it"
        )
