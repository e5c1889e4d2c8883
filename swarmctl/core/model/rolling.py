"""How a service rolls: the settings that hold now, and where start-first cannot be.

Facts of specs only. Which slot is replaced when is decided by ``orchestrator/rollout.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from .base import SECOND
from .defaults import DEFAULT_UPDATE
from .labels import TASK_IPS
from .scaling import bounds_of

if TYPE_CHECKING:
    from .service import Service
    from .spec import Mount, ServiceSpec, UpdateConfig

UPDATING = "updating"
PAUSED = "paused"
COMPLETED = "completed"
ROLLBACK_STARTED = "rollback_started"
ROLLBACK_PAUSED = "rollback_paused"
ROLLBACK_COMPLETED = "rollback_completed"

START_FIRST = "start-first"


def settings_of(service: Service) -> UpdateConfig:
    """Return how the service rolls now: by its rollback settings while it is rolled back.

    Absent settings are Docker's, and so is the rule that watching a task lasts longer than the
    pause before the next one.  # swarmkit update/updater.go
    """
    status = service.UpdateStatus
    back = status is not None and status.State in (ROLLBACK_STARTED, ROLLBACK_PAUSED)
    spec = service.Spec
    config = (spec.RollbackConfig if back else spec.UpdateConfig) or DEFAULT_UPDATE
    monitor = config.Monitor or DEFAULT_UPDATE.Monitor
    if config.Delay >= monitor:
        monitor = config.Delay + SECOND
    action = config.FailureAction or "pause"
    if back and action == "rollback":
        action = "pause"  # a rollback is never rolled back
    return replace(config, Monitor=monitor, FailureAction=action)


def why_not_start_first(spec: ServiceSpec, config: UpdateConfig | None) -> str:
    """Return why start-first cannot be though it is asked for, "" if it can or is not."""
    asked = config is not None and config.Order == START_FIRST
    return why_stop_first(spec) if asked else ""


def why_stop_first(spec: ServiceSpec) -> str:
    """Return why two tasks of one replica cannot run at a time, "" if they can.

    A published host port is held by one task of a node, and an address that a label gives to a slot
    by one task anywhere. A volume is a single writer's when no other replica writes to it: it is
    named after the slot, or there is one replica only, or one on each node.
    """
    for port in spec.EndpointSpec.Ports if spec.EndpointSpec is not None else ():
        if port.PublishMode == "host":
            number = port.PublishedPort or port.TargetPort
            return f"host-mode port {number} can be held by one task only"
    for name in spec.Labels:
        if name.startswith(TASK_IPS):
            return f"an address of label {name} can be held by one task only"
    container = spec.TaskTemplate.ContainerSpec
    for mount in container.Mounts if container is not None else ():
        if _has_one_writer(spec, mount):
            return f"volume {mount.Source} mounted at {mount.Target} has one writer only"
    return ""


def _has_one_writer(spec: ServiceSpec, mount: Mount) -> bool:
    if mount.Type != "volume" or mount.ReadOnly or not mount.Source:
        return False
    if spec.Mode.Global is not None:
        return True
    replicated = spec.Mode.Replicated
    bounds = bounds_of(spec)
    alone = replicated is not None and replicated.Replicas in (None, 1)
    alone = alone if bounds is None else bounds.most == 1
    return alone or (".Task.Slot" in mount.Source and "{{" in mount.Source)
