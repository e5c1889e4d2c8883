"""Commands and groups: click's tree, Docker's words.

What for: click finds the command, lists it, completes it in shells; how flags are read, how help
and usage errors look and which exit code they give is the docker CLI's (docker-api.md section 1):
0 fine, 1 an error, 125 flags that cannot be read. Laws:

- A group imports a command when it is called, not when it is listed.
- A command is a plain function of one :class:`Invocation`; what it raises on purpose
  (:class:`SwarmError`) becomes one line on standard error and exit code 1.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, final

import click

from swarmctl.core.errors import SwarmError

from .flags import BOOL, Flag, FlagError, Given, Kind, read_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .api import Api

DEFAULT_SOCKET = "/run/swarmctl/swarmctl.sock"
SOCKET_FLAG = Flag(
    "socket", Kind("path", str), "The daemon's unix socket", default=DEFAULT_SOCKET, hidden=True
)
_HELP_FLAG = Flag("help", BOOL, "Print usage", short="h", hidden=True)
_UNREADABLE = 125
_INTERRUPTED = 130


class Arity(NamedTuple):
    """How many arguments a command takes; ``most`` None for any number."""

    least: int
    most: int | None

    def problem(self, count: int) -> str | None:
        """Return what is wrong with that many, in Docker's words, or None."""
        if count >= self.least and (self.most is None or count <= self.most):
            return None
        if self.most == 0:
            return "accepts no arguments"
        plural = "" if self.least == 1 else "s"
        if self.most == self.least:
            return f"requires {self.least} argument{plural}"
        if count < self.least:
            return f"requires at least {self.least} argument{plural}"
        return f"requires at most {self.most} argument{'' if self.most == 1 else 's'}"


NONE = Arity(0, 0)
ONE = Arity(1, 1)
SOME = Arity(1, None)
ANY = Arity(0, None)


@final
class Invocation:
    """One call of a command: what was given, and the daemon it is about."""

    def __init__(self, given: Given, socket: str | None) -> None:
        self.given = given
        self.arguments = given.arguments
        self._socket = socket
        self._api: Api | None = None

    @property
    def named_socket(self) -> str | None:
        """The socket that a flag names, or None when it is left to environment and default."""
        return self._socket

    @property
    def socket(self) -> str:
        """The daemon's socket: by flag, else by environment, else the usual place."""
        return self._socket or socket_of(os.environ)

    def turn_to(self, socket: str) -> None:
        """Be about the daemon at this socket; before the first request."""
        self._socket = socket

    @property
    def api(self) -> Api:
        """The daemon; nothing is sent before the first request."""
        from .api import Api

        if self._api is None:
            self._api = Api(self.socket)
        return self._api

    def close(self) -> None:
        """Hang up, if there was a call to the daemon at all."""
        if self._api is not None:
            self._api.close()


def socket_of(environment: Mapping[str, str]) -> str:
    """Return the socket that an environment names, else the usual one.

    Raises:
        Failure: SWARMCTL_HOST is no ``unix://`` address.
    """
    named = environment.get("SWARMCTL_SOCKET", "")
    if named:
        return named
    host = environment.get("SWARMCTL_HOST", "")
    if not host:
        return DEFAULT_SOCKET
    if "://" in host and not host.startswith("unix://"):
        raise Failure(f"SWARMCTL_HOST is {host!r}; it must be a unix socket, as unix:///path")
    return host.removeprefix("unix://")


