"""The overlay driver keeps the laws of network drivers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

if TYPE_CHECKING:
    from tests.plugins.overlay.scene import Scene


@pytest.mark.lab
def test_conformance(scene: Scene) -> None:
    """Every law holds on a real kernel, with tasks, a virtual address and a published port."""
    scene.publish()
    host = scene.hosts[0]
    scene.drivers[0].kill()
    containers = [one for one in (*scene.members, scene.client) if one.host is host]
    words = {
        "node": host.node,
        "state_dir": host.state_dir,
        "table": msgspec.to_builtins(msgspec.structs.replace(scene.table(host), version=10)),
        "sandboxes": [
            {"id": one.task, "pid": one.pid, "networks": one.networks} for one in containers
        ],
    }
    program = Path(__file__).with_name("conform.py")
    host.run(sys.executable, str(program), text=json.dumps(words))
