"""One request on its way to a handler, and the shapes of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import BadRequest
from ..model.codec import decode_json, encode_json
from ..wire.http1 import Request, Response, json_response

if TYPE_CHECKING:
    from ..wire.http1 import Fields

T = TypeVar("T")

EMPTY = Response(200)


class Call(NamedTuple):
    """One request on its way to a handler.

    Attributes:
        params: what the path named.
        version: the API version of the path's prefix, "" without one.
    """

    request: Request
    params: dict[str, str]
    version: str

    @property
    def query(self) -> Fields:
        return self.request.query

    def body(self, model: type[T]) -> T:
        """Decode the body; no body at all is the zero value.

        Raises:
            BadRequest: no JSON, or not of this shape; the text names the place.
        """
        content_type = self.request.headers.get("content-type")
        if self.request.body and content_type.partition(";")[0].strip() != "application/json":
            raise BadRequest(
                f"unsupported Content-Type header ({content_type}): must be 'application/json'"
            )
        return decode_json(self.request.body, model, allow_empty=True)


def json_reply(value: object, status: int = 200) -> Response:
    """Return an object as a JSON answer."""
    return json_response(status, encode_json(value))
