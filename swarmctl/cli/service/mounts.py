"""``--mount``: fields apart by commas become the API's Mount.

Texts and checks are the docker CLI's; whether a mount makes sense on a node is the daemon's to say.
A bind source below the working directory (``./data``) is made absolute here, where that directory
is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..flags import parse_bool, parse_size
from .values import parse_pair, split_fields

if TYPE_CHECKING:
    from ..api import Json

_TYPED_OPTIONS = {
    "bind": ("bind", "BindOptions"),
    "volume": ("volume", "VolumeOptions"),
    "image": ("image", "ImageOptions"),
    "tmpfs": ("tmpfs", "TmpfsOptions"),
}
_BARE_MOUNT_KEYS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src")


def parse_mount(text: str) -> Json:
    """Return a mount from ``type=volume,source=data,target=/data,readonly``.

    Raises:
        ValueError: in Docker's words.
    """
    mount: Json = {"Type": "volume"}
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            if key not in _BARE_MOUNT_KEYS:
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        _set_mount_field(mount, key, value, field)
    _check_mount(mount)
    return mount


def _set_mount_field(mount: Json, key: str, value: str, field: str) -> None:
    if key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        is_relative = value == "." or value.startswith(("./", "../")) or value == ".."
        mount["Source"] = os.path.abspath(value) if is_relative else value  # noqa: PTH100
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = _mount_bool(key, value)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key.startswith("bind-"):
        _set_bind_option(_options(mount, "BindOptions"), key, value, field)
    elif key.startswith("volume-"):
        _set_volume_option(_options(mount, "VolumeOptions"), key, value, field)
    elif key == "image-subpath":
        _options(mount, "ImageOptions")["Subpath"] = value
    elif key.startswith("tmpfs-"):
        _set_tmpfs_option(_options(mount, "TmpfsOptions"), key, value, field)
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _options(mount: Json, name: str) -> Json:
    options: Json = mount.setdefault(name, {})
    return options


def _mount_bool(key: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _set_bind_option(options: Json, key: str, value: str, field: str) -> None:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options["NonRecursive"] = _mount_bool(key, value)
    elif key == "bind-create-src":
        options["CreateMountpoint"] = _mount_bool(key, value)
    elif key == "bind-recursive":
        flags: dict[str, Json] = {
            "enabled": {},
            "disabled": {"NonRecursive": True},
            "writable": {"ReadOnlyNonRecursive": True},
            "readonly": {"ReadOnlyForceRecursive": True},
        }
        if value not in flags:
            raise ValueError(
                f"invalid value for {key}: {value} "
                '(must be "enabled", "disabled", "writable", or "readonly")'
            )
        options.update(flags[value])
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_volume_option(options: Json, key: str, value: str, field: str) -> None:
    if key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-nocopy":
        try:
            options["NoCopy"] = parse_bool(value)
        except ValueError:
            raise ValueError(f"invalid value for volume-nocopy: {value}") from None
    elif key == "volume-label":
        name, setting = parse_pair(value)
        options.setdefault("Labels", {})[name] = setting
    elif key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        name, setting = parse_pair(value)
        driver = options.setdefault("DriverConfig", {})
        driver.setdefault("Options", {})[name] = setting
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_tmpfs_option(options: Json, key: str, value: str, field: str) -> None:
    try:
        if key == "tmpfs-size":
            options["SizeBytes"] = parse_size(value)
        elif key == "tmpfs-mode":
            options["Mode"] = int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None
    if key not in ("tmpfs-size", "tmpfs-mode"):
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _check_mount(mount: Json) -> None:
    if not mount["Type"]:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for kind, (prefix, options) in _TYPED_OPTIONS.items():
        if options in mount and mount["Type"] != kind:
            raise ValueError(f"cannot mix '{prefix}-*' options with mount type '{mount['Type']}'")
    bind = mount.get("BindOptions", {})
    if bind.get("ReadOnlyNonRecursive") and not mount.get("ReadOnly"):
        raise ValueError(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
        )
    if bind.get("ReadOnlyForceRecursive"):
        if not mount.get("ReadOnly"):
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in "
                "conjunction"
            )
        if bind.get("Propagation") != "rprivate":
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be "
                "specified in conjunction"
            )
