"""Image references: ``[domain/]path[:tag][@algorithm:digest]``, as Docker reads them.

``nginx`` is short for ``docker.io/library/nginx``: :attr:`Reference.name` is the long form that
registries know, :attr:`Reference.familiar` the short one that people see. Pure text: whether such
an image exists is for a registry to say.
"""

from __future__ import annotations

import json
import re

import msgspec

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME_LENGTH = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed reference. ``tag`` and ``digest`` are "" where the text has none."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository as registries know it: ``docker.io/library/nginx``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """The repository as people write it: ``nginx``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in short else short

    def with_default_tag(self) -> Reference:
        """Return the reference with ``:latest`` where it names neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return msgspec.structs.replace(self, tag="latest")

    def __str__(self) -> str:
        """The familiar text, from which parsing gives an equal reference."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.familiar}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Return the reference that ``text`` names, its domain and ``library/`` filled in.

    Raises:
        ValueError: in Docker's words, ``"x" is not a valid repository/tag``.
    """
    bad = ValueError(f"{json.dumps(text, ensure_ascii=False)} is not a valid repository/tag")
    if _IMAGE_ID.fullmatch(text):  # it would be read as an image's id, not as a name
        raise bad
    domain, path = _split_domain(text)
    match = _REFERENCE.fullmatch(f"{domain}/{path}")
    if match is None or match["domain"] != domain:
        raise bad
    digest = match["digest"] or ""
    algorithm, _, encoded = digest.partition(":")
    if len(encoded) != _DIGEST_LENGTHS.get(algorithm, len(encoded)) or encoded != encoded.lower():
        raise bad
    if len(f"{domain}/{match['path']}") > _MAX_NAME_LENGTH:
        raise bad
    return Reference(domain=domain, path=match["path"], tag=match["tag"] or "", digest=digest)


def _split_domain(text: str) -> tuple[str, str]:
    """Return domain and the rest; what looks like no host is a path on Docker Hub."""
    first, slash, rest = text.partition("/")
    is_host = any(c in first for c in ".:[") or first == "localhost" or first != first.lower()
    domain, path = (first, rest) if slash and is_host else (DEFAULT_DOMAIN, text)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{_OFFICIAL}{path}"
    return domain, path
