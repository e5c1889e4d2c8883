"""A new service's spec out of its flags: what ``service create`` sends, field by field.

What Docker's own CLI always sends is sent here too, and nothing is sent that was not asked for: an
absent field is the daemon's default, which it may improve. Pure but for ``--env-file``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .references import full_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..api import Json
    from ..flags import Given

SECOND = 1_000_000_000
HEALTH_FLAGS = (
    *("health-cmd", "health-interval", "health-timeout", "health-retries"),
    *("health-start-period", "health-start-interval"),
)
ROLLING_KEYS = {
    "parallelism": "Parallelism",
    "delay": "Delay",
    "failure-action": "FailureAction",
    "monitor": "Monitor",
    "max-failure-ratio": "MaxFailureRatio",
    "order": "Order",
}
EXTENDED = {name: f"swarmctl.{name}" for name in ("rebalance", "strategy")} | {
    f"scale-{name}": f"swarmctl.scale.{name.replace('-', '.')}"
    for name in (
        *("min", "max", "up-when", "up-by", "down-when", "down-by"),
        *("cooldown", "tolerance", "missing", "mode"),
    )
}
"""Flags whose value is that of a label."""
JOINED = {"scale-target": ",", "scale-schedule": "; "}
"""Flags that may be given again, and what stands between their values in the label."""
SCALE_METRIC = "swarmctl.scale.metric."
DEPENDS_ON = "swarmctl.depends-on"
RESTART_KEYS = {
    "restart-condition": "Condition",
    "restart-delay": "Delay",
    "restart-max-attempts": "MaxAttempts",
    "restart-window": "Window",
}


def new_spec(given: Given, image: str, arguments: Sequence[str]) -> Json:
    """Return the spec of a new service; networks, secrets and configs still by name.

    Raises:
        ValueError: flags that contradict each other, in Docker's words.
    """
    spec: Json = {
        "Labels": {**dict(given.each("label")), **_given_extensions(given)},
        "TaskTemplate": _task(given, image, arguments),
        "Mode": service_mode(given),
        "EndpointSpec": {"Mode": given.text("endpoint-mode", "vip").lower()},
    }
    if given.text("name"):
        spec["Name"] = given.text("name")
    ports = [port for ports in given.each("publish") for port in ports]
    if ports:
        spec["EndpointSpec"]["Ports"] = ports
    for verb, key in (("update", "UpdateConfig"), ("rollback", "RollbackConfig")):
        config = rolling_config(given, verb, None)
        if config is not None:
            spec[key] = config
    if given.text("mode").endswith("-job") and ("UpdateConfig" in spec or "RollbackConfig" in spec):
        raise ValueError("update and rollback configuration is not supported for jobs")
    return spec


def extensions(given: Given) -> dict[str, str]:
    """Return the labels that our own flags stand for; an empty value asks for no label.

    Raises:
        ValueError: a metric without a name.
    """
    labels = {label: given.text(name) for name, label in EXTENDED.items() if name in given}
    for name, between in JOINED.items():
        if name in given:
            values = filter(None, given.each(name))
            labels[f"swarmctl.{name.replace('-', '.')}"] = between.join(values)
    for text in given.each("scale-metric"):
        name, equals, source = text.partition("=")
        if not equals or not name:
            raise ValueError(f"invalid metric {text!r}: it must be NAME=ADDRESS")
        labels[SCALE_METRIC + name] = source
    return {**labels, **_pinned(given)}


def _pinned(given: Given) -> dict[str, str]:
    """Return the labels of ``--ip``; two addresses of one network are of two families."""
    networks = [network["Target"] for network in given.each("network")]
    labels: dict[str, str] = {}
    for network, address in given.each("ip"):
        if not network and len(networks) != 1:
            raise ValueError(f"--ip {address}: say of which network: NETWORK={address}")
        label = f"swarmctl.vip.{network or networks[0]}"
        labels[label] = ",".join(filter(None, (labels.get(label), address)))
    return labels


def _given_extensions(given: Given) -> dict[str, str]:
    labels = {**extensions(given), DEPENDS_ON: ",".join(given.each("depends-on"))}
    return {label: value for label, value in labels.items() if value}


def service_mode(given: Given) -> Json:
    """Return the mode that the flags name.

    Raises:
        ValueError: no such mode, or a number that it does not have.
    """
    mode = given.text("mode", "replicated")
    if mode not in ("replicated", "replicated-job"):
        if "replicas" in given:
            raise ValueError("replicas can only be used with replicated or replicated-job mode")
        if given.number("replicas-max-per-node"):
            raise ValueError(
                "replicas-max-per-node can only be used with replicated or replicated-job mode"
            )
    if "max-concurrent" in given and mode != "replicated-job":
        raise ValueError("max-concurrent can only be used with replicated-job mode")
    replicas = {"Replicas": given.number("replicas")} if "replicas" in given else {}
    if mode == "replicated":
        return {"Replicated": replicas}
    if mode == "global":
        return {"Global": {}}
    if mode == "global-job":
        return {"GlobalJob": {}}
    if mode == "replicated-job":
        return {"ReplicatedJob": _job_numbers(given)}
    raise ValueError(
        f"Unknown mode: {mode}, only replicated, global, replicated-job and global-job supported"
    )


def _job_numbers(given: Given) -> Json:
    numbers: Json = {}
    concurrent = given.value("max-concurrent")
    if concurrent is None:
        concurrent = given.value("replicas")
    if concurrent is not None:
        numbers["MaxConcurrent"] = concurrent
    if "replicas" in given:
        numbers["TotalCompletions"] = given.number("replicas")
    return numbers


def _task(given: Given, image: str, arguments: Sequence[str]) -> Json:
    task: Json = {
        "ContainerSpec": _container(given, image, arguments),
        "Resources": _resources(given),
        "Placement": _placement(given),
        "ForceUpdate": 0,
    }
    if given.any_of(*RESTART_KEYS):
        task["RestartPolicy"] = restart_policy(given, None)
    networks = given.each("network")
    if networks:
        task["Networks"] = networks
    if given.text("log-driver"):
        task["LogDriver"] = {"Name": given.text("log-driver")}
        if "log-opt" in given:
            task["LogDriver"]["Options"] = dict(given.each("log-opt"))
    return task


# --- the container -------------------------------------------------------------------------------

_TEXT_FIELDS = {
    "hostname": "Hostname",
    "workdir": "Dir",
    "user": "User",
    "stop-signal": "StopSignal",
    "isolation": "Isolation",
}
_LIST_FIELDS = {
    "group": "Groups",
    "mount": "Mounts",
    "secret": "Secrets",
    "config": "Configs",
}


def _container(given: Given, image: str, arguments: Sequence[str]) -> Json:
    container: Json = {
        "Image": full_image(image),
        "Init": given.is_set("init"),
        "DNSConfig": _dns(given),
    }
    for flag, key in _TEXT_FIELDS.items():
        if given.text(flag):
            container[key] = given.text(flag)
    for flag, key in _LIST_FIELDS.items():
        if given.each(flag):
            container[key] = given.each(flag)
    for flag, key in (("tty", "TTY"), ("read-only", "ReadOnly")):
        if given.is_set(flag):
            container[key] = True
    if given.value("entrypoint"):
        container["Command"] = given.value("entrypoint")
    if arguments:
        container["Args"] = list(arguments)
    if "container-label" in given:
        container["Labels"] = dict(given.each("container-label"))
    if "stop-grace-period" in given:
        container["StopGracePeriod"] = given.number("stop-grace-period")
    if given.number("oom-score-adj"):
        container["OomScoreAdj"] = given.number("oom-score-adj")
    _add_environment(container, given)
    _add_restrictions(container, given)
    health = health_check(given)
    if health is not None:
        container["Healthcheck"] = health
    return container


def _add_environment(container: Json, given: Given) -> None:
    environment = merged_environment([*_from_files(given.each("env-file")), *given.each("env")])
    if environment:
        container["Env"] = environment
    if given.each("host"):
        container["Hosts"] = [f"{address} {name}" for name, address in given.each("host")]


def _add_restrictions(container: Json, given: Given) -> None:
    add, drop = capabilities(given.each("cap-add"), given.each("cap-drop"))
    if add:
        container["CapabilityAdd"] = add
    if drop:
        container["CapabilityDrop"] = drop
    if "sysctl" in given:
        container["Sysctls"] = dict(given.each("sysctl"))
    if "ulimit" in given:
        by_name = {limit["Name"]: limit for limit in given.each("ulimit")}
        container["Ulimits"] = [by_name[name] for name in sorted(by_name)]
    credentials = given.value("credential-spec")
    if credentials and any(credentials.values()):
        container["Privileges"] = {
            "CredentialSpec": credentials,
            "SELinuxContext": None,
            "NoNewPrivileges": False,
        }


def merged_environment(texts: Iterable[str]) -> list[str]:
    """Return an environment in which the last setting of a variable stands, in its place."""
    found: list[str] = []
    for text in texts:
        name = text.partition("=")[0]
        found = [one for one in found if one == text or not one.startswith(f"{name}=")]
        found.append(text)
    return found


def _from_files(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        try:
            lines = Path(path).read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise ValueError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"env file {path} contains invalid utf8 bytes: {error}") from None
        for line in lines:
            try:
                yield from _from_line(line.lstrip())
            except ValueError as error:
                raise ValueError(f"invalid env file ({path}): {error}") from None


def _from_line(line: str) -> Iterator[str]:
    if not line or line.startswith("#"):
        return
    name, equals, _ = line.partition("=")
    if not name:
        raise ValueError(f"no variable name on line '{line}'")
    if any(letter.isspace() for letter in name):
        raise ValueError(f"variable '{name}' contains whitespaces")
    if equals:
        yield line
    elif name in os.environ:
        yield f"{name}={os.environ[name]}"


def capabilities(add: Iterable[str], drop: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return what to add and to drop: adding wins, and ``ALL`` stands for every other one."""
    adds, drops = set(add) - {"RESET"}, set(drop) - {"RESET"}  # there is nothing to forget yet
    if "ALL" in drops:
        drops = {"ALL"}
    if "ALL" in adds:
        adds = {"ALL"}
    return sorted(adds), sorted(drops - adds)


