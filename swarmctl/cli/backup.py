"""``backup`` and ``restore``: a swarm as one encrypted file, and a swarm out of it.

Laws:

- The passphrase is in no argument: it comes from a terminal, a file, standard input or the
  environment.
- A backup is there whole or not at all, readable by its owner alone, and replaces no file unless
  asked to.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from .command import ONE, Failure, command
from .flags import BOOL, TEXT, Flag
from .launch import DAEMON_FLAGS, ensure_daemon, stop_if_started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .command import Invocation

VARIABLE = "SWARMCTL_PASSPHRASE"
_PASSPHRASE = Flag(
    "passphrase-file", TEXT, 'File that holds the passphrase; "-" reads it from standard input'
)
_HOW = (
    f"The passphrase is asked for unless --passphrase-file or {VARIABLE} gives it. A file that "
    "nobody reads aloud is as good: a key file, or the unlock key (`swarmctl unlock-key -q | "
    "swarmctl backup --passphrase-file - FILE`)."
)


@command(
    "backup [OPTIONS] FILE",
    "Write everything that the swarm knows to an encrypted file",
    Flag("force", BOOL, "Replace the file if it exists", short="f"),
    _PASSPHRASE,
    arity=ONE,
    text=_HOW,
)
def backup(call: Invocation) -> None:
    """Make a backup while the swarm runs, on any manager."""
    path = Path(call.arguments[0])
    force = call.given.is_set("force")
    if path.exists() and not force:
        raise Failure(f"{path} exists; --force replaces it")
    passphrase = _passphrase(call, twice=True)
    with _whole_file(path, force=force) as temporary:
        with call.api.download("/swarm/backup", {"Passphrase": passphrase}) as pieces:
            for piece in pieces:
                temporary.write(piece)
        size = temporary.tell()
    click.echo(f"Wrote {size} bytes to {path}. It holds secrets and the CA's key; keep it safe.")


@command(
    "restore [OPTIONS] FILE",
    "Make a swarm of one manager out of a backup",
    *DAEMON_FLAGS,
    Flag("advertise-addr", TEXT, 'Advertised address (format: "<ip|interface>[:port]")'),
    Flag("listen-addr", TEXT, 'Listen address (format: "<ip|interface>[:port]")'),
    _PASSPHRASE,
    arity=ONE,
    text=f"Starts the daemon first when none answers. {_HOW}",
)
def restore(call: Invocation) -> None:
    """Restore onto a node that is in no swarm."""
    path = Path(call.arguments[0])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(f"the backup {path} cannot be read: {error.strerror or error}") from error
    passphrase = _passphrase(call, twice=False)
    started = ensure_daemon(call)
    query = {
        key: call.given.text(flag)
        for flag, key in (("listen-addr", "listenAddr"), ("advertise-addr", "advertiseAddr"))
        if flag in call.given
    }
    header = base64.b64encode(passphrase.encode()).decode()
    try:
        node_id = call.api.upload(
            "/swarm/restore", content, query, (("X-Swarmctl-Passphrase", header),)
        )
    except BaseException:
        stop_if_started(started)
        raise
    click.echo(
        f"Swarm restored: current node ({node_id}) is now its only manager.\n\n"
        "Nodes of before that still run come back by themselves if this node has an address of a "
        "manager they know.\nOthers join anew: `swarmctl join-token worker` prints the command. "
        "Remove those that are gone with `swarmctl node rm`."
    )


def _passphrase(call: Invocation, *, twice: bool) -> str:
    """Return the passphrase: from a file, standard input, the environment, or a terminal.

    Raises:
        Failure: there is none, it cannot be read, or it was mistyped.
    """
    source = call.given.text("passphrase-file")
    if source:
        try:  # to the end: key files of a kind have their first line in common
            text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise Failure(f"the passphrase cannot be read: {error}") from error
        return text.rstrip("\n")
    if VARIABLE in os.environ:
        return os.environ[VARIABLE]
    if not sys.stdin.isatty():
        raise Failure("a passphrase is needed: --passphrase-file FILE, or - for standard input")
    passphrase = getpass.getpass("Passphrase of the backup: ")
    if twice and getpass.getpass("Again: ") != passphrase:
        raise Failure("the two passphrases differ")
    return passphrase


@contextlib.contextmanager
def _whole_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Yield a file to write to that gets its name once all is written, and synced.

    Raises:
        Failure: the disk refused, or somebody made a file of that name meanwhile.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # unlike a rename it replaces nothing
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError as error:
        raise Failure(f"{path} exists; --force replaces it") from error
    except OSError as error:
        raise Failure(f"the backup cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
