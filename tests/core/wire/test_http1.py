"""The HTTP/1.1 codec, both sides, without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.errors import RemoteProtocolError
from swarmctl.core.wire.http1 import (
    MAX_HEAD_BYTES,
    BodyTooLarge,
    ClientCodec,
    Fields,
    HeadTooLarge,
    Request,
    Response,
    ResponseHead,
    ServerCodec,
    Signal,
    error_response,
    json_response,
)

GET = b"GET /v1.50/services?filters=%7B%22a%22%7D&x=&x=2 HTTP/1.1\r\nHost: d\r\n\r\n"
HEAD = b"HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
POST = (
    b"POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
    b"Content-Length: 4\r\n\r\n{  }"
)
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
)


def read_all(
    codec: ServerCodec, pieces: list[bytes], requests: list[Request] | None = None
) -> list[Request]:
    """Feed the pieces and answer every whole request, as a server would."""
    requests = [] if requests is None else requests
    head: Request | None = None
    for piece in pieces:
        codec.receive(piece)
        while True:
            if head is None:
                event = codec.next_head()
                if not isinstance(event, Request):
                    break
                head = event
            body = codec.next_body()
            if not isinstance(body, bytes):
                break
            requests.append(head._replace(body=body))
            head = None
            codec.answer(Response(200))
            if not codec.next_cycle():
                return requests
    return requests


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


class TestRequests:
    def test_path_and_query_are_decoded_and_the_target_is_kept(self) -> None:
        """Path and query are shown percent-decoded, empty and repeated values included."""
        [request] = read_all(ServerCodec(), [GET])
        assert request.path == "/v1.50/services"
        assert request.query == Fields([("filters", '{"a"}'), ("x", ""), ("x", "2")])
        assert request.query.all("x") == ("", "2")
        assert request.query.get("y", "none") == "none"
        assert request.target.startswith("/v1.50/services?filters=%7B")

    def test_a_path_may_hold_escaped_slashes_and_colons(self) -> None:
        """Image names reach the handler as the client meant them, escaped or not."""
        data = b"GET /distribution/reg:5000/x%2Fy:1/json HTTP/1.1\r\nHost: d\r\n\r\n"
        [request] = read_all(ServerCodec(), [data])
        assert request.path == "/distribution/reg:5000/x/y:1/json"

    def test_an_absolute_target_is_read_like_a_path(self) -> None:
        """Clients that write the whole URL, as to a proxy, get the same route."""
        data = b"GET http://docker/_ping?a=1 HTTP/1.1\r\nHost: docker\r\n\r\n"
        [request] = read_all(ServerCodec(), [data])
        assert (request.path, request.query.get("a")) == ("/_ping", "1")

    def test_header_names_are_lower_case(self) -> None:
        """Headers are looked up in lower case, however the client wrote them."""
        [request] = read_all(ServerCodec(), [POST])
        assert request.headers.get("content-type") == "application/json"

    @pytest.mark.parametrize("split", [lambda data: [data], one_by_one], ids=["whole", "bytewise"])
    def test_pipelined_requests_come_out_in_order(self, split) -> None:
        """Requests come out whole and in order, however their bytes were cut."""
        requests = read_all(ServerCodec(), split(GET + POST + CHUNKED))
        assert [request.method for request in requests] == ["GET", "POST", "POST"]
        assert [request.body for request in requests] == [b"", b"{  }", b"abcde"]

    def test_a_head_that_is_too_long_is_refused_with_431(self) -> None:
        """A header longer than the limit is refused before it is buffered whole."""
        codec = ServerCodec()
        codec.receive(b"GET / HTTP/1.1\r\nHost: d\r\nX: " + b"x" * MAX_HEAD_BYTES)
        with pytest.raises(HeadTooLarge) as caught:
            codec.next_head()
        assert caught.value.status == 431
        assert codec.refusal(caught.value).startswith(b"HTTP/1.1 431 ")

    def test_what_follows_a_head_is_refused_in_words(self) -> None:
        """That the request before had to be answered without a body says nothing of this one."""
        codec = ServerCodec()
        assert read_all(codec, [HEAD])
        codec.receive(b"nonsense\r\n\r\n")
        with pytest.raises(RemoteProtocolError) as caught:
            codec.next_head()
        assert b'{"message":' in codec.refusal(caught.value)

    @pytest.mark.parametrize(
        "head",
        [b"Content-Length: 11\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11],
    )
    def test_a_body_over_the_limit_is_refused_with_413(self, head: bytes) -> None:
        """An announced length is refused at once, a chunked body as soon as it is too long."""
        codec = ServerCodec()
        codec.receive(b"POST / HTTP/1.1\r\nHost: d\r\n" + head)
        assert isinstance(codec.next_head(), Request)
        with pytest.raises(BodyTooLarge) as caught:
            codec.next_body(limit_bytes=10)
        assert b"413" in codec.refusal(caught.value)

    def test_a_client_that_waits_is_told_to_go_ahead_once(self) -> None:
        """``Expect: 100-continue`` is answered before the body is read, and only then."""
        codec = ServerCodec()
        codec.receive(
            b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        )
        codec.next_head()
        assert codec.next_body() is Signal.NEED_DATA
        assert codec.go_ahead().startswith(b"HTTP/1.1 100 ")
        assert codec.go_ahead() == b""
        codec.receive(b"x")
        assert codec.next_body() == b"x"

    def test_the_end_between_requests_is_no_error(self) -> None:
        """A client may close a connection that it keeps alive; in mid-request it may not."""
        codec = ServerCodec()
        codec.receive(b"")
        assert codec.next_head() is Signal.CLOSED
        broken = ServerCodec()
        broken.receive(b"GET / HT")
        broken.receive(b"")
        with pytest.raises(RemoteProtocolError):
            broken.next_head()


class TestAnswers:
    def answer(self, request: bytes, response: Response) -> bytes:
        codec = ServerCodec()
        codec.receive(request)
        codec.next_head()
        codec.next_body()
        return codec.answer(response)

    def test_json_answers_are_exactly_dockers(self) -> None:
        """JSON goes out as ``application/json`` without a charset, one newline at the end."""
        head, body = self.answer(GET, json_response(201, b'{"ID":"x"}')).split(b"\r\n\r\n")
        assert head.splitlines() == [
            b"HTTP/1.1 201 Created",
            b"Content-Type: application/json",
            b"Content-Length: 11",
        ]
        assert body == b'{"ID":"x"}\n'

    def test_error_answers_hold_a_message(self) -> None:
        """An error's text reaches the client unescaped, as the one field ``message``."""
        assert error_response(404, "service ü <x> not found").body == (
            '{"message":"service ü <x> not found"}\n'.encode()
        )

    def test_head_gets_the_headers_of_get_and_no_body(self) -> None:
        """HEAD is answered with the length that GET would have, and nothing after the headers."""
        data = self.answer(GET.replace(b"GET", b"HEAD"), Response(200, (), b"OK"))
        assert data.endswith(b"Content-Length: 2\r\n\r\n")

    def test_no_content_has_neither_length_nor_body(self) -> None:
        """204 and 304 go out bare."""
        assert self.answer(GET, Response(204, (), b"ignored")) == b"HTTP/1.1 204 No Content\r\n\r\n"

    def test_an_http_1_0_client_gets_no_chunks(self) -> None:
        """A body of unknown length ends with the connection where chunks are not known."""
        codec = ServerCodec()
        codec.receive(b"GET / HTTP/1.0\r\n\r\n")
        codec.next_head()
        codec.next_body()
        data = codec.begin(200, ()) + codec.chunk(b"abc") + codec.finish()
        assert b"chunked" not in data
        assert b"Connection: close" in data
        assert data.endswith(b"\r\n\r\nabc")
        assert not codec.next_cycle()

    @pytest.mark.parametrize("header", [("X", "a\r\nInjected: 1"), ("X Y", "a"), ("X", "\u20ac")])
    def test_a_header_that_cannot_be_sent_changes_nothing(self, header: tuple[str, str]) -> None:
        """A bad header is the handler's mistake: it raises, and another answer can still go."""
        codec = ServerCodec()
        codec.receive(GET)
        codec.next_head()
        codec.next_body()
        with pytest.raises(ValueError, match="cannot be sent"):
            codec.answer(Response(200, (header,)))
        assert codec.answer(Response(500)).startswith(b"HTTP/1.1 500")

    def test_a_takeover_hands_on_what_came_early(self) -> None:
        """After 101 the raw bytes that followed the request are given to the new owner."""
        codec = ServerCodec()
        codec.receive(
            b"POST /exec/1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            b"Content-Length: 2\r\n\r\n{}stdin"
        )
        codec.next_head()
        assert codec.next_body() == b"{}"
        head, early = codec.take_over(101, (("Connection", "Upgrade"), ("Upgrade", "tcp")))
        assert head == (b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert early == b"stdin"


class TestClient:
    def exchange(self, *answers: bytes) -> tuple[ClientCodec, ResponseHead, bytes]:
        codec = ClientCodec()
        codec.request("GET", "/x", (("Host", "d"),))
        for answer in answers:
            codec.receive(answer)
        head = codec.next_head()
        assert isinstance(head, ResponseHead)
        body = b""
        while isinstance(chunk := codec.next_chunk(), bytes):
            body += chunk
        return codec, head, body

    def test_what_the_server_encodes_the_client_reads(self) -> None:
        """Both sides agree: request, headers, chunks and the next cycle."""
        server, client = ServerCodec(), ClientCodec()
        for _ in range(2):
            server.receive(client.request("POST", "/a%20b?q=1", (("Host", "d"),), b"body"))
            request = server.next_head()
            assert isinstance(request, Request)
            assert (request.path, server.next_body()) == ("/a b", b"body")
            client.receive(server.begin(200, (("X-A", "1"),)) + server.chunk(b"one"))
            assert client.next_head() == ResponseHead(
                200, Fields([("x-a", "1"), ("transfer-encoding", "chunked")])
            )
            assert client.next_chunk() == b"one"
            assert client.next_chunk() is Signal.NEED_DATA
            client.receive(server.finish())
            assert client.next_chunk() is Signal.END
            assert server.next_cycle()
            assert client.next_cycle()

    def test_go_ahead_answers_are_not_shown(self) -> None:
        """The client sees the final answer, not the 100 before it."""
        _, head, body = self.exchange(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
        )
        assert (head.status, body) == (200, b"hi")

    def test_an_upgrade_leaves_the_rest_to_its_new_owner(self) -> None:
        """After 101 the client gives out the raw bytes that followed."""
        codec = ClientCodec()
        codec.request("POST", "/x", (("Host", "d"), ("Connection", "Upgrade"), ("Upgrade", "tcp")))
        codec.receive(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nraw")
        head = codec.next_head()
        assert isinstance(head, ResponseHead)
        assert head.status == 101
        assert codec.leftover() == b"raw"

    def test_a_cut_answer_is_an_error(self) -> None:
        """A body that ends before its length is not passed off as whole."""
        with pytest.raises(RemoteProtocolError):
            self.exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", b"")

    def test_a_request_that_cannot_be_sent_is_refused(self) -> None:
        """A name with a space or a line break does not become another request."""
        for target in ("/a b", "/a\r\nX: 1"):
            with pytest.raises(ValueError, match="cannot be sent"):
                ClientCodec().request("GET", target, (("Host", "d"),))


# Bytes near HTTP find more than random ones.
LIKELY = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.one_of(
            st.sampled_from(
                (
                    *(GET, HEAD, POST, CHUNKED, b"GET ", b" HTTP/1.1\r\n", b"Host: d\r\n", b"%ff"),
                    *(b"Content-Length: ", b"9" * 25, b"0\r\n", b"\r\n", b"Upgrade: x\r\n"),
                    *(b"Transfer-Encoding: chunked\r\n", b"Connection: upgrade\r\n"),
                    b"Expect: 100-continue\r\n",
                )
            ),
            st.binary(max_size=5),
        ),
        max_size=8,
    ).map(b"".join),
)


