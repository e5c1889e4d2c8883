"""What secrets and configs have in common: data under a name, in versions that never change.

Docker has no word for both; *payload* is ours. A version's data is fixed when it is made, so an id
always means the same bytes; the name means the version with the highest revision. Services name a
version by its id, hence moving a service to another one is an ordinary change of its spec.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from msgspec.structs import replace

from .change import Kind
from .objects import (
    Config,
    ConfigRow,
    ConfigSpec,
    Secret,
    SecretPrivate,
    SecretRow,
    SecretSpec,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .spec import ContainerSpec, ServiceSpec, TaskSpec

PayloadRow = Union[SecretRow, ConfigRow]  # noqa: UP007 - as a value on 3.10 too
PayloadSpec = Union[SecretSpec, ConfigSpec]  # noqa: UP007


def new_payload(payload_id: str, spec: PayloadSpec, *, revision: int = 1) -> PayloadRow:
    """Return the row of a new version; a secret's data goes into the half that is never shown.

    Args:
        spec: checked, with the data.
    """
    if isinstance(spec, SecretSpec):
        secret = Secret(ID=payload_id, Spec=replace(spec, Data=b""), Revision=revision)
        return SecretRow(api=secret, private=SecretPrivate(data=spec.Data))
    return ConfigRow(api=Config(ID=payload_id, Spec=spec, Revision=revision))


def data_of(row: PayloadRow) -> bytes:
    """Return what a secret or config holds."""
    return row.private.data if isinstance(row, SecretRow) else row.api.Spec.Data


def payload_ids(task: TaskSpec, kind: Kind) -> tuple[str, ...]:
    """Return the ids of the secrets, or of the configs, that a service's tasks use."""
    container = task.ContainerSpec
    return _ids_in(container, kind) if container is not None else ()


def _ids_in(container: ContainerSpec, kind: Kind) -> tuple[str, ...]:
    if kind is Kind.SECRET:
        return tuple(use.SecretID for use in container.Secrets)
    return tuple(use.ConfigID for use in container.Configs)


def with_payloads(spec: ServiceSpec, kind: Kind, moves: Mapping[str, str]) -> ServiceSpec:
    """Return the spec with other versions of the secrets, or of the configs, that it uses.

    Args:
        moves: new id by old id, of one and the same name; others stay.
    """
    container = spec.TaskTemplate.ContainerSpec
    if container is None or not any(one in moves for one in _ids_in(container, kind)):
        return spec
    if kind is Kind.SECRET:
        secrets = tuple(
            replace(use, SecretID=moves.get(use.SecretID, use.SecretID))
            for use in container.Secrets
        )
        container = replace(container, Secrets=secrets)
    else:
        configs = tuple(
            replace(use, ConfigID=moves.get(use.ConfigID, use.ConfigID))
            for use in container.Configs
        )
        container = _with_credentials(replace(container, Configs=configs), moves)
    return replace(spec, TaskTemplate=replace(spec.TaskTemplate, ContainerSpec=container))


def _with_credentials(container: ContainerSpec, moves: Mapping[str, str]) -> ContainerSpec:
    """Move the config that holds the credential spec: it has to be one of the configs."""
    privileges = container.Privileges
    if privileges is None or privileges.CredentialSpec is None:
        return container
    credentials = privileges.CredentialSpec
    moved = replace(credentials, Config=moves.get(credentials.Config, credentials.Config))
    return replace(container, Privileges=replace(privileges, CredentialSpec=moved))
