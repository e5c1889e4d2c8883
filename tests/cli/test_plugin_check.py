"""``swarmctl plugin check``: what an author sees before a daemon gets the plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ran

HEAD = "from swarmctl.plugins import hookimpl\n"
FIRST = """
class First:
    def place(self, view, tasks, nodes):
        for node in nodes:
            if node.room:
                return {tasks[0].api.ID: node.node.api.ID}
        return {}

@hookimpl
def swarmctl_scheduler(name, settings):
    return First() if name == settings.options.get("called", "first") else None
"""
FILTER = """
class Licence:
    name, static = "licence", %s
    def check(self, task): return lambda node, load: load.tasks %% 2
    def explain(self, nodes): return f"{nodes} without"
    def why(self, task, place, others): return "a licence", "none"

@hookimpl
def swarmctl_scheduler_filters(): return [Licence()]
"""


def test_a_plugin_that_keeps_the_laws_passes(run: Callable[..., Ran], tmp_path: Path) -> None:
    """Each check is a line, and the exit code is 0; it asks no daemon."""
    file = tmp_path / "first.py"
    file.write_text(HEAD + FIRST + FILTER % False)
    ran = run("plugin", "check", str(file))
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            f"first: {file}",
            "  ok      load: plugin API 1, swarmctl_scheduler, swarmctl_scheduler_filters",
            "  ok      scheduler first",
            "  ok      filters: licence",
            "  ok      filter licence",
        ],
    )
    assert run("plugin", "check", str(file), "--name", "x", "--option", "called=x").code == 0


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("1 / 0\n", 'load: plugin "bad" cannot be imported from {file}: ZeroDivisionError(\'divi'),
        (HEAD + FIRST.replace("if node.room", "if True"), "tasks and has room for 0"),
        (HEAD + FILTER % True, "filter licence: on node node000 a static filter looked at the loa"),
        (HEAD + "@hookimpl\nasync def swarmctl_scheduler(name): ...\n", 'is "async def"; hooks a'),
        (HEAD + FIRST.replace("    def place", "    async def place"), 'place is "async def"; it'),
        (
            HEAD + FIRST.replace("place(self, view, ", "place(self, "),
            "place takes (tasks, nodes); ",
        ),
        (HEAD + FIRST.replace("def place", "def put"), "is no scheduler: it has no method place"),
        (HEAD + FIRST.replace("return {}", "return []"), "cluster 0: place gave [], no ids by ta"),
        (
            HEAD + FIRST + '@hookimpl\ndef swarmctl_strategies(): return "first"\n',
            "strategies: plugin \"bad\": swarmctl_strategies gives a list or tuple, not 'first'",
        ),
        (HEAD + FIRST.replace('"first")', '"1st")'), 'plugin "bad" makes nothing called "first"'),
        (HEAD + FILTER.replace("[Licence()]", "1 / 0") % True, "filters: plugin "),
        ("import no_such_module\n", "put a wheel that holds no_such_module beside it"),
    ],
)
def test_a_plugin_that_breaks_a_law_is_told_which(
    run: Callable[..., Ran], tmp_path: Path, code: str, line: str
) -> None:
    """The line names the law and what was seen, and the exit code is 1."""
    file = tmp_path / "bad.py"
    file.write_text(code)
    ran = run("plugin", "check", "--name", "first", str(file))
    assert ran.code == 1
    assert "  FAILED  " in ran.out
    assert line.format(file=file) in ran.out
    assert ran.err == "the plugin does not pass\n"


def test_what_keeps_a_daemon_from_loading_it_is_noted(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    """A file that others may write to passes here and would not there: a note says so."""
    file = tmp_path / "first.py"
    file.write_text(HEAD + FIRST)
    file.chmod(0o666)
    ran = run("plugin", "check", str(file))
    assert ran.code == 0
    assert f"  note    a daemon would not load it as it lies here: {file} could have" in ran.out
    assert f"(chmod go-w {file})" in ran.out


def test_what_is_no_plugin_is_said(run: Callable[..., Ran], tmp_path: Path) -> None:
    """A missing file, another kind of file, and a name that nobody installed are told apart."""
    assert run("plugin", "check", str(tmp_path / "no.py")).err.endswith(
        "no.py is no Python file and no wheel\n"
    )
    assert "no plugin called 'blue' is installed" in run("plugin", "check", "blue").err
    assert run("plugin", "check", "process").out.splitlines()[1].startswith("  ok      load: ")
