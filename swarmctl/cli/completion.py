"""``swarmctl completion``: the script that makes a shell complete our commands and flags.

The script asks swarmctl itself, by click's own mechanism: an environment variable that ``main``
answers before anything else runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from .command import ONE, Failure, command

if TYPE_CHECKING:
    from .command import Invocation

SHELLS = ("bash", "zsh", "fish")


@command(
    "completion (bash|zsh|fish)",
    "Print a shell's completion script",
    arity=ONE,
    text="bash: source <(swarmctl completion bash)\n"
    "zsh:  source <(swarmctl completion zsh)\n"
    "fish: swarmctl completion fish | source",
)
def completion(call: Invocation) -> None:
    """Print the script."""
    shell = call.arguments[0]
    completer = get_completion_class(shell) if shell in SHELLS else None
    if completer is None:
        raise Failure(f"unknown shell {shell!r}: it must be one of {', '.join(SHELLS)}")
    from .main import cli

    click.echo(completer(cli, {}, "swarmctl", "_SWARMCTL_COMPLETE").source())
