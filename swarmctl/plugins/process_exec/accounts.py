"""Who a task runs as: names to numbers, and whether that user can reach its files.

Look-ups may ask a directory service, so callers run them in a thread.
"""

from __future__ import annotations

import grp
import os
import pwd
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins import ExecutorError

if TYPE_CHECKING:
    from pathlib import Path

ROOT = 0


class Account(NamedTuple):
    """A user in numbers. ``uid`` None means: as the keeper runs, nothing is changed."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve(user: str, groups: tuple[str, ...]) -> Account:
    """Return the account for ``ContainerSpec.User`` (``user[:group]``) and ``Groups``.

    Raises:
        ExecutorError: no such user or group here, or this daemon may not become it.
    """
    if not user and not groups:
        return Account(home=own_home())
    name, _, group = user.partition(":")
    entry = _user_entry(name) if name else _user_entry(str(os.geteuid()))
    uid = entry.pw_uid if entry is not None else _number(name, f'User "{name}": no such user')
    if group:
        gid = _group_id("User", group)
    elif entry is not None:
        gid = entry.pw_gid
    else:
        raise ExecutorError(
            f'ContainerSpec.User "{user}": this host has no such user, so its group is unknown; '
            f'write "{name}:GROUP"'
        )
    listed = os.getgrouplist(entry.pw_name, gid) if entry is not None else [gid]
    wanted = (*listed, *(_group_id("Groups", one) for one in groups))
    account = Account(
        uid, gid, tuple(dict.fromkeys(wanted)), entry.pw_dir if entry is not None else "/"
    )
    _check_may_become(account, user)
    return account


def blocked_at(path: Path, account: Account) -> Path | None:
    """Return the directory on the way to ``path`` that keeps ``account`` out, if one does."""
    if account.uid in (None, ROOT):
        return None
    for folder in reversed((path, *path.parents)):
        try:
            status = folder.stat()
        except FileNotFoundError:
            return None  # made later, by us, for this account
        if status.st_uid == account.uid:
            bit = 0o100
        elif status.st_gid in account.groups:
            bit = 0o010
        else:
            bit = 0o001
        if not status.st_mode & bit:
            return folder
    return None


def check_folder(folder: str) -> None:
    """Refuse a working directory that is not there: a spec must not litter the host with them.

    Raises:
        ExecutorError: it is no directory on this host.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - False, too, where we may not look
        raise ExecutorError(f'ContainerSpec.Dir "{folder}": no such directory on this host')


def _check_may_become(account: Account, user: str) -> None:
    own = os.geteuid()
    if own == ROOT:
        return
    if account.uid != own or account.gid != os.getegid():
        raise ExecutorError(
            f'ContainerSpec.User "{user}": this daemon runs as uid {own} and gid {os.getegid()}, '
            "and only root can start processes as somebody else"
        )
    if set(account.groups) - {*os.getgroups(), os.getegid()}:
        raise ExecutorError("ContainerSpec.Groups: only root can give a process other groups")


def _user_entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        return None


def _group_id(field: str, name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return _number(name, f'{field}: no group "{name}"')


def _number(text: str, otherwise: str) -> int:
    if is_id(text):
        return int(text)
    raise ExecutorError(f"ContainerSpec.{otherwise} on this host")


def is_id(text: str) -> bool:
    """Return whether ``text`` is a number that a user or a group can have."""
    return text.isascii() and text.isdecimal() and int(text) < 2**32 - 1


@cache
def own_home() -> str:
    """Return the home directory of whoever this daemon runs as."""
    entry = _user_entry(str(os.geteuid()))
    return entry.pw_dir if entry is not None else "/"
