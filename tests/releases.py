"""Other releases of swarmctl, made from the archive of this one by changing its sources."""

from __future__ import annotations

import hashlib
import re
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def another(
    archive: Path, output: Path, version: str, changed: Mapping[str, str | Callable[[str], str]]
) -> Path:
    """Make a release.

    Args:
        changed: by name of a module in the package ``swarmctl``, its source, or what makes it.
    """
    patches = {f"swarmctl/{name}.py": patch for name, patch in changed.items()}
    patches["swarmctl/__init__.py"] = f'"""Another one."""\n\n__version__ = "{version}"\n'
    made: dict[str, bytes] = {}
    with zipfile.ZipFile(archive) as whole:
        for name in whole.namelist():
            data = whole.read(name)
            patch = patches.pop(name, None)
            if patch is not None:
                data = (patch if isinstance(patch, str) else patch(data.decode())).encode()
            made[name] = data
    assert not patches, f"no such modules: {sorted(patches)}"
    content = hashlib.sha256(repr(sorted(made.items())).encode()).hexdigest()[:20]
    built = made["swarmctl_built.py"]
    made["swarmctl_built.py"] = re.sub(
        rb'CONTENT = "\w+"', f'CONTENT = "{content}"'.encode(), built
    )
    with zipfile.ZipFile(output, "w") as opened:
        for name, data in made.items():
            opened.writestr(name, data)
    return output


def replacing(*pairs: tuple[str, str]) -> Callable[[str], str]:
    """Return what replaces texts in a source, each of which has to be there once."""

    def patch(source: str) -> str:
        for old, new in pairs:
            assert source.count(old) == 1, old
            source = source.replace(old, new)
        return source

    return patch
