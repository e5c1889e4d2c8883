"""Managers of this release and of an artificial next one, in one swarm of real archives.

The next one has a new field in the tables, and a new kind of change that fills it on every node as
soon as all managers know it. Each writes what the others know; with the last upgrade that changes.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.archive import Host, cached_archive
from tests.daemon import Daemon
from tests.releases import another, replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEXT = {
    "core/model/change": replacing(
        ("\nFORMAT_LEVEL = 1\n", "\nFORMAT_LEVEL = 2\n"),
        (
            "\nChange = Union[Create, Update, Delete, Advance]",
            (
                '\nclass Remark(PrivateStruct, frozen=True, kw_only=True, tag="remark"):\n'
                '    """A new kind of change."""\n\n    node_id: str\n    text: str\n\n\n'
                "Change = Union[Create, Update, Delete, Advance, Remark]"
            ),
        ),
        (
            "NEWER_KINDS: dict[type[object], int] = {}",
            "NEWER_KINDS: dict[type[object], int] = {Remark: 2}",
        ),
        (
            "NEWER_FIELDS: dict[type[object], dict[str, int]] = {}",
            (
                "from .objects import NodePrivate\n"
                'NEWER_FIELDS: dict[type[object], dict[str, int]] = {NodePrivate: {"remark": 2}}'
            ),
        ),
    ),
    "core/model/objects": replacing(
        ("    can_run: bool = True\n", '    can_run: bool = True\n    remark: str = ""\n')
    ),
    "core/store/store": replacing(
        (
            "    if isinstance(change, Advance):\n        _advance",
            (
                "    from ..model.change import Remark\n"
                "    if isinstance(change, Remark):\n"
                "        row = view.node(change.node_id)\n"
                "        labels = {**row.api.Spec.Labels, 'remark': change.text}\n"
                "        api = replace(row.api, Spec=replace(row.api.Spec, Labels=labels))\n"
                "        after = replace(row.private, remark=change.text)\n"
                "        view.put(_stamp(replace(row, api=api, private=after), row, index, now))\n"
                "        return None\n"
                "    if isinstance(change, Advance):\n        _advance"
            ),
        )
    ),
    "core/manager/levels": replacing(
        (
            "    level = min(row.private",
            (
                "    from ..model.change import Remark\n"
                "    if cluster.private.format_level >= 2:\n"
                "        return Decision(transactions=tuple(\n"
                "            Transaction(changes=(Remark(node_id=row.api.ID, text='new'),))\n"
                "            for row in view.nodes() if not row.private.remark\n"
                "        ))\n"
                "    level = min(row.private"
            ),
        )
    ),
}


@pytest.fixture(scope="session")
def archive() -> Path:
    """An archive of the sources as they are."""
    return cached_archive()


@pytest.fixture(scope="session")
def next_release(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release after this one."""
    return another(archive, tmp_path_factory.mktemp("next") / "next.pyz", "99.0", NEXT)


class Swarm:
    """Managers on one machine, each with an archive of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: list[Daemon] = []

    def add(self, archive: Path) -> Daemon:
        """Add a manager that runs a release; the first founds the swarm."""
        home = self._folder / f"n{len(self.nodes)}"
        home.mkdir()
        installed = home / "swarmctl.pyz"
        shutil.copy(archive, installed)
        host = Host(home, installed)
        host.environment["SWARMCTL_CACHE"] = str(self._folder / "cache")
        made = Daemon(home, [sys.executable, str(installed)], host.environment)
        if self.nodes:
            token = self.nodes[0].command("join-token", "-q", "manager").stdout.strip()
            made.detach("null", "join", f"--token={token}", self.nodes[0].address)
        else:
            made.detach("null")
        self.nodes.append(made)
        return made

    def swarm_of(self, node: Daemon) -> dict[str, object]:
        return json.loads(node.command("info", "--format=json").stdout)["Swarm"]  # type: ignore[no-any-return]

    def levels(self) -> list[object]:
        """The format level as each manager's tables have it."""
        return [self.swarm_of(node).get("FormatLevel") for node in self.nodes]

    def remarks(self, node: Daemon) -> list[str]:
        """What the new kind of change has written, by node."""
        ids = node.command("node", "ls", "-q").stdout.split()
        form = '--format={{index .Spec.Labels "remark"}}'
        return [node.command("node", "inspect", form, one).stdout.strip() for one in ids]

    def create(self, node: Daemon, name: str) -> None:
        def created() -> bool:
            done = node.command("service", "create", f"--name={name}", "--detach", "nginx")
            return done.returncode == 0 or "already" in done.stderr

        node.until(created, "no write is accepted")
        node.until(lambda: node.runs(name), f"{name} does not run")


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path)
    yield made
    for node in made.nodes:
        node.end()


def test_a_swarm_is_upgraded_manager_by_manager(
    swarm: Swarm, archive: Path, next_release: Path
) -> None:
    """Mixed, all write what all know; after the last upgrade the new things appear."""
    for _ in range(3):
        swarm.add(archive)
    swarm.create(swarm.nodes[0], "before")
    for number, node in enumerate(swarm.nodes):
        done = node.command("upgrade", str(next_release))
        assert done.returncode == 0, done.stderr
        for other in swarm.nodes:
            other.until(lambda n=other: swarm.swarm_of(n).get("Nodes") == 3, "it is out of touch")  # type: ignore[misc]
        swarm.create(swarm.nodes[-1], f"with{number}")
        if number < 2:
            assert swarm.levels() == [1, 1, 1]
            assert swarm.remarks(node) == ["<no value>"] * 3 or swarm.remarks(node) == [""] * 3
    first = swarm.nodes[0]
    first.until(lambda: swarm.levels() == [2, 2, 2], "the level stays")
    first.until(lambda: swarm.remarks(first) == ["new"] * 3, "the new change is not made")
    assert swarm.remarks(swarm.nodes[2]) == ["new"] * 3
    assert all(swarm.swarm_of(node)["ControlAvailable"] for node in swarm.nodes)


def test_an_older_release_is_not_let_in_as_a_manager(
    swarm: Swarm, archive: Path, next_release: Path
) -> None:
    """Once the managers agree on more than it knows it is told to upgrade, and harms nobody."""
    first = swarm.add(next_release)
    first.until(lambda: swarm.levels() == [2], "the level stays")
    with pytest.raises(AssertionError, match="format level 1, and the managers agree on 2 already"):
        swarm.add(archive)
    assert swarm.remarks(first)[0] == "new"
    swarm.create(first, "after")
