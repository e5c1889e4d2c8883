"""The multiplexer: two of them talking, and one listening to nonsense."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core import errors
from swarmctl.core.errors import (
    FailedPrecondition,
    NoLeader,
    NotFound,
    OutOfSequence,
    PermissionDenied,
    RemoteProtocolError,
    SwarmError,
    Unavailable,
)
from swarmctl.core.wire.calls import (
    CHUNK_COST_BYTES,
    PROTOCOL,
    Event,
    LinkClosed,
    Multiplexer,
    error_from_wire,
    error_to_wire,
)
from swarmctl.core.wire.frame import (
    Answer,
    Call,
    Cancel,
    Credit,
    Data,
    End,
    Failure,
    Frame,
    FrameTooLarge,
    GoAway,
    Hello,
    Message,
    Open,
    Ping,
    append_frame,
)

from .test_frame import frames

WINDOW = 1000


def pair(**options: int) -> tuple[Multiplexer, Multiplexer]:
    options = {"window_bytes": WINDOW, **options}
    dialler = Multiplexer(dialling=True, **options)
    acceptor = Multiplexer(dialling=False, **options)
    assert carry(dialler, acceptor) == []
    assert carry(acceptor, dialler) == []
    return dialler, acceptor


def carry(sender: Multiplexer, receiver: Multiplexer) -> list[Event]:
    receiver.receive(sender.take_outgoing())
    return drain(receiver)


def drain(mux: Multiplexer) -> list[Event]:
    events = []
    while (event := mux.next_event()) is not None:
        events.append(event)
    return events


def hear(mux: Multiplexer, *said: Frame) -> list[Event]:
    buffer = bytearray()
    for frame in said:
        append_frame(buffer, frame)
    mux.receive(buffer)
    return drain(mux)


class TestCalls:
    def test_a_call_is_answered(self) -> None:
        """A call arrives with its deadline, its answer with its id; nothing is left queued."""
        a, b = pair()
        number = a.begin_call("m", b"ask", 1500)
        assert carry(a, b) == [Call(number, "m", b"ask", 1500)]
        b.answer(number, b"told")
        assert carry(b, a) == [Answer(number, b"told")]
        assert not a.wants_to_send
        assert not b.wants_to_send

    def test_both_sides_may_call_at_once(self) -> None:
        """Ids of the two sides never meet."""
        a, b = pair()
        ours, theirs = a.begin_call("m", b""), b.begin_call("m", b"")
        assert ours != theirs
        assert [event.id for event in carry(a, b)] == [ours]
        assert [event.id for event in carry(b, a)] == [theirs]

    def test_a_failure_is_rebuilt_as_its_leaf(self) -> None:
        """The caller gets the same class and text that the server raised."""
        a, b = pair()
        number = a.begin_call("m", b"")
        carry(a, b)
        b.fail(number, PermissionDenied("workers may not"))
        [failure] = carry(b, a)
        assert isinstance(failure, Failure)
        error = error_from_wire(failure.leaf, failure.text)
        assert type(error) is PermissionDenied
        assert str(error) == "workers may not"

    def test_a_cancel_and_an_answer_may_cross(self) -> None:
        """A cancelled call's late answer is dropped, and so is a late cancel."""
        a, b = pair()
        number = a.begin_call("m", b"")
        carry(a, b)
        a.cancel(number)
        b.answer(number, b"late")
        assert carry(b, a) == []
        assert carry(a, b) == []
        b.answer(number, b"again")
        assert not b.wants_to_send

    def test_a_cancelled_call_is_told_to_its_server(self) -> None:
        """The server learns of a cancel while it works, and its answer goes nowhere."""
        a, b = pair()
        number = a.begin_call("m", b"")
        carry(a, b)
        a.cancel(number)
        assert carry(a, b) == [Cancel(number)]
        b.answer(number, b"")
        b.fail(number, NotFound("x"))
        assert not b.wants_to_send

    def test_one_call_too_many_is_refused_and_the_others_go_on(self) -> None:
        """Over the limit a call fails with Unavailable; a finished one makes room."""
        a, b = pair(max_served=2)
        first, _second, third = (a.begin_call("m", b"") for _ in range(3))
        assert [event.id for event in carry(a, b)] == [first, _second]
        [refused] = carry(b, a)
        assert isinstance(refused, Failure)
        assert (refused.id, refused.leaf) == (third, "Unavailable")
        b.answer(first, b"")
        carry(b, a)
        assert len(carry(a, b)) == 0
        a.begin_call("m", b"")
        assert len(carry(a, b)) == 1

    def test_a_body_too_large_changes_nothing(self) -> None:
        """A call that does not fit was never begun; the next one is the first."""
        a, b = pair(max_frame_bytes=100)
        with pytest.raises(FrameTooLarge):
            a.begin_call("m", b"x" * 200)
        number = a.begin_call("m", b"")
        assert [event.id for event in carry(a, b)] == [number]

    def test_messages_arrive_in_order(self) -> None:
        """One-way messages of one burst leave in one piece and keep their order."""
        a, b = pair()
        for i in range(5):
            a.send_message("raft", bytes([i]))
        assert carry(a, b) == [Message("raft", bytes([i])) for i in range(5)]


