"""Join tokens and unlock keys, character by character."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.ca.token import (
    JoinToken,
    UnlockKey,
    build_token,
    parse_token,
    parse_unlock_key,
    require_root,
    root_digest,
)
from swarmctl.core.errors import InvalidJoinToken, InvalidUnlockKey, SwarmError, UnknownAuthority

# The example of Docker's own documentation: a token as real clusters print it.
REAL = "SWMTKN-1-49nj1cmql0jkz5s954yi3oex3nedyz0fb0xx14ie39trti4wxv-8vxv8rssmk743ojnwacrr2e7c"
SECRET = REAL.rsplit("-", 1)[1]


def test_a_real_token_reads_and_prints_unchanged() -> None:
    """A token printed by Docker parses, and reveals itself character by character."""
    token = parse_token(f"  {REAL}\n")
    assert token.digest == "49nj1cmql0jkz5s954yi3oex3nedyz0fb0xx14ie39trti4wxv"
    assert token.reveal() == REAL


@given(st.binary(max_size=200), st.binary(min_size=16, max_size=16))
def test_digest_and_secret_are_padded_base_36(root: bytes, secret: bytes) -> None:
    """Both parts are the big-endian numbers in base 36 at fixed width, read back by int()."""
    token = build_token(root, secret)
    prefix, version, digest, shown = token.reveal().split("-")
    assert (prefix, version, len(digest), len(shown)) == ("SWMTKN", "1", 50, 25)
    assert int(digest, 36).to_bytes(32, "big") == hashlib.sha256(root).digest()
    assert int(shown, 36).to_bytes(16, "big") == secret
    assert parse_token(token.reveal()) == token


def test_the_smallest_numbers_keep_their_width() -> None:
    """A secret of zeros prints 25 zeros, not one."""
    assert build_token(b"", bytes(16)).secret == "0" * 25
    assert build_token(b"", b"\xff" * 16).secret == "f5lxx1zz5pnorynqglhzmsp33"


def test_the_digest_covers_the_whole_bundle() -> None:
    """One PEM of a two-root bundle, or the same two in another order, is another digest."""
    one, two = b"-----A-----\n", b"-----B-----\n"
    token = build_token(one + two, bytes(16))
    require_root(token, one + two)
    for wrong in (one, two, two + one, one + two + b"\n", b""):
        with pytest.raises(UnknownAuthority, match=r"another swarm.*rotated"):
            require_root(token, wrong)
    assert root_digest(one) != root_digest(one + two)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("hello", "no join token"),
        (REAL.lower(), "no join token"),
        (f"SWMKEY-1-{'A' * 43}", "unlock key"),
        (REAL.replace("-1-", "-2-1-"), "FIPS"),
        (REAL.replace("-1-", "-7-"), "not of version 1"),
        ("SWMTKN", "no join token"),
        ("SWMTKN-1-abc", "3 parts"),
        (REAL + "-x", "5 parts"),
        (REAL[:-1], "fourth part.*24 characters instead of 25"),
        (REAL + "0", "26 characters"),
        (REAL.replace("49nj", "9nj"), "third part.*49 characters instead of 50"),
        (REAL[:-1] + "C", "lower-case"),
        (REAL[:-1] + "é", "lower-case"),
    ],
)
def test_a_damaged_token_is_refused_in_words(text: str, says: str) -> None:
    """The text says what kind of wrong it is, and what a token looks like or was cut to."""
    with pytest.raises(InvalidJoinToken, match=says):
        parse_token(text)


@given(st.text() | st.text(alphabet="SWMTKN-12ab").map(lambda tail: "SWMTKN-1-" + tail))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No input gives anything but a token that prints as it was, or a refusal."""
    try:
        token = parse_token(text)
    except InvalidJoinToken:
        return
    assert token.reveal() == text.strip()


def test_no_secret_shows_itself() -> None:
    """Neither repr, str, format, nor any refusal holds the secret part."""
    token, key = parse_token(REAL), UnlockKey(b"s3cr3t-s3cr3t-s3cr3t-s3cr3t-32by")
    for shown in (repr(token), str(token), f"{token}", repr([token]), repr(key), f"{key}"):
        assert SECRET not in shown
        assert "s3cr3t" not in shown
    for damaged in (REAL[1:], REAL + "-x", REAL.replace("49nj", "4"), REAL.replace("-1-", "-9-")):
        with pytest.raises(InvalidJoinToken) as refused:
            parse_token(damaged)
        assert SECRET not in str(refused.value)


def test_equality_is_of_the_whole_token() -> None:
    """Tokens are equal when digest and secret are; they hash alike and equal no mere text."""
    token = parse_token(REAL)
    assert token == parse_token(REAL)
    assert hash(token) == hash(parse_token(REAL))
    assert token != JoinToken(token.digest, "0" * 25)
    assert token != JoinToken("0" * 50, token.secret)
    assert token != REAL
    assert token.fingerprint() != JoinToken(token.digest, "0" * 25).fingerprint()
    assert SECRET not in token.fingerprint()


@given(st.binary(min_size=32, max_size=32))
def test_an_unlock_key_survives_its_text(key: bytes) -> None:
    """SWMKEY-1- and unpadded standard base64 of 32 bytes, there and back."""
    text = UnlockKey(key).reveal()
    assert text == "SWMKEY-1-" + base64.b64encode(key).decode().rstrip("=")
    assert len(text) == len("SWMKEY-1-") + 43
    assert parse_unlock_key(f"\t{text}\n") == UnlockKey(key)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no unlock key"),
        (REAL, "join token"),
        ("SWMKEY-1-", "holds 0 bytes"),
        ("SWMKEY-2-" + "A" * 43, "no unlock key"),
        ("SWMKEY-1-" + "A" * 42, "holds 31 bytes"),
        ("SWMKEY-1-" + "A" * 41, "damaged"),
        ("SWMKEY-1-" + "A" * 42 + "!", "damaged"),
        ("SWMKEY-1-" + "é" * 43, "damaged"),
    ],
)
def test_a_damaged_unlock_key_is_refused_in_words(text: str, says: str) -> None:
    """The text says what is wrong and quotes nothing."""
    with pytest.raises(InvalidUnlockKey, match=says) as refused:
        parse_unlock_key(text)
    assert isinstance(refused.value, SwarmError)
    assert "AAAA" not in str(refused.value)


def test_a_secret_of_another_size_is_a_bug() -> None:
    """build_token takes 16 bytes and nothing else."""
    with pytest.raises(ValueError, match="16 bytes"):
        build_token(b"root", b"short")
