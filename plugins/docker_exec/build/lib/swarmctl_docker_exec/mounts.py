"""A spec's mounts as the engine takes them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins import ExecutorError

from .level import need

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swarmctl.plugins.model import (
        BindOptions,
        ImageOptions,
        Mount,
        TmpfsOptions,
        VolumeOptions,
    )

    from .level import ApiLevel


def mount_body(mount: Mount, level: ApiLevel) -> dict[str, object]:
    """Return one element of ``HostConfig.Mounts``.

    Raises:
        ExecutorError: the engine is too old for an option, or the kind of mount is not offered.
    """
    kind = mount.Type or "volume"
    if kind == "cluster":
        raise ExecutorError(f"mount {mount.Target}: cluster volumes (CSI) are not supported")
    need(level, "1.48", "a mount of type image", wanted=kind == "image")
    options = {
        "Source": mount.Source,
        "ReadOnly": mount.ReadOnly,
        "Consistency": mount.Consistency,
        "BindOptions": mount.BindOptions and _bind(mount.BindOptions, level),
        "VolumeOptions": mount.VolumeOptions and _volume(mount.VolumeOptions, level),
        "ImageOptions": mount.ImageOptions and _image(mount.ImageOptions),
        "TmpfsOptions": mount.TmpfsOptions and _tmpfs(mount.TmpfsOptions, level),
    }
    return {"Type": kind, "Target": mount.Target, **_set(options)}


def _bind(options: BindOptions, level: ApiLevel) -> dict[str, object]:
    for minimum, field in (
        ("1.42", "CreateMountpoint"),
        ("1.44", "ReadOnlyNonRecursive"),
        ("1.44", "ReadOnlyForceRecursive"),
    ):
        need(level, minimum, f"BindOptions.{field}", wanted=getattr(options, field))
    return _set(
        {
            "Propagation": options.Propagation,
            "NonRecursive": options.NonRecursive,
            "CreateMountpoint": options.CreateMountpoint,
            "ReadOnlyNonRecursive": options.ReadOnlyNonRecursive,
            "ReadOnlyForceRecursive": options.ReadOnlyForceRecursive,
        }
    )


def _volume(options: VolumeOptions, level: ApiLevel) -> dict[str, object]:
    need(level, "1.45", "VolumeOptions.Subpath", wanted=bool(options.Subpath))
    driver = options.DriverConfig
    return _set(
        {
            "NoCopy": options.NoCopy,
            "Labels": options.Labels,
            "Subpath": options.Subpath,
            "DriverConfig": driver and _set({"Name": driver.Name, "Options": driver.Options}),
        }
    )


def _image(options: ImageOptions) -> dict[str, object]:
    return _set({"Subpath": options.Subpath})


def _tmpfs(options: TmpfsOptions, level: ApiLevel) -> dict[str, object]:
    need(level, "1.46", "TmpfsOptions.Options", wanted=bool(options.Options))
    return _set(
        {
            "SizeBytes": options.SizeBytes,
            "Mode": options.Mode,
            "Options": [list(words) for words in options.Options],
        }
    )


def _set(values: Mapping[str, object]) -> dict[str, object]:
    """Only what is set: engines take the rest as zero anyway."""
    return {key: value for key, value in values.items() if value}