class TestStreams:
    def test_chunks_go_both_ways_and_keep_their_boundaries(self) -> None:
        """Both halves carry chunks; the opener's end is a half-close, the server's ends all."""
        a, b = pair()
        number = a.open_stream("s", b"head")
        a.send_chunk(number, b"1")
        a.send_chunk(number, b"")
        a.end(number)
        assert carry(a, b) == [
            Open(number, "s", b"head"),
            Data(number, b"1"),
            Data(number, b""),
            End(number),
        ]
        b.send_chunk(number, b"2")
        b.end(number)
        assert carry(b, a) == [Data(number, b"2"), End(number)]
        a.cancel(number)
        assert not a.wants_to_send

    def test_no_credit_before_the_peers_hello(self) -> None:
        """Until the other side said how much it takes, a stream may be opened but not filled."""
        a, b = Multiplexer(dialling=True), Multiplexer(dialling=False, window_bytes=WINDOW)
        number = a.open_stream("s", b"")
        assert a.credit_bytes(number) == 0
        carry(b, a)
        assert a.credit_bytes(number) == WINDOW

    def test_one_chunk_may_overdraw_the_window(self) -> None:
        """A chunk of any size goes while there is credit; then the sender has to wait."""
        a, b = pair()
        number = a.open_stream("s", b"")
        a.send_chunk(number, b"x" * 5000)
        assert a.credit_bytes(number) < 0
        with pytest.raises(ValueError, match="may not send now"):
            a.send_chunk(number, b"y")
        assert len(carry(a, b)) == 2
        b.consume(number, b"x" * 5000)
        assert [type(event) for event in carry(b, a)] == [Credit]
        assert a.credit_bytes(number) == WINDOW

    def test_credit_is_granted_for_what_was_consumed_only(self) -> None:
        """Chunks that arrived but were not taken give the sender nothing."""
        a, b = pair()
        number = a.open_stream("s", b"")
        while a.credit_bytes(number) > 0:
            a.send_chunk(number, b"x" * 36)
        chunks = [event for event in carry(a, b) if isinstance(event, Data)]
        assert len(chunks) == WINDOW // (36 + CHUNK_COST_BYTES)
        assert not b.wants_to_send
        b.consume(number, chunks[0].body)
        assert not b.wants_to_send  # by half windows, not chunk by chunk
        for chunk in chunks[1:5]:
            b.consume(number, chunk.body)
        carry(b, a)
        assert a.credit_bytes(number) == 5 * (36 + CHUNK_COST_BYTES)

    @given(st.lists(st.integers(0, 2500), max_size=30), st.data())
    def test_no_stream_stalls_and_no_receiver_holds_more_than_its_window_and_a_chunk(
        self, sizes: list[int], data: st.DataObject
    ) -> None:
        """Whatever the sizes and whoever is slow, all chunks get through within the bound."""
        a, b = pair()
        number = a.open_stream("s", b"")
        waiting, held, got = list(sizes), [], []
        for _ in range(10 * len(sizes) + 10):
            if waiting and a.credit_bytes(number) > 0 and data.draw(st.booleans()):
                a.send_chunk(number, b"x" * waiting.pop(0))
            elif held and data.draw(st.booleans()):
                chunk = held.pop(0)
                b.consume(number, chunk)
                got.append(len(chunk))
            held += [event.body for event in carry(a, b) if isinstance(event, Data)]
            carry(b, a)
            costs = [len(chunk) + CHUNK_COST_BYTES for chunk in held]
            assert sum(costs) < WINDOW + max(costs, default=1)
        while waiting or held:  # and now nobody is slow: it has to finish
            while waiting and a.credit_bytes(number) > 0:
                a.send_chunk(number, b"x" * waiting.pop(0))
            held += [event.body for event in carry(a, b) if isinstance(event, Data)]
            assert held, "neither side can go on"
            for chunk in held:
                b.consume(number, chunk)
                got.append(len(chunk))
            held = []
            carry(b, a)
        assert got == sizes

    def test_a_servers_failure_ends_both_halves(self) -> None:
        """After a failure nothing more goes or comes, and late chunks are dropped."""
        a, b = pair()
        number = a.open_stream("s", b"")
        carry(a, b)
        b.fail(number, NotFound("service x not found"))
        a.send_chunk(number, b"crossing")
        assert carry(a, b) == []
        assert carry(b, a) == [Failure(number, "NotFound", "service x not found")]
        assert a.credit_bytes(number) == 0

    def test_an_openers_cancel_ends_both_halves(self) -> None:
        """The server is told once, and what it still sends goes nowhere."""
        a, b = pair()
        number = a.open_stream("s", b"")
        carry(a, b)
        a.cancel(number)
        b.send_chunk(number, b"crossing")
        assert carry(a, b) == [Cancel(number)]
        assert carry(b, a) == []
        b.send_chunk(number, b"x")
        b.end(number)
        assert not b.wants_to_send

    def test_streams_count_as_served_until_they_end(self) -> None:
        """The limit on what is served at once holds for streams and calls together."""
        a, b = pair(max_served=1)
        number = a.open_stream("s", b"")
        a.begin_call("m", b"")
        assert len(carry(a, b)) == 1
        b.end(number)
        carry(b, a)
        a.begin_call("m", b"")
        assert len(carry(a, b)) == 1


