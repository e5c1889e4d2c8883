"""Podman's version: which one answers, and what it lacks. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from swarmctl.plugins import ExecutorError


class PodmanVersion(NamedTuple):
    """A release of Podman, as far as it matters."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> PodmanVersion:
        """Read ``4.3.1`` or ``5.4.0-dev``.

        Raises:
            ValueError: it is none.
        """
        match = re.match(r"(\d+)\.(\d+)", text)
        if match is None:
            raise ValueError(f'"{text}" is no version such as 4.3.1')
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


OLDEST = PodmanVersion(4, 0)
"""Networks have their present form since then."""


def prefix_for(version: PodmanVersion) -> str:
    """Return what paths of the libpod API begin with."""
    return f"/v{version}.0/libpod"


def version_in(prefix: str) -> PodmanVersion:
    """Return the version that a prefix was made for."""
    return PodmanVersion.parse(prefix.removeprefix("/v"))


def need(version: PodmanVersion, minimum: PodmanVersion, field: str, *, wanted: bool) -> None:
    """Refuse a field that an engine of this version would ignore.

    Args:
        minimum: the version that brought the field.
        field: its name, for the error.
        wanted: whether the spec sets it at all.

    Raises:
        ExecutorError: it is wanted and the engine is too old.
    """
    if wanted and version < minimum:
        raise ExecutorError(f"{field} needs Podman {minimum}, and this node's engine is {version}")
