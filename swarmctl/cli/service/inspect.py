"""``service inspect``: a service whole, or told to a human."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from swarmctl.core.model.duration import format_duration, parse_time

from ..api import path_to
from ..command import SOME, command
from ..flags import BOOL, Flag
from ..present import INSPECT_FLAGS, write_objects
from ..wording import age_of, bytes_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..api import Json
    from ..command import Invocation

NANO = 1_000_000_000


@command(
    "inspect [OPTIONS] SERVICE [SERVICE...]",
    "Display detailed information on one or more services",
    *INSPECT_FLAGS,
    Flag("no-defaults", BOOL, "Show the spec as it is stored, without the defaults filled in"),
    arity=SOME,
)
def inspect(call: Invocation) -> None:
    """Print services; the daemon fills in the defaults of what was not set."""
    query = {} if call.given.is_set("no-defaults") else {"insertDefaults": "true"}
    write_objects(
        "service",
        call.arguments,
        lambda reference: call.api.get(path_to("services", reference), query),
        model=_model,
        form=call.given.text("format"),
        pretty=_pretty if call.given.is_set("pretty") else None,
    )


def _model() -> type:
    from swarmctl.core.model.service import Service

    return Service


def _pretty(service: Json) -> str:
    spec = service["Spec"]
    task = spec["TaskTemplate"]
    lines = [
        "",
        f"ID:\t\t{service['ID']}",
        f"Name:\t\t{spec.get('Name', '')}",
        *_labels(spec.get("Labels") or {}),
        *_mode(spec["Mode"]),
        *_stopped(service.get("Stopped")),
        *_update_status(service.get("UpdateStatus") or {}),
        "Placement:",
        *_placement(task.get("Placement") or {}),
        *_rolling("UpdateConfig", "Update", spec.get("UpdateConfig")),
        *_rolling("RollbackConfig", "Rollback", spec.get("RollbackConfig")),
        *_container(task.get("ContainerSpec") or {}),
        *_log_driver(task.get("LogDriver")),
        *_resources(task.get("Resources") or {}),
        *_endpoint(service),
    ]
    return "\n".join(lines)


def _labels(labels: Json) -> Iterator[str]:
    if labels:
        yield "Labels:"
        for key in sorted(labels):
            yield f" {key}={labels[key]}" if labels[key] else f" {key}"


def _stopped(stop: Json | None) -> Iterator[str]:
    if stop:
        yield f"Stopped:\t{age_of(parse_time(stop['Since']), time.time_ns())}"
        if stop.get("Replicas") is not None:
            yield f" Starts with:\t{stop['Replicas']} replicas"


def _mode(mode: Json) -> Iterator[str]:
    if mode.get("Replicated") is not None:
        yield "Service Mode:\tReplicated"
        yield f" Replicas:\t{mode['Replicated'].get('Replicas', 1)}"
    elif mode.get("Global") is not None:
        yield "Service Mode:\tGlobal"
    elif mode.get("ReplicatedJob") is not None:
        yield "Service Mode:\tReplicated job"
        yield f" Total Completions:\t{mode['ReplicatedJob'].get('TotalCompletions', 1)}"
        yield f" Max Concurrent:\t{mode['ReplicatedJob'].get('MaxConcurrent', 1)}"
    else:
        yield "Service Mode:\tGlobal job"


def _update_status(status: Json) -> Iterator[str]:
    if not status.get("State"):
        return
    now_ns = time.time_ns()
    yield "UpdateStatus:"
    yield f" State:\t\t{status['State']}"
    if status.get("StartedAt"):
        yield f" Started:\t{age_of(parse_time(status['StartedAt']), now_ns)}"
    if status["State"] == "completed" and status.get("CompletedAt"):
        yield f" Completed:\t{age_of(parse_time(status['CompletedAt']), now_ns)}"
    yield f" Message:\t{status.get('Message', '')}"


def _placement(placement: Json) -> Iterator[str]:
    if placement.get("Constraints"):
        yield f" Constraints:\t[{' '.join(placement['Constraints'])}]"
    spreads = [one["Spread"]["SpreadDescriptor"] for one in placement.get("Preferences") or ()]
    if spreads:
        yield f" Preferences:   [{' '.join(f'spread={spread}' for spread in spreads)}]"
    if placement.get("MaxReplicas"):
        yield f" Max Replicas Per Node:   {placement['MaxReplicas']}"


def _rolling(title: str, word: str, config: Json | None) -> Iterator[str]:
    if config is None:
        return
    yield f"{title}:"
    yield f" Parallelism:\t{config.get('Parallelism', 0)}"
    if config.get("Delay"):
        yield f" Delay:\t\t{format_duration(config['Delay'])}"
    yield f" On failure:\t{config.get('FailureAction', '')}"
    if config.get("Monitor"):
        yield f" Monitoring Period: {format_duration(config['Monitor'])}"
    yield f" Max failure ratio: {config.get('MaxFailureRatio', 0):g}"
    yield f" {word} order:{' ' * (12 - len(word))}{config.get('Order', '')}"


def _container(container: Json) -> Iterator[str]:
    yield "ContainerSpec:"
    yield f" Image:\t\t{container.get('Image', '')}"
    for key, title in (("Command", "Command"), ("Args", "Args"), ("Env", "Env")):
        if container.get(key):
            yield f" {title}:\t\t{' '.join(container[key])}"
    for key, title in (("Dir", "Dir"), ("User", "User"), ("Hostname", "Hostname")):
        if container.get(key):
            yield f" {title}:\t\t{container[key]}"
    if container.get("Init") is not None:
        yield f" Init:\t\t{str(container['Init']).lower()}"
    yield from _restrictions(container)
    if container.get("Mounts"):
        yield "Mounts:"
    for mount in container.get("Mounts") or ():
        yield f" Target:\t{mount.get('Target', '')}"
        yield f"  Source:\t{mount.get('Source', '')}"
        yield f"  ReadOnly:\t{str(mount.get('ReadOnly', False)).lower()}"
        yield f"  Type:\t\t{mount.get('Type', '')}"
    for kind in ("Config", "Secret"):
        if container.get(f"{kind}s"):
            yield f"{kind}s:"
        for one in container.get(f"{kind}s") or ():
            yield f" Target:\t{(one.get('File') or {}).get('Name', '')}"
            yield f"  Source:\t{one.get(f'{kind}Name', '')}"
    yield from _health(container.get("Healthcheck"))


def _restrictions(container: Json) -> Iterator[str]:
    if container.get("CapabilityAdd") or container.get("CapabilityDrop"):
        yield "Capabilities:"
        for key, word in (("CapabilityAdd", "Add"), ("CapabilityDrop", "Drop")):
            if container.get(key):
                yield f" {word}: {', '.join(container[key])}"
    if container.get("Sysctls"):
        yield "SysCtls:"
        for name in sorted(container["Sysctls"]):
            yield f" {name}: {container['Sysctls'][name]}"
    if container.get("Ulimits"):
        yield "Ulimits:"
        for limit in container["Ulimits"]:
            yield f" {limit['Name']}: {limit['Soft']}:{limit['Hard']}"


def _health(health: Json | None) -> Iterator[str]:
    if not health:
        return
    yield "Healthcheck:"
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if health.get(key):
            yield f" {key}: {format_duration(health[key])}"
    if health.get("Retries"):
        yield f" Retries: {health['Retries']}"
    if health.get("Test"):
        yield f" Test: {' '.join(health['Test'])}"


def _log_driver(driver: Json | None) -> Iterator[str]:
    if not driver:
        return
    yield "Log Driver:"
    if driver.get("Name"):
        yield f" Name:\t\t{driver['Name']}"
    for key in sorted(driver.get("Options") or {}):
        yield f"  {key}:       {driver['Options'][key]}"


def _resources(resources: Json) -> Iterator[str]:
    if any(resources.get(key) for key in ("Reservations", "Limits")):
        yield "Resources:"
    for key, title in (("Reservations", "Reservations"), ("Limits", "Limits")):
        group = resources.get(key) or {}
        if group:
            yield f" {title}:"
        if group.get("NanoCPUs"):
            yield f"  CPU:\t\t{group['NanoCPUs'] / NANO:g}"
        if group.get("MemoryBytes"):
            yield f"  Memory:\t{bytes_size(group['MemoryBytes'])}"
        if group.get("Pids"):
            yield f"  PIDs:\t\t{group['Pids']}"


def _endpoint(service: Json) -> Iterator[str]:
    spec = service["Spec"]
    networks = spec["TaskTemplate"].get("Networks") or spec.get("Networks") or ()
    if networks:
        yield f"Networks: {' '.join(network['Target'] for network in networks)}"
    endpoint = service.get("Endpoint") or {}
    yield f"Endpoint Mode:\t{(spec.get('EndpointSpec') or {}).get('Mode', 'vip')}"
    if endpoint.get("Ports"):
        yield "Ports:"
    for port in endpoint.get("Ports") or ():
        yield f" PublishedPort = {port.get('PublishedPort', 0)}"
        yield f"  Protocol = {port.get('Protocol', '')}"
        yield f"  TargetPort = {port.get('TargetPort', 0)}"
        yield f"  PublishMode = {port.get('PublishMode', '')}"
