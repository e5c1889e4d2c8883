"""One request on its way to a handler, and the shapes of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import BadRequest
from ..model.codec import decode_json, encode_json
from ..wire.http1 import Request, Response, json_response
from ..wire.http_server import StreamedResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..wire.http1 import Fields
    from ..wire.http_server import Reply
    from .forward import Origin

T = TypeVar("T")

EMPTY = Response(200)
PIECE_ITEMS = 128
"""How many objects are encoded in one go: some 1 ms, so that a long list lets others work."""

WHOLE_ITEMS_MAX = 2 * PIECE_ITEMS


class Call(NamedTuple):
    """One request on its way to a handler.

    Attributes:
        params: what the path named.
        version: the API version of the path's prefix, "" without one.
        origin: where it came in: the node that ``self`` means, and the id that all attempts to have
            this request answered share.
        receive_body: gives the body piece by piece, for the routes that read it themselves.
    """

    request: Request
    params: dict[str, str]
    version: str
    origin: Origin
    receive_body: Callable[[], Awaitable[bytes]] | None = None

    @property
    def query(self) -> Fields:
        return self.request.query

    def body(self, model: type[T]) -> T:
        """Decode the body; no body at all is the zero value.

        Raises:
            BadRequest: no JSON, or not of this shape; the text names the place.
        """
        request = self.request
        announced = "transfer-encoding" in request.headers  # Docker: then it may not be empty
        if request.body or announced:
            content_type = request.headers.get("content-type")
            if content_type.partition(";")[0].strip().lower() != "application/json":
                raise BadRequest(
                    f"unsupported Content-Type header ({content_type}): must be 'application/json'"
                )
        return decode_json(request.body, model, allow_empty=not announced)

    def older_than(self, minor: int) -> bool:
        """True when the client asked for an API version below ``1.<minor>``."""
        numbers = [int(part or 0) for part in self.version.split(".")]
        return bool(self.version) and numbers < [1, minor]


def json_reply(value: object, status: int = 200) -> Response:
    """Return an object as a JSON answer."""
    return json_response(status, encode_json(value))


def list_reply(items: Sequence[T], present: Callable[[T], object]) -> Reply:
    """Return a list as a JSON answer; a long one is encoded piece by piece on its way out.

    So neither encoding it nor keeping it for many slow clients costs more than a piece.

    Args:
        items: as they are now; they must not change later (rows are frozen).
        present: what of an item is shown; called late, so it may not read the tables.
    """
    if len(items) <= WHOLE_ITEMS_MAX:
        return json_reply([present(item) for item in items])

    async def write(send: Callable[[bytes], Awaitable[None]]) -> None:
        opening = b"["
        for start in range(0, len(items), PIECE_ITEMS):
            piece = encode_json([present(item) for item in items[start : start + PIECE_ITEMS]])
            await send(opening + piece[1:-1])
            opening = b","
        await send(b"]\n")

    return StreamedResponse(200, (("Content-Type", "application/json"),), write, endless=False)
