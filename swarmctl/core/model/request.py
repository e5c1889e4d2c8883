"""Request and answer bodies of the Engine API that are not objects of their own.

Field tables: docker-api.md section 2.3. The bodies of service, node, secret and config calls are
the specs themselves.
"""

from __future__ import annotations

import msgspec

from .base import U32, ApiStruct, Driver, printed
from .cluster import SwarmSpec


class InitRequest(ApiStruct, frozen=True, kw_only=True):
    """``POST /swarm/init``. Zero values mean "use the default"."""

    ListenAddr: str = ""
    AdvertiseAddr: str = ""
    DataPathAddr: str = ""
    DataPathPort: U32 = 0
    ForceNewCluster: bool = False
    Spec: SwarmSpec = msgspec.field(default_factory=lambda: SwarmSpec())
    AutoLockManagers: bool = False
    Availability: str = ""
    DefaultAddrPool: tuple[str, ...] | None = None
    SubnetSize: U32 = 0


class JoinRequest(ApiStruct, frozen=True, kw_only=True):
    """``POST /swarm/join``. ``JoinToken`` is secret."""

    ListenAddr: str = ""
    AdvertiseAddr: str = ""
    DataPathAddr: str = ""
    RemoteAddrs: tuple[str, ...] = ()
    JoinToken: str = ""
    Availability: str = ""


class UnlockRequest(ApiStruct, frozen=True, kw_only=True):
    """``POST /swarm/unlock`` and the answer of ``GET /swarm/unlockkey``; secret."""

    UnlockKey: str = printed("")


class BackupRequest(ApiStruct, frozen=True, kw_only=True):
    """``POST /swarm/backup``, which Docker's API does not have; secret."""

    Passphrase: str = ""


class Created(ApiStruct, frozen=True, kw_only=True):
    """Answer of ``POST /secrets/create`` and ``/configs/create``."""

    ID: str = printed("")


class VersionRequest(ApiStruct, frozen=True, kw_only=True):
    """``POST /secrets/{id}/versions``, which Docker's API does not have; secret.

    Attributes:
        Labels, Templating: None for those of the version before.
    """

    Data: bytes = b""
    Labels: dict[str, str] | None = None
    Templating: Driver | None = None


class NamedServices(ApiStruct, frozen=True, kw_only=True):
    """How many services, and the names of the first of them."""

    Count: U32 = printed(0)
    Names: tuple[str, ...] = printed(())


class VersionMade(ApiStruct, frozen=True, kw_only=True):
    """Answer of ``POST /secrets/{id}/versions`` and ``/configs/{id}/versions``.

    Attributes:
        Unchanged: it was so already; no version was made.
        Moving: services that use it from now on, their tasks being replaced.
        Waiting: services that use it once their tasks are replaced for another reason.
    """

    ID: str = printed("")
    Revision: U32 = printed(0)
    Unchanged: bool = printed(False)
    Moving: NamedServices = msgspec.field(default_factory=lambda: NamedServices())
    Waiting: NamedServices = msgspec.field(default_factory=lambda: NamedServices())


class PayloadsPruned(ApiStruct, frozen=True, kw_only=True):
    """Answer of ``POST /secrets/prune`` and ``/configs/prune``: ids."""

    Deleted: tuple[str, ...] = printed(())


class ServiceCreated(ApiStruct, frozen=True, kw_only=True):
    """Answer of ``POST /services/create``; no warnings print as null, as Docker does."""

    ID: str = printed("")
    Warnings: tuple[str, ...] | None = printed(None)


class ServiceUpdated(ApiStruct, frozen=True, kw_only=True):
    """Answer of ``POST /services/{id}/update``."""

    Warnings: tuple[str, ...] | None = printed(None)


class NetworkCreated(ApiStruct, frozen=True, kw_only=True):
    """Answer of ``POST /networks/create``; the key is ``Id`` here."""

    Id: str = printed("")
    Warning: str = printed("")
