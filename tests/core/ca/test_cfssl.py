"""What external CAs answer, from good to hostile: a certificate, or one error in our words."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarmctl.core.ca.cfssl import MAX_ANSWER_BYTES, ExternalCAFailed, certificate_in

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["success", "result", "certificate", "errors", "message", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.binary(max_size=200))
@example(b'{"success":true,"result":{"certificate":"\\ud800"}}')
def test_any_bytes_give_text_or_our_error(noise: bytes) -> None:
    """Whatever an answer holds, only ExternalCAFailed comes out of it."""
    for status in (200, 500):
        with suppress(ExternalCAFailed):
            assert isinstance(certificate_in(status, noise), bytes)


def test_an_answer_that_nests_without_end_is_refused() -> None:
    """A hostile depth is no reason to fall over."""
    with pytest.raises(ExternalCAFailed, match="something else than CFSSL's JSON"):
        certificate_in(200, b'{"x":' + b"[" * (MAX_ANSWER_BYTES - 5))


@given(JSON)
def test_any_json_gives_text_or_our_error(value: object) -> None:
    """JSON of another shape is refused as such."""
    with suppress(ExternalCAFailed):
        assert certificate_in(200, json.dumps(value).encode())


def test_what_is_quoted_of_a_refusal_is_short() -> None:
    """A long page from a proxy, or long reasons, do not fill the log."""
    page = b"<html>" + b"x" * 10_000
    reasons = {"success": False, "errors": [{"message": "y" * 10_000}]}
    for status, body in ((502, page), (200, json.dumps(reasons).encode())):
        with pytest.raises(ExternalCAFailed) as refused:
            certificate_in(status, body)
        assert len(str(refused.value)) < 300
