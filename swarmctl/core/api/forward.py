"""A client's request on its way to the leader, and the answer on its way back: one link stream.

    follower   open "api": method, target, headers, request id   body ...  end
    leader     head: status, headers                             body ...  end

Laws:
- A request goes whole: version prefix, headers and all. What is checked, is checked by the leader,
  so the answer is the same at every manager.
- One hop. A manager that does not lead refuses with NoLeader, and the caller looks for the leader
  anew; it never passes a request on.
- Who asks is the node that the link's certificate names, never what the request says.
- An error is an answer like any other, status and text included. The stream itself fails for what
  is no answer: NoLeader, LostLeadership, a link that is gone, an answer that breaks off.
- An answer is passed on as it comes. Nothing of it is kept here: a client that reads slowly makes
  the leader wait, by the stream's credit, and one that hangs up cancels the leader's handler.

It must not know routes, nor who leads.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from ..ca.x509 import identity_of
from ..errors import LostLeadership, NoLeader, SwarmError, Unavailable
from ..model.codec import pack, unpack
from ..wire.http1 import MAX_BODY_BYTES, BodyTooLarge, Fields, Request, Response, error_response
from ..wire.http_server import StreamedResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AsyncExitStack

    from ..wire.http_server import Reply, SendChunk
    from ..wire.link import Link
    from ..wire.stream import LinkStream

METHOD = "api"
CHUNK_BYTES = 256 * 1024
SAFE_METHODS = frozenset({"GET", "HEAD"})

log = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Where a request came in.

    Attributes:
        node_id: the node whose API was asked.
        request_id: the same for every attempt to have it answered; "" for one that changes nothing.
        client: who asked there, for logs.
    """

    node_id: str
    request_id: str
    client: str


class _Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream begins with: a request without its body."""

    method: str
    target: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    request_id: str
    client: str


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer begins with. ``streamed``: its length is not known yet."""

    status: int
    headers: tuple[tuple[str, str], ...]
    streamed: bool = False
    endless: bool = False


# --- the follower --------------------------------------------------------------------------------


async def forward(stack: AsyncExitStack, link: Link, request: Request, origin: Origin) -> Reply:
    """Have a request answered at the other end of a link.

    Args:
        stack: keeps the stream; the caller closes it once a streamed answer is over.
        origin: its node is not sent, the link's certificate says it.

    Raises:
        NoLeader, LostLeadership: the other end does not lead, or no longer; the fate of a write is
            unknown, and it may be asked again under the same request id.
        LinkClosed: the link is gone; the same.
        SwarmError: the other end does not serve us.

    Cancellation: the other end's handler is cancelled; a write may have been made.
    """
    opening = _Opening(
        method=request.method,
        target=request.target,
        path=request.path,
        query=request.query.pairs,
        headers=request.headers.pairs,
        request_id=origin.request_id,
        client=origin.client,
    )
    stream = await stack.enter_async_context(link.open_stream(METHOD, pack(opening)))
    await _send_pieces(stream.send, request.body)
    stream.end()
    head = unpack(await _first_chunk(stream), _Head)
    if not head.streamed:
        body = b"".join([chunk async for chunk in stream])
        return Response(head.status, head.headers, body)

    async def write(send: SendChunk) -> None:
        async for chunk in stream:
            await send(chunk)

    return StreamedResponse(head.status, head.headers, write, head.endless)


async def _first_chunk(stream: LinkStream) -> bytes:
    try:
        return await stream.receive()
    except trio.EndOfChannel:
        raise Unavailable("the leader ended the stream without an answer") from None


async def _send_pieces(send: SendChunk, data: bytes) -> None:
    for start in range(0, len(data), CHUNK_BYTES):
        await send(data[start : start + CHUNK_BYTES])


# --- the leader ----------------------------------------------------------------------------------


async def serve_forwarded(
    answer: Callable[[Request, Origin], Awaitable[Reply]], link: Link, stream: LinkStream
) -> None:
    """Answer what another manager's client asks. A stream method; the door admits managers only.

    Args:
        answer: as the leader, or raises NoLeader.

    Raises:
        NoLeader, LostLeadership: the other manager shall look for the leader again.
    """
    assert link.peer_certificate_der is not None  # the door lets nobody in without
    opening = unpack(stream.body, _Opening)
    node_id = identity_of(link.peer_certificate_der).node_id
    origin = Origin(node_id, opening.request_id, opening.client)
    level = logging.DEBUG if opening.method in SAFE_METHODS else logging.INFO
    log.log(level, "%s %s for %s at node %s", opening.method, opening.path, opening.client, node_id)
    request = Request(
        method=opening.method,
        target=opening.target,
        path=opening.path,
        query=Fields(opening.query),
        headers=Fields(opening.headers),
        body=await _receive_body(stream),
    )
    await _send_reply(stream, await _answered(answer, request, origin))


async def _answered(
    answer: Callable[[Request, Origin], Awaitable[Reply]], request: Request, origin: Origin
) -> Reply:
    """Return the reply; an error is one, as it is to a client that asks here."""
    try:
        return await answer(request, origin)
    except (NoLeader, LostLeadership):
        raise
    except SwarmError as error:
        return error_response(error.status, error.message)


async def _receive_body(stream: LinkStream) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in stream:
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise BodyTooLarge(f"request body is larger than {MAX_BODY_BYTES} bytes")
    return b"".join(pieces)


async def _send_reply(stream: LinkStream, reply: Reply) -> None:
    async def send(chunk: bytes) -> None:
        await _send_pieces(stream.send, chunk)

    if isinstance(reply, Response):
        await stream.send(pack(_Head(status=reply.status, headers=reply.headers)))
        await send(reply.body)
    elif isinstance(reply, StreamedResponse):
        head = _Head(
            status=reply.status, headers=reply.headers, streamed=True, endless=reply.endless
        )
        await stream.send(pack(head))
        await reply.write(send)
    else:
        raise SwarmError("an answer that takes the connection over cannot be forwarded")