def _dns(given: Given) -> Json:
    parts = (("dns", "Nameservers"), ("dns-search", "Search"), ("dns-option", "Options"))
    return {key: given.each(flag) for flag, key in parts if given.each(flag)}


def health_check(given: Given) -> Json | None:
    """Return the health check that the flags describe, or None.

    Raises:
        ValueError: one is described and refused at once.
    """
    if given.is_set("no-healthcheck"):
        if given.any_of(*HEALTH_FLAGS):
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given.text("health-cmd") and not given.any_of(*HEALTH_FLAGS[1:]):
        return None
    health: Json = {}
    if given.text("health-cmd"):
        health["Test"] = ["CMD-SHELL", given.text("health-cmd")]
    for flag, key in HEALTH_NUMBERS.items():
        if given.number(flag):
            health[key] = given.number(flag)
    return health


HEALTH_NUMBERS = {
    "health-interval": "Interval",
    "health-timeout": "Timeout",
    "health-start-period": "StartPeriod",
    "health-start-interval": "StartInterval",
    "health-retries": "Retries",
}

# --- resources, placement, policies --------------------------------------------------------------

LIMITS = {"limit-cpu": "NanoCPUs", "limit-memory": "MemoryBytes", "limit-pids": "Pids"}
RESERVATIONS = {"reserve-cpu": "NanoCPUs", "reserve-memory": "MemoryBytes"}


