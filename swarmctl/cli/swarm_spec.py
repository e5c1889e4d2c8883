"""The swarm's settings as flags: which there are, and where each goes in a ``SwarmSpec``.

``init`` starts from nothing, ``update`` and ``ca`` from what the swarm has.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from .flags import DURATION, INT, UINT, Flag, Kind

if TYPE_CHECKING:
    from .api import Json
    from .command import Invocation
    from .flags import Given


def parse_external_ca(text: str) -> Json:
    """Return an external CA from ``protocol=cfssl,url=https://...[,cacert=FILE][,key=value]``.

    Raises:
        ValueError: in Docker's words.
    """
    found: dict[str, Any] = {"Protocol": "", "URL": "", "Options": {}, "CACert": ""}
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        if key.lower() == "protocol":
            if value.lower() != "cfssl":
                raise ValueError(f"unrecognized external CA protocol {value}")
            found["Protocol"] = "cfssl"
        elif key.lower() == "url":
            found["URL"] = value
        elif key.lower() == "cacert":
            try:
                found["CACert"] = read_pem(value)
            except ValueError as error:
                raise ValueError(f"unable to read CA cert for external CA: {error}") from None
        else:
            found["Options"][key] = value
    if not found["Protocol"]:
        raise ValueError("the external-ca option needs a protocol= parameter")
    if not found["URL"]:
        raise ValueError("the external-ca option needs a url= parameter")
    return found


def read_pem(path: str) -> str:
    """Return the text of a PEM file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - no pathlib for this
            return file.read()
    except (OSError, UnicodeError) as error:
        raise ValueError(str(error)) from None


PEM_FILE = Kind("pem-file", read_pem)
CERT_EXPIRY = Flag(
    "cert-expiry", DURATION, "Validity period for node certificates", default="2160h0m0s"
)
EXTERNAL_CA = Flag(
    "external-ca",
    Kind("external-ca", parse_external_ca, many=True),
    "Specifications of certificate signing endpoints",
)
SPEC_FLAGS = (
    CERT_EXPIRY,
    Flag("dispatcher-heartbeat", DURATION, "Dispatcher heartbeat period", default="2s"),
    EXTERNAL_CA,
    Flag("max-snapshots", UINT, "Number of additional Raft snapshots to retain"),
    Flag("snapshot-interval", UINT, "Log entries between Raft snapshots", default="10000"),
    Flag("task-history-limit", INT, "Task history retention limit", default="5"),
)
_FIELDS = (
    ("cert-expiry", "CAConfig", "NodeCertExpiry"),
    ("external-ca", "CAConfig", "ExternalCAs"),
    ("dispatcher-heartbeat", "Dispatcher", "HeartbeatPeriod"),
    ("max-snapshots", "Raft", "KeepOldSnapshots"),
    ("snapshot-interval", "Raft", "SnapshotInterval"),
    ("task-history-limit", "Orchestration", "TaskHistoryRetentionLimit"),
)


def merge_flags(spec: Json, given: Given, *, ca_cert: str = "") -> None:
    """Put what flags said into a spec.

    Args:
        ca_cert: the CA certificate that external CAs sign for which name none.
    """
    for flag, part, key in _FIELDS:
        if flag in given:
            spec.setdefault(part, {})[key] = given.value(flag)
    for external in given.each("external-ca"):
        external["CACert"] = external["CACert"] or ca_cert


def post_spec(call: Invocation, swarm: Json) -> None:
    """Send the settings of a swarm back, as they were changed."""
    query = {
        "version": str(swarm["Version"]["Index"]),
        "rotateWorkerToken": "false",
        "rotateManagerToken": "false",
        "rotateManagerUnlockKey": "false",
    }
    call.api.post("/swarm/update", swarm["Spec"], query)
