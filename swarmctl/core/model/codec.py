"""Bytes to objects and back: JSON for the API, msgpack for the log, the tables and the wire.

What for: every byte that enters or leaves as a model object passes here, so that Go's habits
(keys in any case, null as absent, times as RFC 3339) end at this edge. Laws:

- Any request body gives an object or :class:`BadRequest` that names the place; any other bytes
  give an object or :class:`Undecodable`. Nothing else is raised, however deep or long they are.
- ``decode(encode(x)) == x`` for every object of the model, in both codecs.
- What JSON accepts fits into Go's types, so no accepted write makes a later list unreadable.

It knows no field by name and no rule about values (validate.py has those), and shares no objects:
who wants equal specs to be one object in memory interns them itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from functools import cache
from typing import TypeVar, cast

import msgspec
from msgspec import inspect

from ..errors import BadRequest, Undecodable
from .base import Time
from .change import Entry
from .duration import format_time, parse_time
from .objects import Row

__all__ = [
    "Undecodable",
    "decode_entry",
    "decode_json",
    "decode_row",
    "encode_entry",
    "encode_json",
    "encode_row",
    "pack",
    "unpack",
]

T = TypeVar("T")

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Longest JSON body: the largest config (1,000 KB) in base64, three times over."""

# --- JSON ----------------------------------------------------------------------------------------


def encode_json(value: object) -> bytes:
    """Return ``value`` (a struct, or lists and maps of them) as the Engine API prints it.

    No HTML escaping and no newline at the end; the HTTP layer adds that one.

    Raises:
        TypeError: something in ``value`` has no JSON form (a programmer's error).
    """
    return _json.encode(value)


def decode_json(body: bytes, model: type[T], *, allow_empty: bool = False) -> T:
    """Return the ``model`` that a request's body holds, read as leniently as Go reads it.

    Keys of structs match in any case (the last of several wins), keys of maps are kept as they
    are; null is absent; unknown keys are ignored.

    Args:
        allow_empty: an empty body is the zero value, as with ``Content-Length: 0``; otherwise it
            is an error, as for an empty chunked body.

    Raises:
        BadRequest: no JSON, too long, too deep, or a value of the wrong type, which is named by
            its path.
    """
    if not body and allow_empty:
        return model()
    plain = _parse(body)
    if plain is None:
        return model()
    try:
        return msgspec.convert(_fold_for(_key(model))(plain), model, dec_hook=_from_json)
    except msgspec.ValidationError as error:
        raise BadRequest(f"invalid JSON: {_place(str(error))}") from None


def _parse(body: bytes) -> object:
    if len(body) > MAX_JSON_BYTES:
        raise BadRequest(f"invalid JSON: longer than {MAX_JSON_BYTES} bytes")
    if not body.strip(b" \t\r\n"):
        raise BadRequest("invalid JSON: got EOF while reading request body")
    try:
        plain: object = msgspec.json.decode(body)
    except RecursionError:
        raise BadRequest("invalid JSON: nested too deep") from None
    except UnicodeDecodeError as error:
        raise BadRequest(f"invalid JSON: not UTF-8 (byte {error.start} of a string)") from None
    except msgspec.DecodeError as error:
        text = str(error)
        if "trailing characters" in text:
            raise BadRequest("unexpected content after JSON") from None
        if "truncated" in text:
            raise BadRequest("invalid JSON: unexpected EOF") from None
        text = text.removeprefix("JSON is malformed: ").partition(" - at ")[0]
        raise BadRequest(f"invalid JSON: {_place(text)}") from None
    return plain


_PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)


def _place(text: str) -> str:
    """Turn msgspec's words into ``path: what is wrong``."""
    match = _PLACE.fullmatch(text)
    assert match is not None  # both groups may be empty
    what = match["what"].replace("`", "")
    what = what[:1].lower() + what[1:].replace(" | null", "")
    return f"{match['path']}: {what}" if match["path"] else what


# --- msgpack -------------------------------------------------------------------------------------


def pack(value: object) -> bytes:
    """Return ``value`` as msgpack: times as integers, task states by name.

    Raises:
        TypeError, OverflowError: ``value`` has no such form (a programmer's error).
    """
    return _msgpack.encode(value)


def unpack(data: bytes, model: type[T]) -> T:
    """Return the ``model`` that :func:`pack` wrote.

    Raises:
        Undecodable: these bytes are no ``model``.
    """
    try:
        return cast("T", _decoder(_key(model)).decode(data))  # Decoder(model) gives model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec names types and places, never values: nothing secret gets into the text.
        name = "Row" if model is _ROW else model.__name__
        raise Undecodable(f"these {len(data)} bytes are no {name}: {error}") from error


