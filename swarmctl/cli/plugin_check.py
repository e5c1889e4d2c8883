"""``swarmctl plugin check``: put a plugin through all checks before a daemon gets it.

It needs no daemon. The plugin's code runs here, as whoever asks; so check what you wrote, or as a
user that may not do much.
"""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from swarmctl.core.errors import SwarmError

from .command import ONE, Failure, command
from .flags import MAP, TEXT, Flag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swarmctl.plugins import Allocator, Filter
    from swarmctl.plugins.loader import Plugins
    from swarmctl.plugins.sources import Source

    from .command import Invocation

T = TypeVar("T")

CHECK_S = 60


@command(
    "check [OPTIONS] FILE|WHEEL|NAME",
    "Check a plugin: that it loads, and that what it makes keeps the laws",
    Flag("name", TEXT, "What its scheduler or allocator is called, if not as the plugin"),
    Flag("option", MAP, "A setting that its objects are made with"),
    arity=ONE,
    text=(
        "Takes a Python file, a wheel, or the name of an installed distribution's entry point,\n"
        "and runs its code here. Schedulers, allocators and filters go through the suites of\n"
        "swarmctl.plugins.testing; executors need an engine: call their suite from your tests."
    ),
)
def check(call: Invocation) -> None:
    """Print a line for each check; exit code 1 when one fails."""
    failed = False
    options, name = dict(call.given.each("option")), call.given.text("name")
    for source in _sources(call.arguments[0]):
        click.echo(f"{source.name}: {source.place}")
        for what, run in _checks(source, name, options):
            failed |= not _passes(what, run)
        if note := _note(source):
            click.echo(f"  note    {note}")
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


def _note(source: Source) -> str:
    """Say what keeps a daemon from loading it as it is, if something does."""
    from swarmctl.plugins.loader import BUILT_INS, FIRST_PARTY
    from swarmctl.plugins.sources import PluginError, require_ours_alone

    if not source.path:
        known = source.name in BUILT_INS or source.name in FIRST_PARTY
        return (
            "" if known else f'a daemon loads it with plugins = ["{source.name}"] in its settings'
        )
    try:
        require_ours_alone(Path(source.path))
    except PluginError as error:
        return f"a daemon would not load it as it lies here: {error}"
    return ""


def _checks(
    source: Source, name: str, options: dict[str, str]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the checks that a plugin calls for; after one that fails there may be no more."""
    from swarmctl.plugins.loader import Plugins

    plugins = Plugins()

    def load() -> str:
        from swarmctl.plugins.sources import bring_in

        plugins.register(source.name, bring_in(source), source)
        (loaded,) = plugins.loaded.values()
        return f"plugin API {loaded.info.api}, {', '.join(loaded.hooks)}"

    yield "load", load
    for one in plugins.loaded.values():
        for hook, checks in (
            ("swarmctl_scheduler", _scheduler_checks),
            ("swarmctl_allocator", _allocator_checks),
            ("swarmctl_scheduler_filters", _filter_checks),
        ):
            if hook in one.hooks:
                yield from checks(plugins, one.source, name, options)


def _scheduler_checks(
    plugins: Plugins, source: Source, name: str, options: dict[str, str]
) -> Iterator[tuple[str, Callable[[], object]]]:
    from swarmctl.plugins import SchedulerSettings
    from swarmctl.plugins.testing import check_scheduler

    settings = SchedulerSettings(options=options)
    names = [name or source.name]
    if plugins.with_hook("swarmctl_strategies"):

        def named() -> str:
            names[:] = plugins.strategies_of(source)
            return ", ".join(names)

        yield "strategies", named
    for one in names:
        made = partial(plugins.scheduler, one, settings)
        yield f"scheduler {one}", partial(_made_and_kept, check_scheduler, made, one, source)


def _allocator_checks(
    plugins: Plugins, source: Source, name: str, options: dict[str, str]
) -> Iterator[tuple[str, Callable[[], object]]]:
    from swarmctl.plugins import AllocatorSettings
    from swarmctl.plugins.testing import check_allocator

    called = name or source.name
    made = partial(plugins.allocator, called, AllocatorSettings(options=options))

    def check(make: Callable[[], Allocator]) -> None:
        check_allocator(make())

    yield f"allocator {called}", partial(_made_and_kept, check, made, called, source)


def _filter_checks(
    plugins: Plugins, _source: Source, _name: str, _options: dict[str, str]
) -> Iterator[tuple[str, Callable[[], object]]]:
    from swarmctl.plugins.testing import check_filter

    found: list[Filter] = []

    def made() -> str:
        found[:] = plugins.filters()
        return ", ".join(str(one.name) for one in found)

    yield "filters", made
    for at, one in enumerate(found):
        yield f"filter {one.name}", lambda: check_filter(lambda: plugins.filters()[at])  # noqa: B023


def _made_and_kept(
    check: Callable[[Callable[[], T]], None], make: Callable[[], T], name: str, source: Source
) -> None:
    """Make an object by its name, and put it through its laws."""
    from swarmctl.plugins.loader import NoSuchAllocator, NoSuchScheduler

    try:
        make()
    except (NoSuchAllocator, NoSuchScheduler):
        hint = "" if name != source.name else "; if it has another name, say --name NAME"
        raise AssertionError(
            f'plugin "{source.name}" makes nothing called "{name}"{hint}'
        ) from None
    check(make)


def _passes(name: str, run: Callable[[], object]) -> bool:
    from swarmctl.plugins.sources import cause

    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(CHECK_S)
    try:
        said = run()
    except Exception as error:
        text = str(error) if isinstance(error, (SwarmError, AssertionError)) else cause(error)
        click.echo(f"  FAILED  {name}: {text}")
        return False
    finally:
        signal.alarm(0)
    click.echo(f"  ok      {name}" + (f": {said}" if said else ""))
    return True


def _out_of_time(_number: int, _frame: object) -> None:
    raise TimeoutError(f"not done after {CHECK_S} s")
