"""``swarmctl install-service``: have systemd run the daemon, from now on and after every boot."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarmctl.__main__ import self_command

from . import launch
from .client import NoDaemon
from .command import Failure, command
from .flags import BOOL, Flag

if TYPE_CHECKING:
    from .command import Invocation


@command(
    "install-service [OPTIONS]",
    "Have systemd run the daemon",
    *launch.DAEMON_FLAGS,
    Flag("print", BOOL, "Print the unit and change nothing"),
    text=(
        "Writes the unit swarmctl.service, enables and starts it. With --executor docker or\n"
        "podman the daemon is confined; plain processes are its children and would be, too."
    ),
)
def install_service(call: Invocation) -> None:
    """Write the unit and start it; a daemon that runs already is left alone."""
    executor = call.given.text("executor")
    text = launch.unit_text(launch.daemon_command(call), dict(os.environ), executor)
    if call.given.is_set("print"):
        click.echo(text, nl=False)
        return
    if not launch.SYSTEMD_RUNS.is_dir():
        raise Failure(
            "systemd does not run this machine: `swarmctl init` and `join` start the daemon "
            "without it, and --print shows the unit"
        )
    if os.geteuid() != 0:
        raise Failure(f"only root may write {launch.UNIT}; --print shows what would be in it")
    _require_safe(Path(self_command()[-1]))
    if not launch.may_write(launch.UNIT):
        raise Failure(f"{launch.UNIT} is somebody's own; remove it first, or see --print")
    launch.UNIT.write_text(text)
    launch.systemctl("daemon-reload")
    try:
        call.api.ping()
    except NoDaemon:
        launch.systemctl("enable", "--now", launch.UNIT.name)
        if not launch.wait_for_daemon(call.api):
            raise Failure(
                f"{launch.UNIT.name} does not answer; `journalctl -u {launch.UNIT.name}` tells why"
            ) from None
        click.echo(f"Installed and started {launch.UNIT.name}")
        return
    launch.systemctl("enable", launch.UNIT.name)
    click.echo(
        f"Installed {launch.UNIT.name}. A daemon serves {call.socket} already: stop it, then "
        f"`systemctl start {launch.UNIT.name}`; tasks keep running meanwhile"
    )


def _require_safe(program: Path) -> None:
    """Raise Failure where somebody else could change what root would run at every boot."""
    if not program.is_file():
        return  # an installed package; pip's affair
    found = program.stat()
    unsafe = found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if unsafe or any(map(_is_others, {*program.parents, *program.resolve().parents})):
        raise Failure(
            f"{program} can be changed by others than root, and would be run as root: move it, for "
            f"example `install -m 755 {program} /usr/local/bin/swarmctl`"
        )


def _is_others(directory: Path) -> bool:
    """Could others than root put another file in the place of one of root's here?"""
    found = directory.stat()
    is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    return bool(found.st_uid != 0 or is_open)
