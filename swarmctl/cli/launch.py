"""Starting the daemon for ``init`` and ``join`` when none answers.

Where systemd runs the machine the daemon becomes its unit ``swarmctl.service``, which also brings
it back after a reboot; elsewhere it is a process of its own session that logs to a file in the
state directory. Laws:

- A daemon that answers is used as it is; nothing is started beside it.
- A daemon that this command started and that could not do what it was started for is stopped again,
  so the next attempt starts from nothing.
- What was started is waited for, for a bounded time, and a start that fails shows the log's end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from swarmctl.__main__ import self_command
from swarmctl.config import load_config

from .client import ClientError, NoDaemon
from .command import DEFAULT_SOCKET, Failure
from .flags import TEXT, Flag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .api import Api
    from .command import Invocation

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02
LOG_LINES = 15
NOT_THE_DAEMONS = ("SWARMCTL_TOKEN", "SWARMCTL_PASSPHRASE")
"""Secrets of one command, which a daemon that it starts must not inherit."""

SYSTEMD_RUNS = Path("/run/systemd/system")
UNIT = Path("/etc/systemd/system/swarmctl.service")
UNIT_MARK = "# Written by swarmctl; remove this line and swarmctl leaves the file alone."

DAEMON_FLAGS = (
    Flag("config", TEXT, "The daemon's TOML file", default="/etc/swarmctl/swarmctl.toml"),
    Flag("engine", TEXT, "Endpoint of the engine, such as unix:///var/run/docker.sock"),
    Flag("executor", TEXT, "What runs tasks (docker, podman, process or a plugin's name)"),
    Flag("state-dir", TEXT, "Where the daemon keeps its state", default="/var/lib/swarmctl"),
)


_ENGINES = ("docker", "podman")
_CONFINED = """\
# What the daemon never needs. Options that would give it a mount namespace (ProtectSystem and its
# like) are missing on purpose: the engine could not see the memory that holds tasks' secrets.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_TIME CAP_SYS_BOOT CAP_MAC_ADMIN
CapabilityBoundingSet=~CAP_MAC_OVERRIDE CAP_SYSLOG CAP_WAKE_ALARM CAP_LEASE CAP_AUDIT_CONTROL
# Keys are in its memory; and without it nobody restarts what fails.
LimitCORE=0
OOMScoreAdjust=-500
"""
_NOT_CONFINED = """\
# It is not confined: tasks that are plain processes are its children and would be, too. Where an
# engine runs them, `swarmctl install-service --executor docker` (or podman) confines it.
"""


class Started(NamedTuple):
    """A daemon that this command started.

    Attributes:
        stop: end it again; bounded.
    """

    stop: Callable[[], None]


def ensure_daemon(call: Invocation) -> Started | None:
    """Start the daemon unless one answers; return what was started.

    Raises:
        Failure: it ended at once, or does not answer; the text has the end of its log.
        ClientError: somebody listens at the socket who is no daemon, or lets us not in.
    """
    try:
        call.api.ping()
    except NoDaemon:
        return _start(call)
    given = [f"--{flag.name}" for flag in DAEMON_FLAGS if flag.name in call.given]
    if given:
        click.echo(
            f"WARNING: a daemon already serves {call.socket}; {', '.join(given)} did not change it",
            err=True,
        )
    return None


def wait_for_daemon(api: Api, still_there: Callable[[], bool] = lambda: True) -> bool:
    """Wait until the daemon answers; False when it is gone or the time is over."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if api.ping():
                return True
        except ClientError:
            if not still_there():
                return False
        time.sleep(POLL_S)
    return False


def daemon_command(call: Invocation) -> list[str]:
    """Return the arguments that start the daemon with this command's settings, made absolute."""
    words = [*self_command(), "daemon"]
    for flag in DAEMON_FLAGS:
        if flag.name in call.given:
            value = call.given.text(flag.name)
            if flag.name in ("config", "state-dir"):
                value = str(Path(value).absolute())
            words.append(f"--{flag.name}={value}")
    return [*words, f"--socket={Path(call.socket).absolute()}"]


def _start(call: Invocation) -> Started:
    settings = {flag.name.replace("-", "_"): call.given.value(flag.name) for flag in DAEMON_FLAGS}
    config = load_config({**settings, "socket": call.socket}, os.environ)
    is_usual = config.socket == DEFAULT_SOCKET  # further nodes on one machine are not the unit's
    if SYSTEMD_RUNS.is_dir() and os.geteuid() == 0 and is_usual:
        return _start_unit(call)
    return _start_detached(call, Path(config.state_dir))


# --- without systemd -----------------------------------------------------------------------------


