"""Small specs for tests, built from the JSON that a client would send."""

from __future__ import annotations

import json

from swarmctl.core.model.codec import decode_json
from swarmctl.core.model.spec import ServiceSpec

Plain = dict[str, object]


def service_body(**changes: object) -> Plain:
    """Return a body that is right, with dotted paths replaced: ``{"Mode.Global": {}}``."""
    body: Plain = {
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}},
        "Mode": {"Replicated": {"Replicas": 1}},
    }
    for path, value in changes.items():
        place = body
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})  # type: ignore[assignment]
        place[last] = value
    return body


def service_spec(**changes: object) -> ServiceSpec:
    """Return the spec of :func:`service_body`."""
    return decode_json(json.dumps(service_body(**changes)).encode(), ServiceSpec)
