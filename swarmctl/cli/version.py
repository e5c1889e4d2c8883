"""``swarmctl version``: what this client is."""

from __future__ import annotations

import os
import sys

import click

from swarmctl import __version__


@click.command()
def version() -> None:
    """Show the swarmctl version information."""
    machine = os.uname()
    rows = {
        "Version": __version__,
        "Python version": ".".join(str(part) for part in sys.version_info[:3]),
        "OS/Arch": f"{machine.sysname.lower()}/{machine.machine}",
    }
    click.echo("Client:")
    for name, value in rows.items():
        click.echo(f" {name + ':':<18} {value}")