def outcome(codec: ServerCodec, pieces: list[bytes]) -> tuple[list[Request], bool]:
    requests: list[Request] = []
    try:
        read_all(codec, pieces, requests)
    except RemoteProtocolError:
        return requests, True
    return requests, False


class TestAnyBytes:
    @given(LIKELY)
    def test_a_server_gives_requests_or_a_protocol_error(self, data: bytes) -> None:
        """Any bytes, whole or one at a time, give the same: requests, or RemoteProtocolError."""
        assert outcome(ServerCodec(), [data, b""]) == outcome(
            ServerCodec(), [*one_by_one(data), b""]
        )

    @given(LIKELY)
    def test_a_refused_peer_can_be_told_why(self, data: bytes) -> None:
        """Whatever was wrong, an answer that says so can be encoded."""
        codec = ServerCodec()
        try:
            read_all(codec, [data, b""])
        except RemoteProtocolError as error:
            refusal = codec.refusal(error)
            assert refusal == b"" or b'{"message":' in refusal

    @given(st.one_of(st.binary(max_size=200), LIKELY.map(lambda tail: b"HTTP/1.1 200 \r\n" + tail)))
    def test_a_client_gives_an_answer_or_a_protocol_error(self, data: bytes) -> None:
        """Any bytes from a server give an answer, a wish for more, or RemoteProtocolError."""
        codec = ClientCodec()
        codec.request("GET", "/", (("Host", "d"),))
        try:
            codec.receive(data)
            codec.receive(b"")
            head = codec.next_head()
            if isinstance(head, ResponseHead) and head.status != 101:
                while isinstance(codec.next_chunk(), bytes):
                    pass
        except RemoteProtocolError:
            pass
