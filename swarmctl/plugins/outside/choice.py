"""Which of the configured schedulers and allocators run here, and which in a child process.

Built-ins, and what is made and tested with swarmctl, run in the manager's loop. Of every other
plugin that is used there is one child process, with a stand-in here for each thing it is used for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..hookspecs import AllocatorSettings, SchedulerSettings
from ..loader import NoSuchScheduler
from ..sources import PluginError
from .desk import Plugin
from .memory import OffList, fingerprint
from .redact import Redactor
from .runner import Runner
from .stand_ins import OutsideAllocator, OutsideFilters, OutsideScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...core.allocator.policy import Allocator
    from ...core.scheduler.decide import Scheduler
    from ..loader import Plugins
    from ..sources import Source
    from .messages import Ready

DEFAULT_SCHEDULER = "spread"
DEFAULT_ALLOCATOR = "subnets"
MIB = 1 << 20


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration asks for.

    Attributes:
        options: settings, by the name of what they are for.
        command: starts the program of a child process.
        memory_mib: address space of each.
        state_dir: where it is kept which plugins are off; "" for nowhere.
    """

    scheduler: str = DEFAULT_SCHEDULER
    allocator: str = DEFAULT_ALLOCATOR
    options: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    command: tuple[str, ...] = ()
    memory_mib: int = 1024
    state_dir: str = ""


class Choice(NamedTuple):
    """What a manager works with.

    Attributes:
        judges, move_judges: filters of plugins, for the scheduler and for the rebalancer.
        outside: how each plugin with a child process stands.
        runners: keep those processes, by plugin.
    """

    scheduler: Scheduler
    strategies: dict[str, Scheduler]
    allocator: Allocator
    judges: tuple[OutsideFilters, ...]
    move_judges: tuple[OutsideFilters, ...]
    outside: dict[str, Plugin]
    runners: dict[str, Runner]


def choose(plugins: Plugins, wanted: Wanted) -> Choice:
    """Make what the configuration asks for.

    Raises:
        PluginError: a plugin failed.
        SwarmError: nobody makes it, or its settings do not suit it.
    """
    return _Choosing(plugins, wanted).choose()


class _Choosing:
    """One choice in the making."""

    def __init__(self, plugins: Plugins, wanted: Wanted) -> None:
        self._plugins = plugins
        self._wanted = wanted
        self._redactor = Redactor()
        self._off = OffList(wanted.state_dir)
        self._outside: dict[str, Plugin] = {}
        self._sources: dict[str, Source] = {}
        self._filters: dict[str, list[OutsideFilters]] = {}

    def choose(self) -> Choice:
        strategies = self._strategies()  # first: it finds plugins that are of no use
        judges: list[OutsideFilters] = []
        move_judges: list[OutsideFilters] = []
        for source in self._plugins.with_hook("swarmctl_scheduler_filters"):
            pair = [OutsideFilters(self._plugin(source), self._redactor) for _ in range(2)]
            self._filters[source.name] = pair
            judges.append(pair[0])
            move_judges.append(pair[1])
        scheduler = self._scheduler(self._wanted.scheduler)
        allocator = self._allocator(self._wanted.allocator)
        return Choice(
            scheduler=scheduler,
            strategies=strategies,
            allocator=allocator,
            judges=tuple(judges),
            move_judges=tuple(move_judges),
            outside=self._outside,
            runners={name: self._runner(name) for name in self._outside},
        )

    def _strategies(self) -> dict[str, Scheduler]:
        """Make every scheduler that services may choose by name; take out whose offer is empty."""
        made: dict[str, Scheduler] = {}
        for source in self._plugins.with_hook("swarmctl_strategies"):
            try:
                made = self._offered(source) | made
            except PluginError as error:
                self._outside.pop(source.name, None)
                self._plugins.take_out(source.name, str(error))
        return dict(sorted(made.items()))

    def _offered(self, source: Source) -> dict[str, Scheduler]:
        names = self._plugins.strategies_of(source)
        try:
            return {name: self._scheduler(name) for name in names}
        except NoSuchScheduler as error:
            raise PluginError(
                f'plugin "{source.name}" offers the strategies {", ".join(names)}, and not each of '
                "them is a scheduler that swarmctl_scheduler makes"
            ) from error

    def _options(self, name: str) -> dict[str, str]:
        return self._wanted.options.get(name, {})

    def _scheduler(self, name: str) -> Scheduler:
        settings = SchedulerSettings(options=self._options(name))
        source = self._maker("swarmctl_scheduler", name, settings)
        if source is None:
            return self._plugins.scheduler(name, settings)
        default = self._plugins.scheduler(DEFAULT_SCHEDULER, SchedulerSettings())
        return OutsideScheduler(self._plugin(source), name, default)

    def _allocator(self, name: str) -> Allocator:
        settings = AllocatorSettings(options=self._options(name))
        source = self._maker("swarmctl_allocator", name, settings)
        if source is None:
            return self._plugins.allocator(name, settings)
        default = self._plugins.allocator(DEFAULT_ALLOCATOR, AllocatorSettings())
        return OutsideAllocator(self._plugin(source), name, default)

    def _maker(self, hook: str, name: str, settings: object) -> Source | None:
        """Return the plugin of others that makes what is called ``name``, if one does."""
        source = self._plugins.maker_of(hook, name, settings)
        return None if source is None or source.is_ours else source

    def _plugin(self, source: Source) -> Plugin:
        if source.name not in self._outside:
            self._sources[source.name] = source
            made = self._outside[source.name] = Plugin(source.name)
            made.off = self._off.why(source.name, self._mark(source))
        return self._outside[source.name]

    def _mark(self, source: Source) -> str:
        return fingerprint(source, self._wanted.options)

    def _runner(self, name: str) -> Runner:
        return Runner(
            self._outside[name],
            self._sources[name],
            self._redactor,
            options=self._wanted.options,
            command=self._wanted.command,
            memory_bytes=self._wanted.memory_mib * MIB,
            loaded=self._told_of(self._filters.get(name, [])),
            went_off=partial(self._off.note, name, self._mark(self._sources[name])),
        )

    @staticmethod
    def _told_of(filters: Sequence[OutsideFilters]) -> Callable[[Ready], None]:
        def loaded(ready: Ready) -> None:
            for one in filters:
                one.is_static = ready.is_static

        return loaded
