"""The daemon's settings: every limit and default by name.

A value comes from the command line, else the environment, else the TOML file, else the default
here. An unknown key or a value of the wrong kind is an error that names it.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .core.errors import InvalidArgument

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CONFIG = Path("/etc/swarmctl/swarmctl.toml")
ENVIRONMENT = {
    "SWARMCTL_STATE_DIR": "state_dir",
    "SWARMCTL_SOCKET": "socket",
    "SWARMCTL_EXECUTOR": "executor",
    "SWARMCTL_ENGINE": "engine",
    "SWARMCTL_LOG_LEVEL": "log_level",
}
LOG_LEVELS = ("debug", "info", "warning", "error")


class DaemonConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``swarmctl daemon`` runs with.

    Attributes:
        state_dir: where everything that must survive is kept; what is secret in it is private to
            the daemon's user.
        socket: path of the API's unix socket.
        socket_group: group that may use the socket besides root, "" for none.
        executor: ``docker``, ``podman``, ``process`` or a plugin's name; "" for the first that
            answers.
        engine: endpoint of the engine, such as ``unix:///var/run/docker.sock``; "" for the usual.
        listen_addr, advertise_addr: used by init and join when the request names none.
        hostname: told to the swarm instead of the system's.
        scheduler: which scheduler places tasks.
        allocator: which allocator chooses subnets and addresses.
        network_driver: what carries traffic between tasks; ``none`` for nothing, "" for
            ``overlay``, or ``null`` with the executor that pretends.
        plugins: entry points of installed distributions that are allowed as plugins, by name.
        plugin_dir: where plugins lie that are single files or wheels.
        plugin_memory_mib: address space of a plugin's own process, in MiB.
        settings: options for plugins, by plugin name.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        accept_moved_state: start although the state directory comes from another machine.
    """

    state_dir: str = "/var/lib/swarmctl"
    socket: str = "/run/swarmctl/swarmctl.sock"
    socket_group: str = ""
    executor: str = ""
    engine: str = ""
    listen_addr: str = "0.0.0.0:2377"
    advertise_addr: str = ""
    hostname: str = ""
    scheduler: str = "spread"
    allocator: str = "subnets"
    network_driver: str = ""
    plugins: tuple[str, ...] = ()
    plugin_dir: str = "/etc/swarmctl/plugins"
    plugin_memory_mib: int = 1024
    settings: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    log_level: str = "info"
    accept_moved_state: bool = False


def load_config(flags: Mapping[str, Any], environment: Mapping[str, str]) -> DaemonConfig:
    """Gather the settings.

    Args:
        flags: from the command line by field name; None means not given. ``config`` names the
            TOML file.

    Raises:
        InvalidArgument: a file that cannot be read, an unknown key, a value of the wrong kind.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    named = given.pop("config", None) or environment.get("SWARMCTL_CONFIG")
    path = Path(named) if named else DEFAULT_CONFIG
    values = _read_file(path, required=named is not None)
    for variable, field in ENVIRONMENT.items():
        if environment.get(variable):
            values[field] = environment[variable]
    host = environment.get("SWARMCTL_HOST", "")
    if host.startswith(("unix://", "/")) and not environment.get("SWARMCTL_SOCKET"):
        values["socket"] = host.removeprefix("unix://")
    values.update(given)
    _check_names(values, path)
    try:
        config = msgspec.convert(values, DaemonConfig)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"the settings ({path} and flags) are wrong: {error}") from error
    if config.log_level.lower() not in LOG_LEVELS:
        levels = ", ".join(LOG_LEVELS)
        raise InvalidArgument(f"log_level is {config.log_level!r}: it must be one of {levels}")
    return msgspec.structs.replace(
        config,
        state_dir=str(Path(config.state_dir).absolute()),
        socket=str(Path(config.socket).absolute()),
        plugin_dir=str(Path(config.plugin_dir).absolute()),
    )


def _read_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            loaded: dict[str, Any] = tomllib.load(file)
            return loaded
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"the config file {path} does not exist") from None
        return {}
    except OSError as error:
        raise InvalidArgument(f"the config file {path} cannot be read: {error}") from error
    except ValueError as error:  # a TOMLDecodeError, or no UTF-8
        raise InvalidArgument(f"the config file {path} is no TOML: {error}") from error


def _check_names(values: dict[str, Any], path: Path) -> None:
    known = DaemonConfig.__struct_fields__
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidArgument(f"unknown setting {name!r} in {path}{hint}")
