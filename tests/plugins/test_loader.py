"""Loading plugins: which ones, in which order, and what is said about those that are refused."""

from __future__ import annotations

import os
import re
import sys
import types
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from swarmctl.core.errors import InvalidArgument
from swarmctl.plugins import (
    EngineUnavailable,
    ExecutorSettings,
    PluginInfo,
    SchedulerSettings,
    hookimpl,
    hookspecs,
)
from swarmctl.plugins.loader import (
    NoExecutor,
    NoSuchExecutor,
    NoSuchScheduler,
    Plugins,
    load_plugins,
)
from swarmctl.plugins.sources import Candidate, PluginError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = ExecutorSettings(state_dir="/nowhere")


class Engine:
    """As much of an executor as detection asks for."""

    def __init__(self, name: str, *, up: bool = True) -> None:
        self.name = name
        self._up = up

    async def describe(self) -> None:
        if not self._up:
            raise EngineUnavailable("nobody answers")


def plugin(**functions: Callable[..., Any]) -> types.ModuleType:
    made = types.ModuleType("made")
    for name, function in functions.items():
        setattr(made, name, hookimpl(function))
    return made


def makes(name: str, **how: Any) -> types.ModuleType:
    def swarmctl_executor(name: str, wanted: str = name) -> Engine | None:
        return Engine(wanted, **how) if name == wanted else None

    def by_name(name: str) -> Any:
        return swarmctl_executor(name)

    return plugin(swarmctl_executor=by_name)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Puts an importable module with these functions in place; gives its name."""

    def put(name: str, **functions: Callable[..., Any]) -> str:
        made = types.ModuleType(name)
        for key, function in functions.items():
            setattr(made, key, hookimpl(function))
        monkeypatch.setitem(sys.modules, name, made)
        return name

    return put


def info() -> PluginInfo:
    return PluginInfo(name="mine", version="1")


def load(*candidates: Candidate, **how: Any) -> list[str]:
    plugins = load_plugins(built_ins={}, candidates=candidates, **how)
    return [loaded.name for loaded in plugins.infos()]


def test_first_party_plugins_are_enabled_by_being_installed(module: Callable[..., str]) -> None:
    """The docker executor's entry point loads without being named."""
    module("swarmctl_docker_exec", swarmctl_plugin_info=info)
    assert load(Candidate("docker", "swarmctl_docker_exec")) == ["mine"]


def test_a_stranger_under_a_first_party_name_is_not_loaded(module: Callable[..., str]) -> None:
    """An entry point called docker that leads to another module stays off."""
    module("impostor", swarmctl_plugin_info=info)
    assert load(Candidate("docker", "impostor")) == []


def test_third_party_plugins_load_only_when_named(module: Callable[..., str]) -> None:
    """An installed plugin of a stranger stays off until the configuration names it."""
    module("stranger", swarmctl_plugin_info=info)
    point = Candidate("theirs", "stranger")
    assert load(point) == []
    assert load(point, named=["theirs"]) == ["mine"]


def failure(*candidates: Candidate, **how: Any) -> str:
    """Return why the one plugin that cannot be loaded is not."""
    (found,) = load_plugins(built_ins={}, candidates=candidates, **how).failures
    return found.text


def test_a_named_plugin_that_is_missing_is_named_with_what_there_is() -> None:
    """A typo in the configuration is answered with the names that exist."""
    text = failure(Candidate("gpu", "gpu_plugin"), named=["gpux"])
    assert text == 'no plugin called "gpux" is installed; installed: gpu'


def test_two_plugins_of_one_name_are_both_named(module: Callable[..., str]) -> None:
    """Which of two distributions is meant is not guessed."""
    text = failure(Candidate("gpu", "a"), Candidate("gpu", "b"), named=["gpu"])
    assert text == 'two plugins are called "gpu": a and b; uninstall one'


def test_built_ins_come_first_and_their_own_entry_points_add_nothing(
    module: Callable[..., str],
) -> None:
    """The entry point that swarmctl itself declares for a built-in does not load it twice."""
    name = module("swarmctl.plugins.process_exec", swarmctl_plugin_info=info)
    plugins = load_plugins(built_ins={"process": name}, candidates=[Candidate("process", name)])
    assert [loaded.name for loaded in plugins.infos()] == ["mine"]


