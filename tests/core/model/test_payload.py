"""Secrets and configs as one thing: rows, and references in a service's spec (model/payload.py)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.change import Kind
from swarmctl.core.model.codec import decode_row, encode_json, encode_row
from swarmctl.core.model.objects import ConfigSpec, SecretSpec
from swarmctl.core.model.payload import data_of, new_payload, payload_ids, with_payloads
from swarmctl.core.model.spec import (
    ConfigReference,
    ContainerSpec,
    CredentialSpec,
    FileTarget,
    Privileges,
    RuntimeTarget,
    SecretReference,
    ServiceSpec,
    TaskSpec,
)
from tests.core.model.builders import structs

MARKER = b"hunter2hunter2"
KINDS = (Kind.SECRET, Kind.CONFIG)


def _spec(container: ContainerSpec) -> ServiceSpec:
    return ServiceSpec(Name="web", TaskTemplate=TaskSpec(ContainerSpec=container))


@pytest.mark.parametrize("spec", [SecretSpec, ConfigSpec])
def test_a_row_keeps_its_data_through_the_log(spec: type[SecretSpec | ConfigSpec]) -> None:
    """What goes into the log comes out, revision and bytes; and a secret's API half has no data."""
    row = new_payload("p1", spec(Name="pw", Labels={"a": "b"}, Data=MARKER), revision=3)
    read = decode_row(encode_row(row))
    assert read == row
    assert data_of(row) == MARKER
    assert (row.api.ID, row.api.Revision, row.api.Spec.Name) == ("p1", 3, "pw")
    shown = encode_json(row.api)
    is_shown = encode_json({"Data": MARKER})[1:-1] in shown
    assert is_shown is (spec is ConfigSpec)


def test_the_first_revision_looks_as_docker_prints_it() -> None:
    """Ours is seen only where a name has had several versions."""
    first = new_payload("p1", SecretSpec(Name="pw", Data=b"1"))
    assert b"Revision" not in encode_json(first.api)
    assert b"Newest" not in encode_json(first.api)
    second = new_payload("p2", SecretSpec(Name="pw", Data=b"1"), revision=2)
    assert b'"Revision":2' in encode_json(second.api)


def test_every_use_moves_and_nothing_else_does() -> None:
    """One secret at two places moves at both; targets, names and the other kind stay."""
    uses = tuple(
        SecretReference(SecretID="old", SecretName="pw", File=FileTarget(Name=name, Mode=0o400))
        for name in ("a", "b")
    )
    other = SecretReference(SecretID="other", SecretName="key", File=FileTarget(Name="c"))
    config = ConfigReference(ConfigID="old", ConfigName="pw", File=FileTarget(Name="/d"))
    spec = _spec(ContainerSpec(Image="x", Secrets=(*uses, other), Configs=(config,)))
    moved = with_payloads(spec, Kind.SECRET, {"old": "new"})
    assert payload_ids(moved.TaskTemplate, Kind.SECRET) == ("new", "new", "other")
    assert payload_ids(moved.TaskTemplate, Kind.CONFIG) == ("old",)
    assert with_payloads(moved, Kind.SECRET, {"new": "old"}) == spec


def test_a_credential_spec_moves_with_its_config() -> None:
    """The config that holds a credential spec is named twice, and both names move."""
    container = ContainerSpec(
        Image="x",
        Configs=(ConfigReference(ConfigID="old", ConfigName="c", Runtime=RuntimeTarget()),),
        Privileges=Privileges(CredentialSpec=CredentialSpec(Config="old")),
    )
    moved = with_payloads(_spec(container), Kind.CONFIG, {"old": "new"})
    found = moved.TaskTemplate.ContainerSpec
    assert found is not None
    assert found.Configs[0].ConfigID == "new"
    assert found.Privileges is not None
    assert found.Privileges.CredentialSpec is not None
    assert found.Privileges.CredentialSpec.Config == "new"


@settings(deadline=None)
@given(spec=structs(ServiceSpec), kind=st.sampled_from(KINDS), data=st.data())
def test_moving_changes_ids_only(spec: ServiceSpec, kind: Kind, data: st.DataObject) -> None:
    """For any spec: ids become what they should, and with the ids of before it is as it was."""
    ids = payload_ids(spec.TaskTemplate, kind)
    chosen = data.draw(st.lists(st.sampled_from(ids), unique=True) if ids else st.just([]))
    moves = {old: f"new of {old}" for old in chosen}
    moved = with_payloads(spec, kind, moves)
    assert payload_ids(moved.TaskTemplate, kind) == tuple(moves.get(one, one) for one in ids)
    back = {new: old for old, new in moves.items()}
    assert with_payloads(moved, kind, back) == spec
    assert with_payloads(spec, kind, {"nobody's": "x"}) is spec
    bare = replace(spec, TaskTemplate=replace(spec.TaskTemplate, ContainerSpec=None))
    assert with_payloads(bare, kind, moves) is bare
