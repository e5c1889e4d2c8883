"""What swarmctl is made of: its distributions and their licenses, read from their metadata.

For ``swarmctl version --licenses``, and for the bill of materials that ``build_zipapp.py`` puts
into the one-file archive; that runs on any CPython, so this needs the standard library alone.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from email.message import Message

OURS = ("swarmctl", "swarmctl-docker-exec", "swarmctl-podman-exec")
UNKNOWN = "not declared"
_SHORT = 60  # some put the whole text into the field that is meant for the name
_NAMES = {
    "MIT License": "MIT",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


class Part(NamedTuple):
    """One distribution."""

    name: str
    version: str
    license: str


def license_of(metadata: Message) -> str:
    """Return a distribution's license as its metadata names it, newest way of saying so first."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    text = str(metadata.get("License") or "").strip()
    if text and len(text) <= _SHORT and "\n" not in text:
        return text
    classifiers = [str(one) for one in metadata.get_all("Classifier", [])]
    found = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License :: ")]
    return " OR ".join(_NAMES.get(one, one) for one in found) or UNKNOWN


def parts() -> list[Part]:
    """Return what this swarmctl is made of, by name: its distributions and all that they need.

    What only other Pythons need is listed where it is here: one archive serves all of them.
    """
    found: dict[str, Part] = {}
    wanted = [*OURS, *_plugins()]
    while wanted:
        name = wanted.pop()
        if _key(name) in found:
            continue
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python or system, or one of ours, and not here
        message: Message = metadata  # type: ignore[assignment] # it is one
        found[_key(name)] = Part(_key(name), metadata["Version"], license_of(message))
        wanted += _needs(metadata.get_all("Requires-Dist") or ())
    return [found[key] for key in sorted(found)]


def _plugins() -> Iterator[str]:
    """Yield the distributions that have plugins, those that were baked in among them."""
    for point in importlib.metadata.entry_points(group="swarmctl"):
        if point.dist is not None:
            yield point.dist.name


def _needs(requirements: Iterable[str]) -> Iterator[str]:
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        if name is not None and "extra ==" not in requirement:
            yield name[0]


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
