"""Waiting until a service is as it was asked for, and showing how far it is.

Five looks a second, as Docker's CLI does: service, its up-to-date tasks, nodes. Converged means
that it stayed so for the update's monitor period; jobs are done when they are done. On a terminal
every task has a bar; elsewhere a line is written when it changes, so a log stays readable.
"""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Protocol, final

import click

from ..api import Api, Json, filters_of, path_to
from ..command import Failure
from .progress import RUNNING, Line, Progress, progress_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

LOOK_EVERY_S = 0.2
MONITOR_S = 5.0
_BAR_WIDTH = 40


class Screen(Protocol):
    """Where progress is shown."""

    def show(self, lines: Iterable[Line]) -> None:
        """Show lines; each replaces the earlier one of its key."""

    def close(self) -> None:
        """Leave what was shown last."""


def wait_converged(api: Api, service_id: str, *, quiet: bool, back: bool = False) -> None:
    """Wait until a service converged.

    An interrupt from the keyboard ends the waiting, and nothing else.

    Args:
        quiet: show nothing.
        back: a rollback is what was asked for. Where it was not, one that the daemon began is the
            failure of what was; Docker's CLI takes it for a success.

    Raises:
        Failure: the update, or its rollback, paused; or the update was rolled back.
        DaemonError: the service is gone. ClientError: the daemon is.
    """
    screen = _screen(quiet=quiet)
    watch = _Watch(api, service_id, screen)
    rolled_back = ""
    try:
        while not watch.look():
            time.sleep(LOOK_EVERY_S)
        rolled_back = watch.rolled_back
    except KeyboardInterrupt:
        screen.close()
        if not quiet and not watch.converged:
            click.echo("Operation continuing in background.")
            click.echo(f"Use `swarmctl service ps {service_id}` to check progress.")
    finally:
        screen.close()
    if rolled_back and not back:
        raise Failure(f"service update rolled back: {rolled_back}")


def _screen(*, quiet: bool) -> Screen:
    if quiet:
        return _Nothing()
    return _Bars() if sys.stdout.isatty() else _Lines()


@final
class _Watch:
    """The looks at one service, and what they add up to."""

    def __init__(self, api: Api, service_id: str, screen: Screen) -> None:
        self._api = api
        self._service_id = service_id
        self._screen = screen
        self._progress: Progress | None = None
        self._converged_at: float | None = None
        self._back = False
        self._last_word = ""
        self.rolled_back = ""
        """Why the daemon went back to the spec before, if it was seen to."""

    @property
    def converged(self) -> bool:
        """Was the service as asked for at the last look?"""
        return self._converged_at is not None

    def look(self) -> bool:
        """Look once; True when the waiting is over."""
        service = self._api.get(path_to("services", self._service_id))
        if self._progress is None:
            self._progress = progress_of(service)
        if self._judge_update(service.get("UpdateStatus") or {}):
            return True
        monitor = ((service["Spec"].get("UpdateConfig") or {}).get("Monitor") or 0) / 1e9
        monitor = monitor or MONITOR_S
        if self._converged_at is not None and time.monotonic() - self._converged_at >= monitor:
            self._screen.show([Line("verify", f"Service {self._service_id} converged")])
            if self._last_word:
                self._screen.show([Line("rollback", self._last_word)])
            return True
        return self._look_at_tasks(service, monitor)

    def _judge_update(self, status: Json) -> bool:
        """Take note of the update's state; True when it is over and nothing is to be verified."""
        state, message = status.get("State"), status.get("Message", "")
        if state == "paused":
            raise Failure(f"service update paused: {message}")
        if state == "rollback_paused":
            raise Failure(f"service rollback paused: {message}")
        if state == "completed":
            return self._converged_at is None
        if state == "updating":
            self._back = False
            self.rolled_back = ""
        elif state == "rollback_started":
            if not self._back and message:
                self._screen.show([Line("rollback", message)])
            self._back = True
            self.rolled_back = message
        elif state == "rollback_completed":
            if self._converged_at is None:
                self._last_word = message
            self._back = True
            self.rolled_back = self.rolled_back or message
        return False

    def _look_at_tasks(self, service: Json, monitor: float) -> bool:
        assert self._progress is not None
        wanted = {"service": [service["ID"]], "_up-to-date": ["true"]}
        tasks = self._api.get("/tasks", filters_of(wanted))
        nodes = self._api.get("/nodes")
        active = frozenset(node["ID"] for node in nodes if node["Status"].get("State") != "down")
        look = self._progress.look(service, tasks, active, back=self._back)
        self._screen.show(look.lines)
        if not look.converged:
            if self._converged_at is not None:
                self._screen.show([Line("verify", "Detected task failure")])
            self._converged_at = None
            return False
        if service.get("JobStatus") is not None:
            self._screen.show([Line("job complete", "")])
            return True
        now = time.monotonic()
        if self._converged_at is None:
            self._converged_at = now
        left = monitor - (now - self._converged_at)
        if left >= 0:
            seconds = math.ceil(left) or 1
            text = f"Waiting {seconds} seconds to verify that tasks are stable..."
            self._screen.show([Line("verify", text)])
        return False


class _Nothing:
    def show(self, lines: Iterable[Line]) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines:
    """Lines for a log: one when something changed; the states on the way are left to ``ps``."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def show(self, lines: Iterable[Line]) -> None:
        for line in lines:
            text = "" if line.step else line.text
            if self._shown.get(line.key) == text or (line.step and line.key in self._shown):
                continue
            self._shown[line.key] = text
            click.echo(f"{line.key}: {text}" if text or "/" in line.key else line.key)

    def close(self) -> None:
        pass


class _Bars:
    """A bar for every task on a terminal, by rich."""

    def __init__(self) -> None:
        from rich.live import Live

        self._lines: dict[str, Line] = {}
        self._live = Live(auto_refresh=False)
        self._open = False

    def show(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._lines[line.key] = line
        if not self._open:
            self._live.start()
            self._open = True
        self._live.update(self._drawn(), refresh=True)

    def _drawn(self) -> Text:
        from rich.text import Text

        drawn = Text(no_wrap=True, overflow="ellipsis")
        rows = sorted(self._lines.values(), key=lambda line: line.key == "verify")
        for at, line in enumerate(rows):  # sorted: the last word stands last
            drawn.append("\n" if at else "")
            drawn.append(f"{line.key}: ", style="bold" if not line.step else "")
            if line.step:
                done = _BAR_WIDTH * line.step // RUNNING
                drawn.append(f"{line.text:<9} ")
                drawn.append("━" * done, style="green")
                drawn.append("━" * (_BAR_WIDTH - done), style="dim")
            else:
                drawn.append(line.text)
        return drawn

    def close(self) -> None:
        if self._open:
            self._live.stop()
            self._open = False