def test_an_import_error_names_plugin_and_cause() -> None:
    """A plugin that cannot be imported is named together with why."""
    text = failure(Candidate("gpu", "swarmctl_docker_exec.nowhere"), named=["gpu"])
    assert text.startswith('plugin "gpu" cannot be imported from swarmctl_docker_exec.nowhere: Mod')
    assert "No module named 'swarmctl_docker_exec.nowhere'" in text


def test_a_plugin_that_cannot_be_loaded_ends_nothing_but_what_asks_for_it(tmp_path: Path) -> None:
    """The daemon starts without it; who asks for something of it is told why it is not there."""
    file = tmp_path / "green.py"
    file.write_text("raise RuntimeError('no meter')\n")
    file.chmod(0o644)
    plugins = load_plugins(candidates=[Candidate("solar", "solar_plugin")], directory=tmp_path)
    assert plugins.scheduler("spread", SchedulerSettings()) is not None
    with pytest.raises(NoSuchScheduler, match=r"called \"green\".*green\.py: RuntimeError.*meter"):
        plugins.scheduler("green", SchedulerSettings())
    with pytest.raises(NoSuchScheduler, match='"solar" is installed and not allowed: name it unde'):
        plugins.scheduler("solar", SchedulerSettings())


def test_a_plugin_that_exits_while_it_is_imported_is_a_failure(tmp_path: Path) -> None:
    """``sys.exit`` at the top of a plugin ends the plugin's load and not the daemon."""
    file = tmp_path / "quits.py"
    file.write_text("import sys; sys.exit(3)\n")
    file.chmod(0o644)
    assert "SystemExit(3)" in failure(directory=tmp_path)


def test_single_files_are_plugins(tmp_path: Path) -> None:
    """Every Python file in the plugin directory is loaded, in the order of their names."""
    for name in ("b", "a"):
        file = tmp_path / f"{name}.py"
        file.write_text(
            "from swarmctl.plugins import PluginInfo, hookimpl\n"
            "@hookimpl\n"
            f"def swarmctl_plugin_info(): return PluginInfo(name={name!r}, version='1')\n"
        )
        file.chmod(0o644)
    assert load(directory=tmp_path) == ["a", "b"]
    assert load(directory=tmp_path / "missing") == []


def test_a_broken_file_is_named_with_its_cause(tmp_path: Path) -> None:
    """A plugin file that raises while being imported is not loaded, and says what it raised."""
    file = tmp_path / "bad.py"
    file.write_text("1 / 0\n")
    file.chmod(0o600)
    assert re.search(r"cannot be imported from .*bad\.py: ZeroDiv", failure(directory=tmp_path))


@pytest.mark.parametrize("name", ["open.py", "open-1-py3-none-any.whl"])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, name: str) -> None:
    """The daemon runs no code that another user of the machine could have put there."""
    file = tmp_path / name
    file.write_text("")
    file.chmod(0o666)
    assert f"chmod go-w {file}" in failure(directory=tmp_path)


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Nor does it where another user could put a file, or another directory in its place."""
    inner = tmp_path / "open" / "plugins"
    inner.mkdir(parents=True)
    (inner / "fine.py").write_text("1 / 0\n")
    inner.chmod(0o777)
    assert f"chmod go-w {inner}" in failure(directory=inner)
    inner.chmod(0o755)
    inner.parent.chmod(0o777)
    assert f"lies in {inner.parent}, where others could put another" in failure(directory=inner)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """A file that belongs to somebody else is named with its owner, a link to one as well."""
    file = tmp_path / "theirs.py"
    file.write_text("1 / 0\n")
    os.chown(file, 12345, 0)
    assert "belongs to user 12345" in failure(directory=tmp_path)
    link = tmp_path / "inner" / "link.py"
    link.parent.mkdir()
    link.symlink_to(file)
    assert "belongs to user 12345" in failure(directory=link.parent)


def test_a_link_to_nothing_is_a_failure(tmp_path: Path) -> None:
    """What lies in the plugin directory and leads nowhere is named, and the daemon starts."""
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    assert f"{tmp_path / 'gone.py'} cannot be read" in failure(directory=tmp_path)


def wheel(folder: Path, name: str, *, files: dict[str, str], points: str = "") -> Path:
    """Make a wheel in a folder."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n")
        if points:
            archive.writestr(f"{name}-1.0.dist-info/entry_points.txt", points)
    path.chmod(0o644)
    return path


