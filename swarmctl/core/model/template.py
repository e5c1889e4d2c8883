"""The placeholders that Swarm allows inside a spec: ``{{.Service.Name}}-{{.Task.Slot}}``.

Expanded on the node that runs the task, in hostname, environment and mounts; parsed here and when a
spec is accepted, so that a wrong one is refused at once. Go's templates can do more than anybody
uses there; what is understood is a field, and ``index`` into the service's labels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_INDEX = re.compile(r'index\s+\.Service\.Labels\s+(?:"([^"\\]*)"|`([^`]*)`)')
_LABEL_FIELD = ".Service.Labels."

FIELDS = (
    ".Service.ID",
    ".Service.Name",
    ".Service.Labels",
    ".Node.ID",
    ".Node.Hostname",
    ".Node.Platform.OS",
    ".Node.Platform.Architecture",
    ".Task.ID",
    ".Task.Name",
    ".Task.Slot",
)


def expand(text: str, fields: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """Return ``text`` with its placeholders replaced.

    Args:
        fields: a value for each of :data:`FIELDS` but ``.Service.Labels``.
        labels: the service's labels, for ``.Service.Labels.key`` and ``index``.

    Raises:
        ValueError: a placeholder that is not understood, or one that is never closed.
    """
    if "{{" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        action = match[1]
        if action in fields:
            return fields[action]
        indexed = _INDEX.fullmatch(action)
        if indexed:
            return labels.get(indexed[1] if indexed[1] is not None else indexed[2], "")
        if action.startswith(_LABEL_FIELD):
            return labels.get(action.removeprefix(_LABEL_FIELD), "")
        if action == ".Service.Labels":  # as Go prints a map
            return f"map[{' '.join(f'{key}:{labels[key]}' for key in sorted(labels))}]"
        raise ValueError(f"unknown placeholder {match[0]!r}; known are {', '.join(FIELDS)}")

    if "{{" in _ACTION.sub("", text):
        raise ValueError(f"a placeholder in {text!r} is not closed by '}}}}'")
    return _ACTION.sub(value, text)


_DUMMY = {field: "x" for field in FIELDS if field != ".Service.Labels"}


def check_template(text: str) -> None:
    """Check that ``text`` can be expanded.

    Raises:
        ValueError: as :func:`expand`.
    """
    expand(text, _DUMMY, {})
