"""The Engine API's version: which one is spoken, and what it lacks."""

from __future__ import annotations

from typing import NamedTuple

from swarmctl.plugins import ExecutorError


class ApiLevel(NamedTuple):
    """An Engine API version; compares as one would expect (1.9 is before 1.10)."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> ApiLevel:
        """Read ``1.41``.

        Raises:
            ValueError: it is none.
        """
        major, dot, minor = text.partition(".")
        if not dot:
            raise ValueError(f'"{text}" is no API version such as 1.41')
        return cls(int(major), int(minor))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


OLDEST = ApiLevel(1, 40)
"""Docker 19.03. Older engines drop too much of a spec without a word."""
NEWEST = ApiLevel(1, 50)
"""Docker 28. A newer engine is spoken to in this version."""


def need(level: ApiLevel, minimum: str, field: str, *, wanted: bool) -> None:
    """Refuse a field that an engine of this level would ignore.

    Args:
        minimum: the API version that brought the field.
        field: its name, for the error.
        wanted: whether the spec sets it at all.

    Raises:
        ExecutorError: it is wanted and the engine is too old.
    """
    if wanted and level < ApiLevel.parse(minimum):
        raise ExecutorError(
            f"{field} needs Docker Engine API {minimum}, and this node's engine has {level}"
        )
