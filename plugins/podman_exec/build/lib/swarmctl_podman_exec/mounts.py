"""A spec's mounts as libpod takes them, and the volumes that have to be made for them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins import ExecutorError

from .version import PodmanVersion, need

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swarmctl.plugins.engine import Body, FileBind
    from swarmctl.plugins.model import Mount

SUBPATHS = PodmanVersion(5, 4)


class BindSource(NamedTuple):
    """A path on the host that a container binds.

    Attributes:
        make: whether to make it a directory when there is nothing.
    """

    path: str
    make: bool


def mount_bodies(
    mounts: Iterable[Mount], files: Iterable[FileBind], version: PodmanVersion
) -> Body:
    """Return the keys of a create that tell of mounts: ``mounts``, ``volumes``, ``image_volumes``.

    Raises:
        ExecutorError: Podman has no such mount, or this version of it has not.
    """
    made: dict[str, list[Body]] = {"mounts": [], "volumes": [], "image_volumes": []}
    for mount in mounts:
        kind = mount.Type or "volume"
        if kind == "bind":
            made["mounts"].append(_bind(mount))
        elif kind == "tmpfs":
            made["mounts"].append(_tmpfs(mount))
        elif kind == "volume":
            made["volumes"].append(_volume(mount, version))
        elif kind == "image":
            made["image_volumes"].append(_image(mount, version))
        elif kind == "cluster":
            raise ExecutorError(f"mount {mount.Target}: cluster volumes (CSI) are not supported")
        else:
            raise ExecutorError(f"mount {mount.Target}: Podman has no mounts of type {kind}")
    made["mounts"] += [
        {
            "type": "bind",
            "source": file.source,
            "destination": file.target,
            "options": ["bind", "ro", "rprivate"],
        }
        for file in files
    ]
    return {key: value for key, value in made.items() if value}


def bind_sources(mounts: Iterable[Mount]) -> list[BindSource]:
    """Return the host's paths that the binds of a spec need; libpod itself does not look."""
    return [
        BindSource(mount.Source, bool(mount.BindOptions and mount.BindOptions.CreateMountpoint))
        for mount in mounts
        if mount.Type == "bind"
    ]


def volumes_to_make(mounts: Iterable[Mount]) -> Iterator[Body]:
    """Yield bodies of ``POST /volumes/create`` for volumes that say how they are to be made."""
    for mount in mounts:
        options = mount.VolumeOptions
        if (mount.Type or "volume") != "volume" or options is None:
            continue
        driver = options.DriverConfig
        body: Body = {"Name": mount.Source}
        if options.Labels:
            # The first was the key's name once, the second is now.
            body |= {"Label": options.Labels, "Labels": options.Labels}
        if driver is not None and (driver.Name or driver.Options):
            body |= {"Driver": driver.Name or "local", "Options": driver.Options}
        if len(body) == 1:
            continue
        if not mount.Source:
            raise ExecutorError(
                f"mount {mount.Target}: on Podman a volume without a name can have neither labels "
                "nor a driver; name it"
            )
        yield body


def _bind(mount: Mount) -> Body:
    given = mount.BindOptions
    if given is not None and given.ReadOnlyForceRecursive:
        raise ExecutorError(
            f"mount {mount.Target}: BindOptions.ReadOnlyForceRecursive is not offered on Podman"
        )
    # Consistency is a hint for virtual machines' file sharing and means nothing on Linux.
    options = ["bind" if given is not None and given.NonRecursive else "rbind"]
    options += ["ro"] if mount.ReadOnly else []
    options.append((given.Propagation if given is not None else "") or "rprivate")
    return {
        "type": "bind",
        "source": mount.Source,
        "destination": mount.Target,
        "options": options,
    }


def _tmpfs(mount: Mount) -> Body:
    given = mount.TmpfsOptions
    options = ["notmpcopyup", "nosuid", "nodev"]  # Docker's start empty
    words = ["=".join(pair) for pair in given.Options] if given is not None else []
    options += [] if "exec" in words else ["noexec"]
    options += ["ro"] if mount.ReadOnly else []
    if given is not None and given.SizeBytes:
        options.append(f"size={given.SizeBytes}")
    if given is not None and given.Mode:
        options.append(f"mode={given.Mode:o}")
    options += [word for word in words if word not in options]
    return {
        "type": "tmpfs",
        "source": "tmpfs",
        "destination": mount.Target,
        "options": options,
    }


def _volume(mount: Mount, version: PodmanVersion) -> Body:
    given = mount.VolumeOptions
    options = ["ro"] if mount.ReadOnly else []
    body: Body = {"Name": mount.Source, "Dest": mount.Target}
    if given is not None:
        options += ["nocopy"] if given.NoCopy else []
        need(version, SUBPATHS, "VolumeOptions.Subpath", wanted=bool(given.Subpath))
        if given.Subpath:
            body["SubPath"] = given.Subpath
    if options:
        body["Options"] = options
    return body


def _image(mount: Mount, version: PodmanVersion) -> Body:
    given = mount.ImageOptions
    subpath = given.Subpath if given is not None else ""
    need(version, SUBPATHS, "ImageOptions.Subpath", wanted=bool(subpath))
    body: Body = {"Source": mount.Source, "Destination": mount.Target}
    if subpath:
        body["subPath"] = subpath
    return body
