"""``swarmctl plugin check``: put a plugin through all checks before a daemon gets it.

It needs no daemon. The plugin's code runs here, as whoever asks; so check what you wrote, or as a
user that may not do much.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarmctl.core.errors import SwarmError

from .command import ONE, Failure, command
from .flags import TEXT, Flag, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swarmctl.plugins.loader import Plugins
    from swarmctl.plugins.sources import Source

    from .command import Invocation


CHECK_S = 60


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format for option (expected name=value)")
    return key, value


@command(
    "check [OPTIONS] FILE|WHEEL|NAME",
    "Check a plugin: that it loads, and that what it makes keeps the laws",
    Flag("name", TEXT, "What its scheduler or allocator is called, if not as the plugin"),
    Flag("option", Kind("map", _setting, many=True), "A setting that its objects are made with"),
    arity=ONE,
    text=(
        "Takes a Python file, a wheel, or the name of an installed distribution's entry point,\n"
        "and runs its code here. Schedulers, allocators and filters go through the suites of\n"
        "swarmctl.plugins.testing; executors need an engine: call their suite from your tests."
    ),
)
def check(call: Invocation) -> None:
    """Print a line for each check; exit code 1 when one fails."""
    from swarmctl.plugins.loader import load_alone

    failed = False
    options, name = dict(call.given.each("option")), call.given.text("name")
    for source in _sources(call.arguments[0]):
        click.echo(f"{source.name}: {source.place}")
        try:
            plugins = load_alone(source)
        except SwarmError as error:
            click.echo(f"  FAILED  load: {error}")
            failed = True
            continue
        (loaded,) = plugins.loaded.values()
        click.echo(f"  ok      load: plugin API {loaded.info.api}, {', '.join(loaded.hooks)}")
        for what, run in _checks(plugins, name or source.name, options):
            failed |= not _passes(what, run)
    if failed:
        raise Failure("the plugin does not pass")


def _sources(reference: str) -> list[Source]:
    """Return what to check.

    Raises:
        SwarmError: there is no such plugin.
    """
    from swarmctl.plugins.sources import Source, at, installed

    if "/" in reference or reference.endswith((".py", ".whl")):
        return at(Path(reference).absolute())
    points = [one for one in installed() if one.name == reference]
    if not points:
        raise Failure(f"no plugin called {reference!r} is installed, and it is no path")
    return [Source(name=one.name, kind="installed", module=one.module) for one in points]


def _checks(
    plugins: Plugins, called: str, options: dict[str, str]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the checks that a plugin's hooks call for."""
    from swarmctl.plugins import AllocatorSettings, SchedulerSettings
    from swarmctl.plugins.testing import check_allocator, check_filter, check_scheduler

    hooks = next(iter(plugins.loaded.values())).hooks
    if "swarmctl_scheduler" in hooks:
        for name in plugins.strategy_names() or [called]:
            settings = SchedulerSettings(options=options)
            yield (
                f"scheduler {name}",
                lambda: check_scheduler(lambda: plugins.scheduler(name, settings)),  # noqa: B023
            )
    if "swarmctl_allocator" in hooks:
        chosen = AllocatorSettings(options=options)
        yield (
            f"allocator {called}",
            lambda: check_allocator(plugins.allocator(called, chosen)),
        )
    if "swarmctl_scheduler_filters" in hooks:
        for at, one in enumerate(plugins.filters()):
            yield f"filter {one.name}", lambda: check_filter(lambda: plugins.filters()[at])  # noqa: B023


def _passes(name: str, run: Callable[[], None]) -> bool:
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(CHECK_S)
    try:
        run()
    except Exception as error:
        text = str(error) if isinstance(error, (SwarmError, AssertionError)) else repr(error)
        click.echo(f"  FAILED  {name}: {text}")
        return False
    finally:
        signal.alarm(0)
    click.echo(f"  ok      {name}")
    return True


def _out_of_time(_number: int, _frame: object) -> None:
    raise TimeoutError(f"not done after {CHECK_S} s")