@pytest.fixture
def path_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.usefixtures("path_as_it_was")
def test_wheels_are_plugins_where_they_lie(tmp_path: Path) -> None:
    """A wheel's entry point loads without pip, with what it imports from another wheel there."""
    code = (
        "from lib_of_wheel import VERSION\n"
        "from swarmctl.plugins import PluginInfo, hookimpl\n"
        "@hookimpl\n"
        "def swarmctl_plugin_info(): return PluginInfo(name='Solar', version=VERSION)\n"
    )
    files = {"solar_of_wheel.py": code}
    wheel(tmp_path, "solar", files=files, points="[swarmctl]\nSolar = solar_of_wheel\n")
    wheel(tmp_path, "zlib_dep", files={"lib_of_wheel.py": "VERSION = '7'\n"})
    plugins = load_plugins(built_ins={}, candidates=[], directory=tmp_path)
    assert plugins.failures == []
    (one,) = plugins.loaded.values()
    assert (one.source.name, one.source.kind, one.info.version) == ("Solar", "wheel", "7")


@pytest.mark.usefixtures("path_as_it_was")
def test_a_wheel_with_native_code_says_what_to_do(tmp_path: Path) -> None:
    """What cannot be imported from a zip is refused with the two ways that work."""
    wheel(tmp_path, "fast", files={"fast/_x.cpython-311-x86_64-linux-gnu.so": ""})
    assert "build_zipapp.py --with" in failure(directory=tmp_path)


@pytest.mark.usefixtures("path_as_it_was")
def test_a_wheel_whose_table_is_no_table_is_a_failure(tmp_path: Path) -> None:
    """Entry points that nobody can read are named, and so is a damaged archive."""
    path = wheel(tmp_path, "odd", files={}, points="solar = solar_of_wheel\n")
    assert f"the entry points of {path} cannot be read: File contains no section" in failure(
        directory=tmp_path
    )
    path.unlink()
    path = wheel(tmp_path, "torn", files={}, points="[swarmctl]\nsolar = solar_of_wheel\n")
    body = bytearray(path.read_bytes())
    body[body.index(b"[swarmctl]")] ^= 1
    path.write_bytes(body)
    assert f"{path} is no wheel: Bad CRC-32" in failure(directory=tmp_path)


def test_a_hook_that_is_not_marked_is_refused() -> None:
    """A function with a hook's name and without its mark would never be called: that is said."""
    odd = types.SimpleNamespace(swarmctl_plugin_info=hookimpl(info), swarmctl_scheduler=print)
    with pytest.raises(PluginError, match="swarmctl_scheduler is not marked with"):
        Plugins().register("x", odd)


def test_async_hooks_are_refused() -> None:
    """An ``async def`` hook is refused with what to write instead."""

    async def swarmctl_executor(name: str) -> None: ...

    with pytest.raises(
        PluginError, match=r'"x": swarmctl_executor is "async def"; hooks are plain'
    ):
        Plugins().register("x", plugin(swarmctl_executor=swarmctl_executor))


@pytest.mark.parametrize(
    ("functions", "text"),
    [
        ({"swarmctl_exekutor": lambda: None}, "no hook of this version; is swarmctl_executor mea"),
        ({"cook": lambda: None}, "no hook of this version; hooks: swarmctl_plugin_in"),
        ({}, "implements no hook"),
        (
            {"swarmctl_executor": lambda color: color},
            'takes an argument "color", which the hook does not give; it gives name, settings',
        ),
        ({"swarmctl_plugin_info": lambda: 1 / 0}, "swarmctl_plugin_info failed: ZeroDivision"),
        ({"swarmctl_plugin_info": lambda: "docker"}, "must return a PluginInfo"),
        (
            {"swarmctl_plugin_info": lambda: PluginInfo(name="x", version="1", api=99)},
            "needs plugin API 99, this swarmctl has 1",
        ),
        (
            {"swarmctl_plugin_info": lambda: PluginInfo(name="x", version="1", api="1")},
            "a PluginInfo has text as its name and a whole",
        ),
    ],
)
def test_a_plugin_that_breaks_a_rule_is_refused_and_leaves_nothing(
    functions: dict[str, Callable[..., Any]], text: str
) -> None:
    """The refusal names the plugin and the rule, and no half of the plugin stays registered."""
    plugins = Plugins()
    with pytest.raises(PluginError, match=text) as caught:
        plugins.register("x", plugin(**functions))
    assert '"x"' in str(caught.value)
    assert plugins.infos() == ()
    plugins.register("x", plugin(swarmctl_plugin_info=info))


