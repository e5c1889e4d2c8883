"""The root command: a table of names, each resolved only when it is asked for.

Laws: importing this module imports click and nothing else of weight; a command imports only what it
runs, so ``swarmctl service ls`` starts without trio, rich or TLS. Help texts of the top level stand
in the table, because click would otherwise import every command to print its own first line.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

from swarmctl import __version__


class LazyCommand(NamedTuple):
    """Where a command lives, and its line in the help."""

    target: str  # "module:attribute"
    help: str


COMMANDS = {
    "daemon": LazyCommand("swarmctl.cli.daemon:daemon", "Run the daemon in the foreground"),
    "version": LazyCommand("swarmctl.cli.version:version", "Show the swarmctl version information"),
}


class LazyGroup(click.Group):
    """A click group that imports a command when it is called, not when it is listed."""

    def __init__(self, *, table: dict[str, LazyCommand], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]  # click types each setting apart
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = self._table.get(cmd_name)
        if row is None:
            return None
        module, _, attribute = row.target.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{row.target} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._table[name].help) for name in sorted(self._table)])


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    help="Swarm mode, free of any one engine.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-v", "--version", message="swarmctl version %(version)s")
def cli() -> None:
    pass


def main() -> None:
    """Run the command line on ``sys.argv``; always leaves by ``SystemExit``."""
    cli(prog_name="swarmctl")
