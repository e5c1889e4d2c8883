"""What libpod answers about containers, under Docker's names. Pure."""

from __future__ import annotations

from swarmctl.plugins.engine import Inspection, Json, Listed

NEVER_STARTED = ("created", "configured", "initialized")
HAVE_PROCESSES = ("running", "paused", "stopping")


def inspection(body: Json) -> Inspection:
    """Read an answer of ``GET /libpod/containers/{id}/json``."""
    state, config = dict(body["State"]), dict(body["Config"])
    status = state["Status"]
    state["Running"] = status in HAVE_PROCESSES
    if status in NEVER_STARTED:
        state["Status"] = "created"
    # Version 3 said Healthcheck; without a check there is an empty one.
    state["Health"] = state.get("Health") or state.get("Healthcheck") or {}
    config["StopSignal"] = str(config.get("StopSignal") or "")  # a number, or since 5.3 a name
    return Inspection({**body, "State": state, "Config": config})


def listed(row: Json) -> Listed:
    """Read one element of ``GET /libpod/containers/json``."""
    return Listed.read({**row, "Status": ""})  # its health is looked at by whoever checks it
