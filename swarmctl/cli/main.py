"""The root command: a table of names, each resolved only when it is asked for.

Laws: importing this module imports click and nothing else of weight; a command imports only what it
runs, so ``swarmctl service ls`` starts without trio, rich or TLS.
"""

from __future__ import annotations

import click

from swarmctl import __version__

from .command import Group, Lazy

COMMANDS = {
    "backup": Lazy(
        "swarmctl.cli.backup:backup", "Write everything that the swarm knows to an encrypted file"
    ),
    "ca": Lazy("swarmctl.cli.ca:ca", "Display and rotate the root CA"),
    "completion": Lazy("swarmctl.cli.completion:completion", "Print a shell's completion script"),
    "config": Lazy("swarmctl.cli.nouns:config", "Manage Swarm configs"),
    "daemon": Lazy("swarmctl.cli.daemon:daemon", "Run the daemon in the foreground"),
    "events": Lazy("swarmctl.cli.events:events", "Get real time events from the swarm"),
    "info": Lazy("swarmctl.cli.info:info", "Display information on this node and its swarm"),
    "init": Lazy("swarmctl.cli.swarm:init", "Initialize a swarm"),
    "install-service": Lazy("swarmctl.cli.install:install_service", "Have systemd run the daemon"),
    "join": Lazy("swarmctl.cli.swarm:join", "Join a swarm as a node and/or manager"),
    "join-token": Lazy("swarmctl.cli.swarm:join_token", "Manage join tokens"),
    "leave": Lazy("swarmctl.cli.swarm:leave", "Leave the swarm"),
    "network": Lazy("swarmctl.cli.nouns:network", "Manage networks"),
    "node": Lazy("swarmctl.cli.nouns:node", "Manage Swarm nodes"),
    "plugin": Lazy("swarmctl.cli.nouns:plugin", "Show what the daemon is made of"),
    "plugin-child": Lazy(
        "swarmctl.cli.plugin_child:plugin_child", "Run a plugin for the daemon", hidden=True
    ),
    "restore": Lazy("swarmctl.cli.backup:restore", "Make a swarm of one manager out of a backup"),
    "secret": Lazy("swarmctl.cli.nouns:secret", "Manage Swarm secrets"),
    "service": Lazy("swarmctl.cli.nouns:service", "Manage Swarm services"),
    "task": Lazy("swarmctl.cli.nouns:task", "Look at single tasks"),
    "unlock": Lazy("swarmctl.cli.unlock:unlock", "Unlock swarm"),
    "unlock-key": Lazy("swarmctl.cli.unlock:unlock_key", "Manage the unlock key"),
    "update": Lazy("swarmctl.cli.update:update", "Update the swarm"),
    "upgrade": Lazy(
        "swarmctl.cli.upgrade:upgrade", "Replace swarmctl by another release and restart the daemon"
    ),
    "version": Lazy("swarmctl.cli.version:version", "Show the swarmctl version information"),
}


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"swarmctl version {__version__}")
        ctx.exit(0)


cli = Group(
    "swarmctl",
    "Swarm mode, free of any one engine.",
    COMMANDS,
    params=[
        click.Option(["--socket"], help="The daemon's unix socket"),
        click.Option(
            ["-v", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Print version information and quit",
        ),
    ],
)


def main() -> None:
    """Run the command line on ``sys.argv``; always leaves by ``SystemExit``."""
    cli(prog_name="swarmctl")
