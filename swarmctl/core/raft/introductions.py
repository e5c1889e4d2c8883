"""Members show each other their disks before they speak, so that one that forgot is found out.

The first message on each link says what the sender's disk holds; until then nothing that comes over
that link is listened to. What a member answers later is remembered, and compared with what it shows
when it has been started again (``rollback.py``). It must not know what a link is.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import msgspec

from .message import Message, MessageKind
from .rollback import Known, Shown, acknowledged, answered, judge, learn

if TYPE_CHECKING:
    from collections.abc import Callable

_DURABLE = frozenset({MessageKind.VOTE_RESPONSE, MessageKind.APPEND_RESPONSE, MessageKind.APPEND})
"""What a member says in a term that is on its disk."""


class Introduction(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks on this link, and what its disk holds."""

    sender: int
    starts: int
    run: int
    term: int
    last_index: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Introduction).decode


class Introductions:
    """Who was introduced on which link, and what is remembered of each member.

    Args:
        shown: what our own disk holds now.
    """

    def __init__(self, shown: Callable[[], Shown]) -> None:
        self._shown = shown
        self._said: weakref.WeakSet[object] = weakref.WeakSet()
        self._heard: weakref.WeakSet[object] = weakref.WeakSet()
        self._known: dict[int, Known] = {}

    def due(self, link: object, own: int) -> bytes | None:
        """Return what to say on a link before anything else; None when it was `said`."""
        if link in self._said:
            return None
        return _encode(Introduction(own, *self._shown()))

    def said(self, link: object) -> None:
        """Note that what was due on a link is on its way."""
        self._said.add(link)

    def take(self, link: object, body: bytes) -> str | None:
        """Take in what a member shows; return what it has forgotten, or None to listen to it.

        Raises:
            msgspec.MsgspecError: it is no introduction.
        """
        said = _decode(body)
        shown = Shown(said.starts, said.run, said.term, said.last_index)
        known = self._known.get(said.sender, Known())
        forgotten = judge(shown, known)
        if forgotten is None:
            self._known[said.sender] = learn(known, shown)
            self._heard.add(link)
        return forgotten

    def made(self, link: object) -> bool:
        """True once the other end of a link was introduced."""
        return link in self._heard

    def note(self, message: Message, commit: int) -> None:
        """Remember what a member's message promises.

        Args:
            commit: what is committed, as far as we know.
        """
        if message.kind not in _DURABLE:
            return
        known = self._known.get(message.sender, Known())
        if message.kind is MessageKind.APPEND_RESPONSE and not message.reject:
            known = acknowledged(known, term=message.term, match=message.index, commit=commit)
        else:
            known = answered(known, term=message.term)
        self._known[message.sender] = known
