"""``swarmctl update``: the swarm's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import command
from .flags import BOOL, Flag
from .swarm_spec import SPEC_FLAGS, merge_flags, post_spec
from .unlock import tell_key

if TYPE_CHECKING:
    from .command import Invocation


@command(
    "update [OPTIONS]",
    "Update the swarm",
    Flag("autolock", BOOL, "Change manager autolocking setting (true|false)"),
    *SPEC_FLAGS,
)
def update(call: Invocation) -> None:
    """Change the settings that were named, and leave the others."""
    given = call.given
    if not given.any_of("autolock", *(flag.name for flag in SPEC_FLAGS)):
        click.echo(click.get_current_context().get_help())
        return
    swarm = call.api.get("/swarm")
    spec = swarm["Spec"]
    encryption = spec.setdefault("EncryptionConfig", {})
    was_locked = bool(encryption.get("AutoLockManagers"))
    merge_flags(spec, given, ca_cert=swarm["TLSInfo"]["TrustRoot"])
    if "autolock" in given:
        encryption["AutoLockManagers"] = given.is_set("autolock")
    post_spec(call, swarm)
    click.echo("Swarm updated.")
    if encryption.get("AutoLockManagers") and not was_locked:
        tell_key(call.api.get("/swarm/unlockkey")["UnlockKey"])
