"""What executors under check are asked to run; see :mod:`.testing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..core.model.base import SECOND
from ..core.model.spec import ContainerSpec, TaskSpec
from ..core.model.task import Task, TaskAssignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.agent.executor import NodeIdentity

GRACE_NS = SECOND


class Programs(Protocol):
    """What an executor under check is asked to run."""

    def exits(self, code: int) -> ContainerSpec:
        """Return a spec that ends with ``code`` at once."""
        ...

    def sleeps(self) -> ContainerSpec:
        """Return a spec that runs until its stop signal, and then ends at once."""
        ...

    def stubborn(self) -> ContainerSpec:
        """Return a spec that ignores its stop signal, with a grace of a second.

        It prints a line once it does ignore it.
        """
        ...

    def prints(self, out: Sequence[str], err: Sequence[str]) -> ContainerSpec:
        """Return a spec that prints these lines, ``out`` before ``err``, and ends with 0."""
        ...


class ShellPrograms:
    """Programs for whatever can run ``sh`` and ``sleep`` from an image."""

    def __init__(self, image: str) -> None:
        self._image = image

    def exits(self, code: int) -> ContainerSpec:
        """See :class:`Programs`."""
        return self._shell(f"exit {code}")

    def sleeps(self) -> ContainerSpec:
        """See :class:`Programs`; as first process of a container, sh must ask for its signal."""
        return self._shell("trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")

    def stubborn(self) -> ContainerSpec:
        """See :class:`Programs`."""
        return self._shell("trap '' TERM; echo ready; while :; do sleep 1000; done")

    def prints(self, out: Sequence[str], err: Sequence[str]) -> ContainerSpec:
        """See :class:`Programs`."""
        lines = [f"echo {line}" for line in out] + [f"echo {line} >&2" for line in err]
        return self._shell("; ".join(lines))

    def _shell(self, script: str) -> ContainerSpec:
        return ContainerSpec(
            Image=self._image, Command=("sh", "-c", script), StopGracePeriod=GRACE_NS
        )


def simple_assignment(task_id: str, spec: ContainerSpec, identity: NodeIdentity) -> TaskAssignment:
    """Return an assignment of a task that runs ``spec`` on the node ``identity``."""
    task = Task(
        ID=task_id,
        Spec=TaskSpec(ContainerSpec=spec),
        ServiceID="conformanceservice0000000",
        Slot=1,
        NodeID=identity.node_id,
    )
    return TaskAssignment(task=task, service_name="conformance", cluster_id=identity.cluster_id)
