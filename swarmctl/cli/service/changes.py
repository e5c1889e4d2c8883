"""What each flag of ``service update`` does to a spec.

The rules are the docker CLI's: something added replaces what has the same key, something removed is
taken out after that, and a list without order of its own is sent sorted, so the same wish gives the
same spec and restarts nothing. Fields that no flag names stay as they came. Pure: names are looked
up by functions that the caller hands in.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from .references import full_image
from .spec import (
    DEPENDS_ON,
    HEALTH_FLAGS,
    HEALTH_NUMBERS,
    LIMITS,
    RESERVATIONS,
    RESTART_KEYS,
    extensions,
    restart_policy,
    rolling_config,
)
from .values import parse_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..api import Json
    from ..flags import Given


def changed_spec(
    spec: Json,
    given: Given,
    *,
    networks: Callable[[list[Json]], list[Json]],
    files: Callable[[str, list[Json]], list[Json]],
) -> Json:
    """Return the spec with what the flags change.

    Args:
        networks: returns attachments with ids for names.
        files: returns references to secrets or configs (by kind) with their ids.

    Raises:
        ValueError: flags that do not go together, or something to remove that is not there, in
            Docker's words.
    """
    spec = copy.deepcopy(spec)
    task = spec["TaskTemplate"]
    container = task.setdefault("ContainerSpec", {})
    _set_labels(spec, given, "label")
    _set_extensions(spec, given)
    _set_labels(container, given, "container-label")
    _set_container(container, given)
    _set_restrictions(container, given)
    _set_files(container, given, files)
    _set_health(container, given)
    _set_resources(task, given)
    _set_placement(task, given)
    if given.any_of(*RESTART_KEYS):
        task["RestartPolicy"] = restart_policy(given, task.get("RestartPolicy"))
    if given.any_of("network-add", "network-rm"):
        _set_networks(spec, given, networks)
    _set_log_driver(task, given)
    _set_mode(spec["Mode"], given)
    for verb, key in (("update", "UpdateConfig"), ("rollback", "RollbackConfig")):
        config = rolling_config(given, verb, spec.get(key))
        if config is not None:
            spec[key] = config
    _set_endpoint(spec, given)
    if given.is_set("force"):
        task["ForceUpdate"] = task.get("ForceUpdate", 0) + 1
    return spec


def _put(holder: Json, key: str, value: Any) -> None:
    """Set a field, or take it out where it holds nothing: absent and empty mean the same."""
    if value:
        holder[key] = value
    else:
        holder.pop(key, None)


# --- labels, environment, plain fields -----------------------------------------------------------


def _set_labels(holder: Json, given: Given, flag: str) -> None:
    if not given.any_of(f"{flag}-add", f"{flag}-rm"):
        return
    labels = {**(holder.get("Labels") or {}), **dict(given.each(f"{flag}-add"))}
    added = dict(given.each(f"{flag}-add"))
    for key in given.each(f"{flag}-rm"):
        if key not in added:  # what is removed and added again is there
            labels.pop(key, None)
    holder["Labels"] = labels


def _set_extensions(spec: Json, given: Given) -> None:
    """Set the labels that our own flags stand for; an empty value takes one away."""
    changed = extensions(given)
    if given.any_of("depends-on-add", "depends-on-rm"):
        present = ((spec.get("Labels") or {}).get(DEPENDS_ON) or "").split(",")
        texts = [*filter(None, present), *given.each("depends-on-add")]
        by_name = {text.partition(":")[0]: text for text in texts}
        for name in given.each("depends-on-rm"):
            if by_name.pop(name.partition(":")[0], None) is None:
                raise ValueError(f"the service does not wait for {name!r}")
        changed[DEPENDS_ON] = ",".join(by_name.values())
    if changed:
        labels = {**(spec.get("Labels") or {}), **changed}
        spec["Labels"] = {
            key: value for key, value in labels.items() if value or key not in changed
        }


_TEXTS = {
    "workdir": "Dir",
    "user": "User",
    "hostname": "Hostname",
    "stop-signal": "StopSignal",
    "isolation": "Isolation",
    "args": "Args",
    "entrypoint": "Command",
}


def _set_container(container: Json, given: Given) -> None:
    if "image" in given:
        container["Image"] = full_image(given.text("image"))
    for flag, key in _TEXTS.items():
        if flag in given:
            _put(container, key, given.value(flag))
    for flag, key in (("tty", "TTY"), ("read-only", "ReadOnly")):
        if flag in given:
            _put(container, key, given.is_set(flag))
    if "init" in given:
        container["Init"] = given.is_set("init")
    if "stop-grace-period" in given:
        container["StopGracePeriod"] = given.number("stop-grace-period")
    if "oom-score-adj" in given:
        _put(container, "OomScoreAdj", given.number("oom-score-adj"))
    if given.any_of("env-add", "env-rm"):
        _put(container, "Env", _environment(container.get("Env") or (), given))
    if given.any_of("group-add", "group-rm"):
        _put(container, "Groups", _added_removed(container.get("Groups"), given, "group"))
    if given.any_of("mount-add", "mount-rm"):
        _put(container, "Mounts", _mounts(container.get("Mounts") or (), given))
    if given.any_of("host-add", "host-rm"):
        _put(container, "Hosts", _hosts(container.get("Hosts") or (), given))
    _set_dns(container, given)


def _environment(present: Iterable[str], given: Given) -> list[str]:
    """Return the variables, each in its place and the new ones last; removing comes last."""
    by_name = {text.partition("=")[0]: text for text in (*present, *given.each("env-add"))}
    for name in given.each("env-rm"):
        by_name.pop(name, None)
    return [*by_name.values()]


def _added_removed(present: Iterable[str] | None, given: Given, flag: str) -> list[str]:
    """Return a list without order and repetition, sorted."""
    found = {*(present or ()), *given.each(f"{flag}-add")} - set(given.each(f"{flag}-rm"))
    return sorted(found)


def _mounts(present: Iterable[Json], given: Given) -> list[Json]:
    added = given.each("mount-add")
    targets = [mount["Target"] for mount in added]
    for target in targets:
        if targets.count(target) > 1:
            raise ValueError(f"duplicate mount target: {target}")
    by_target = {mount.get("Target", ""): mount for mount in (*present, *added)}
    for target in given.each("mount-rm"):
        by_target.pop(target, None)
    return sorted(by_target.values(), key=lambda m: (m.get("Source", ""), m.get("Target", "")))


def _hosts(present: Iterable[str], given: Given) -> list[str]:
    """Return ``IP name...`` lines; ``name`` alone removes a host from all of them."""
    gone = [_host_to_remove(text) for text in given.each("host-rm")]
    kept: list[str] = []
    for line in present:
        address, *names = line.split()
        names = [
            name
            for name in names
            if not any(name == host and ip in ("", address) for host, ip in gone)
        ]
        if names:
            kept.append(" ".join((address, *names)))
    for name, address in given.each("host-add"):
        line = f"{address} {name}"
        if line not in kept:
            kept.append(line)
    return kept


def _host_to_remove(text: str) -> tuple[str, str]:
    if ":" in text or "=" in text:
        return parse_host(text)
    return text, ""


_DNS = {
    "dns": "Nameservers",
    "dns-option": "Options",
    "dns-search": "Search",
}


def _set_dns(container: Json, given: Given) -> None:
    for flag, key in _DNS.items():
        if given.any_of(f"{flag}-add", f"{flag}-rm"):
            config = container.get("DNSConfig") or {}
            _put(config, key, _added_removed(config.get(key), given, flag))
            container["DNSConfig"] = config


# --- restrictions --------------------------------------------------------------------------------


def _set_restrictions(container: Json, given: Given) -> None:
    if given.any_of("cap-add", "cap-drop"):
        _set_capabilities(container, given)
    if given.any_of("sysctl-add", "sysctl-rm"):
        gone = {name.partition("=")[0] for name in given.each("sysctl-rm")}
        present = container.get("Sysctls") or {}
        kept = {name: value for name, value in present.items() if name not in gone}
        _put(container, "Sysctls", {**kept, **dict(given.each("sysctl-add"))})
    if given.any_of("ulimit-add", "ulimit-rm"):
        limits = {one["Name"]: one for one in container.get("Ulimits") or ()}
        for name in given.each("ulimit-rm"):
            limits.pop(name, None)
        limits.update({one["Name"]: one for one in given.each("ulimit-add")})
        _put(container, "Ulimits", [limits[name] for name in sorted(limits)])


def _set_capabilities(container: Json, given: Given) -> None:
    """Adding takes a dropped one back to the default first, and so does dropping an added one.

    Docker's rule: a capability that is added while it is dropped (or the other way round) loses
    its old place and gets the new one; RESET forgets a side before it is filled.
    """
    adds, drops = (
        set(container.get("CapabilityAdd") or ()),
        set(container.get("CapabilityDrop") or ()),
    )
    to_add, to_drop = set(given.each("cap-add")), set(given.each("cap-drop"))
    for wanted, side in ((to_add, adds), (to_drop, drops)):
        if "RESET" in wanted:
            wanted.discard("RESET")
            side.clear()
    if "ALL" in to_drop:
        to_drop = {"ALL"}
    if "ALL" in to_add:
        to_add = {"ALL"}
    both = to_add & to_drop
    to_drop -= both
    returned_drops, returned_adds = to_add & drops, to_drop & adds
    drops -= to_add
    adds -= to_drop
    adds |= to_add - returned_drops
    drops |= to_drop - returned_adds
    _put(container, "CapabilityAdd", ["ALL"] if "ALL" in adds else sorted(adds))
    _put(container, "CapabilityDrop", ["ALL"] if "ALL" in drops else sorted(drops))


# --- secrets and configs -------------------------------------------------------------------------


def _set_files(
    container: Json, given: Given, files: Callable[[str, list[Json]], list[Json]]
) -> None:
    for kind in ("secret", "config"):
        if given.any_of(f"{kind}-add", f"{kind}-rm"):
            key, name_key = f"{kind.capitalize()}s", f"{kind.capitalize()}Name"
            gone = set(given.each(f"{kind}-rm"))
            kept = [one for one in container.get(key) or () if one[name_key] not in gone]
            _put(container, key, [*kept, *files(kind, given.each(f"{kind}-add"))])
    credentials = given.value("credential-spec")
    if credentials is None:
        return
    if credentials["Config"]:
        runtime = {"Runtime": {}, "ConfigName": credentials["Config"]}
        (found,) = files("config", [runtime])
        credentials = {**credentials, "Config": found["ConfigID"]}
        kept = [one for one in container.get("Configs") or () if "Runtime" not in one]
        container["Configs"] = [*kept, found]
    privileges = container.get("Privileges") or {"SELinuxContext": None, "NoNewPrivileges": False}
    container["Privileges"] = {**privileges, "CredentialSpec": credentials}


# --- health --------------------------------------------------------------------------------------


def _set_health(container: Json, given: Given) -> None:
    if not given.any_of("no-healthcheck", *HEALTH_FLAGS):
        return
    if given.is_set("no-healthcheck"):
        if given.any_of(*HEALTH_FLAGS):
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        container["Healthcheck"] = {"Test": ["NONE"]}
        return
    health = container.get("Healthcheck") or {}
    if health.get("Test") == ["NONE"]:  # any setting takes the check back
        health.pop("Test", None)
    if "health-cmd" in given:
        command = given.text("health-cmd")
        _put(health, "Test", ["CMD-SHELL", command] if command else [])
    for flag, key in HEALTH_NUMBERS.items():
        if flag in given:
            _put(health, key, given.number(flag))
    container["Healthcheck"] = health


# --- resources, placement ------------------------------------------------------------------------


def _set_resources(task: Json, given: Given) -> None:
    resources = task.get("Resources") or {}
    for group, flags in (("Limits", LIMITS), ("Reservations", RESERVATIONS)):
        if given.any_of(*flags):
            amounts = resources.get(group) or {}
            for flag, key in flags.items():
                if flag in given:
                    _put(amounts, key, given.number(flag))
            resources[group] = amounts
            task["Resources"] = resources
    if given.any_of("generic-resource-add", "generic-resource-rm"):
        reserved = resources.get("Reservations") or {}
        _put(reserved, "GenericResources", _generic(reserved.get("GenericResources"), given))
        resources["Reservations"] = reserved
        task["Resources"] = resources


def _generic(present: Iterable[Json] | None, given: Given) -> list[Json]:
    amounts = {_kind_of(one): one for one in present or ()}
    for kind in given.each("generic-resource-rm"):
        if kind not in amounts:
            raise ValueError(f"could not find generic-resource `{kind}` to remove it")
        del amounts[kind]
    amounts.update({_kind_of(one): one for one in given.each("generic-resource-add")})
    return [amounts[kind] for kind in sorted(amounts)]


def _kind_of(resource: Json) -> str:
    inner = resource.get("DiscreteResourceSpec") or resource.get("NamedResourceSpec") or {}
    kind: str = inner.get("Kind", "")
    return kind


def _set_placement(task: Json, given: Given) -> None:
    placement = task.get("Placement") or {}
    if given.any_of("constraint-add", "constraint-rm"):
        gone = set(given.each("constraint-rm"))
        wanted = [*(placement.get("Constraints") or ()), *given.each("constraint-add")]
        _put(placement, "Constraints", sorted({one for one in wanted if one not in gone}))
        task["Placement"] = placement
    if given.any_of("placement-pref-add", "placement-pref-rm"):
        gone_too = given.each("placement-pref-rm")
        kept = [one for one in placement.get("Preferences") or () if one not in gone_too]
        _put(placement, "Preferences", [*kept, *given.each("placement-pref-add")])
        task["Placement"] = placement
    if "replicas-max-per-node" in given:
        _put(placement, "MaxReplicas", given.number("replicas-max-per-node"))
        task["Placement"] = placement


# --- networks, ports, mode -----------------------------------------------------------------------


def _set_networks(spec: Json, given: Given, networks: Callable[[list[Json]], list[Json]]) -> None:
    task = spec["TaskTemplate"]
    present = task.get("Networks") or spec.get("Networks") or []
    spec.pop("Networks", None)  # the field that older clients used
    gone = {one["Target"] for one in networks([{"Target": n} for n in given.each("network-rm")])}
    kept = [one for one in present if one["Target"] not in gone]
    for wanted in given.each("network-add"):
        (one,) = networks([wanted])
        if any(other["Target"] == one["Target"] for other in kept):
            raise ValueError(f"service is already attached to network {wanted['Target']}")
        kept.append(one)
    _put(task, "Networks", sorted(kept, key=lambda one: str(one["Target"])))


def _set_log_driver(task: Json, given: Given) -> None:
    if "log-driver" not in given:
        return
    name = given.text("log-driver")
    if not name:  # Docker's CLI sees no change in an empty name, and --log-opt alone is none either
        return
    task["LogDriver"] = {"Name": name}
    if "log-opt" in given:
        task["LogDriver"]["Options"] = dict(given.each("log-opt"))


def _set_mode(mode: Json, given: Given) -> None:
    if "replicas" in given:
        if mode.get("Replicated") is not None:
            mode["Replicated"]["Replicas"] = given.number("replicas")
        elif mode.get("ReplicatedJob") is not None:
            mode["ReplicatedJob"]["TotalCompletions"] = given.number("replicas")
        else:
            raise ValueError("replicas can only be used with replicated or replicated-job mode")
    if "max-concurrent" in given:
        if mode.get("ReplicatedJob") is None:
            raise ValueError("max-concurrent can only be used with replicated-job mode")
        mode["ReplicatedJob"]["MaxConcurrent"] = given.number("max-concurrent")


def _set_endpoint(spec: Json, given: Given) -> None:
    endpoint = spec.get("EndpointSpec") or {}
    if "endpoint-mode" in given:
        endpoint["Mode"] = given.text("endpoint-mode").lower()
        spec["EndpointSpec"] = endpoint
    if given.any_of("publish-add", "publish-rm"):
        _put(endpoint, "Ports", _ports(endpoint.get("Ports") or (), given))
        spec["EndpointSpec"] = endpoint


def _ports(present: Iterable[Json], given: Given) -> list[Json]:
    """Return the ports: by target, published port and protocol, those removed gone."""
    gone = [port for ports in given.each("publish-rm") for port in ports]
    added = {_port_key(port): port for ports in given.each("publish-add") for port in ports}
    kept = {
        _port_key(port): port
        for port in present
        if _port_key(port) not in added and not any(_removes(one, port) for one in gone)
    }
    ports = {**kept, **added}
    return [ports[key] for key in sorted(ports)]


def _port_key(port: Json) -> str:
    mode, protocol = port.get("PublishMode", "ingress"), port.get("Protocol", "tcp")
    return f"{port.get('PublishedPort', 0)}:{port.get('TargetPort', 0)}/{protocol}/{mode}"


def _removes(asked: Json, port: Json) -> bool:
    """A port is removed by what it leads to, as in Docker.

    Docker's CLI removes every port to that target even where a published one is named; here the
    named one has to fit, so nothing closes that nobody asked to close.
    """
    same_target = asked.get("TargetPort", 0) == port.get("TargetPort", 0)
    same_protocol = asked["Protocol"] == port.get("Protocol", "tcp")
    published = asked.get("PublishedPort", 0)
    return same_target and same_protocol and published in (0, port.get("PublishedPort", 0))
