"""The placeholders that Swarm allows inside a spec: ``{{.Service.Name}}-{{.Task.Slot}}``.

Expanded on the node that runs the task, in hostname, environment and mounts; parsed here and when a
spec is accepted, so that a wrong one is refused at once. Go's templates can do more than anybody
uses there; what is understood is a field, and ``index`` into the service's labels.

The data of secrets and configs may be a template too, and there people do use more: conditions,
loops, and the functions ``secret``, ``config`` and ``env`` (swarm-behaviour.md section 10.6). That
is ``gotemplate.py``. Its errors quote what a template says and what its functions gave, so they are
told of configs that are refused, and otherwise never leave this module.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidArgument
from .gofunctions import Columns, TemplateError
from .gotemplate import Template

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_TRIMMED = re.compile(r"(?<!\s)\s+(?=\{\{-\s)|(?<=\s-\}\})\s+")
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
        action = match[1].removeprefix("-").removesuffix("-").strip()
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

    text = _TRIMMED.sub("", text)
    if "{{" in _ACTION.sub("", text):
        raise ValueError(f"a placeholder in {text!r} is not closed by '}}}}'")
    return _ACTION.sub(value, text)


# --- secrets and configs -------------------------------------------------------------------------

TEMPLATE_DRIVER = "golang"
MAX_EXPANDED_BYTES = 4 * 1024 * 1024


class NoSuchTarget(Exception):
    """A template asks for a secret or config that its task does not have."""


class Lookups(NamedTuple):
    """What the functions of the same names give; each takes a name.

    ``secret`` and ``config`` raise :class:`NoSuchTarget`.
    """

    secret: Callable[[str], str]
    config: Callable[[str], str]
    env: Callable[[str], str]


def expand_data(
    data: bytes, fields: Mapping[str, str], labels: Mapping[str, str], lookups: Lookups
) -> bytes:
    """Return a secret's or config's data with its template filled in.

    Args:
        fields, labels: as of :func:`expand`.

    Raises:
        ValueError: it cannot be; the text says no more than why, since the rest may be secret.
    """
    try:
        text = _parsed(data, lookups).render(_tree(fields, labels))
    except NoSuchTarget:
        reason = "it asks for a secret or config that is no target of its service"
        raise ValueError(reason) from None
    except TemplateError:
        reason = "it calls a function, or names a field, in a way that does not work"
        raise ValueError(reason) from None
    expanded = text.encode(errors=_ANY_BYTES)
    if len(expanded) > MAX_EXPANDED_BYTES:
        raise ValueError(f"it grows beyond {MAX_EXPANDED_BYTES} bytes")
    return expanded


def check_data_template(data: bytes, *, secret: bool) -> None:
    """Check that a secret's or config's data is a template.

    Args:
        secret: not a word of it may be in the error.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        _parsed(data, Lookups(str, str, str))
    except TemplateError as error:
        what = "the secret's data is no template" if secret else f"the config's data: {error}"
        raise InvalidArgument(what) from None


_ANY_BYTES = "surrogateescape"  # what is no UTF-8 comes out as it went in


def _parsed(data: bytes, lookups: Lookups) -> Template:
    return Template(data.decode(errors=_ANY_BYTES), lookups._asdict())


def _tree(fields: Mapping[str, str], labels: Mapping[str, str]) -> Columns:
    """Return the fields as a template walks them: ``.Node.Platform.OS`` is three steps."""
    root = Columns()
    for path, value in fields.items():
        *above, last = path[1:].split(".")
        place = root
        for name in above:
            place = place.setdefault(name, Columns())
        place[last] = value
    root["Service"]["Labels"] = dict(labels)
    return root


_DUMMY = {field: "x" for field in FIELDS if field != ".Service.Labels"}


def check_template(text: str) -> None:
    """Check that ``text`` can be expanded.

    Raises:
        ValueError: as :func:`expand`.
    """
    expand(text, _DUMMY, {})
