"""Every command has its help, its place in docs/cli.md, and costs no more than it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from swarmctl.cli.command import Command, Group
from swarmctl.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
HEAD = """# The command line

Names, flags, columns, templates and exit codes are the docker CLI's, so fingers and scripts keep
working: 0 is fine, 1 an error, 125 flags that cannot be read. This page is what `--help` says of
every command; a test keeps it so (`pytest tests/cli --rewrite` writes it).

The daemon's socket is found by `--socket` (before or after a command), else `SWARMCTL_SOCKET`, else
`SWARMCTL_HOST` (`unix:///path`), else `/run/swarmctl/swarmctl.sock`.

Where docker's CLI would surprise, ours does not: `--publish-rm 8090:80` closes that port and leaves
another one to the same target open; a restart flag alone does not set a delay; a mistyped column of
`--format` is named; progress that is not shown on a terminal is written when it changes.
"""


Words = tuple[str, ...]


def walk(group: Group, path: Words = ()) -> Iterator[tuple[Words, click.Command]]:
    """Every command below a group, with the words that call it."""
    context = click.Context(group, info_name=" ".join(("swarmctl", *path)))
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield (*path, name), found
        if isinstance(found, Group):
            yield from walk(found, (*path, name))


ALL = dict(walk(cli))


def page(helps: dict[Words, str]) -> str:
    parts = [HEAD]
    for words, text in helps.items():
        parts.append(f"## swarmctl {' '.join(words)}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def test_the_page_is_what_the_help_says(
    run: Callable[..., Ran], pytestconfig: pytest.Config
) -> None:
    """docs/cli.md holds the help of every command, word by word."""
    helps = {}
    for words in ALL:
        ran = run(*words, "--help")
        assert ran.code == 0
        helps[words] = ran.out.rstrip("\n")
    text = page(helps)
    if pytestconfig.getoption("--rewrite"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text


def test_the_tables_of_groups_are_true() -> None:
    """A command's line in its group is its own summary, and its name is the one it is called by."""
    for words, found in ALL.items():
        group = ALL.get(words[:-1], cli)
        assert isinstance(group, Group)
        row = group._table[words[-1]]
        summary = found.summary if isinstance(found, (Command, Group)) else ""
        assert row.summary == summary, words
        assert found.name == words[-1]


def test_every_flag_says_what_it_does() -> None:
    """No flag without a sentence, no short flag twice in a command."""
    for words, found in ALL.items():
        if not isinstance(found, Command):
            continue
        shorts = [flag.short for flag in found.flags if flag.short]
        assert len(shorts) == len(set(shorts)), words
        names = [flag.name for flag in found.flags]
        assert len(names) == len(set(names)), words
        assert all(flag.help for flag in found.flags), words


@pytest.mark.parametrize(
    ("words", "code", "first"),
    [
        ((), 0, "Usage:  swarmctl [OPTIONS] COMMAND"),
        (("service",), 0, "Usage:  swarmctl service COMMAND"),
        (
            ("sevice",),
            1,
            "swarmctl: unknown command: swarmctl sevice; did you mean 'service'?",
        ),
        (("service", "--bogus"), 125, "unknown flag: --bogus"),
        (("--bogus",), 125, "unknown flag: --bogus"),
        (("service", "rm"), 1, "swarmctl: 'swarmctl service rm' requires at least 1 argument"),
        (("service", "ls", "x"), 1, "swarmctl: 'swarmctl service ls' accepts no arguments"),
        (("node", "update", "a", "b"), 1, "swarmctl: 'swarmctl node update' requires 1 argument"),
        (("service", "list", "--help"), 0, "Usage:  swarmctl service ls [OPTIONS]"),
    ],
)
def test_mistakes_and_exit_codes(
    run: Callable[..., Ran], words: tuple[str, ...], code: int, first: str
) -> None:
    """0 for help, 1 for a wrong word or number of arguments, 125 for a wrong flag."""
    ran = run(*words)
    assert ran.code == code
    assert (ran.out or ran.err).splitlines()[0] == first


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Callable[..., Ran], shell: str) -> None:
    """Each shell gets a script that asks swarmctl."""
    ran = run("completion", shell)
    assert ran.code == 0
    assert "_SWARMCTL_COMPLETE" in ran.out
    assert run("completion", "tcsh").code == 1


def completed(words: str) -> list[str]:
    """What bash offers after these words, the last of which is not finished."""
    parts = words.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "from swarmctl.cli.main import main; main()"],
        env={
            **os.environ,
            "_SWARMCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(parts) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_a_shell_completes_commands_and_flags() -> None:
    """Commands of a group and flags of a command are offered."""
    assert completed("swarmctl service cr") == ["create"]
    assert completed("swarmctl join") == ["join", "join-token"]
    offered = completed("swarmctl service create --replicas-")
    assert offered == ["--replicas-max-per-node"]


HEAVY = (
    *("trio", "rich", "cryptography", "pluggy", "docker", "asyncio", "ssl", "logging"),
    *("swarmctl.daemon", "swarmctl.config", "swarmctl.core.model.objects"),
)


def test_a_command_imports_only_what_it_runs(stub: Stub) -> None:
    """service ls starts without the daemon's libraries, the model, or anything that draws."""
    stub.answers["GET /services"] = []
    code = (
        "import sys; from swarmctl.cli.main import cli\n"
        "try: cli.main(['service', 'ls'], prog_name='swarmctl')\n"
        f"except SystemExit: print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
