"""Frames and how they are cut out of a byte stream."""

from __future__ import annotations

import itertools
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.errors import RemoteProtocolError
from swarmctl.core.wire.frame import (
    Answer,
    Call,
    Cancel,
    Credit,
    Data,
    End,
    Failure,
    Frame,
    FrameDecoder,
    FrameTooLarge,
    GoAway,
    Hello,
    Message,
    Open,
    Ping,
    Pong,
    append_frame,
)

ids = st.integers(0, 2**62)
texts = st.text(max_size=20)
bodies = st.binary(max_size=50)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Hello, st.integers(0, 2**32), ids),
    st.builds(Message, texts, bodies),
    st.builds(Call, ids, texts, bodies, st.none() | ids),
    st.builds(Answer, ids, bodies),
    st.builds(Failure, ids, texts, texts),
    st.builds(Cancel, ids),
    st.builds(Open, ids, texts, bodies),
    st.builds(Data, ids, bodies),
    st.builds(End, ids),
    st.builds(Credit, ids, ids),
    st.builds(Ping),
    st.builds(Pong),
    st.builds(GoAway, texts, texts),
)


def decode(pieces: list[bytes], limit_bytes: int = 4096) -> tuple[list[Frame], bool]:
    """Return the frames in ``pieces``, and whether an error ended them."""
    decoder = FrameDecoder(limit_bytes)
    found: list[Frame] = []
    try:
        for piece in pieces:
            decoder.receive(piece)
            while (frame := decoder.next_frame()) is not None:
                found.append(frame)
    except RemoteProtocolError:
        return found, True
    return found, False


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(frames, max_size=10), st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_come_out_as_they_went_in(sent: list[Frame], places: list[int]) -> None:
    """Many frames in one buffer, cut anywhere, are the same frames again."""
    buffer = bytearray()
    for frame in sent:
        append_frame(buffer, frame)
    assert decode(cut(bytes(buffer), places)) == (sent, False)


@given(
    st.one_of(
        st.binary(max_size=100),
        st.lists(st.binary(max_size=20).map(lambda b: struct.pack(">I", len(b)) + b)).map(b"".join),
    )
)
def test_any_bytes_give_frames_or_a_protocol_error(data: bytes) -> None:
    """Whole or one at a time, any bytes give the same frames and the same verdict."""
    assert decode([data]) == decode([data[i : i + 1] for i in range(len(data))])


@given(frames, st.data())
def test_damage_gives_frames_or_a_protocol_error(frame: Frame, data: st.DataObject) -> None:
    """A flipped byte in a good frame is a frame or an error, never another exception."""
    buffer = bytearray()
    append_frame(buffer, frame)
    buffer[data.draw(st.integers(0, len(buffer) - 1))] ^= data.draw(st.integers(1, 255))
    decode([bytes(buffer)])


def test_frames_before_the_first_bad_byte_are_given_out() -> None:
    """Good frames are not lost because something bad follows in the same read."""
    buffer = bytearray()
    append_frame(buffer, Ping())
    assert decode([bytes(buffer) + b"\x00\x00\x00\x01\xc1"]) == ([Ping()], True)


def test_a_frame_over_the_limit_is_refused_before_it_arrives() -> None:
    """Four bytes of length are enough to refuse: nothing of the rest is buffered."""
    assert decode([struct.pack(">I", 4097)]) == ([], True)
    assert decode([struct.pack(">I", 4096)]) == ([], False)


def test_a_body_over_the_limit_is_not_sent() -> None:
    """The sender is told, and what it had queued before is untouched."""
    buffer = bytearray()
    append_frame(buffer, Ping())
    before = bytes(buffer)
    with pytest.raises(FrameTooLarge, match="does not fit"):
        append_frame(buffer, Data(1, b"x" * 100), limit_bytes=100)
    assert buffer == before


def test_fields_added_later_are_skipped() -> None:
    """A newer peer may add fields at the end; this version reads the ones it knows."""
    body = msgspec.msgpack.encode([5, 77, "new", {"and": "more"}])
    assert decode([struct.pack(">I", len(body)) + body]) == ([Cancel(77)], False)


@pytest.mark.parametrize("value", [[99, 1], [5, -1], [5, "x"], [5], {"a": 1}, 5, [9, 1, 2**63]])
def test_what_is_no_frame_is_refused(value: object) -> None:
    """Unknown numbers, missing fields, wrong types and negative counts are protocol errors."""
    body = msgspec.msgpack.encode(value)
    assert decode([struct.pack(">I", len(body)) + body]) == ([], True)


def test_deep_nesting_is_refused() -> None:
    """A hundred thousand opened arrays do not exhaust the stack."""
    body = b"\x93\x05\x01" + b"\x91" * 100_000 + b"\xc0"
    found, _broken = decode([struct.pack(">I", len(body)) + body], limit_bytes=200_000)
    assert found in ([], [Cancel(1)])
