"""The daemon's settings: where each comes from, and what is wrong with a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from swarmctl import config
from swarmctl.config import DaemonConfig, load_config
from swarmctl.core.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_file_of_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_CONFIG", tmp_path / "absent.toml")


def written(tmp_path: Path, text: str) -> dict[str, str]:
    """A config file as the flag that names it."""
    path = tmp_path / "swarmctl.toml"
    path.write_text(text)
    return {"config": str(path)}


def test_without_anything_the_defaults_hold() -> None:
    """No file, no variable, no flag: the documented defaults."""
    assert load_config({}, {}) == DaemonConfig()


def test_flags_go_before_variables_before_the_file_before_defaults(tmp_path: Path) -> None:
    """Each source wins over those after it, setting by setting."""
    file = written(tmp_path, 'executor = "file"\nengine = "file"\nlog_level = "debug"\n')
    environment = {"SWARMCTL_EXECUTOR": "variable", "SWARMCTL_ENGINE": "variable"}
    found = load_config({**file, "executor": "flag", "engine": None}, environment)
    assert (found.executor, found.engine, found.log_level) == ("flag", "variable", "debug")
    assert found.scheduler == DaemonConfig().scheduler


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    """``SWARMCTL_EXECUTOR=`` is not a choice of no executor."""
    file = written(tmp_path, 'executor = "file"\n')
    assert load_config(file, {"SWARMCTL_EXECUTOR": ""}).executor == "file"


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """``SWARMCTL_CONFIG`` names the file unless a flag does."""
    path = tmp_path / "other.toml"
    path.write_text('hostname = "other"\n')
    assert load_config({}, {"SWARMCTL_CONFIG": str(path)}).hostname == "other"
    flag = written(tmp_path, 'hostname = "flag"\n')
    assert load_config(flag, {"SWARMCTL_CONFIG": str(path)}).hostname == "flag"


def test_a_client_and_its_daemon_share_a_socket() -> None:
    """``SWARMCTL_HOST``, which clients read, says where the daemon listens; a socket wins."""
    host = {"SWARMCTL_HOST": "unix:///tmp/a.sock"}
    assert load_config({}, host).socket == "/tmp/a.sock"
    assert load_config({}, {**host, "SWARMCTL_SOCKET": "/tmp/b.sock"}).socket == "/tmp/b.sock"


def test_a_client_of_another_host_says_nothing_about_the_socket() -> None:
    """``SWARMCTL_HOST=tcp://...`` is for clients; the daemon's socket stays where it is."""
    assert load_config({}, {"SWARMCTL_HOST": "tcp://10.0.0.1:2375"}).socket == DaemonConfig().socket


def test_paths_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A daemon that changes its directory still finds its state, and its plugins."""
    monkeypatch.chdir(tmp_path)
    found = load_config({"state_dir": "state", "socket": "s.sock", "plugin_dir": "more"}, {})
    assert (found.state_dir, found.socket) == (str(tmp_path / "state"), str(tmp_path / "s.sock"))
    assert found.plugin_dir == str(tmp_path / "more")


def test_tables_and_lists_are_read(tmp_path: Path) -> None:
    """Plugins are a list, their options tables by name."""
    file = written(tmp_path, 'plugins = ["a", "b"]\n[settings.null]\ncpus = "2"\n')
    found = load_config(file, {})
    assert (found.plugins, found.settings) == (("a", "b"), {"null": {"cpus": "2"}})


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    """A typo is an error that says what was probably meant."""
    with pytest.raises(
        InvalidArgument, match=r"unknown setting 'executer' in .*; did you mean 'executor'\?"
    ):
        load_config(written(tmp_path, 'executer = "docker"\n'), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("state_dir = 5\n", r"Expected `str`, got `int` - at `\$\.state_dir`"),
        ('accept_moved_state = "yes"\n', r"`\$\.accept_moved_state`"),
        ("plugins = [1]\n", r"`\$\.plugins\[0\]`"),
        ("settings = 1\n", r"`\$\.settings`"),
        ('log_level = "chatty"\n', "'chatty': it must be one of debug, info, warning, error"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path, text: str, words: str) -> None:
    """What was expected, what was found, and where."""
    with pytest.raises(InvalidArgument, match=words):
        load_config(written(tmp_path, text), {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A named file has to be there and be TOML; the default one may be absent."""
    with pytest.raises(InvalidArgument, match=r"gone\.toml does not exist"):
        load_config({"config": str(tmp_path / "gone.toml")}, {})
    with pytest.raises(InvalidArgument, match="is no TOML"):
        load_config(written(tmp_path, "executor = \n"), {})
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load_config({"config": str(tmp_path)}, {})
    (tmp_path / "latin.toml").write_bytes('hostname = "zürich"\n'.encode("latin-1"))
    with pytest.raises(InvalidArgument, match="is no TOML"):
        load_config({"config": str(tmp_path / "latin.toml")}, {})