def encode_row(row: Row) -> bytes:
    """Return a row, private half included, for the log and for snapshots."""
    return _msgpack.encode(row)


def decode_row(data: bytes) -> Row:
    """Return the row that :func:`encode_row` wrote.

    Raises:
        Undecodable: these bytes are no row.
    """
    return unpack(data, _ROW)


def encode_entry(entry: Entry) -> bytes:
    """Return what one Raft entry carries, as bytes."""
    return _msgpack.encode(entry)


def decode_entry(data: bytes) -> Entry:
    """Return the entry that :func:`encode_entry` wrote.

    Raises:
        Undecodable: damaged, or it holds a change that this release does not know.
    """
    return unpack(data, Entry)


_ROW = cast("type[Row]", Row)  # a union is no class, but msgspec takes it where it takes one


def _key(model: type[T]) -> Hashable:
    return cast("Hashable", model)  # mypy does not see that every class is hashable


@cache
def _decoder(model: Hashable) -> msgspec.msgpack.Decoder[object]:
    return msgspec.msgpack.Decoder(cast("type[object]", model), dec_hook=_from_msgpack)


# --- the one type that neither codec knows -------------------------------------------------------


def _to_json(value: object) -> object:
    if isinstance(value, Time):
        return format_time(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _from_json(model: type, value: object) -> object:
    if model is Time and isinstance(value, str):
        return parse_time(value)
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")


def _to_msgpack(value: object) -> object:
    if isinstance(value, Time):
        return int(value)
    raise TypeError(f"{type(value).__name__} has no msgpack form")


def _from_msgpack(model: type, value: object) -> object:
    if model is Time and type(value) is int and -(2**63) < value < 2**63:
        return Time(value)
    raise TypeError("Expected `int` of 64 bits")


_json = msgspec.json.Encoder(enc_hook=_to_json)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_to_msgpack)


# --- folding key case ----------------------------------------------------------------------------

Fold = Callable[[object], object]
"""Plain objects in, plain objects out: known keys in their own case, nulls gone."""


@cache
def _fold_for(model: Hashable) -> Fold:
    """Return the fold for a model; built once, since a model's fields never change."""
    return _build(inspect.type_info(model))


def _build(info: inspect.Type) -> Fold:
    """Return the fold for one type: structs fold their keys, maps and lists look inside."""
    if isinstance(info, inspect.StructType):
        return _struct_fold(info)
    if isinstance(info, inspect.DictType):
        return _map_fold(_build(info.value_type), _zero(info.value_type))
    if isinstance(info, inspect.VarTupleType | inspect.ListType):
        return _list_fold(_build(info.item_type), _zero(info.item_type))
    if isinstance(info, inspect.UnionType):  # T | None; null never gets this far
        (inner,) = (one for one in info.types if not isinstance(one, inspect.NoneType))
        return _build(inner)
    return _whole if isinstance(info, inspect.IntType) else _keep


def _zero(info: inspect.Type) -> object:
    """Return what Go puts where a list or a map holds null: the element's zero value."""
    if isinstance(info, inspect.StructType | inspect.DictType):
        return {}
    if isinstance(info, inspect.VarTupleType | inspect.ListType):
        return ()
    return "" if isinstance(info, inspect.StrType) else None


def _keep(plain: object) -> object:
    return plain


# convert refuses a value of a foreign class by the name of that class: this one is for reading
_BEYOND_64_BITS = type("number beyond 64 bits", (), {})()


def _whole(plain: object) -> object:
    # msgspec has no bound for unsigned integers, yet msgpack and Go hold 64 bits
    return _BEYOND_64_BITS if isinstance(plain, int) and plain >= 2**64 else plain


def _struct_fold(info: inspect.StructType) -> Fold:
    fields = {field.encode_name.lower(): field for field in info.fields}
    known = {key: (field.encode_name, _build(field.type)) for key, field in fields.items()}

    def fold(plain: object) -> object:
        if not isinstance(plain, dict):
            return plain  # convert refuses it, and says where
        folded: dict[str, object] = {}
        for key, value in plain.items():
            field = known.get(key.lower())
            if field is not None and value is not None:
                folded[field[0]] = field[1](value)
        return folded

    return fold


def _map_fold(inner: Fold, zero: object) -> Fold:
    def fold(plain: object) -> object:
        if not isinstance(plain, dict):
            return plain
        return {key: zero if value is None else inner(value) for key, value in plain.items()}

    return fold


def _list_fold(inner: Fold, zero: object) -> Fold:
    def fold(plain: object) -> object:
        if not isinstance(plain, list):
            return plain
        return [zero if item is None else inner(item) for item in plain]

    return fold
