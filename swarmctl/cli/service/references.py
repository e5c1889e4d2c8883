"""What a spec names and only the daemon, a registry or a file can tell: ids, digests, logins."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from swarmctl.core.errors import SwarmError
from swarmctl.core.model.reference import DEFAULT_DOMAIN, parse_reference

from ..api import Api, DaemonError, filters_of, path_to
from ..client import ClientError
from ..command import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..api import Json

DIGEST_TIMEOUT_S = 1.0
HUB_KEY = "https://index.docker.io/v1/"
CREDENTIAL_TIMEOUT_S = 10.0

# --- objects of the swarm ------------------------------------------------------------------------


def network_ids(api: Api, networks: Iterable[Json]) -> list[Json]:
    """Return attachments with ids for names, in the order of their ids.

    Raises:
        DaemonError: a network that is not there.
    """
    found = []
    for network in networks:
        name = network["Target"]
        if not name:
            raise Failure("invalid network name or ID: value is empty")
        network_id = api.get(path_to("networks", name), {"scope": "swarm"})["Id"]
        found.append({**network, "Target": network_id})
    return sorted(found, key=lambda network: str(network["Target"]))


def file_references(api: Api, kind: str, references: Iterable[Json]) -> list[Json]:
    """Return references to secrets or configs with their ids.

    Args:
        kind: ``secret`` or ``config``.

    Raises:
        Failure: one that is not there, or two at one place.
    """
    name_key, id_key = f"{kind.capitalize()}Name", f"{kind.capitalize()}ID"
    wanted = list(references)
    places: set[str] = set()
    for one in wanted:
        place = one["File"]["Name"] if "File" in one else ""
        if place in places:
            raise Failure(f"duplicate {kind} target for {one[name_key]} not allowed")
        places.update([place] if place else [])
    if not wanted:
        return []
    names = sorted({one[name_key] for one in wanted})
    listed = api.get(f"/{kind}s", filters_of({"name": names}))
    ids = {one["Spec"]["Name"]: one["ID"] for one in listed}  # the filter matches by prefix
    for one in wanted:
        if one[name_key] not in ids:
            raise Failure(f"{kind} not found: {one[name_key]}")
    return [{**one, id_key: ids[one[name_key]]} for one in wanted]


# --- images --------------------------------------------------------------------------------------


def full_image(image: str) -> str:
    """Return an image with its default tag; what is no image is the daemon's to refuse."""
    try:
        return str(parse_reference(image).with_default_tag())
    except ValueError:
        return image


def pin_image(api: Api, spec: Json) -> None:
    """Put the image's digest and platforms into a spec, if a registry can be asked.

    Nothing is lost without them, so a look-up that fails or takes longer than a second is a
    warning: nodes then follow the tag on their own.
    """
    container = spec["TaskTemplate"]["ContainerSpec"]
    try:
        reference = parse_reference(container["Image"]).with_default_tag()
    except ValueError:
        return
    if reference.digest or reference.path == "library/host":  # plain processes have no registry
        return
    impatient = Api(api.socket_path, answer_timeout_s=DIGEST_TIMEOUT_S)
    try:
        found = impatient.get(f"/distribution/{reference}/json")
        digest = found["Descriptor"]["digest"]
    except (DaemonError, ClientError, KeyError, TypeError):
        _warn_unpinned(str(reference))
        return
    finally:
        impatient.close()
    container["Image"] = f"{reference}@{digest}"
    platforms = [
        {"Architecture": one.get("architecture", ""), "OS": one.get("os", "")}
        for one in found.get("Platforms") or ()
    ]
    if platforms:
        placement = spec["TaskTemplate"].get("Placement") or {}
        spec["TaskTemplate"]["Placement"] = {**placement, "Platforms": platforms}


def _warn_unpinned(image: str) -> None:
    click.echo(
        f"image {image} could not be accessed on a registry to record\n"
        f"its digest. Each node will access {image} independently,\n"
        "possibly leading to different nodes running different\n"
        "versions of the image.\n",
        err=True,
    )


# --- logins --------------------------------------------------------------------------------------


def registry_auth(image: str) -> str:
    """Return the ``X-Registry-Auth`` for an image, from Docker's own configuration.

    Raises:
        SwarmError: the configuration or its credential helper is broken.
    """
    try:
        reference = parse_reference(image)
    except ValueError:
        return _encoded({})
    config = _docker_config()
    key = HUB_KEY if reference.domain == DEFAULT_DOMAIN else reference.domain
    helper = (config.get("credHelpers") or {}).get(key) or config.get("credsStore")
    if helper:
        return _encoded(_from_helper(helper, key))
    return _encoded(_from_file((config.get("auths") or {}).get(key) or {}, key))


def _docker_config() -> Json:
    directory = os.environ.get("DOCKER_CONFIG") or str(Path("~/.docker").expanduser())
    path = Path(directory) / "config.json"
    try:
        found: Json = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise SwarmError(f"the registry logins in {path} cannot be read: {error}") from error
    return found


def _from_file(entry: Json, server: str) -> Json:
    """Return credentials of an ``auths`` entry; ``auth`` is base64 of ``user:password``."""
    found: Json = {"serveraddress": server}
    try:
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except ValueError as error:
        raise SwarmError(f"the login for {server} in Docker's config is damaged") from error
    if user:
        found.update(username=user, password=password.rstrip("\0"))
    if entry.get("identitytoken"):
        found["identitytoken"] = entry["identitytoken"]
    return found if len(found) > 1 else {}


def _from_helper(helper: str, server: str) -> Json:
    command = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [command, "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=CREDENTIAL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SwarmError(f"{command} does not answer: {error}") from error
    if done.returncode:
        return {}  # it holds no login for this server
    try:
        answer = msgspec.json.decode(done.stdout)
        user, secret = answer["Username"], answer["Secret"]
    except (msgspec.DecodeError, LookupError, TypeError):
        raise SwarmError(f"{command} answered something that is no login") from None
    if user == "<token>":
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": user, "password": secret, "serveraddress": server}


def _encoded(auth: Json) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(auth)).decode()
