"""What templates can call, and how Go prints what they give (``gotemplate.py`` reads them).

Semantics are those of Go's text/template and of the functions that Docker adds to it, as far as
JSON and the model's types can tell; a call with what a function does not take is a
:class:`TemplateError`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import msgspec

from ..errors import SwarmError
from .base import Time

Function = Callable[..., Any]


class TemplateError(SwarmError):
    """A template that is wrong or asks for more than is understood here."""

    def __init__(self, text: str) -> None:
        super().__init__(f"template parsing error: {text}")


class _Missing:
    """An absent field."""

    def __bool__(self) -> bool:
        return False


MISSING = _Missing()


class Columns(dict[str, Any]):
    """A row of a list: unlike a map, it has the fields it has, and no others."""


def field(value: Any, name: str) -> Any:
    """Return a field: of a map, of a row, or of an object of the API by its type.

    Raises:
        TemplateError: such a value has no such field.
    """
    if isinstance(value, Columns) and name not in value:
        columns = ", ".join(sorted(value))
        raise TemplateError(f"can't evaluate field {name}; the columns are {columns}")
    if isinstance(value, Mapping):
        return value.get(name, MISSING)
    if isinstance(value, msgspec.Struct):
        if name in value.__struct_fields__:
            return getattr(value, name)
        raise TemplateError(f"can't evaluate field {name} in type {type(value).__name__}")
    if value is None or value is MISSING:
        return MISSING
    raise TemplateError(f"can't evaluate field {name} in {go_text(value)!r}")


def is_true(value: Any) -> bool:
    """Is a value true in a condition? Zero, empty and absent are not."""
    return bool(value)


def go_text(value: Any) -> str:
    """Return a value as Go prints it: ``true``, ``map[a:1 b:2]``, ``[x y]``, ``<no value>``."""
    if value is MISSING:
        return "<no value>"
    if value is None:
        return "<nil>"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, msgspec.Struct):
        return f"{{{' '.join(go_text(getattr(value, name)) for name in value.__struct_fields__)}}}"
    if isinstance(value, Time):
        return _time_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{go_text(value[key])}' for key in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(go_text, value))}]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _time_text(value: Time) -> str:
    from .duration import format_time

    date, _, clock = format_time(value).removesuffix("Z").partition("T")
    return f"{date} {clock} +0000 UTC"


def call_function(name: str, function: Function, arguments: list[Any]) -> Any:
    """Return what a function gives.

    Args:
        name: what the template calls it, for errors.

    Raises:
        TemplateError: it does not take these arguments.
    """
    try:
        return function(*arguments)
    except (TypeError, AttributeError, ValueError, LookupError, ArithmeticError) as error:
        raise TemplateError(f"error calling {name}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = str(error)
    misfit = isinstance(error, (TypeError, AttributeError))
    return "wrong number or kind of arguments" if misfit else text


def go_json(value: Any) -> str:
    """Return a value as Go's json package prints it: structs in their order, maps sorted."""
    return _encoder.encode(None if value is MISSING else value).decode()


def _to_json(value: object) -> str:
    if isinstance(value, Time):
        from .duration import format_time

        return format_time(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_to_json, order="deterministic")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, MISSING)
        elif isinstance(value, (list, tuple, str)):
            if isinstance(key, bool) or not isinstance(key, int):
                raise TemplateError(f"cannot index slice/array with {go_text(key)}")
            if not 0 <= key < len(value):
                raise ValueError(f"reflect: slice index out of range: {key}")
            value = value[key]
        else:
            raise TemplateError("error calling index: index of untyped nil")
    return value


def _compared(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda left, right: test(_zero(left, right), _zero(right, left))


def _zero(value: Any, beside: Any) -> Any:
    """An absent field compares as the zero value of its neighbour's type."""
    if value is not MISSING:
        return value
    return type(beside)() if isinstance(beside, (str, int, float, bool)) else None


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TypeError
    return any(_zero(first, one) == _zero(one, first) for one in others)


def _and(*values: Any) -> Any:
    return next((value for value in values if not is_true(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if is_true(value)), values[-1])


def _print(*values: Any) -> str:
    out: list[str] = []
    for at, value in enumerate(values):  # a space between operands when neither is a string
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out.append(" ")
        out.append(go_text(value))
    return "".join(out)


WIDTH_MAX = 10_000
_VERB = re.compile(r"%(-?\d*)(?:\.(\d+))?([a-zA-Z%])")


def _printf(form: str, *values: Any) -> str:
    rest = list(values)

    def fill(match: re.Match[str]) -> str:
        width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if verb not in "svdqtf":
            raise ValueError(f"%{verb} is not available here")
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        if verb == "q":
            text = go_json(go_text(value))
        elif verb == "f":
            text = f"{float(value):.{_bounded(int(precision or 6))}f}"
        else:
            text = go_text(value)
            text = text[: int(precision)] if precision and verb == "s" else text
        if not width or width == "-":
            return text
        wide = _bounded(int(width))
        return text.ljust(-wide) if wide < 0 else text.rjust(wide)

    return _VERB.sub(fill, form)


def _truncate(value: str, width: int) -> str:
    return value[:width]


def _pad(value: str, before: int, after: int) -> str:
    return " " * _bounded(before) + value + " " * _bounded(after) if value else value


def _bounded(width: int) -> int:
    if abs(width) > WIDTH_MAX:
        raise ValueError(f"more than {WIDTH_MAX} letters wide")
    return width


FUNCTIONS: dict[str, Function] = {
    "and": _and,
    "eq": _equal,
    "ge": _compared(lambda left, right: bool(left >= right)),
    "gt": _compared(lambda left, right: bool(left > right)),
    "index": _index,
    "join": lambda values, by: by.join(go_text(value) for value in values or ()),
    "json": go_json,
    "le": _compared(lambda left, right: bool(left <= right)),
    "len": lambda value: 0 if value is MISSING else len(value),
    "lower": lambda value: go_text(value).lower(),
    "lt": _compared(lambda left, right: bool(left < right)),
    "ne": lambda left, right: not _equal(left, right),
    "not": lambda value: not is_true(value),
    "or": _or,
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(map(go_text, values)) + "\n",
    "split": lambda value, by: go_text(value).split(by),
    "title": lambda value: go_text(value).title(),
    "truncate": _truncate,
    "upper": lambda value: go_text(value).upper(),
}
