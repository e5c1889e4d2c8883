"""Which plugins are off, kept over a restart of the daemon: until their settings or code change.

One small file in the state directory. It is no harm to lose it: a plugin is then tried again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ... import __version__

if TYPE_CHECKING:
    from ..sources import Source

FILE = "plugins-off.json"


def fingerprint(source: Source, options: dict[str, dict[str, str]]) -> str:
    """Return what changes with a plugin's code, with any settings, and with swarmctl's release."""
    place = source.path
    if not place:
        spec = importlib.util.find_spec(source.module)
        place = (spec.origin or "") if spec is not None else ""
    digest = hashlib.sha256()
    for part in (__version__, source.name, source.module, json.dumps(options, sort_keys=True)):
        digest.update(part.encode() + b"\0")
    with contextlib.suppress(OSError):  # built in, or gone: then the rest tells it apart
        digest.update(Path(place).read_bytes())
    return digest.hexdigest()


class OffList:
    """The file: by plugin, the fingerprint with which it was switched off, and why."""

    def __init__(self, state_dir: str) -> None:
        self._path = Path(state_dir) / FILE if state_dir else None

    def why(self, name: str, mark: str) -> str:
        """Return why a plugin is off as it is now; "" where it is not."""
        row = self._read().get(name)
        return row["why"] if row is not None and row.get("mark") == mark else ""

    def note(self, name: str, mark: str, why: str) -> None:
        """Keep that a plugin is off. Blocks; a disk that refuses is no reason to stop.

        The file appears whole or not at all.
        """
        if self._path is None:
            return
        rows = {**self._read(), name: {"mark": mark, "why": why}}
        partial = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            partial.write_text(json.dumps(rows, indent=1, sort_keys=True))
            partial.replace(self._path)
        except OSError:
            partial.unlink(missing_ok=True)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self._path.read_text()) if self._path is not None else {}
        except (OSError, ValueError):
            return {}
        rows = found.items() if isinstance(found, dict) else ()
        return {name: row for name, row in rows if isinstance(row, dict) and "why" in row}
