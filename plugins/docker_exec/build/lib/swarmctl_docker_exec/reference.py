"""An image's name as ``POST /images/create`` wants it. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Reference(NamedTuple):
    """An image's name apart from its tag or digest."""

    name: str
    tag: str

    @classmethod
    def parse(cls, image: str) -> Reference:
        """Split ``host:5000/app:1@sha256:...``: a digest wins over a tag, none means latest."""
        name, at, digest = image.partition("@")
        head, slash, last = name.rpartition("/")
        last, _, tag = last.partition(":")
        return cls(f"{head}{slash}{last}", digest if at else tag or "latest")
