"""The daemon: puts the parts together, runs them, and ends them on a signal.

    root nursery
    ├ signals              SIGTERM, SIGINT: cancel everything
    ├ node                 this host's place in a swarm
    └ api                  the unix socket, always

Ending the daemon stops no task: they outlive it, and the next start adopts them.
"""

from __future__ import annotations

import grp
import io
import logging
import logging.handlers
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from . import __version__
from .__main__ import self_command
from .core.api.server import ApiServer
from .core.clock import SystemClock, new_id
from .core.errors import InvalidArgument, SwarmError
from .core.manager.pipeline import Outside, reconcilers
from .core.model.loaded import LoadedPlugin
from .core.node import LocalNode, NodeSettings
from .core.wire.unix_listener import open_unix_listener
from .plugins.hookspecs import ExecutorSettings, MetricSettings, NetworkDriverSettings
from .plugins.loader import BUILT_INS, FIRST_PARTY, NoSuchNetworkDriver, load_plugins
from .plugins.outside.choice import Wanted, choose

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .config import DaemonConfig
    from .core.agent.executor import Executor
    from .core.agent.network import NetworkDriver
    from .core.autoscaler.source import MetricSource
    from .plugins.loader import Plugins
    from .plugins.outside.choice import Choice

LOG_BYTES = 10 * 1024 * 1024
LOG_FILES = 3
OVERLAY = "overlay"
NO_DRIVER = "none"
USUAL_DRIVERS = {"null": "null"}
"""By executor; the others' is the overlay."""
WITHOUT_SETTINGS = frozenset({*BUILT_INS, *FIRST_PARTY, "json", "prometheus"} - {"null"})

log = logging.getLogger(__name__)


def run_daemon(config: DaemonConfig, *, detached: bool = False) -> int:
    """Run until SIGTERM or SIGINT.

    Args:
        detached: nobody reads our standard error, so the log goes to a rotated file.

    Returns:
        The process's exit code.
    """
    try:
        _make_state_dir(Path(config.state_dir))
        _make_socket_dir(Path(config.socket).parent)
    except OSError as error:
        places = "--state-dir and --socket name other places"
        return _report(SwarmError(f"cannot make {error.filename}: {error.strerror}; {places}"))
    _set_up_log(config, detached=detached)
    try:
        trio.run(_main, config)
    except BaseExceptionGroup as group:
        return _report(group)
    except SwarmError as error:
        return _report(error)
    return 0


