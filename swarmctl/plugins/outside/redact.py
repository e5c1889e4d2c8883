"""What of a row a plugin outside this process is shown.

A list of what may cross, not of what may not: a field that is added to the model stays here until
somebody decides that schedulers need it. No secret, config or cluster row crosses at all. Of specs,
everything that users put passwords in stays: variables, commands, options of drivers.

:class:`Mirror` remembers which rows a child has not seen in their present state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ...core.model.change import Kind, Ref
from ...core.model.objects import NodePrivate, NodeRow, ServiceRow, TaskRow
from ...core.model.service import ServicePrivate
from ...core.model.spec import ContainerSpec, Mount, ServiceSpec, TaskSpec, VolumeOptions
from ...core.model.task import TaskPrivate

if TYPE_CHECKING:
    from ...core.model.base import Driver
    from ...core.model.objects import Row
    from ...core.store.view import View

SHOWN = frozenset({Kind.NODE, Kind.SERVICE, Kind.TASK})
SPECS_MAX = 10_000
"""Specs that are remembered with what is shown of them; then it begins anew."""


class Redactor:
    """Redacts rows; tasks of one spec share the redacted one."""

    def __init__(self) -> None:
        self._specs: dict[int, tuple[TaskSpec, TaskSpec]] = {}

    def row(self, row: Row) -> Row:
        """Return what is shown of a node, service or task."""
        if isinstance(row, TaskRow):
            return self.task(row)
        if isinstance(row, ServiceRow):
            return self._service(row)
        assert isinstance(row, NodeRow), "no other table crosses"
        kept = row.private
        private = NodePrivate(
            role=kept.role,
            can_run=kept.can_run,
            status_since=kept.status_since,
            spec_index=kept.spec_index,
        )
        return replace(row, private=private)

    def task(self, row: TaskRow) -> TaskRow:
        """Return what is shown of a task."""
        kept = row.private
        private = TaskPrivate(
            spec_version=kept.spec_version,
            service_name=kept.service_name,
            service_labels=kept.service_labels,
            endpoint=kept.endpoint,
            by_node=kept.by_node,
            relieves=kept.relieves,
            started_at=kept.started_at,
            failures=kept.failures,
            log_driver=_without_options(kept.log_driver),
            spec_index=kept.spec_index,
        )
        return TaskRow(api=replace(row.api, Spec=self._spec(row.api.Spec)), private=private)

    def _service(self, row: ServiceRow) -> ServiceRow:
        asked = row.api.Spec
        spec = ServiceSpec(
            Name=asked.Name,
            Labels=asked.Labels,
            TaskTemplate=_task_spec(asked.TaskTemplate),
            Mode=asked.Mode,
            UpdateConfig=asked.UpdateConfig,
            RollbackConfig=asked.RollbackConfig,
            Networks=asked.Networks,
            EndpointSpec=asked.EndpointSpec,
        )
        api = replace(row.api, Spec=spec, PreviousSpec=None)
        return ServiceRow(api=api, private=ServicePrivate(spec_index=row.private.spec_index))

    def _spec(self, spec: TaskSpec) -> TaskSpec:
        known = self._specs.get(id(spec))
        if known is None:  # the spec is kept with it, so its id is not given to another
            if len(self._specs) >= SPECS_MAX:
                self._specs.clear()
            known = self._specs[id(spec)] = (spec, _task_spec(spec))
        return known[1]


def _task_spec(spec: TaskSpec) -> TaskSpec:
    asked = spec.ContainerSpec
    container = None
    if asked is not None:
        mounts = tuple(map(_mount, asked.Mounts))
        container = ContainerSpec(Image=asked.Image, Labels=asked.Labels, Mounts=mounts)
    return TaskSpec(
        ContainerSpec=container,
        Resources=spec.Resources,
        RestartPolicy=spec.RestartPolicy,
        Placement=spec.Placement,
        Networks=spec.Networks,
        LogDriver=_without_options(spec.LogDriver),
        Runtime=spec.Runtime,
    )


def _mount(mount: Mount) -> Mount:
    options = mount.VolumeOptions
    kept = None
    if options is not None:
        kept = VolumeOptions(DriverConfig=_without_options(options.DriverConfig))
    return Mount(
        Type=mount.Type,
        Source=mount.Source,
        Target=mount.Target,
        ReadOnly=mount.ReadOnly,
        VolumeOptions=kept,
    )


def _without_options(driver: Driver | None) -> Driver | None:
    return None if driver is None else replace(driver, Options={})


class Mirror:
    """Which rows a child has to be sent before it is asked something.

    Attributes:
        outbox: rows as they were when a question was made, None for those that are gone.
        starts_anew: the child knows nothing that is not in the outbox.
    """

    def __init__(self) -> None:
        self._touched: set[Ref] | None = None
        self.outbox: dict[Ref, Row | None] = {}
        self.starts_anew = True
        self.index = 0

    def note(self, touched: set[Ref] | None) -> None:
        """Note which rows changed (None: any may have)."""
        if touched is None or self._touched is None:
            self._touched = None
        else:
            self._touched.update(ref for ref in touched if ref.kind in SHOWN)

    def capture(self, view: View) -> None:
        """Take the rows that changed as they are in ``view``."""
        if self._touched is None:
            self.starts_anew = True
            self.outbox = {
                Ref(kind, row.api.ID): row for kind in sorted(SHOWN) for row in view.rows(kind)
            }
        else:
            self.outbox.update((ref, view.row(ref)) for ref in self._touched)
        self._touched = set()
        self.index = view.index

    def forget(self) -> None:
        """The child is gone, and what it knew with it."""
        self._touched = None
        self.outbox = {}
        self.starts_anew = True
