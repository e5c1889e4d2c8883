"""``swarmctl daemon``: run the daemon in the foreground and resume what the state directory holds."""

from __future__ import annotations

import os
import sys

import click

from swarmctl.config import load_config
from swarmctl.core.errors import SwarmError


@click.command()
@click.option("--state-dir", help="Where everything that must survive is kept.")
@click.option("--socket", help="Path of the API's unix socket.")
@click.option("--config", help="TOML file with settings.")
@click.option("--executor", help="docker, podman, process or a plugin's name.")
@click.option("--engine", help="Endpoint of the engine, such as unix:///var/run/docker.sock.")
@click.option("--listen-addr", help="Default for init and join: <ip|interface>[:port].")
@click.option("--advertise-addr", help="Default for init and join: <ip|interface>[:port].")
@click.option("--hostname", help="Told to the swarm instead of the system's.")
@click.option("--log-level", help="debug, info, warning or error.")
@click.option(
    "--accept-moved-state",
    is_flag=True,
    default=None,
    help="Start although the state directory comes from another machine.",
)
@click.option("--detached", is_flag=True, hidden=True, help="Log to a file in the state directory.")
def daemon(*, detached: bool, **flags: str | bool | None) -> None:
    """Run the daemon in the foreground."""
    from swarmctl.daemon import run_daemon  # trio and the rest are loaded for this command alone

    try:
        config = load_config(flags, os.environ)
    except SwarmError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(run_daemon(config, detached=detached))
