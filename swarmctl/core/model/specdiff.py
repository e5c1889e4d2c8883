"""What one spec asks for and another did not, in words for a list of revisions.

A line for each field that differs, by its path in the API's names; what everybody changes has a
name of its own. Of environment variables only the names are told: a list is no place for values.
Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .codec import encode_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .spec import ServiceSpec

TEXT_MAX = 60
_NAMES = {
    "TaskTemplate.ContainerSpec.Image": "image",
    "Mode.Replicated.Replicas": "replicas",
    "TaskTemplate.ContainerSpec.Args": "args",
    "TaskTemplate.ContainerSpec.Command": "command",
    "TaskTemplate.ContainerSpec.Secrets": "secrets",
    "TaskTemplate.ContainerSpec.Configs": "configs",
    "TaskTemplate.ContainerSpec.Mounts": "mounts",
    "TaskTemplate.Networks": "networks",
    "EndpointSpec.Ports": "ports",
}
_ENV = "TaskTemplate.ContainerSpec.Env"
_FORCE = "TaskTemplate.ForceUpdate"
_PREFIXES = ("TaskTemplate.ContainerSpec.", "TaskTemplate.")


def spec_changes(before: ServiceSpec, after: ServiceSpec) -> tuple[str, ...]:
    """Return what changed from one spec to the next, a line each."""
    return tuple(_compared("", _plain(before), _plain(after)))


def _plain(spec: ServiceSpec) -> object:
    plain: object = msgspec.json.decode(encode_json(spec))
    return plain


def _compared(path: str, before: object, after: object) -> Iterator[str]:
    if before == after:
        return
    if path == _FORCE:
        yield "forced"
    elif path == _ENV:
        yield _environment(before, after)
    elif isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            inner = f"{path}.{key}" if path else key
            yield from _compared(inner, before.get(key), after.get(key))
    elif isinstance(before, (dict, list)) or isinstance(after, (dict, list)):
        yield f"{_name(path)} {_verb(before, after)}"
    else:
        yield f"{_name(path)} {_text(before)} -> {_text(after)}"


def _environment(before: object, after: object) -> str:
    old, new = _lines(before), _lines(after)
    names = {line.partition("=")[0] for line in old.symmetric_difference(new)}
    return f"env {', '.join(sorted(names))}" if names else "env reordered"


def _lines(value: object) -> set[str]:
    return {str(line) for line in value} if isinstance(value, list) else set()


def _verb(before: object, after: object) -> str:
    if before is None:
        return "added"
    return "removed" if after is None else "changed"


def _name(path: str) -> str:
    if path in _NAMES:
        return _NAMES[path]
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            return path[len(prefix) :]
    return path


def _text(value: object) -> str:
    if value is None:
        return "(none)"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 3]}..."
