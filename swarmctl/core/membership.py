"""What a node remembers about its place in a swarm, beside its certificate: one small JSON file.

The identity (``ca/keyfiles.py``) says who the node is; this says where it listens, what it tells
others, and whom it can dial. A shell of blocking functions. No secret is in this file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from .errors import IdentityBroken, StorageFailed

if TYPE_CHECKING:
    from pathlib import Path

FILE = "node.json"


class Membership(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """This node's place in a swarm.

    Attributes:
        listen_addr: where a manager accepts other nodes, ``host:port``.
        advertise_addr: where others find this node, ``host:port``.
        advertised_as: the text that said so, an address or an interface; empty for one that was
            found on this host, None where nobody knows.
        flags: the listen and the advertise address that the daemon was started with then.
        raft_id: this manager's member number, 0 for a worker.
        managers: addresses of the managers as last heard.
        peers: member number and address of the other managers when this one joined them; its
            tables know better as soon as it has any.
        data_path_addr, data_path_port: for traffic between containers.
    """

    listen_addr: str
    advertise_addr: str
    advertised_as: str | None = None
    flags: tuple[str, str] = ("", "")
    raft_id: int = 0
    managers: tuple[str, ...] = ()
    peers: tuple[tuple[int, str], ...] = ()
    data_path_addr: str = ""
    data_path_port: int = 4789


def load(state_dir: Path) -> Membership:
    """Read the file.

    Raises:
        IdentityBroken: it is missing or damaged.
    """
    path = state_dir / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Membership)
    except (OSError, msgspec.MsgspecError) as error:
        raise IdentityBroken(
            f"{path} cannot be used: {error}; restore it, or leave the swarm by force and join anew"
        ) from error


def store(state_dir: Path, membership: Membership) -> None:
    """Replace the file as one.

    Raises:
        StorageFailed: the disk refused; the old file is still there.
    """
    path = state_dir / FILE
    temporary = state_dir / f".{FILE}.new"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:  # which writes all of it, or fails
            file.write(msgspec.json.encode(membership))
            file.flush()
            os.fsync(handle)
        temporary.rename(path)
        _sync_directory(state_dir)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error}") from error


def remove(state_dir: Path) -> None:
    """Forget the place in the swarm.

    Raises:
        StorageFailed: the disk refused.
    """
    try:
        (state_dir / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(f"{state_dir / FILE} cannot be removed: {error}") from error


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