class TestViolations:
    def listening(self) -> Multiplexer:
        mux = Multiplexer(dialling=False, window_bytes=WINDOW)
        hear(mux, Hello(PROTOCOL, WINDOW))
        return mux

    def test_the_first_frame_has_to_be_a_hello(self) -> None:
        """Whoever starts otherwise is no node of ours."""
        with pytest.raises(RemoteProtocolError, match="hello first"):
            hear(Multiplexer(dialling=False), Ping())

    def test_another_version_is_named(self) -> None:
        """Two versions that cannot talk say so, and what to do."""
        with pytest.raises(RemoteProtocolError, match=r"version 7 .* bring both to one version"):
            hear(Multiplexer(dialling=False), Hello(7, WINDOW))

    @pytest.mark.parametrize(
        "said",
        [
            [Hello(PROTOCOL, WINDOW)],
            [Call(2, "m", b"")],  # our own kind of id
            [Call(1, "m", b""), Call(1, "m", b"")],
            [Call(3, "m", b""), Open(1, "s", b"")],
            [Answer(2, b"")],  # to a call never made
            [Answer(1, b"")],  # to a call of its own
            [Failure(4, "NotFound", "")],
            [Cancel(1)],
            [Cancel(2)],
            [Data(1, b"")],
            [End(2)],
            [Credit(1, 5)],
            [Open(1, "s", b""), End(1), Data(1, b"")],
            [Open(1, "s", b""), End(1), End(1)],
            [Open(1, "s", b""), Data(1, b"x" * WINDOW), Data(1, b"")],
            [Open(1, "s", b""), Failure(1, "NotFound", "")],
        ],
        ids=str,
    )
    def test_breaking_the_protocol_is_noticed(self, said: list[Frame]) -> None:
        """Frames about ids that nobody used, out of order or beyond credit end the connection."""
        with pytest.raises(RemoteProtocolError):
            hear(self.listening(), *said)

    def test_many_pings_give_one_pong(self) -> None:
        """A peer cannot make us queue more than it sends."""
        mux = self.listening()
        mux.take_outgoing()
        hear(mux, *[Ping()] * 100)
        assert mux.wants_to_send
        assert len(mux.take_outgoing()) < 10

    @given(st.lists(frames, max_size=30), st.booleans())
    def test_any_frames_give_events_or_a_protocol_error(
        self, said: list[Frame], dialling: bool
    ) -> None:
        """Well-formed nonsense gives events or RemoteProtocolError, and stays in bounds."""
        mux = Multiplexer(dialling=dialling, window_bytes=WINDOW)
        mux.begin_call("m", b"")
        mux.open_stream("s", b"")
        with contextlib.suppress(RemoteProtocolError):
            hear(mux, Hello(PROTOCOL, WINDOW), *said)
        mux.take_outgoing()

    @given(st.binary(max_size=300), st.integers(0, 300))
    def test_any_bytes_give_events_or_a_protocol_error(self, data: bytes, place: int) -> None:
        """Raw nonsense after a good Hello, cut anywhere, is met the same way."""
        mux = self.listening()
        try:
            for piece in (data[:place], data[place:]):
                mux.receive(piece)
                drain(mux)
        except RemoteProtocolError:
            pass


