"""Which nodes suit a task by what they are (core/model/suits.py)."""

from __future__ import annotations

import pytest

from swarmctl.core.model.base import Platform
from swarmctl.core.model.objects import EngineDescription, Node, NodeDescription, NodeRow, NodeSpec
from swarmctl.core.model.suits import suits

from .specs import service_spec

PLACEMENT = "TaskTemplate.Placement"
LIMITS = "TaskTemplate.Resources.Limits"
IMAGE = "TaskTemplate.ContainerSpec.Image"
AMD64, ARM64 = ({"Architecture": arch, "OS": "linux"} for arch in ("amd64", "aarch64"))


def node(
    executor: str = "docker", arch: str = "x86_64", zone: str = "a", lacks: str = ""
) -> NodeRow:
    labels = {"swarmctl.executor": executor}
    if lacks:
        labels[f"swarmctl.lacks.{lacks}"] = "it is full moon"
    return NodeRow(
        api=Node(
            ID="n1",
            Spec=NodeSpec(Labels={"zone": zone}),
            Description=NodeDescription(
                Platform=Platform(Architecture=arch, OS="linux" if arch else ""),
                Engine=EngineDescription(Labels=labels),
            ),
        )
    )


@pytest.mark.parametrize(
    ("changes", "row", "fits"),
    [
        ({}, node(), True),
        ({PLACEMENT: {"Constraints": ["node.labels.zone == a"]}}, node(), True),
        ({PLACEMENT: {"Constraints": ["node.labels.zone == a"]}}, node(zone="b"), False),
        ({PLACEMENT: {"Platforms": [AMD64]}}, node(), True),
        ({PLACEMENT: {"Platforms": [ARM64]}}, node(), False),
        ({PLACEMENT: {"Platforms": [ARM64, AMD64]}}, node(), True),
        ({PLACEMENT: {"Platforms": [ARM64]}}, node(arch="aarch64"), True),
        ({PLACEMENT: {"Platforms": [{"OS": "linux"}]}}, node(), True),
        ({PLACEMENT: {"Platforms": [AMD64]}}, node(arch=""), False),
        ({}, node("process"), False),
        ({}, node("null"), True),
        ({IMAGE: "host"}, node(), False),
        ({IMAGE: "host"}, node("process"), True),
        ({IMAGE: "host:latest"}, node("null"), True),
        ({LIMITS: {"MemoryBytes": 1}}, node(), True),
        ({LIMITS: {"MemoryBytes": 1}}, node(lacks="memory-limit"), False),
        ({LIMITS: {"MemoryBytes": 1}}, node(lacks="cpu-limit"), True),
    ],
)
def test_what_a_node_is(changes: dict[str, object], row: NodeRow, fits: bool) -> None:
    """Labels, platform and kind of executor decide; the scheduler's filters say the same."""
    assert suits(service_spec(**changes).TaskTemplate)(row) is fits
