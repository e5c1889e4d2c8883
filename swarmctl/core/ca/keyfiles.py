"""The node's root, certificate and key on disk, and the machine they belong to.

A shell: every function here blocks on the file system; async code calls it in a thread
(``trio.to_thread.run_sync``). One process owns a state directory, and one task of it calls here.

    <state>/machine.json                      0600  which machine this state belongs to
    <state>/certificates/                     0700
        swarm-root-ca.crt                     0644  trusted roots, PEM
        swarm-node.crt                        0644  certificate chain, leaf first, PEM
        swarm-node.key                        0600  private key, PKCS#8 PEM
        .swarm-node.crt                             the next chain, while a pair is replaced

Laws:

- Each file is whole or absent: written beside its name, synced, renamed, directory synced.
- Certificate and key change together although they are two files: the new chain goes to its dot
  name, then the key is replaced, then the chain gets its name. The key is the switch: whichever
  side of it a crash falls on, one of the two chains fits the key on disk, and ``load`` finds it.
- A dot chain that fits is given its name before another pair is begun; it may be the only chain
  that fits (swarm-behaviour.md 3.3, test 39).
- What cannot be used is refused with file and remedy; key material is in no error and no ``repr``.

Must not know: tokens, connections, who asks.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import (
    CertificateMalformed,
    CopiedState,
    IdentityBroken,
    IdentityMissing,
    StorageFailed,
)
from .chain import require_roots
from .keys import ENCRYPTED, open_key_pem, seal_key_pem
from .x509 import require_pair

DIRECTORY = "certificates"
ROOT_FILE = "swarm-root-ca.crt"
CERT_FILE = "swarm-node.crt"
NEXT_CERT_FILE = ".swarm-node.crt"
KEY_FILE = "swarm-node.key"
MACHINE_FILE = "machine.json"
MAX_FILE_BYTES = 1024 * 1024  # a wrong file in this place must not be read into memory whole

_PUBLIC, _SECRET, _OWNER_ONLY = 0o644, 0o600, 0o700
# systemd's machine-id(5) asks not to hand the raw id on; this is our application's key for it.
_MACHINE_KEY = b"swarmctl machine binding 1"


@dataclass(frozen=True)
class KeyPair:
    """A node's certificate chain and the key that belongs to its leaf."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True)
class StoredIdentity:
    """All that a node needs to prove who it is, and to know its own cluster."""

    root_pem: bytes
    pair: KeyPair


@dataclass(frozen=True)
class Machine:
    """Where this process runs: a one-way name of the machine, None if it has none, and the host."""

    id_hash: str | None
    hostname: str


class Binding(enum.Enum):
    """What ``bind_machine`` found; everything else it refuses."""

    FIRST = "the state directory was bound to this machine now"
    SAME = "the state directory belongs to this machine"
    UNPROVEN = "this machine or the earlier one has no machine id, so a copy cannot be told"
    MOVED = "the state directory came from another machine, which was accepted"


# --- the identity ---------------------------------------------------------------------------------


def is_there(state_dir: Path) -> bool:
    """Return whether a node's key lies here: without one the node is in no swarm."""
    return (state_dir / DIRECTORY / KEY_FILE).exists()


def is_sealed(state_dir: Path) -> bool:
    """Return whether the key on the disk is encrypted."""
    return ENCRYPTED in (_read(state_dir / DIRECTORY / KEY_FILE) or b"")


def load_certificate(state_dir: Path) -> bytes:
    """Read the certificate chain alone; the key may be locked.

    Raises:
        IdentityMissing: there is none.
    """
    path = state_dir / DIRECTORY / CERT_FILE
    found = _read(path) or _read(path.with_name(NEXT_CERT_FILE))
    if found is None:
        raise IdentityMissing(f"{path} is missing")
    return found


def load(state_dir: Path, *, passphrase: bytes = b"") -> StoredIdentity:
    """Read root, certificate and key, finishing a replacement that a crash interrupted.

    Args:
        passphrase: of the key, if that is encrypted.

    Raises:
        IdentityMissing: nothing there, or not all of it; the text names what is missing.
        IdentityBroken: a file is damaged, does not fit the others, or lies open to other users.
        StorageFailed: the file system does not hand a file out.
    """
    directory = state_dir / DIRECTORY
    root_pem, cert_pem, key_pem = (
        _read(directory / name) for name in (ROOT_FILE, CERT_FILE, KEY_FILE)
    )
    next_pem = _read(directory / NEXT_CERT_FILE)
    found = {ROOT_FILE: root_pem, CERT_FILE: cert_pem or next_pem, KEY_FILE: key_pem}
    missing = [name for name, content in found.items() if content is None]
    if len(missing) == len(found):
        raise IdentityMissing(f"{directory} holds no node identity: this node is in no swarm")
    if root_pem is None or key_pem is None or missing:
        raise IdentityMissing(
            f"{directory} holds only part of a node identity, without {' and '.join(missing)}; "
            "restore it, or join the swarm anew"
        )
    _require_private(directory / KEY_FILE)
    key_pem = _opened(directory / KEY_FILE, key_pem, passphrase)
    try:
        require_roots(root_pem)
    except CertificateMalformed as error:
        raise IdentityBroken(f"{directory / ROOT_FILE} cannot be used: {error}") from error
    cert_pem = _settle(directory, cert_pem, next_pem, key_pem)
    return StoredIdentity(root_pem, KeyPair(cert_pem, key_pem))


