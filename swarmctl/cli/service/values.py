"""What single service flags mean: references, hosts, limits, as the API's JSON.

Mounts and ports have modules of their own. Each ``parse_*`` takes one flag's text and returns the
object that the spec holds, or raises ValueError in the docker CLI's words; networks, secrets and
configs still bear the name the user gave, which ``references.py`` turns into an id. Pure but for
``parse_environment``, which reads the variable that ``--env NAME`` names, if there is one.
"""

from __future__ import annotations

import csv
import ipaddress
import os
import re
from typing import TYPE_CHECKING

from ..flags import Kind, parse_int, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..api import Json

# --- fields apart by commas ----------------------------------------------------------------------


def split_fields(text: str) -> list[str]:
    """Return the comma-separated fields of a flag; quotes keep a comma inside one.

    Raises:
        ValueError: there is nothing.
    """
    rows = list(csv.reader([text]))
    if not rows or not rows[0]:
        raise ValueError("EOF")
    return rows[0]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        yield key.lower(), value


# --- environment and labels ----------------------------------------------------------------------


def parse_environment(text: str) -> str:
    """Return ``NAME=value``; a bare name takes its value from our own environment, if it has one.

    Raises:
        ValueError: there is no name.
    """
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if equals or name not in os.environ:
        return text
    return f"{name}={os.environ[name]}"


def parse_label(text: str) -> tuple[str, str]:
    """Return a label's key and value; without ``=`` the value is empty.

    Raises:
        ValueError: the key is missing or has whitespace.
    """
    key, _, value = text.partition("=")
    if not key.strip():
        raise ValueError(f"invalid label '{text}': empty name")
    if any(letter.isspace() for letter in key):
        raise ValueError(f"label '{key}' contains whitespaces")
    return key, value


def parse_pair(text: str) -> tuple[str, str]:
    """Return key and value of ``key=value``; without ``=`` the value is empty."""
    key, _, value = text.partition("=")
    return key, value


# --- references ----------------------------------------------------------------------------------


def parse_pinned(text: str) -> tuple[str, str]:
    """Return network ("" for the only one) and address of ``[network=]address``."""
    network, equals, address = text.rpartition("=")
    if equals and not network:
        raise ValueError(f"invalid address {text!r}: expected [NETWORK=]ADDRESS")
    return network, address


def parse_network(text: str) -> Json:
    """Return a network attachment from ``NAME`` or ``name=N,alias=A,driver-opt=key=value``.

    Raises:
        ValueError: in Docker's words.
    """
    if "=" not in text:
        return {"Target": text}
    found: Json = {"Target": ""}
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise ValueError(f"invalid field {field}")
        if key == "name":
            found["Target"] = value.strip()
        elif key == "alias":
            found.setdefault("Aliases", []).append(value.strip().lower())
        elif key == "driver-opt":
            name, equals, setting = value.partition("=")
            if not equals:
                raise ValueError("invalid key value pair format in driver options")
            found.setdefault("DriverOpts", {})[name.strip().lower()] = setting.strip().lower()
        else:
            raise ValueError(f"invalid field key {key}")
    return found


def parse_secret(text: str) -> Json:
    """Return a secret reference, its ``SecretID`` still missing.

    Raises:
        ValueError: in Docker's words.
    """
    return _file_reference(text, "secret", "SecretName")


def parse_config(text: str) -> Json:
    """Return a config reference, its ``ConfigID`` still missing.

    Raises:
        ValueError: in Docker's words.
    """
    return _file_reference(text, "config", "ConfigName")


def _file_reference(text: str, kind: str, name_key: str) -> Json:
    file = {"Name": "", "UID": "0", "GID": "0", "Mode": 0o444}
    fields = split_fields(text)
    if len(fields) == 1 and "=" not in fields[0]:
        return {"File": {**file, "Name": fields[0]}, name_key: fields[0]}
    name = ""
    for key, value in _pairs(text):
        if key in ("source", "src"):
            name = value
        elif key == "target":
            file["Name"] = value
        elif key in ("uid", "gid"):
            file[key.upper()] = value
        elif key == "mode":
            try:
                file["Mode"] = int(value, 8 if value.startswith("0") else 10)
            except ValueError:
                raise ValueError(f"invalid mode specified: {value}") from None
        else:
            raise ValueError(f"invalid field in {kind} request: {key}")
    if not name:
        raise ValueError("source is required")
    file["Name"] = file["Name"] or name
    return {"File": file, name_key: name}


# --- hosts, limits, placement --------------------------------------------------------------------


