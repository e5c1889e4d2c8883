"""``swarmctl daemon``: run the daemon in the foreground and resume what the state directory holds.

The one command that runs the product instead of asking it; trio and the rest are loaded for it
alone. ``init --foreground`` and ``join --foreground`` come here too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import click

from swarmctl.config import load_config

from .client import ClientError, NoDaemon
from .command import Failure, command
from .flags import BOOL, TEXT, Flag
from .launch import DAEMON_FLAGS, wait_for_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

    from .command import Invocation

_ADDRESS = (
    "for init and join when they name none; a changed one moves the node "
    '(format: "<ip|interface>[:port]")'
)


@command(
    "daemon [OPTIONS]",
    "Run the daemon in the foreground",
    *DAEMON_FLAGS,
    Flag("accept-moved-state", BOOL, "Start although the state directory is another machine's"),
    Flag("advertise-addr", TEXT, f"Advertised address {_ADDRESS}"),
    Flag("detached", BOOL, "Log to a file in the state directory", hidden=True),
    Flag("hostname", TEXT, "Hostname told to the swarm instead of the system's"),
    Flag("listen-addr", TEXT, f"Listen address {_ADDRESS}"),
    Flag("log-level", TEXT, "Logging level (debug, info, warning, error)", default="info"),
)
def daemon(call: Invocation) -> None:
    """Run until a signal; the exit code is the daemon's."""
    from swarmctl.daemon import run_daemon

    config = load_config(daemon_settings(call), os.environ)
    detached = call.given.is_set("detached")
    if detached:
        os.chdir("/")  # nobody's directory or mount is kept busy; the settings are absolute
    raise SystemExit(run_daemon(config, detached=detached))


def run_in_foreground(call: Invocation, first: Callable[[], None]) -> None:
    """Run the daemon here, and ``first`` beside it once it answers; ends with the daemon.

    Args:
        first: sends the request that the command is about and says what came of it.

    Raises:
        Failure: another daemon has the socket already.
        SystemExit: otherwise; 1 when ``first`` failed, else the daemon's exit code.
    """
    from swarmctl.daemon import run_daemon

    config = load_config(daemon_settings(call), os.environ)
    call.turn_to(config.socket)
    with contextlib.suppress(NoDaemon):  # else ``first`` would be asked of somebody else's
        call.api.ping()
        raise Failure(f"a daemon already serves {call.socket}; without --foreground it is used")
    failed = threading.Event()

    def beside() -> None:
        try:
            while not wait_for_daemon(call.api):
                click.echo(f"the daemon does not answer at {call.socket} yet", err=True)
            first()
        except ClientError:
            return  # the daemon is ending already, and says itself why
        except BaseException as error:
            text = error.message if isinstance(error, Failure) else str(error)
            click.echo(text, err=True)
            failed.set()
            os.kill(os.getpid(), signal.SIGTERM)
            raise SystemExit(1) from error  # noqa: ASYNC104 - a thread of its own, without trio

    threading.Thread(target=beside, name="first request", daemon=True).start()
    code = run_daemon(config)
    raise SystemExit(1 if failed.is_set() else code)


def daemon_settings(call: Invocation) -> dict[str, Any]:
    """Return the daemon's settings as ``load_config`` takes them; None for what was not given."""
    settings = {
        flag.name.replace("-", "_"): call.given.value(flag.name)
        for flag in (*DAEMON_FLAGS, *_MORE_SETTINGS)
    }
    settings["socket"] = call.named_socket
    return settings


_MORE_SETTINGS = tuple(
    Flag(name, TEXT, "")
    for name in ("accept-moved-state", "advertise-addr", "hostname", "listen-addr", "log-level")
)
