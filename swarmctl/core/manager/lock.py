"""Keeps this manager's keys as the cluster's row wants them: open, or locked by the unlock key.

    row          this disk                                         a crash before it leaves
    key, new     1 database wrapped by it, another data key begun  the old key in force
                 2 TLS key encrypted                               locked; the next start does it
                 3 key file removed                                locked; the next start does it
    other key    1 database wrapped by it                          the old key in force
    none         1 key file written                                locked
                 2 database wrapped by it                          locked
                 3 TLS key in the clear                            open; the next start does it

Laws:

- Only a row newer than the one in force is followed. A manager that starts reads old rows again
  before it comes to the newest, and going back to an old key would lock it with a key that nobody
  keeps.
- What once lay open is replaced: the data key by a rotation, the TLS key by a renewal.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..ca import keyfiles
from ..model.change import Kind
from ..raft.keys import KeyChange, Lock
from ..raft.seal import new_key
from . import state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..ca.credentials import Credentials
    from ..store.watch import Watch
    from .state import OpenState

log = logging.getLogger(__name__)


class LockKeeper:
    """Follows the cluster's row.

    Args:
        opened: this manager's state; one that lies on no disk has nothing to lock.
        renew: asks for another certificate, hence another TLS key.
    """

    def __init__(
        self,
        opened: OpenState,
        credentials: Credentials,
        watch: Watch,
        renew: Callable[[], None],
    ) -> None:
        self._disk = opened.disk
        self._state_dir = opened.state_dir
        self._view = opened.store.view
        self._credentials = credentials
        self._watch = watch
        self._renew = renew

    async def run(self) -> None:
        """Follow until cancelled. Cancelled half way, the next start settles the rest.

        Raises:
            StorageFailed: the disk refused.
        """
        with self._watch.mailbox() as mailbox:
            while self._state_dir is not None:
                touched = mailbox.take()
                if touched is None or any(ref.kind is Kind.CLUSTER for ref in touched):
                    await self._follow(self._state_dir)
                await mailbox.wait()

    async def _follow(self, state_dir: Path) -> None:
        cluster = self._view.cluster()
        if cluster is None:
            return
        version, wanted = cluster.api.Version.Index, cluster.private.unlock_key
        lock = self._disk.keys.lock
        if version <= lock.version:
            return
        if bool(wanted) == lock.locked and self._disk.keys.opens_with(wanted):
            return  # another setting of the cluster changed
        if not wanted:
            await self._unlock(state_dir, version)
        elif lock.locked:
            await self._change(KeyChange(wanted, Lock(locked=True, version=version)))
            self._credentials.unlock_key = wanted
            log.info("the unlock key of this manager was rotated")
        else:
            await self._lock(state_dir, wanted, version)

    async def _lock(self, state_dir: Path, key: bytes, version: int) -> None:
        identity_key = new_key()
        lock = Lock(locked=True, version=version)
        await self._change(KeyChange(key, lock, identity_key=identity_key, rotate=True))
        self._credentials.unlock_key = key
        passphrase = state.passphrase_of(identity_key)
        async with self._credentials.changing:
            self._credentials.passphrase = passphrase
            await trio.to_thread.run_sync(_seal_tls_key, state_dir, b"", passphrase)
        await trio.to_thread.run_sync(state.remove_key, state_dir)
        self._renew()
        log.info("this manager is locked from its next start on")

    async def _unlock(self, state_dir: Path, version: int) -> None:
        key = await trio.to_thread.run_sync(state.write_key, state_dir)
        await self._change(KeyChange(key, Lock(locked=False, version=version)))
        self._credentials.unlock_key = None
        async with self._credentials.changing:
            before = self._credentials.passphrase
            await trio.to_thread.run_sync(_seal_tls_key, state_dir, before, b"")
            self._credentials.passphrase = b""  # not before: it may be what opens that file
        log.info("this manager is no longer locked")

    async def _change(self, change: KeyChange) -> None:
        done = trio.Event()
        self._disk.change_key(change, done.set)
        await done.wait()


def _seal_tls_key(state_dir: Path, before: bytes, after: bytes) -> None:
    keyfiles.reseal_key(state_dir, before=before, after=after)