def read_root(state_dir: Path) -> bytes | None:
    """Return the trusted roots as they lie on the disk, None if there are none.

    Raises:
        IdentityBroken, StorageFailed: the file cannot be read.
    """
    return _read(state_dir / DIRECTORY / ROOT_FILE)


def save_root(state_dir: Path, root_pem: bytes) -> None:
    """Replace the trusted roots.

    Raises:
        CertificateMalformed: not PEM certificates of CAs; nothing was changed.
        StorageFailed: the disk refused; the old roots are still there.
    """
    require_roots(root_pem)
    directory = _make_directory(state_dir)
    _write(directory / ROOT_FILE, root_pem, _PUBLIC)


def reseal_key(state_dir: Path, *, before: bytes, after: bytes) -> None:
    """Encrypt the key on the disk with another passphrase, or with none; the old file goes as one.

    Args:
        before: what opens it, if it is encrypted.
        after: empty for an unencrypted file.

    Raises:
        IdentityBroken: ``before`` does not open it.
        StorageFailed: the disk refused; the key is as it was.
    """
    path = state_dir / DIRECTORY / KEY_FILE
    found = _read(path)
    if found is None:
        raise IdentityMissing(f"{path} is missing")
    _write(path, seal_key_pem(_opened(path, found, before), after), _SECRET)


def save_pair(state_dir: Path, pair: KeyPair, *, passphrase: bytes = b"") -> None:
    """Replace certificate and key as one: after a crash at any step, ``load`` gives one pair whole.

    Args:
        passphrase: encrypts the key, and opens the one before; empty for neither.

    Raises:
        CertificateMalformed: the key is not the certificate's; nothing was changed.
        StorageFailed: the disk refused; ``load`` says which of the two pairs is there.
    """
    require_pair(pair.cert_pem, pair.key_pem)
    directory = _make_directory(state_dir)
    _finish_interrupted(directory, passphrase)
    _write(directory / NEXT_CERT_FILE, pair.cert_pem, _PUBLIC)
    _write(directory / KEY_FILE, seal_key_pem(pair.key_pem, passphrase), _SECRET)
    _rename(directory / NEXT_CERT_FILE, directory / CERT_FILE)


def remove(state_dir: Path) -> None:
    """Forget the identity, as ``leave`` does; the key goes first, and no error if nothing is there.

    Raises:
        StorageFailed: the disk refused; some of it may be gone, and calling again continues.
    """
    directory = state_dir / DIRECTORY
    names = (KEY_FILE, CERT_FILE, NEXT_CERT_FILE, ROOT_FILE)
    try:
        for name in (*names, *(_temporary(name) for name in names)):
            (directory / name).unlink(missing_ok=True)
        (state_dir / MACHINE_FILE).unlink(missing_ok=True)
        if directory.is_dir():
            _sync_directory(directory)
    except OSError as error:
        raise StorageFailed(f"cannot remove {directory}: {_reason(error)}") from error


def _settle(directory: Path, cert: bytes | None, following: bytes | None, key: bytes) -> bytes:
    """Return the chain that fits ``key``, giving a dot chain its name if that is the one."""
    problem: CertificateMalformed | None = None
    if cert is not None:
        try:
            require_pair(cert, key)
            return cert
        except CertificateMalformed as error:
            problem = error
    if following is not None:
        with suppress(CertificateMalformed):
            require_pair(following, key)
            _rename(directory / NEXT_CERT_FILE, directory / CERT_FILE)
            return following
    raise IdentityBroken(
        f"{directory / CERT_FILE} and {directory / KEY_FILE} cannot be used: "
        f"{problem or 'the private key does not belong to the certificate'}; restore both from "
        "one moment, or join the swarm anew"
    ) from problem


def _opened(path: Path, key_pem: bytes, passphrase: bytes) -> bytes:
    try:
        return open_key_pem(key_pem, passphrase)
    except CertificateMalformed as error:
        raise IdentityBroken(f"{path} cannot be used: {error}") from error


def _finish_interrupted(directory: Path, passphrase: bytes) -> None:
    """Give a dot chain its name if it is the one that fits, before a new pair overwrites it."""
    with suppress(IdentityBroken):  # nothing on disk fits: nothing is lost by writing over it
        cert, following, key = (
            _read(directory / name) for name in (CERT_FILE, NEXT_CERT_FILE, KEY_FILE)
        )
        if following is not None and key is not None:
            key = _opened(directory / KEY_FILE, key, passphrase)
            _settle(directory, cert, following, key)


# --- the machine ----------------------------------------------------------------------------------


