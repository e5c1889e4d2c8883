"""Load plugins, refuse bad ones in words, and call hooks with typed results.

Loaded, in this order: the built-ins; entry points of group ``swarmctl`` that are first-party; other
entry points the configuration names; files and wheels in the plugin directory (:mod:`.sources`). A
plugin that cannot be loaded is kept as a failure with a sentence that names it and the cause: the
daemon starts without it, says so, and repeats the sentence where something of it is asked for.

Law: nothing else in swarmctl touches ``pm.hook``.
"""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from ..core.agent.executor import EngineUnavailable
from ..core.errors import InvalidArgument, SwarmError
from . import hookspecs
from .hookspecs import PLUGIN_API, PROJECT, PluginInfo
from .sources import Candidate, PluginError, Source, bring_in, cause, in_directory, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from ..core.agent.executor import Executor
    from ..core.agent.network import NetworkDriver
    from ..core.allocator.policy import Allocator
    from ..core.autoscaler.source import MetricSource
    from ..core.scheduler.decide import Scheduler
    from ..core.scheduler.filters import Filter
    from .hookspecs import (
        AllocatorSettings,
        ExecutorSettings,
        MetricSettings,
        NetworkDriverSettings,
        SchedulerSettings,
    )

BUILT_INS = {
    "process": "swarmctl.plugins.process_exec",
    "null": "swarmctl.plugins.null_exec",
    "null-network": "swarmctl.plugins.null_driver",
    "spread": "swarmctl.plugins.spread",
    "subnets": "swarmctl.plugins.subnets",
    "binpack": "swarmctl.plugins.binpack",
    "http-metrics": "swarmctl.plugins.http_metrics",
    "overlay": "swarmctl.plugins.overlay",
}
# Enabled by being installed. The module is part of the rule: another distribution that takes the
# entry point's name is a stranger all the same.
FIRST_PARTY = {"docker": "swarmctl_docker_exec", "podman": "swarmctl_podman_exec"}
DETECTION_ORDER = ("docker", "podman", "process")
COLLECTED = ("swarmctl_scheduler_filters", "swarmctl_strategies")
FILTER_PARTS = ("name", "static", "check", "explain", "why")


class NoSuchExecutor(InvalidArgument):
    """No plugin makes an executor of that name."""


class NoSuchScheduler(InvalidArgument):
    """No plugin makes a scheduler of that name."""


class NoSuchAllocator(InvalidArgument):
    """No plugin makes an allocator of that name."""


class NoSuchNetworkDriver(InvalidArgument):
    """No plugin makes a network driver of that name."""


class NoExecutor(SwarmError):
    """None of the executors that were tried can run tasks here."""


class Loaded(NamedTuple):
    """A plugin that is in use: where it is from, what it says of itself, which hooks it has."""

    source: Source
    info: PluginInfo
    hooks: tuple[str, ...]


class Failure(NamedTuple):
    """A plugin that is not in use, and why."""

    name: str
    text: str


def load_plugins(
    *,
    named: Collection[str] = (),
    directory: Path | None = None,
    built_ins: dict[str, str] | None = None,
    candidates: Iterable[Candidate] | None = None,
) -> Plugins:
    """Load all plugins that are enabled, and check them; what cannot be loaded is a failure.

    Args:
        named: names of third-party entry points that the configuration enables.
        directory: its Python files and wheels are plugins too; one that does not exist holds none.
        built_ins: name -> module; the product's own by default.
        candidates: entry points to choose from; those installed by default.
    """
    plugins = Plugins()
    for name, module in (BUILT_INS if built_ins is None else built_ins).items():
        plugins.load(Source(name=name, kind="built-in", module=module))
    points = installed() if candidates is None else list(candidates)
    for source in _enabled(named, points):
        plugins.load(source)
    lying_there = list(in_directory(directory)) if directory is not None else []
    for source in lying_there:
        plugins.load(source)
    off = {point.name for point in points} - set(named) - {*BUILT_INS, *FIRST_PARTY}
    plugins.not_allowed = tuple(sorted(off))
    return plugins


def load_alone(source: Source) -> Plugins:
    """Load one plugin and nothing else.

    Raises:
        PluginError: it cannot be imported, or breaks the rules of hooks.
    """
    plugins = Plugins()
    plugins.register(source.name, bring_in(source), source)
    return plugins