async def _main(config: DaemonConfig) -> None:
    plugins = load_plugins(named=config.plugins, directory=Path(config.plugin_dir))
    executor = await _choose_executor(config, plugins)
    try:
        choice = choose(plugins, _wanted(config))
    finally:  # it may find more of them
        for failure in plugins.failures:
            log.warning("not loaded: %s", failure.text)
    _check_settings(config.settings, {*plugins.loaded, *choice.strategies})
    driver = _choose_network_driver(config, plugins, executor.name)
    clock = SystemClock()
    node = LocalNode(
        NodeSettings(
            state_dir=config.state_dir,
            listen_addr=config.listen_addr,
            advertise_addr=config.advertise_addr,
            hostname=config.hostname,
            accept_moved_state=config.accept_moved_state,
        ),
        executor,
        reconcilers(choice.scheduler, choice.allocator, choice.strategies, _outside(choice)),
        clock,
        new_id,
        partial(_metric_source, config, plugins),
        driver=driver,
    )
    api = ApiServer(
        node,
        partial(_plugin_lines, plugins, choice),
        __version__,
        clock,
        new_id,
        strategies=tuple(choice.strategies),
        judges=choice.judges,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(_wait_for_signal, nursery.cancel_scope)
        async with open_unix_listener(
            config.socket, mode=0o660, gid=_group_id(config.socket_group)
        ) as listener:
            await nursery.start(node.run)
            await nursery.start(api.run, [listener])
            log.info("swarmctl %s, %s executor: %s", __version__, executor.name, config.socket)
            _notify_systemd("READY=1")
            await trio.sleep_forever()


async def _wait_for_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("ending on %s; tasks keep running", signal.Signals(number).name)
            _notify_systemd("STOPPING=1")
            scope.cancel()
            return


async def _choose_executor(config: DaemonConfig, plugins: Plugins) -> Executor:
    settings = ExecutorSettings(
        engine=config.engine or None,
        state_dir=config.state_dir,
        options=config.settings.get(config.executor, {}),
    )
    if config.executor:
        return plugins.executor(config.executor, settings)
    return await plugins.detect_executor(settings)


def _check_settings(settings: Mapping[str, Mapping[str, str]], known: Collection[str]) -> None:
    """Refuse settings that nobody would read, and say so of those that perhaps nobody does.

    Args:
        known: what may have settings here; a plugin may make things of other names, too.

    Raises:
        InvalidArgument: they are for something of ours that has none.
    """
    for name, options in settings.items():
        if name in WITHOUT_SETTINGS and options:
            raise InvalidArgument(
                f"[settings.{name}] says {', '.join(sorted(options))}, and {name} has no settings"
            )
        if name not in known:
            log.warning("[settings.%s]: no plugin and no strategy has that name here", name)


def _wanted(config: DaemonConfig) -> Wanted:
    return Wanted(
        scheduler=config.scheduler,
        allocator=config.allocator,
        options=config.settings,
        command=(*self_command(), "plugin-child"),
        memory_mib=config.plugin_memory_mib,
        state_dir=config.state_dir,
    )


def _metric_source(config: DaemonConfig, plugins: Plugins, name: str) -> MetricSource | None:
    return plugins.metric_source(name, MetricSettings(options=config.settings.get(name, {})))


def _outside(choice: Choice) -> Outside:
    return Outside(
        judges=choice.judges,
        move_judges=choice.move_judges,
        beside={f"plugin {name}": runner.run for name, runner in choice.runners.items()},
    )


def _plugin_lines(plugins: Plugins, choice: Choice) -> list[LoadedPlugin]:
    """Return how every plugin stands, those that could not be loaded last."""
    lines: list[LoadedPlugin] = []
    for name, (source, info, hooks) in plugins.loaded.items():
        outside = choice.outside.get(name)
        line = LoadedPlugin(
            Name=info.name,
            Version=info.version,
            API=info.api,
            Kind=source.kind,
            Place=source.place,
            Hooks=hooks,
        )
        if outside is not None:
            line = replace(
                line,
                State="off" if outside.off else "isolated",
                Why=outside.off or outside.last_failure,
                Failures=outside.failures,
            )
        lines.append(line)
    failed = (LoadedPlugin(Name=one.name, State="failed", Why=one.text) for one in plugins.failures)
    return [*lines, *failed]


def _choose_network_driver(
    config: DaemonConfig, plugins: Plugins, executor: str
) -> NetworkDriver | None:
    """Return what carries traffic; the usual one only if it is there."""
    if config.network_driver == NO_DRIVER:
        return None
    name = config.network_driver or USUAL_DRIVERS.get(executor, OVERLAY)
    settings = NetworkDriverSettings(
        state_dir=config.state_dir, executor=executor, options=config.settings.get(name, {})
    )
    try:
        return plugins.network_driver(name, settings)
    except NoSuchNetworkDriver as error:
        if config.network_driver:
            raise
        log.warning("nothing carries traffic between tasks of different nodes: %s", error)
        return None


def _make_state_dir(path: Path) -> None:
    """Make the state directory; others may pass through (a task may run as another user), not look.

    What is secret lies in directories and files of its own that are the daemon's alone.
    """
    path.mkdir(parents=True, mode=0o711, exist_ok=True)
    path.chmod(0o711)


def _make_socket_dir(path: Path) -> None:
    """Make the socket's directory: /run, where it usually lies, is empty after every boot."""
    if not path.exists():
        path.mkdir(parents=True, mode=0o755)


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """A rotated log that only the daemon's user can read."""

    def _open(self) -> io.TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(handle, 0o600)  # whoever made it
        return io.TextIOWrapper(io.FileIO(handle, "a"), encoding="utf-8", write_through=True)


def _set_up_log(config: DaemonConfig, *, detached: bool) -> None:
    handler: logging.Handler
    if detached:
        handler = _PrivateLog(
            Path(config.state_dir) / "swarmctl.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES
        )
    else:
        handler = logging.StreamHandler()
    form = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(form))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)


def _group_id(name: str) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise SwarmError(f"the socket's group {name!r} does not exist on this host") from None


def _notify_systemd(text: str) -> None:
    """Tell systemd, if it is waiting (sd_notify: one datagram to a socket it names)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.connect(address)
            notifier.send(text.encode())
    except OSError as error:  # inherited from a shell, of a unit that is gone
        log.warning("nobody listens at NOTIFY_SOCKET %s: %s", address, error)


def _report(error: BaseException) -> int:
    """Say why the daemon ended: our own errors in a sentence, bugs in full."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, SwarmError):
        log.error("the daemon ended by a bug", exc_info=error)
    print(f"swarmctl daemon: {error}", file=sys.stderr)
    return 1
