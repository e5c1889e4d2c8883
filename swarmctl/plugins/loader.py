"""Find plugins, refuse bad ones in words, and call hooks with typed results.

Loaded, in this order: the built-ins; entry points of group ``swarmctl`` that are first-party; other
entry points the configuration names; single files in the plugin directory. Nothing else, since
the daemon runs as root. A plugin that cannot be loaded ends the start with a sentence that names
it and the cause: running without something that was configured would be a surprise later.

Law: nothing else in swarmctl touches ``pm.hook``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from ..core.agent.executor import EngineUnavailable
from ..core.errors import InvalidArgument, SwarmError
from . import hookspecs
from .hookspecs import PLUGIN_API, PROJECT, PluginInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from ..core.agent.executor import Executor
    from ..core.agent.network import NetworkDriver
    from ..core.allocator.policy import Allocator
    from ..core.scheduler.decide import Scheduler
    from .hookspecs import (
        AllocatorSettings,
        ExecutorSettings,
        NetworkDriverSettings,
        SchedulerSettings,
    )

GROUP = "swarmctl"
BUILT_INS = {
    "process": "swarmctl.plugins.process_exec",
    "null": "swarmctl.plugins.null_exec",
    "null-network": "swarmctl.plugins.null_driver",
    "spread": "swarmctl.plugins.spread",
    "subnets": "swarmctl.plugins.subnets",
    "binpack": "swarmctl.plugins.binpack",
    "overlay": "swarmctl.plugins.overlay",
}
# Enabled by being installed. The module is part of the rule: another distribution that takes the
# entry point's name is a stranger all the same.
FIRST_PARTY = {"docker": "swarmctl_docker_exec", "podman": "swarmctl_podman_exec"}
DETECTION_ORDER = ("docker", "podman", "process")


class PluginError(SwarmError):
    """A plugin cannot be used; the text names it and the cause."""


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


class Candidate(NamedTuple):
    """An entry point of our group."""

    name: str
    module: str


def installed() -> list[Candidate]:
    """Return every entry point of our group in this environment, by name."""
    found = importlib.metadata.entry_points(group=GROUP)
    return sorted({Candidate(point.name, point.value) for point in found})


def load_plugins(
    *,
    named: Collection[str] = (),
    directory: Path | None = None,
    built_ins: dict[str, str] | None = None,
    candidates: Iterable[Candidate] | None = None,
) -> Plugins:
    """Load all plugins that are enabled and check them.

    Args:
        named: names of third-party entry points that the configuration enables.
        directory: its ``*.py`` files are plugins too; one that does not exist holds none.
        built_ins: name -> module; the product's own by default.
        candidates: entry points to choose from; those installed by default.

    Raises:
        PluginError: a plugin is missing, cannot be imported, or breaks the rules of hooks.
    """
    plugins = Plugins()
    for name, module in (BUILT_INS if built_ins is None else built_ins).items():
        plugins.register(name, _import(name, module))
    for point in _enabled(named, installed() if candidates is None else list(candidates)):
        plugins.register(point.name, _import(point.name, point.module))
    if directory is not None and directory.is_dir():
        for file in sorted(directory.glob("*.py")):
            plugins.register(file.stem, _import_file(file))
    return plugins


class Plugins:
    """The loaded plugins; calls their hooks."""

    def __init__(self) -> None:
        self._pm = pluggy.PluginManager(PROJECT)
        self._pm.add_hookspecs(hookspecs)
        self._infos: dict[str, PluginInfo] = {}

    def infos(self) -> tuple[PluginInfo, ...]:
        """What each plugin says of itself, in the order in which they were loaded."""
        return tuple(self._infos.values())

    def executor(self, name: str, settings: ExecutorSettings) -> Executor:
        """Make the executor called ``name``.

        Raises:
            NoSuchExecutor: no plugin makes one.
            PluginError: its plugin failed.
            SwarmError: the settings do not suit it.
        """
        made = self._make(name, settings)
        if made is None:
            raise NoSuchExecutor(
                f'no plugin has an executor called "{name}"; loaded plugins: '
                f"{', '.join(self._infos) or 'none'}"
            )
        return made

    async def detect_executor(
        self, settings: ExecutorSettings, order: Sequence[str] = DETECTION_ORDER
    ) -> Executor:
        """Make the first executor of ``order`` whose engine answers.

        Takes as long as engines that hang take to be given up, some seconds each. Whichever was
        made and not chosen holds nothing and is forgotten.

        Raises:
            NoExecutor: none answers; the text says of each why not.
            PluginError: a plugin failed.
        """
        reasons = []
        for name in order:
            made = self._make(name, settings)
            if made is None:
                reasons.append(f"{name}: not installed")
                continue
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
        made: Scheduler = self._first(
            "scheduler", name, self._pm.hook.swarmctl_scheduler, settings, NoSuchScheduler
        )
        return made

    def allocator(self, name: str, settings: AllocatorSettings) -> Allocator:
        """Make the allocator called ``name``.

        Raises:
            NoSuchAllocator: no plugin makes one.
            PluginError: its plugin failed.
            SwarmError: the settings do not suit it.
        """
        made: Allocator = self._first(
            "allocator", name, self._pm.hook.swarmctl_allocator, settings, NoSuchAllocator
        )
        return made

    def network_driver(self, name: str, settings: NetworkDriverSettings) -> NetworkDriver:
        """Make the network driver called ``name``.

        Raises:
            NoSuchNetworkDriver: no plugin makes one.
            PluginError: its plugin failed.
            SwarmError: the settings do not suit it.
        """
        made: NetworkDriver = self._first(
            "network driver",
            name,
            self._pm.hook.swarmctl_network_driver,
            settings,
            NoSuchNetworkDriver,
        )
        return made

    def _first(
        self,
        kind: str,
        name: str,
        hook: Callable[..., Any],
        settings: object,
        missing: type[SwarmError],
    ) -> Any:
        """Return what the first plugin makes that knows the name."""
        try:
            made = hook(name=name, settings=settings)
        except SwarmError:
            raise
        except Exception as error:
            raise PluginError(f'the plugin of {kind} "{name}" failed: {error!r}') from error
        if made is None:
            article = "an" if kind == "allocator" else "a"
            raise missing(
                f'no plugin has {article} {kind} called "{name}"; loaded plugins: '
                f"{', '.join(self._infos) or 'none'}"
            )
        return made

    def strategies(self, settings_of: Callable[[str], SchedulerSettings]) -> dict[str, Scheduler]:
        """Make every scheduler that services may choose by name.

        Args:
            settings_of: returns the settings of a scheduler.

        Raises:
            PluginError: a plugin failed, or gives a name that it makes no scheduler for.
            SwarmError: the settings do not suit one.
        """
        try:
            named = self._pm.hook.swarmctl_strategies()
            names = sorted({str(name) for names in named for name in names})
        except Exception as error:
            raise PluginError(f"a plugin failed to name its strategies: {error!r}") from error
        return {name: self.scheduler(name, settings_of(name)) for name in names}

    def register(self, name: str, plugin: object) -> None:
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
            self._infos[name] = self._info(name, plugin)
        except PluginError:
            self._pm.unregister(plugin)
            raise

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
                raise PluginError(
                    f'plugin "{name}" implements {hook}, which is no hook of this version; hooks: '
                    f"{', '.join(known)}"
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
            raise PluginError(f'plugin "{name}": swarmctl_plugin_info failed: {error!r}') from error
        if not isinstance(info, PluginInfo):
            raise PluginError(f'plugin "{name}": swarmctl_plugin_info must return a PluginInfo')
        if info.api > PLUGIN_API:
            raise PluginError(
                f'plugin "{name}" needs plugin API {info.api}, this swarmctl has {PLUGIN_API}: '
                "use an older plugin or a newer swarmctl"
            )
        return info

    def _make(self, name: str, settings: ExecutorSettings) -> Executor | None:
        try:
            made: Executor | None = self._pm.hook.swarmctl_executor(name=name, settings=settings)
        except SwarmError:
            raise
        except Exception as error:
            raise PluginError(f'the plugin of executor "{name}" failed: {error!r}') from error
        return made


def _enabled(named: Collection[str], candidates: list[Candidate]) -> Iterator[Candidate]:
    """The entry points that may be loaded: ours, and those that the configuration names."""
    own = {**BUILT_INS, **FIRST_PARTY}
    for point in candidates:
        if own.get(point.name) == point.module and point.name not in BUILT_INS:
            yield point
    for name in named:
        found = [point for point in candidates if point.name == name]
        if not found:
            have = ", ".join(sorted(point.name for point in candidates)) or "none"
            raise PluginError(f'no plugin called "{name}" is installed; installed: {have}')
        if len(found) > 1:
            modules = " and ".join(point.module for point in found)
            raise PluginError(f'two plugins are called "{name}": {modules}; uninstall one')
        yield found[0]


def _import(name: str, module: str) -> object:
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise PluginError(f'plugin "{name}" cannot be imported from {module}: {error!r}') from error


def _import_file(file: Path) -> object:
    """Import a single file that only root, or whoever we are, can have written."""
    status = file.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PluginError(
            f"plugin file {file} could have been written by others: make it yours and take the "
            "write permission from group and others (chmod go-w)"
        )
    spec = importlib.util.spec_from_file_location(f"swarmctl_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin file {file} is no Python source")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise PluginError(f"plugin file {file} cannot be imported: {error!r}") from error
    return module