def this_machine(filesystem: Path = Path("/")) -> Machine:
    """Find out where we run.

    The id is systemd's machine id, else (no systemd, or an image that has not booted yet) the
    firmware's product id, which is as stable. Containers and network namespaces of one host share
    it: two nodes on one machine are legal, and the directory a node lives in may be renamed.
    """
    for kind, place in (
        ("machine-id", "etc/machine-id"),
        ("machine-id", "var/lib/dbus/machine-id"),
        ("product-uuid", "sys/class/dmi/id/product_uuid"),
    ):
        try:
            found = (filesystem / place).read_text(encoding="ascii").strip().lower()
        except (OSError, UnicodeDecodeError):
            continue
        if found and found != "uninitialized":
            digest = hmac.new(_MACHINE_KEY, found.encode(), hashlib.sha256).hexdigest()
            return Machine(f"{kind}:{digest}", socket.gethostname())
    return Machine(None, socket.gethostname())


def bind_machine(state_dir: Path, machine: Machine, *, accept_moved_state: bool = False) -> Binding:
    """Refuse a state directory that was copied from another machine.

    Two daemons with one identity would both run its tasks and both vote. This is the first line,
    on the copy itself; managers also notice one certificate in use from two places. Only a machine
    id that differs refuses: hosts are renamed, and a host without an id proves nothing.

    Args:
        accept_moved_state: the administrator says that the other machine no longer runs this node.

    Raises:
        CopiedState: bound to another machine, and both are named.
        IdentityBroken: the binding cannot be read.
        StorageFailed: it cannot be written.
    """
    path = state_dir / MACHINE_FILE
    stored = _read(path)
    if stored is None:
        _bind(path, machine)
        return Binding.FIRST
    bound = _parse_machine(path, stored)
    if not _comparable(bound, machine):
        result = Binding.UNPROVEN
    elif bound.id_hash == machine.id_hash:
        result = Binding.SAME
    elif accept_moved_state:
        result = Binding.MOVED
    else:
        raise CopiedState(
            f"the state in {state_dir} belongs to {_name(bound)}, and this is {_name(machine)}: "
            "one node's state may not run in two places. If it was moved here for good and "
            f"{bound.hostname} never starts it again, say --accept-moved-state; if it was copied, "
            f"remove {state_dir} here and join the swarm as a new node"
        )
    # An id once known is not given up for an unknown one: that would let any copy in later.
    if bound != machine and (machine.id_hash is not None or bound.id_hash is None):
        _bind(path, machine)
    return result


def _bind(path: Path, machine: Machine) -> None:
    content = {"machine": machine.id_hash, "hostname": machine.hostname}
    _make_directory(path.parent)
    _write(path, json.dumps(content).encode() + b"\n", _SECRET)


def _parse_machine(path: Path, stored: bytes) -> Machine:
    try:
        content = json.loads(stored)
        id_hash, hostname = content["machine"], content["hostname"]
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityBroken(
            f"{path} is damaged; remove it if this state directory belongs to this machine"
        ) from error
    return Machine(None if id_hash is None else str(id_hash), str(hostname))


def _comparable(one: Machine, other: Machine) -> bool:
    """Both have an id, of one kind."""
    if one.id_hash is None or other.id_hash is None:
        return False
    return one.id_hash.split(":")[0] == other.id_hash.split(":")[0]


def _name(machine: Machine) -> str:
    digest = "unknown" if machine.id_hash is None else machine.id_hash.split(":")[-1][:12]
    return f"host {machine.hostname} (machine {digest})"


# --- files ----------------------------------------------------------------------------------------


def _make_directory(state_dir: Path) -> Path:
    """Make ``<state>/certificates`` for the owner only, and the state directory if need be."""
    directory = state_dir / DIRECTORY
    try:
        for made in (state_dir, directory):
            if not made.is_dir():
                made.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
                _sync_directory(made.parent)
        directory.chmod(_OWNER_ONLY)
    except OSError as error:
        raise StorageFailed(f"cannot make {directory}: {_reason(error)}") from error
    return directory


def _read(path: Path) -> bytes | None:
    """The file's content, None if there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {_reason(error)}") from error
    if len(content) > MAX_FILE_BYTES:
        raise IdentityBroken(f"{path} is larger than {MAX_FILE_BYTES} bytes: not what belongs here")
    return content


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file atomically and durably; its mode does not depend on the umask."""
    temporary = path.with_name(_temporary(path.name))
    try:
        temporary.unlink(missing_ok=True)  # left by a crash, perhaps with another mode
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, _SECRET), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {_reason(error)}") from error
    _rename(temporary, path)


def _rename(source: Path, target: Path) -> None:
    try:
        source.replace(target)
        _sync_directory(target.parent)
    except OSError as error:
        raise StorageFailed(f"cannot replace {target}: {_reason(error)}") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(name: str) -> str:
    return f"{name}.new"


def _require_private(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {_reason(error)}") from error
    if mode & 0o077:
        raise IdentityBroken(
            f"{path} lies open to other users (mode {mode:04o}); if none of them can have read "
            f"it, `chmod 600 {path}`, else remove {path.parent} and join the swarm anew"
        )


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
