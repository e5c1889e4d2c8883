"""Objects of the API as a daemon lists them, for the stub to answer with."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any


def ago(seconds: float) -> str:
    """A time in the past, as the API prints it."""
    moment = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def service(name: str = "web", **fields: Any) -> dict[str, Any]:
    """A replicated service of two tasks; ``fields`` replace those of its spec."""
    spec = {
        "Name": name,
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "nginx:1.27", "Init": False, "DNSConfig": {}},
            "Resources": {"Limits": {}, "Reservations": {}},
            "Placement": {},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {"Mode": "vip"},
        **fields,
    }
    return {
        "ID": f"{name}service00000000000000000",
        "Version": {"Index": 7},
        "CreatedAt": ago(1000),
        "UpdatedAt": ago(1000),
        "Spec": spec,
        "Endpoint": {"Spec": {}},
    }


def task(number: int, slot: int, state: str = "running", **fields: Any) -> dict[str, Any]:
    """A task of the service ``web``; ``seconds`` says how long ago its state changed."""
    seconds, error = fields.pop("seconds", 200.0), fields.pop("error", "")
    status = {"Timestamp": ago(seconds), "State": state, "PortStatus": {}}
    if error:
        status["Err"] = error
    return {
        "ID": f"task{number:02}000000000000000000",
        "Version": {"Index": 9},
        "CreatedAt": ago(seconds + 10),
        "UpdatedAt": ago(seconds),
        "Labels": {},
        "Spec": {"ContainerSpec": {"Image": "nginx:1.27@sha256:" + "0" * 64}, "ForceUpdate": 0},
        "ServiceID": service()["ID"],
        "Slot": slot,
        "NodeID": "node1",
        "Status": status,
        "DesiredState": "running",
        "Volumes": None,
        **fields,
    }


def node(node_id: str = "node1", hostname: str = "host1", **fields: Any) -> dict[str, Any]:
    """A worker that is ready."""
    return {
        "ID": node_id,
        "Version": {"Index": 3},
        "CreatedAt": ago(5000),
        "UpdatedAt": ago(5000),
        "Spec": {"Labels": {}, "Role": "worker", "Availability": "active"},
        "Description": {
            "Hostname": hostname,
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 4_000_000_000, "MemoryBytes": 8 * 2**30},
            "Engine": {"EngineVersion": "28.2.2"},
            "TLSInfo": {},
        },
        "Status": {"State": "ready", "Addr": "10.0.0.1"},
        **fields,
    }


INFO = {
    "Name": "host1",
    "ServerVersion": "0.1.0",
    "NCPU": 4,
    "MemTotal": 8 * 2**30,
    "Executor": {"Name": "docker", "EngineVersion": "28.2.2"},
    "LoadedPlugins": [
        {
            "Name": "process",
            "Version": "0.1.0",
            "API": 1,
            "Kind": "built-in",
            "Place": "swarmctl.plugins.process_exec",
            "Hooks": ["swarmctl_executor", "swarmctl_plugin_info"],
            "State": "loaded",
            "Why": "",
            "Failures": 0,
        },
        {"Name": "green", "State": "failed", "Why": 'plugin "green" ' + "x" * 60},
    ],
    "Warnings": None,
    "Swarm": {
        "NodeID": "node1",
        "NodeAddr": "10.0.0.1",
        "LocalNodeState": "active",
        "ControlAvailable": True,
        "Error": "",
        "RemoteManagers": [{"NodeID": "node1", "Addr": "10.0.0.1:2377"}],
    },
}
