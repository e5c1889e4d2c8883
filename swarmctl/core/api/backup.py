"""Routes of our own: a swarm as one encrypted file, and back (``manager/backup.py``).

    POST /swarm/backup    {"Passphrase": "..."}; answers with the file
    POST /swarm/restore   the file; X-Swarmctl-Passphrase in base64, addresses in the query

The passphrase comes in a body or a header and never in a path, which logs may show.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import trio

from ..errors import BadRequest
from ..manager.backup import Reading, check_passphrase, new_salt, seal_for, written
from ..model.request import BackupRequest, InitRequest
from ..model.validate_cluster import check_init_request
from ..wire.http_server import StreamedResponse
from .call import json_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..manager.backup import Head
    from ..store.store import Store
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

PASSPHRASE_HEADER = "x-swarmctl-passphrase"  # noqa: S105 - its name


async def make(server: ApiServer, call: Call) -> Reply:
    """``POST /swarm/backup``: everything that is committed now, while the swarm goes on."""
    passphrase = call.body(BackupRequest).Passphrase
    check_passphrase(passphrase)
    manager = server.manager()
    await manager.read()
    head, chunks = manager.back_up()
    salt = new_salt()
    seal = await trio.to_thread.run_sync(seal_for, passphrase, salt)

    async def write(send: Callable[[bytes], Awaitable[None]]) -> None:
        for record in written(seal, salt, head, chunks):
            await send(record)

    return StreamedResponse(200, (("Content-Type", "application/octet-stream"),), write)


async def restore(server: ApiServer, call: Call) -> Reply:
    """``POST /swarm/restore``: the file is read whole and checked before anything is written.

    Raises:
        AlreadyInSwarm: this node is not a fresh one.
        BadRequest: it is no backup, damaged, cut short, or of another passphrase.
    """
    server.node.require_inactive()
    request = InitRequest(
        ListenAddr=call.query.get("listenAddr"),
        AdvertiseAddr=call.query.get("advertiseAddr"),
        DataPathAddr=call.query.get("dataPathAddr"),
    )
    check_init_request(request)
    head, store = await _read(call)
    return json_reply(await server.node.restore(request, head, store))


async def _read(call: Call) -> tuple[Head, Store]:
    assert call.receive_body is not None, "the server streams this route's body"
    reading = Reading(_passphrase_of(call))
    while piece := await call.receive_body():
        await trio.to_thread.run_sync(reading.feed, piece)
    return await trio.to_thread.run_sync(reading.contents)


def _passphrase_of(call: Call) -> str:
    try:
        return base64.b64decode(call.request.headers.get(PASSPHRASE_HEADER), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"the header {PASSPHRASE_HEADER} is no base64") from error


HANDLERS = {"make": make, "restore": restore}