class Failure(click.ClickException):
    """A command's end with a line on standard error and an exit code."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code  # type: ignore[misc] # click reads it off the instance

    def show(self, file: Any = None) -> None:
        if self.message:
            click.echo(self.message, file=file, err=file is None)


class Command(click.Command):
    """A command whose flags are read as Docker reads them."""

    def __init__(
        self,
        usage: str,
        summary: str,
        run: Callable[[Invocation], None],
        flags: Sequence[Flag] = (),
        *,
        arity: Arity,
        interspersed: bool = True,
        aliases: str = "",
        text: str = "",
    ) -> None:
        params: list[click.Parameter] = [_option(flag) for flag in (*flags, SOCKET_FLAG)]
        super().__init__(usage.split()[0], params=params, help=summary, callback=run)
        self.flags = tuple(flags)
        self.summary = summary
        self._usage = usage.partition(" ")[2]
        self._run = run
        self._arity = arity
        self._interspersed = interspersed
        self._aliases = aliases
        self._text = text

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell asks what could follow
            return super().parse_args(ctx, args)
        known = (*self.flags, SOCKET_FLAG, *self._help_flags())
        try:
            given = read_arguments(args, known, interspersed=self._interspersed)
        except FlagError as error:
            raise Failure(self._with_usage(ctx, str(error)), _UNREADABLE) from None
        if given.is_set("help"):
            click.echo(ctx.get_help())
            ctx.exit(0)
        problem = self._arity.problem(len(given.arguments))
        if problem is not None:
            path = ctx.command_path
            raise Failure(self._with_usage(ctx, f"swarmctl: '{path}' {problem}"))
        ctx.meta[_GIVEN] = given
        return []

    def invoke(self, ctx: click.Context) -> None:
        given: Given = ctx.meta[_GIVEN]
        socket = given.value("socket") or ctx.find_root().params.get("socket")
        call = Invocation(given, socket)
        try:
            self._run(call)
        except SwarmError as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            raise SystemExit(_INTERRUPTED) from None
        finally:
            call.close()

    def get_usage(self, ctx: click.Context) -> str:
        return f"Usage:  {ctx.command_path} {self._usage}".rstrip()

    def get_help(self, ctx: click.Context) -> str:
        parts = [self.get_usage(ctx), self.summary]
        if self._text:
            parts.append(self._text)
        if self._aliases:
            parts.append(f"Aliases:\n  {self._aliases}")
        shown = [flag for flag in self.flags if not flag.hidden]
        if shown:
            parts.append("Options:\n" + "\n".join(option_lines(shown)))
        return "\n\n".join(parts)

    def _help_flags(self) -> tuple[Flag, ...]:
        if any(flag.short == "h" for flag in self.flags):
            return (_HELP_FLAG._replace(short=""),)
        return (_HELP_FLAG,)

    def _with_usage(self, ctx: click.Context, text: str) -> str:
        return (
            f"{text}\n\n{self.get_usage(ctx)}\n\n"
            f"Run '{ctx.command_path} --help' for more information"
        )


_GIVEN = "swarmctl.given"


def command(
    usage: str,
    summary: str,
    *flags: Flag,
    arity: Arity = NONE,
    interspersed: bool = True,
    aliases: str = "",
    text: str = "",
) -> Callable[[Callable[[Invocation], None]], Command]:
    """Make a function a command.

    Args:
        usage: its name and what follows, as the help shows it: ``rm SERVICE [SERVICE...]``.
        aliases: the line of other names, for the help.
        text: paragraphs that follow the summary.
    """

    def make(run: Callable[[Invocation], None]) -> Command:
        return Command(
            usage,
            summary,
            run,
            flags,
            arity=arity,
            interspersed=interspersed,
            aliases=aliases,
            text=text,
        )

    return make


class Lazy(NamedTuple):
    """Where a command lives, and its line in the help."""

    target: str  # "module:attribute"
    summary: str
    hidden: bool = False  # for swarmctl itself, and listed nowhere


class Group(click.Group):
    """A group that imports a command when it is called, not when it is listed.

    Args:
        table: name -> where; help texts stand here because click would otherwise import every
            command to print its first line.
        aliases: other name -> name; not listed.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        table: dict[str, Lazy],
        aliases: dict[str, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            name,
            help=summary,
            context_settings={"help_option_names": ["-h", "--help"]},
            **settings,
        )
        self.summary = summary
        self._table = table
        self._aliases = aliases or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for name, row in self._table.items() if not row.hidden)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = self._table.get(self._aliases.get(cmd_name, cmd_name))
        if row is None:
            return None
        module, _, attribute = row.target.partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"{row.target} is no click command")
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(0)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            text = f"unknown flag: {error.option_name}"
        except click.UsageError as error:
            text = error.format_message()
        raise Failure(self._with_usage(ctx, text), _UNREADABLE)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        found = self.get_command(ctx, name)
        if found is None and not ctx.resilient_parsing:
            import difflib

            text = f"swarmctl: unknown command: {ctx.command_path} {name}"
            near = difflib.get_close_matches(name, [*self._table, *self._aliases], n=1)
            if near:
                text += f"; did you mean {near[0]!r}?"
            raise Failure(self._with_usage(ctx, text))
        return (found.name if found else None), found, args[1:]

    def get_usage(self, ctx: click.Context) -> str:
        options = "[OPTIONS] " if ctx.parent is None else ""
        return f"Usage:  {ctx.command_path} {options}COMMAND"

    def get_help(self, ctx: click.Context) -> str:
        names = self.list_commands(ctx)
        width = max(map(len, names)) + 3
        rows = [f"  {name:<{width}}{self._table[name].summary}" for name in names]
        parts = [self.get_usage(ctx), self.summary, "Commands:\n" + "\n".join(rows)]
        if ctx.parent is None:
            parts.append("Options:\n" + "\n".join(option_lines(ROOT_FLAGS)))
        parts.append(f"Run '{ctx.command_path} COMMAND --help' for more information on a command.")
        return "\n\n".join(parts)

    def _with_usage(self, ctx: click.Context, text: str) -> str:
        return (
            f"{text}\n\n{self.get_usage(ctx)}\n\n"
            f"Run '{ctx.command_path} --help' for more information"
        )


ROOT_FLAGS = (
    SOCKET_FLAG._replace(hidden=False),
    Flag("version", BOOL, "Print version information and quit", short="v"),
)


def option_lines(flags: Sequence[Flag]) -> list[str]:
    """Return a help's lines for flags, sorted, in two columns."""
    lefts = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        short = f"-{flag.short}, " if flag.short else "    "
        lefts.append(f"  {short}--{flag.name} {flag.kind.word}".rstrip())
    width = max(map(len, lefts)) + 3
    return [
        f"{left:<{width}}{_described(flag)}"
        for left, flag in zip(lefts, sorted(flags, key=lambda flag: flag.name), strict=True)
    ]


def _described(flag: Flag) -> str:
    if not flag.default:
        return flag.help
    shown = f'"{flag.default}"' if flag.kind.word == "string" else flag.default
    return f"{flag.help} (default {shown})"


def _option(flag: Flag) -> click.Option:
    """Return a flag as click knows it: for shell completion only."""
    names = [f"--{flag.name}", *([f"-{flag.short}"] if flag.short else [])]
    return click.Option(
        [*names, "p_" + flag.name.replace("-", "_")],
        is_flag=not flag.kind.word,
        multiple=flag.kind.many,
        help=flag.help,
        hidden=flag.hidden,
    )