def _start_detached(call: Invocation, state_dir: Path) -> Started:
    log = state_dir / "swarmctl.log"
    try:
        state_dir.mkdir(parents=True, mode=0o700, exist_ok=True)
        with log.open("ab") as output:
            start_of_log = output.tell()
            process = subprocess.Popen(
                [*daemon_command(call), "--detached"],
                env={k: v for k, v in os.environ.items() if k not in NOT_THE_DAEMONS},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise Failure(f"the daemon could not be started: {error}") from error
    if not wait_for_daemon(call.api, lambda: process.poll() is None):
        code = process.poll()
        if code is None:
            _stop_process(process)
            what = f"did not answer within {START_TIMEOUT_S:g} s and was stopped"
        else:
            what = f"ended at its start (exit code {code})"
        raise Failure(f"the daemon {what}. {end_of(log, start_of_log)}")
    click.echo(f"Started the swarmctl daemon (pid {process.pid}); its log is {log}", err=True)
    return Started(lambda: _stop_process(process))


def _stop_process(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_of(log: Path, start: int) -> str:
    """Return the last lines that a log got since it was ``start`` bytes long, in a sentence."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    if not lines:
        return f"Its log ({log}) says nothing."
    shown = "\n".join(f"  {line}" for line in lines[-LOG_LINES:])
    return f"Its log ({log}) ends:\n{shown}"


# --- as systemd's unit ---------------------------------------------------------------------------


def _start_unit(call: Invocation) -> Started:
    words = daemon_command(call)
    if may_write(UNIT):
        UNIT.write_text(unit_text(words, dict(os.environ), call.given.text("executor")))
        systemctl("daemon-reload")
    started = Started(_disable)
    try:
        _enable(call.api)
    except BaseException:  # else systemd would try again every second, and after every boot
        stop_if_started(started)
        raise
    click.echo(f"Started {UNIT.name}; `journalctl -u {UNIT.name}` has its log", err=True)
    return started


def _enable(api: Api) -> None:
    systemctl("enable", "--now", UNIT.name)
    if not wait_for_daemon(api):
        raise Failure(
            f"{UNIT.name} did not answer within {START_TIMEOUT_S:g} s; "
            f"`journalctl -u {UNIT.name}` has its log"
        )


def _disable() -> None:
    systemctl("disable", "--now", UNIT.name)


def may_write(unit: Path) -> bool:
    """A unit that somebody wrote themselves is used, and not changed."""
    return not unit.exists() or UNIT_MARK in unit.read_text()


def systemctl(*words: str) -> str:
    """Have systemd do something; return what it says.

    Raises:
        Failure: it did not.
    """
    try:
        done = subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"systemctl {' '.join(words)} failed: {error}") from error
    if done.returncode:
        raise Failure(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout


def unit_text(command: Sequence[str], environment: dict[str, str], executor: str = "") -> str:
    """Return the unit for a daemon's command.

    Args:
        environment: whose ``SWARMCTL_*`` settings the daemon keeps; the token is none of them.
        executor: the one that was asked for. Tasks of an engine are no children of the daemon, so
            then it may be confined; plain processes would inherit that.
    """
    kept = {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith("SWARMCTL_") and name not in (*NOT_THE_DAEMONS, "SWARMCTL_HOST")
    }
    settings = "".join(f"Environment={_unit_word(f'{k}={v}')}\n" for k, v in kept.items())
    return f"""{UNIT_MARK}
[Unit]
Description=swarmctl: Swarm mode, free of any one engine
Wants=network-online.target
After=network-online.target docker.service podman.socket
StartLimitIntervalSec=0

[Service]
Type=notify
{settings}ExecStart={" ".join(_unit_word(word.replace("$", "$$")) for word in command)}
Restart=always
RestartSec=1
# Tasks outlive their daemon, and a restarted daemon adopts them.
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
{_CONFINED if executor in _ENGINES else _NOT_CONFINED}
[Install]
WantedBy=multi-user.target
"""


def _unit_word(word: str) -> str:
    """Return a word as systemd reads it back: no specifiers, quoted if needed."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    plain = all(letter.isalnum() or letter in "-_=./:,+@" for letter in word)
    return word if plain else f'"{word}"'


def stop_if_started(started: Started | None) -> None:
    """Stop what this command started, because it could not be used; an error is only told."""
    if started is None:
        return
    try:
        started.stop()
    except Failure as failure:
        click.echo(failure.message, err=True)
    else:
        click.echo("Stopped the swarmctl daemon again", err=True)


def token_of(call: Invocation) -> str:
    """Return the join token: by flag, file, standard input or environment.

    Raises:
        Failure: two of them, or a file that cannot be read.
    """
    given = call.given
    if given.any_of("token") and given.any_of("token-file"):
        raise Failure("--token and --token-file exclude each other")
    if "token-file" in given:
        try:
            return Path(given.text("token-file")).read_text("utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise Failure(f"the token cannot be read: {error}") from error
    if given.text("token") == "-":
        return sys.stdin.readline().strip()
    return given.text("token") or os.environ.get("SWARMCTL_TOKEN", "")
