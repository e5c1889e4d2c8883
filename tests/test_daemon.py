"""What the daemon puts together: which network driver goes with which settings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from swarmctl.config import DaemonConfig
from swarmctl.core.errors import InvalidArgument
from swarmctl.daemon import (
    _check_settings,
    _choose_network_driver,
    _notify_systemd,
    run_daemon,
)
from swarmctl.plugins import ExecutorSettings
from swarmctl.plugins.loader import (
    BUILT_INS,
    FIRST_PARTY,
    NoSuchNetworkDriver,
    Plugins,
    load_plugins,
)
from swarmctl.plugins.null_driver import NullDriver

if TYPE_CHECKING:
    from pathlib import Path


def without_overlay() -> Plugins:
    built_ins = {name: module for name, module in BUILT_INS.items() if name != "overlay"}
    return load_plugins(built_ins=built_ins, candidates=())


def test_the_driver_that_pretends_goes_with_the_executor_that_does() -> None:
    """Unless another is named, or none; both get the settings of their one name."""
    plugins = without_overlay()
    settings = {"null": {"delay": "1s", "cpus": "16"}}
    config = DaemonConfig(state_dir="/nowhere/a", settings=settings)
    options = ExecutorSettings(state_dir="/nowhere/a", options=settings["null"])
    assert plugins.executor("null", options).name == "null"
    driver = _choose_network_driver(config, plugins, "null")
    assert isinstance(driver, NullDriver)
    assert driver.kernel.delay_s == 1.0
    named = DaemonConfig(state_dir="/nowhere/b", network_driver="null")
    assert isinstance(_choose_network_driver(named, plugins, "docker"), NullDriver)
    none = DaemonConfig(state_dir="/nowhere/c", network_driver="none")
    assert _choose_network_driver(none, plugins, "null") is None


def test_a_driver_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """The usual one is missed in the log, one that was asked for ends the start."""
    plugins = without_overlay()
    with caplog.at_level(logging.WARNING):
        assert _choose_network_driver(DaemonConfig(state_dir="/nowhere"), plugins, "docker") is None
    assert "nothing carries traffic between tasks of different nodes" in caplog.text
    named = DaemonConfig(state_dir="/nowhere", network_driver="frr")
    with pytest.raises(NoSuchNetworkDriver):
        _choose_network_driver(named, plugins, "docker")


def test_places_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state directory or a socket where none can be: a sentence with the flags, no traceback."""
    file = tmp_path / "file"
    file.touch()
    for places in (
        {"state_dir": f"{file}/state", "socket": f"{tmp_path}/sock"},
        {"state_dir": f"{tmp_path}/state", "socket": f"{file}/run/sock"},
    ):
        assert run_daemon(DaemonConfig(**places)) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"swarmctl daemon: cannot make {file}/")
        assert said.endswith("--state-dir and --socket name other places\n")


def test_who_waits_for_no_word_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A socket of systemd's that is inherited and gone ends no daemon."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    _notify_systemd("READY=1")
    assert f"nobody listens at NOTIFY_SOCKET {tmp_path / 'gone'}" in caplog.text


def test_settings_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    """What has no settings gets none; a name that nothing has may be spelled wrong."""
    said = r"\[settings\.spread\] says width, and spread has no settings"
    with pytest.raises(InvalidArgument, match=said):
        _check_settings({"carbn": {"step": "9"}, "spread": {"width": "3"}}, {"carbon", "spread"})
    assert "[settings.carbn]: no plugin and no strategy has that name here" in caplog.text
    for name in {*BUILT_INS, *FIRST_PARTY} - {"null"}:
        with pytest.raises(InvalidArgument, match=f"{name} has no settings"):
            _check_settings({name: {"a": "b"}}, BUILT_INS)
    caplog.clear()
    _check_settings({"carbon": {"step": "9"}, "null": {"cpus": "2"}}, {"carbon", "null"})
    assert caplog.text == ""
