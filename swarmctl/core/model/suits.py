"""Which nodes suit a task by what they *are*: labels, role, platform, kind of executor.

Two ask this: the scheduler, which says in words what was wrong, and the orchestrator of services
that run on every node, which must know what "every" means. What a node has left, and whether it
answers, is not asked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidConstraint
from .constraint import node_matches, parse_constraints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .base import Platform
    from .objects import NodeRow
    from .spec import TaskSpec

EXECUTOR_LABEL = "swarmctl.executor"
HOST_IMAGES = ("host", "host:latest")
LACKS = "swarmctl.lacks."
"""Prefix of engine labels that name an ability an executor has not got; the value is the reason."""
PROCESS_EXECUTOR = "process"
PROCESS_EXECUTORS = (PROCESS_EXECUTOR, "null")

PlatformKey = tuple[str, str]


def suits(spec: TaskSpec) -> Callable[[NodeRow], bool]:
    """Return the question whether a node suits tasks of ``spec``."""
    placement, container = spec.Placement, spec.ContainerSpec
    try:
        constraints = parse_constraints(placement.Constraints if placement is not None else ())
    except InvalidConstraint:  # no API accepts one; nothing to hold a running task to
        constraints = ()
    platforms = platform_keys(placement.Platforms if placement is not None else ())
    needed = limits_needed(spec)
    runs = None
    if container is not None:
        runs = runs_processes if container.Image in HOST_IMAGES else runs_containers

    def asked(node: NodeRow) -> bool:
        return (
            node_matches(constraints, node)
            and (not platforms or has_platform(platforms, node))
            and (runs is None or runs(node))
            and not any(lack_of(ability, node) for ability in needed)
        )

    return asked


# --- platforms -----------------------------------------------------------------------------------

_SAME_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def platform_keys(platforms: Iterable[Platform]) -> frozenset[PlatformKey]:
    """Return platforms by what makes them equal: architecture and system, each "" for any."""
    return frozenset(map(platform_key, platforms))


def has_platform(wanted: frozenset[PlatformKey], node: NodeRow) -> bool:
    """Return whether a node has one of the platforms; one that tells nothing has none."""
    arch, system = platform_key(node.api.Description.Platform)
    if not arch and not system:
        return False
    return any(
        want_arch in ("", arch) and want_system in ("", system) for want_arch, want_system in wanted
    )


def platform_key(platform: Platform) -> PlatformKey:
    """Return what makes platforms equal: Docker's name of the architecture, and the system."""
    arch = platform.Architecture.lower()
    return _SAME_ARCHITECTURE.get(arch, arch), platform.OS.lower()


# --- executors -----------------------------------------------------------------------------------


def runs_processes(node: NodeRow) -> bool:
    """Return whether a node's executor runs plain processes."""
    return _executor(node) in PROCESS_EXECUTORS


def runs_containers(node: NodeRow) -> bool:
    """Return whether a node's executor runs containers; one of an unknown kind does."""
    return _executor(node) != PROCESS_EXECUTOR


def _executor(node: NodeRow) -> str | None:
    return node.api.Description.Engine.Labels.get(EXECUTOR_LABEL)


# --- abilities -----------------------------------------------------------------------------------

NETWORKS = "networks"
"""The ability to put a task on an overlay, with an address of its own."""


def limits_needed(spec: TaskSpec) -> tuple[str, ...]:
    """Return the abilities that the limits of a task ask of an executor."""
    limits = spec.Resources.Limits if spec.Resources is not None else None
    if limits is None:
        return ()
    asked = {
        "cpu-limit": limits.NanoCPUs,
        "memory-limit": limits.MemoryBytes,
        "pids-limit": limits.Pids,
    }
    return tuple(ability for ability, value in asked.items() if value)


def lack_of(ability: str, node: NodeRow) -> str:
    """Return why a node's executor has not got an ability; "" when it has."""
    return node.api.Description.Engine.Labels.get(f"{LACKS}{ability}", "")
