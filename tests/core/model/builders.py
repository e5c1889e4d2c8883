"""Hypothesis strategies for any struct of the model, read off its fields.

``structs(Service)`` gives every shape a Service can have: each field at its default or anything of
its type. A new field is covered the moment it is added.
"""

from __future__ import annotations

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
        return st.deferred(lambda: _struct(info))
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


def _struct(info: inspect.StructType) -> st.SearchStrategy:
    # optional= leaves a field at its default, so that small examples stay small
    required = {f.name: _values(f.type) for f in info.fields if f.required}
    optional = {f.name: _values(f.type) for f in info.fields if not f.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: info.cls(**fields))


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