def test_a_hook_may_be_implemented_under_another_name() -> None:
    """The rules look at the hook that is implemented, not at what the function is called."""

    async def other(name: str) -> None: ...

    odd = types.SimpleNamespace(other=hookimpl(specname="swarmctl_executor")(other))
    with pytest.raises(PluginError, match="async def"):
        Plugins().register("x", odd)


def test_the_executor_is_made_by_the_plugin_of_that_name() -> None:
    """Of several plugins the one that knows the name makes the executor."""
    plugins = Plugins()
    for name in ("docker", "process"):
        plugins.register(name, makes(name))
    assert plugins.executor("process", SETTINGS).name == "process"


def test_an_unknown_executor_is_bad_input_and_says_what_is_loaded() -> None:
    """A name that no plugin knows is the user's mistake, answered with the loaded plugins."""
    plugins = Plugins()
    plugins.register("docker", makes("docker"))
    with pytest.raises(NoSuchExecutor, match='called "dokcer"; loaded plugins: docker'):
        plugins.executor("dokcer", SETTINGS)


def test_a_plugin_that_fails_to_make_its_executor_is_named() -> None:
    """A crash in a hook is the plugin's error; bad settings stay the user's."""

    def crash(name: str) -> None:
        raise KeyError("oops")

    def refuse(name: str) -> None:
        raise InvalidArgument("no such endpoint")

    for function, error in ((crash, PluginError), (refuse, InvalidArgument)):
        plugins = Plugins()
        plugins.register("x", plugin(swarmctl_executor=function))
        with pytest.raises(error, match="oops" if error is PluginError else "no such endpoint"):
            plugins.executor("x", SETTINGS)


def test_no_other_plugin_takes_the_place_of_what_was_loaded_before() -> None:
    """One that makes something for every name gets those that nobody else knows."""
    plugins = load_plugins(candidates=[])
    plugins.register("any", plugin(swarmctl_scheduler=lambda: "anything"))
    built_in = plugins.scheduler("spread", SchedulerSettings())
    assert type(built_in).__module__ == "swarmctl.plugins.spread"
    assert plugins.scheduler("mine", SchedulerSettings()) == "anything"


def test_a_plugin_that_fails_for_the_name_of_another_is_taken_out() -> None:
    """Who asks gets what the other makes; the one that failed is a failure with its cause."""
    plugins = Plugins()
    plugins.register("broken", plugin(swarmctl_executor=lambda: {}["step"]))
    plugins.register("docker", makes("docker"))
    assert plugins.executor("docker", SETTINGS).name == "docker"
    assert [*plugins.loaded] == ["docker"]
    (failure,) = plugins.failures
    assert re.fullmatch(
        r'plugin "broken": swarmctl_executor failed when asked for "docker": '
        r"KeyError\('step'\) \(test_loader.py:\d+\)",
        failure.text,
    )


@pytest.mark.parametrize("given", ["largest", None, ("one", 2)])
def test_strategies_are_a_list_of_names(given: object) -> None:
    """A name alone is no tuple of names; the plugin and what it gave are named."""
    plugins = Plugins()
    plugins.register("x", plugin(swarmctl_strategies=lambda: given))
    (source,) = plugins.with_hook("swarmctl_strategies")
    if given is None:
        assert plugins.strategies_of(source) == []
    else:
        with pytest.raises(PluginError, match='plugin "x": swarmctl_strategies gives'):
            plugins.strategies_of(source)


async def test_detection_takes_the_first_executor_that_answers() -> None:
    """An engine that is down is passed over for the next in order."""
    plugins = Plugins()
    plugins.register("docker", makes("docker", up=False))
    plugins.register("process", makes("process"))
    assert (await plugins.detect_executor(SETTINGS)).name == "process"


async def test_detection_that_finds_nothing_says_why_of_each() -> None:
    """When nothing answers, every executor that was tried is named with its reason."""
    plugins = Plugins()
    known = {"docker": None, "process": None}
    plugins.register("gpu", plugin(swarmctl_executor=lambda name: known[name]))
    plugins.register("docker", makes("docker", up=False))
    with pytest.raises(
        NoExecutor, match=r"docker: nobody answers; podman: plugin .gpu.: .*; process"
    ):
        await plugins.detect_executor(SETTINGS)


def test_settings_default_to_the_measured_limits() -> None:
    """Three pulls and eight changes at a time, unless the configuration says otherwise."""
    assert SETTINGS.limits == hookspecs.ExecutorLimits(pulls=3, changes=8)
