"""Hypothesis strategies for any struct of the model, read off its fields.

``structs(Service)`` gives any shape a Service can have, a few fields at a time; ``filled(Service)``
is one with every field set. A new field is covered the moment it is added.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from swarmctl.core.model.base import Time

T = TypeVar("T")

TEXT = st.text(max_size=12)


def structs(model: type[T]) -> st.SearchStrategy[T]:
    """Return a strategy for ``model`` (a struct, or a union of tagged ones)."""
    return _values(inspect.type_info(model))


def _values(info: inspect.Type) -> st.SearchStrategy:
    if isinstance(info, inspect.StructType):
        return st.deferred(lambda: _struct(info.cls))
    if isinstance(info, inspect.UnionType):
        return st.one_of([_values(one) for one in info.types])
    if isinstance(info, inspect.DictType):
        return st.dictionaries(_values(info.key_type), _values(info.value_type), max_size=3)
    if isinstance(info, inspect.VarTupleType):
        return st.lists(_values(info.item_type), max_size=2).map(tuple)
    if isinstance(info, inspect.IntType):
        low = -(2**63) if info.ge is None else info.ge
        return st.integers(low, 2**63 - 1 if info.le is None else info.le)
    if isinstance(info, inspect.FloatType):
        return st.floats(allow_nan=False, allow_infinity=False)
    if isinstance(info, inspect.CustomType) and info.cls is Time:
        return st.integers(-(2**63) + 1, 2**63 - 1).map(Time)
    if isinstance(info, inspect.EnumType):
        return st.sampled_from(list(info.cls))
    plain = {
        inspect.StrType: TEXT,
        inspect.BoolType: st.booleans(),
        inspect.BytesType: st.binary(max_size=12),
        inspect.NoneType: st.none(),
    }
    return plain[type(info)]  # a KeyError names the type that this module should learn


MAX_FIELDS_SET = 4


@cache
def _struct(model: type[msgspec.Struct]) -> st.SearchStrategy:
    info = inspect.type_info(model)
    assert isinstance(info, inspect.StructType)
    required = {f.name: _values(f.type) for f in info.fields if f.required}
    optional = {f.name: _values(f.type) for f in info.fields if not f.required}

    @st.composite
    def struct(draw: st.DrawFn) -> msgspec.Struct:
        names = st.lists(st.sampled_from(sorted(optional)), max_size=MAX_FIELDS_SET, unique=True)
        some = {name: optional[name] for name in (draw(names) if optional else ())}
        return model(**{name: draw(values) for name, values in {**required, **some}.items()})

    return struct()


def filled(model: type[T], *, text: str = "text", number: int = 7) -> T:
    """Return a ``model`` with every field set, all the way down, and one element in every list."""
    return _fill(inspect.type_info(model), text, number)


def _fill(info: inspect.Type, text: str, number: int) -> object:
    if isinstance(info, inspect.StructType):
        return info.cls(**{f.name: _fill(f.type, text, number) for f in info.fields})
    if isinstance(info, inspect.DictType):
        return {text: _fill(info.value_type, text, number)}
    if isinstance(info, inspect.VarTupleType):
        return (_fill(info.item_type, text, number),)
    if isinstance(info, inspect.UnionType):
        inner = next(one for one in info.types if not isinstance(one, inspect.NoneType))
        return _fill(inner, text, number)
    if isinstance(info, inspect.CustomType) and info.cls is Time:
        return Time(number)
    if isinstance(info, inspect.EnumType):
        return list(info.cls)[-1]
    plain = {
        inspect.StrType: text,
        inspect.BytesType: text.encode(),
        inspect.IntType: number,
        inspect.BoolType: True,
        inspect.FloatType: number + 0.5,
    }
    return plain[type(info)]


def walk(value: object) -> list[msgspec.Struct]:
    """Return every struct inside ``value``, itself included."""
    if isinstance(value, msgspec.Struct):
        inner = [getattr(value, field.name) for field in msgspec.structs.fields(value)]
        return [value, *(found for one in inner for found in walk(one))]
    if isinstance(value, tuple | list):
        return [found for one in value for found in walk(one)]
    if isinstance(value, dict):
        return [found for one in value.values() for found in walk(one)]
    return []