class TestErrors:
    @pytest.mark.parametrize(
        "leaf",
        [
            leaf
            for leaf in vars(errors).values()
            if isinstance(leaf, type)
            and issubclass(leaf, SwarmError)
            and leaf is not RemoteProtocolError
        ],
    )
    def test_every_leaf_crosses_as_itself(self, leaf: type[SwarmError]) -> None:
        """Class and text of each leaf of core.errors survive, whatever its constructor takes."""
        error = error_from_wire(leaf.__name__, "some text")
        assert (type(error), str(error)) == (leaf, "some text")
        assert error_to_wire(error) == (leaf.__name__, "some text")

    def test_a_leaf_from_elsewhere_crosses_as_its_nearest_known_ancestor(self) -> None:
        """What is about one hop (a lost link) is plain Unavailable two hops on."""
        assert error_to_wire(LinkClosed("lost")) == ("Unavailable", "lost")
        assert error_to_wire(RemoteProtocolError("bad")) == ("SwarmError", "bad")

    def test_a_leaf_unknown_here_is_a_swarm_error(self) -> None:
        """A newer peer's leaf keeps its text."""
        error = error_from_wire("FromTheFuture", "explained")
        assert (type(error), str(error)) == (SwarmError, "explained")

    def test_default_texts_cross(self) -> None:
        """Leaves with a text of their own keep it."""
        for error in (NoLeader(), OutOfSequence(), FailedPrecondition("x"), Unavailable("y")):
            assert str(error_from_wire(*error_to_wire(error))) == str(error)

    def test_a_reason_goes_with_the_end(self) -> None:
        """GoAway carries the leaf and the text of why a connection ends."""
        a, b = pair()
        a.go_away(PermissionDenied("node x was removed"))
        assert carry(a, b) == [GoAway("PermissionDenied", "node x was removed")]
