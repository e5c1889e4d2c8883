"""Names of images: what Docker takes for granted in one, said in full. Pure.

A name without a registry is Docker Hub's to everybody who writes a service. Podman asks its
configuration instead, or several registries, so it is given the whole name; an image that exists
only here (``localhost/app``, by ``podman build``) is found by its short name all the same.
"""

from __future__ import annotations

HUB = "docker.io"


def full_name(image: str) -> str:
    """Return ``docker.io/library/app:latest`` for ``app``; a digest stands without its tag."""
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"{HUB}/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"{HUB}/{name}"
    head, _, last = name.rpartition("/")
    bare, colon, tag = last.partition(":")
    if at:
        return f"{head}/{bare}@{digest}"
    return f"{head}/{bare}:{tag}" if colon else f"{head}/{bare}:latest"


def names_of(image: str) -> list[str]:
    """Return the names by which an image may be known here, the full one first."""
    name, at, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    short = f"{head}{slash}{last.partition(':')[0]}@{digest}" if at else image
    return list(dict.fromkeys((full_name(image), short)))