def _resources(given: Given) -> Json:
    limits = {key: given.number(flag) for flag, key in LIMITS.items() if given.number(flag)}
    reserved: Json = {
        key: given.number(flag) for flag, key in RESERVATIONS.items() if given.number(flag)
    }
    if given.each("generic-resource"):
        reserved["GenericResources"] = given.each("generic-resource")
    return {"Limits": limits, "Reservations": reserved}


def _placement(given: Given) -> Json:
    placement: Json = {}
    if given.each("constraint"):
        placement["Constraints"] = given.each("constraint")
    if given.each("placement-pref"):
        placement["Preferences"] = given.each("placement-pref")
    if given.number("replicas-max-per-node"):
        placement["MaxReplicas"] = given.number("replicas-max-per-node")
    return placement


def restart_policy(given: Given, present: Json | None) -> Json:
    """Return a restart policy with what the flags change.

    Docker's CLI fills in a delay of 5 s where only another setting was given; here the delay stays
    the daemon's, which heals a task that had run well at once.
    """
    policy = dict(present) if present else {"Condition": "any", "MaxAttempts": 0}
    for flag, key in RESTART_KEYS.items():
        if flag in given:
            policy[key] = given.value(flag)
    return policy


def rolling_config(given: Given, verb: str, present: Json | None) -> Json | None:
    """Return how updates (or rollbacks) roll, with what the flags change; None for no change."""
    if not given.any_of(*(f"{verb}-{name}" for name in ROLLING_KEYS)):
        return None
    config: Json = (
        dict(present)
        if present
        else {
            "Parallelism": 1,
            "FailureAction": "pause",
            "Monitor": 5 * SECOND,
            "MaxFailureRatio": 0,
            "Order": "stop-first",
        }
    )
    for name, key in ROLLING_KEYS.items():
        if f"{verb}-{name}" in given:
            config[key] = given.value(f"{verb}-{name}")
            if key in ("Delay", "Monitor") and not config[key]:
                del config[key]  # zero is the default, and Go leaves it out
    return config