def _enabled(named: Collection[str], candidates: list[Candidate]) -> Iterator[Source | PluginError]:
    """Yield the entry points that may be loaded: ours, and those that the configuration names."""
    own = {**BUILT_INS, **FIRST_PARTY}
    for point in candidates:
        if own.get(point.name) == point.module and point.name not in BUILT_INS:
            yield Source(name=point.name, kind="project", module=point.module)
    for name in named:
        found = [point for point in candidates if point.name == name]
        if not found:
            have = ", ".join(sorted(point.name for point in candidates)) or "none"
            yield PluginError(f'no plugin called "{name}" is installed; installed: {have}')
        elif len(found) > 1:
            modules = " and ".join(point.module for point in found)
            yield PluginError(f'two plugins are called "{name}": {modules}; uninstall one')
        elif own.get(name) != found[0].module:  # those are loaded anyway
            yield Source(name=name, kind="installed", module=found[0].module)


class Plugins:
    """The loaded plugins; calls their hooks.

    Attributes:
        loaded: by name, in the order in which they were loaded.
        failures: what could not be loaded.
        not_allowed: entry points that are installed and not named in the configuration.
    """

    def __init__(self) -> None:
        self._pm = pluggy.PluginManager(PROJECT)
        self._pm.add_hookspecs(hookspecs)
        self.loaded: dict[str, Loaded] = {}
        self.failures: list[Failure] = []
        self.not_allowed: tuple[str, ...] = ()

    def infos(self) -> tuple[PluginInfo, ...]:
        """What each plugin says of itself, in the order in which they were loaded."""
        return tuple(one.info for one in self.loaded.values())

    def load(self, source: Source | PluginError) -> None:
        """Import and add a plugin; where that fails the failure is kept."""
        if isinstance(source, PluginError):
            self.failures.append(Failure("", str(source)))
            return
        try:
            self.register(source.name, bring_in(source), source)
        except PluginError as error:
            self.failures.append(Failure(source.name, str(error)))

    def executor(self, name: str, settings: ExecutorSettings) -> Executor:
        """Make the executor called ``name``.

        Raises:
            NoSuchExecutor: no plugin makes one.
            PluginError: its plugin failed.
            SwarmError: the settings do not suit it.
        """
        made: Executor = self._first("executor", name, settings, NoSuchExecutor)
        return made

    async def detect_executor(
        self, settings: ExecutorSettings, order: Sequence[str] = DETECTION_ORDER
    ) -> Executor:
        """Make the first executor of ``order`` whose engine answers.

        Takes as long as engines that hang take to be given up, some seconds each. Whichever was
        made and not chosen holds nothing and is forgotten.

        Raises:
            NoExecutor: none answers; the text says of each why not.
        """
        reasons = []
        for name in order:
            try:
                found = self._ask("swarmctl_executor", name, settings)
            except PluginError as error:
                reasons.append(f"{name}: {error}")
                continue
            if found is None:
                reasons.append(f"{name}: not installed")
                continue
            made: Executor = found[1]
            try:
                await made.describe()
            except EngineUnavailable as error:
                reasons.append(f"{name}: {error}")
            else:
                return made
        raise NoExecutor(f"nothing here can run tasks ({'; '.join(reasons)})")

    def scheduler(self, name: str, settings: SchedulerSettings) -> Scheduler:
        """Make the scheduler called ``name``.

        Raises:
            NoSuchScheduler: no plugin makes one.
            PluginError: its plugin failed.
            SwarmError: the settings do not suit it.
        """
        made: Scheduler = self._first("scheduler", name, settings, NoSuchScheduler)
        return made

    def allocator(self, name: str, settings: AllocatorSettings) -> Allocator:
        """Make the allocator called ``name``.

        Raises:
            NoSuchAllocator: no plugin makes one.
            PluginError: its plugin failed.
            SwarmError: the settings do not suit it.
        """
        made: Allocator = self._first("allocator", name, settings, NoSuchAllocator)
        return made

    def network_driver(self, name: str, settings: NetworkDriverSettings) -> NetworkDriver:
        """Make the network driver called ``name``.

        Raises:
            NoSuchNetworkDriver: no plugin makes one.
            PluginError: its plugin failed.
            SwarmError: the settings do not suit it.
        """
        made: NetworkDriver = self._first("network driver", name, settings, NoSuchNetworkDriver)
        return made

    def metric_source(self, name: str, settings: MetricSettings) -> MetricSource | None:
        """Make the metric source called ``name``, None where no plugin makes one.

        Raises:
            PluginError: its plugin failed.
            SwarmError: the settings do not suit it.
        """
        found = self._ask("swarmctl_metric_source", name, settings)
        made: MetricSource | None = None if found is None else found[1]
        return made

    def _first(self, kind: str, name: str, settings: object, missing: type[SwarmError]) -> Any:
        """Return what the first plugin makes that knows the name."""
        found = self._ask(f"swarmctl_{kind.replace(' ', '_')}", name, settings)
        if found is None:
            article = "a" if kind[0] not in "ae" else "an"
            raise missing(f'no plugin has {article} {kind} called "{name}"; {self._have(name)}')
        return found[1]

    def _ask(self, hook: str, name: str, settings: object) -> tuple[Source, Any] | None:
        """Return what the first plugin makes that knows ``name``, and where that plugin is from.

        They are asked in the order in which they were loaded, so that none can take the place of a
        built-in. One that fails where a later one knows the name is taken out: it was not meant.
        """
        failed: dict[str, SwarmError] = {}
        for one in [one for one in self.loaded.values() if hook in one.hooks]:
            try:
                made = self._call(one.source.name, hook, name=name, settings=settings)
            except SwarmError as error:
                failed[one.source.name] = error
                continue
            if made is not None:
                for who, why in failed.items():
                    if isinstance(why, PluginError):  # else it only dislikes these settings
                        self.take_out(who, str(why))
                return one.source, made
        for why in failed.values():
            raise why
        return None

    def _call(self, plugin: str, hook: str, **arguments: object) -> Any:
        """Call one plugin's hook.

        Raises:
            PluginError: it raised an error that is none of ours.
            SwarmError: it raised this.
        """
        others = [one for name, one in self._pm.list_name_plugin() if name != plugin]
        caller = self._pm.subset_hook_caller(hook, others)
        try:
            made = caller(**arguments)
        except SwarmError:
            raise
        except Exception as error:
            asked = "".join(f' when asked for "{one}"' for one in [arguments.get("name")] if one)
            raise PluginError(f'plugin "{plugin}": {hook} failed{asked}: {cause(error)}') from error
        is_list = isinstance(made, list) and hook in COLLECTED
        return made[0] if is_list and made else made

    def take_out(self, name: str, why: str) -> None:
        """Stop using a plugin that broke a rule after it was loaded; it becomes a failure."""
        del self.loaded[name]
        self._pm.unregister(name=name)
        self.failures.append(Failure(name, why))

    def _have(self, name: str) -> str:
        """Say what is loaded, and what could have been meant and is not."""
        words = f"loaded plugins: {', '.join(self.loaded) or 'none'}"
        if name in self.not_allowed:
            words += (
                f'; "{name}" is installed and not allowed: name it under plugins in the '
                "configuration"
            )
        elif self.not_allowed:
            words += f"; installed and not allowed: {', '.join(self.not_allowed)}"
        failed = "; ".join(one.text for one in self.failures)
        return words + (f"; not loaded: {failed}" if failed else "")

    def maker_of(self, hook: str, name: str, settings: object) -> Source | None:
        """Return the plugin that makes what is called ``name``; None for none.

        Raises:
            PluginError: it failed.
            SwarmError: the settings do not suit it.
        """
        found = self._ask(hook, name, settings)
        return None if found is None else found[0]

    def with_hook(self, hook: str) -> list[Source]:
        """Return the plugins that implement a hook, in the order in which they were loaded."""
        return [one.source for one in self.loaded.values() if hook in one.hooks]

    def filters(self) -> list[Filter]:
        """Return the filters of all plugins.

        Raises:
            PluginError: a plugin failed, or gives something that is no filter.
        """
        hook = "swarmctl_scheduler_filters"
        found: list[Filter] = []
        for source in self.with_hook(hook):
            for one in _sequence(source.name, hook, self._call(source.name, hook)):
                lacks = [each for each in FILTER_PARTS if not hasattr(one, each)]
                if lacks:
                    raise PluginError(
                        f'plugin "{source.name}": {one!r} is no filter: it has no '
                        f"{', '.join(lacks)}"
                    )
                found.append(one)
        return found

    def strategies_of(self, source: Source) -> list[str]:
        """Return the names of a plugin's schedulers that services may choose.

        Raises:
            PluginError: it failed, or gives something else.
        """
        hook = "swarmctl_strategies"
        names = _sequence(source.name, hook, self._call(source.name, hook))
        wrong = next((one for one in names if not isinstance(one, str)), None)
        if wrong is not None:
            raise PluginError(f'plugin "{source.name}": {hook} gives {wrong!r}, which is no name')
        return [*names]

    def register(self, name: str, plugin: object, source: Source | None = None) -> None:
        """Add a plugin under ``name``; one that is registered already is left as it is.

        Raises:
            PluginError: it breaks a rule, or another plugin has that name.
        """
        if self._pm.is_registered(plugin):
            return
        self._check(name, plugin)
        try:
            self._pm.register(plugin, name)
        except (ValueError, pluggy.PluginValidationError) as error:
            raise PluginError(f'plugin "{name}": {error}') from error
        try:
            info = self._info(name, plugin)
        except PluginError:
            self._pm.unregister(plugin)
            raise
        hooks = tuple(sorted({hook for _, hook in self._implemented(plugin)}))
        source = source or Source(name=name, kind="built-in")
        self.loaded[name] = Loaded(source, info, hooks)

    def _check(self, name: str, plugin: object) -> None:
        """Refuse what pluggy would let through to fail later, or to be ignored for ever."""
        if self._pm.has_plugin(name):
            raise PluginError(f'plugin "{name}": another plugin has that name')
        known = [hook for hook in vars(hookspecs) if hook.startswith("swarmctl_")]
        implemented = list(self._implemented(plugin))
        for attribute, hook in implemented:
            function = getattr(plugin, attribute)
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise PluginError(
                    f'plugin "{name}": {hook} is "async def"; hooks are plain functions that '
                    "return objects, and those objects' methods may be async"
                )
            if hook not in known:
                near = difflib.get_close_matches(hook, known, 1)
                raise PluginError(
                    f'plugin "{name}" implements {hook}, which is no hook of this version'
                    + (f"; is {near[0]} meant?" if near else f"; hooks: {', '.join(known)}")
                )
            _check_arguments(name, hook, function)
        forgotten = [
            hook
            for hook in known
            if hook not in {name for name, _ in implemented} and callable(vars_of(plugin).get(hook))
        ]
        if forgotten:
            raise PluginError(
                f'plugin "{name}": {forgotten[0]} is not marked with swarmctl.plugins.hookimpl, so '
                "nobody would ever call it"
            )
        if not implemented:
            raise PluginError(
                f'plugin "{name}" implements no hook; mark functions with swarmctl.plugins.hookimpl'
            )

    def _implemented(self, plugin: object) -> Iterator[tuple[str, str]]:
        """The plugin's marked functions: name of each, and the hook it implements."""
        for attribute in dir(plugin):
            options = self._pm.parse_hookimpl_opts(plugin, attribute)
            if options is not None and not options.get("optionalhook"):
                yield attribute, options.get("specname") or attribute

    def _info(self, name: str, plugin: object) -> PluginInfo:
        ask = getattr(plugin, "swarmctl_plugin_info", None)
        if ask is None:
            return PluginInfo(name=name, version="")
        try:
            info = ask()
        except Exception as error:
            raise PluginError(
                f'plugin "{name}": swarmctl_plugin_info failed: {cause(error)}'
            ) from error
        if not isinstance(info, PluginInfo):
            raise PluginError(f'plugin "{name}": swarmctl_plugin_info must return a PluginInfo')
        if type(info.api) is not int or not isinstance(info.name, str):
            raise PluginError(
                f'plugin "{name}": a PluginInfo has text as its name and a whole number as its '
                f"api: {info}"
            )
        if info.api > PLUGIN_API:
            raise PluginError(
                f'plugin "{name}" needs plugin API {info.api}, this swarmctl has {PLUGIN_API}: '
                "use an older plugin or a newer swarmctl"
            )
        return info


def vars_of(plugin: object) -> dict[str, object]:
    """Return what a plugin's module, or object, has by itself."""
    return getattr(plugin, "__dict__", {})


def _sequence(plugin: str, hook: str, given: object) -> Sequence[Any]:
    """Return what a collecting hook gave.

    Raises:
        PluginError: it is no list or tuple; a name alone is no tuple either.
    """
    if isinstance(given, (list, tuple)):
        return given
    raise PluginError(f'plugin "{plugin}": {hook} gives a list or tuple, not {given!r}')


def _check_arguments(name: str, hook: str, function: Callable[..., object]) -> None:
    """Raise PluginError when an implementation asks for what its hook does not give."""
    given = list(inspect.signature(getattr(hookspecs, hook)).parameters)
    for parameter in inspect.signature(function).parameters.values():
        is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if is_named and parameter.default is parameter.empty and parameter.name not in given:
            raise PluginError(
                f'plugin "{name}": {hook} takes an argument "{parameter.name}", which the hook '
                f"does not give; it gives {', '.join(given) or 'none'}"
            )