def parse_host(text: str) -> tuple[str, str]:
    """Return host name and address of ``host:ip`` or ``host=ip``.

    Raises:
        ValueError: in Docker's words.
    """
    mark = min((at for at in (text.find("="), text.find(":")) if at > 0), default=-1)
    if mark < 0 or not text[mark + 1 :]:
        raise ValueError(f"bad format for add-host: {quoted(text)}")
    name, address = text[:mark], text[mark + 1 :]
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        _require_address(address, f"invalid IP address in add-host: {quoted(address)}")
    return name, address


def parse_address(text: str) -> str:
    """Return an IP address.

    Raises:
        ValueError: in Docker's words.
    """
    _require_address(text.strip(), f"IP address is not correctly formatted: {text}")
    return text.strip()


def _require_address(text: str, problem: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(problem) from None


_DOMAIN = re.compile(
    r"(?:[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?\.)*[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?\.?"
)


def parse_search_domain(text: str) -> str:
    """Return a DNS search domain; ``.`` means none.

    Raises:
        ValueError: in Docker's words.
    """
    domain = text.strip()
    if domain == "." or (len(domain) < 255 and _DOMAIN.fullmatch(domain)):
        return domain
    raise ValueError(f"{text} is not a valid domain")


_ULIMITS = frozenset(
    {"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"}
    | {"nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}
)


def parse_ulimit(text: str) -> Json:
    """Return a ulimit from ``nofile=1024:2048``.

    Raises:
        ValueError: in Docker's words.
    """
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = value.split(":")
    if len(parts) > 2:
        raise ValueError(
            f"too many limit value arguments - {value}, can only have up to two, `soft[:hard]`"
        )
    soft = parse_int(parts[0])
    hard = parse_int(parts[1]) if len(parts) == 2 else soft
    if soft == -1 and hard != -1:
        raise ValueError(
            "ulimit soft limit must be less than or equal to hard limit: "
            f"soft: -1 (unlimited), hard: {hard}"
        )
    if hard != -1 and soft > hard:
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return {"Name": name, "Hard": hard, "Soft": soft}


def parse_preference(text: str) -> Json:
    """Return a placement preference from ``spread=node.labels.zone``.

    Raises:
        ValueError: in Docker's words.
    """
    strategy, equals, argument = text.partition("=")
    if not equals:
        raise ValueError('placement preference must be of the format "<strategy>=<arg>"')
    if strategy != "spread":
        raise ValueError(f"unsupported placement preference {strategy} (only spread is supported)")
    return {"Spread": {"SpreadDescriptor": argument}}


def parse_resource(text: str) -> Json:
    """Return a generic resource from ``gpu=2``.

    Raises:
        ValueError: in Docker's words.
    """
    kind, equals, amount = text.partition("=")
    if not equals or not kind:
        raise ValueError(f"invalid generic-resource format `{text}` expected `name=value`")
    try:
        count = parse_int(amount)
    except ValueError:
        raise ValueError(
            f"invalid generic-resource request `{text}`, Named Generic Resources is not supported "
            "for service create or update"
        ) from None
    if count < 0:
        raise ValueError(f"cannot ask for negative resource {kind}")
    return {"DiscreteResourceSpec": {"Kind": kind, "Value": count}}


def parse_credential_spec(text: str) -> Json:
    """Return a credential spec; ``config://`` still bears the config's name.

    Raises:
        ValueError: in Docker's words.
    """
    found = {"Config": "", "File": "", "Registry": ""}
    for key in found:
        prefix = f"{key.lower()}://"
        if text.startswith(prefix):
            return {**found, key: text.removeprefix(prefix)}
    if text:
        raise ValueError(
            'invalid credential spec: value must be prefixed with "config://", "file://", or '
            '"registry://"'
        )
    return found


def parse_capability(text: str) -> str:
    """Return a capability as the API knows it: ``CAP_NET_ADMIN``, or ``ALL`` or ``RESET``."""
    name = text.strip().upper()
    return name if name in ("ALL", "RESET") or name.startswith("CAP_") else f"CAP_{name}"


ENVIRONMENT = Kind("list", parse_environment, many=True)
LABEL = Kind("list", parse_label, many=True)
PAIR = Kind("list", parse_pair, many=True)
NETWORK = Kind("network", parse_network, many=True)
PINNED = Kind("address", parse_pinned, many=True)
SECRET = Kind("secret", parse_secret, many=True)
CONFIG = Kind("config", parse_config, many=True)
HOST = Kind("list", parse_host, many=True)
ADDRESS = Kind("list", parse_address, many=True)
SEARCH_DOMAIN = Kind("list", parse_search_domain, many=True)
ULIMIT = Kind("ulimit", parse_ulimit, many=True)
PREFERENCE = Kind("pref", parse_preference, many=True)
RESOURCE = Kind("list", parse_resource, many=True)
CREDENTIAL_SPEC = Kind("credential-spec", parse_credential_spec)
CAPABILITY = Kind("list", parse_capability, many=True)
