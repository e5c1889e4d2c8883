"""``unlock`` and ``unlock-key``: a swarm whose managers start locked.

No key is ever an argument: the process list would show it. It is asked for at a terminal, or read
from standard input.
"""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

import click

from .command import NONE, Failure, command
from .flags import BOOL, Flag

if TYPE_CHECKING:
    from .api import Json
    from .command import Invocation

PROMPT = "Please enter unlock key: "


@command("unlock", "Unlock swarm", arity=NONE)
def unlock(call: Invocation) -> None:
    """Let a locked manager go on."""
    state = call.api.get("/info")["Swarm"]["LocalNodeState"]
    if state == "inactive":
        raise Failure("Error: This node is not part of a swarm")
    if state != "locked":
        raise Failure("Error: swarm is not locked")
    key = getpass.getpass(PROMPT) if sys.stdin.isatty() else sys.stdin.readline()
    call.api.post("/swarm/unlock", {"UnlockKey": key.strip()})


@command(
    "unlock-key [OPTIONS]",
    "Manage the unlock key",
    Flag("quiet", BOOL, "Only display token", short="q"),
    Flag("rotate", BOOL, "Rotate unlock key"),
    arity=NONE,
)
def unlock_key(call: Invocation) -> None:
    """Show the unlock key, after making a new one if asked."""
    quiet = call.given.is_set("quiet")
    if call.given.is_set("rotate"):
        _rotate(call)
        if not quiet:
            click.echo("Successfully rotated manager unlock key.\n")
    key = call.api.get("/swarm/unlockkey")["UnlockKey"]
    if not key:
        raise Failure("no unlock key is set")
    if quiet:
        click.echo(key)
    else:
        tell_key(key)


def _rotate(call: Invocation) -> None:
    swarm: Json = call.api.get("/swarm")
    if not swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"]:
        raise Failure("cannot rotate because autolock is not turned on")
    call.api.post(
        "/swarm/update",
        swarm["Spec"],
        {
            "version": str(swarm["Version"]["Index"]),
            "rotateWorkerToken": "false",
            "rotateManagerToken": "false",
            "rotateManagerUnlockKey": "true",
        },
    )


def tell_key(key: str) -> None:
    """Print an unlock key and what to do with it."""
    click.echo(
        "To unlock a swarm manager after it restarts, run the `swarmctl unlock`\n"
        f"command and provide the following key:\n\n    {key}\n\n"
        "Remember to store this key in a password manager, since without it you\n"
        "will not be able to restart the manager.\n"
    )
