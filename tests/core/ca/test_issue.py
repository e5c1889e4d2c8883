"""Which door a token opens, and what the refusals say."""

from __future__ import annotations

import pytest

from swarmctl.core.ca import x509
from swarmctl.core.ca.issue import MAX_RETIRED, admit, fresh_tokens, node_expiry_ns, retire
from swarmctl.core.ca.token import build_token
from swarmctl.core.errors import InvalidJoinToken

ROOT, OTHER_ROOT = b"root of this swarm", b"root of another"
WORKER, MANAGER = fresh_tokens(ROOT, worker_secret=b"w" * 16, manager_secret=b"m" * 16)


def test_the_secret_decides_the_role() -> None:
    """Each of the two tokens opens its own door."""
    assert admit(WORKER, worker=WORKER, manager=MANAGER) is x509.Role.WORKER
    assert admit(f"{MANAGER}\n", worker=WORKER, manager=MANAGER) is x509.Role.MANAGER
    assert x509.Role("manager").unit == "swarm-manager"


@pytest.mark.parametrize(
    ("presented", "says"),
    [
        (build_token(ROOT, b"x" * 16).reveal(), "mistyped"),
        (build_token(OTHER_ROOT, b"w" * 16).reveal(), "another swarm"),
        (build_token(ROOT, b"o" * 16).reveal(), "was rotated and opens nothing"),
        (WORKER[:-1], "24 characters"),
        ("", "empty"),
    ],
)
def test_a_refusal_says_which_kind_of_wrong(presented: str, says: str) -> None:
    """Mistyped, foreign, rotated and damaged tokens get different sentences, without the secret."""
    retired = retire((), build_token(ROOT, b"o" * 16).reveal())
    with pytest.raises(InvalidJoinToken, match=says) as refused:
        admit(presented, worker=WORKER, manager=MANAGER, retired=retired)
    if presented:
        assert presented.rsplit("-", 1)[1] not in str(refused.value)


def test_retired_tokens_are_bounded_and_one_way() -> None:
    """The newest MAX_RETIRED fingerprints stay, and hold no token."""
    retired: tuple[str, ...] = ()
    for number in range(MAX_RETIRED + 3):
        retired = retire(retired, build_token(ROOT, number.to_bytes(16, "big")).reveal())
    assert len(retired) == MAX_RETIRED
    newest = build_token(ROOT, (MAX_RETIRED + 2).to_bytes(16, "big"))
    assert retired[-1] == newest.fingerprint()
    assert newest.secret not in retired[-1]


def test_equal_secrets_would_blur_the_roles() -> None:
    """Two tokens with one secret are refused when made."""
    with pytest.raises(ValueError, match="differ"):
        fresh_tokens(ROOT, worker_secret=b"s" * 16, manager_secret=b"s" * 16)


@pytest.mark.parametrize(
    ("configured", "lasts"),
    [
        (0, 90 * x509.DAY_NS),
        (x509.HOUR_NS - 1, 90 * x509.DAY_NS),
        (x509.HOUR_NS, x509.HOUR_NS),
        (365 * x509.DAY_NS, 365 * x509.DAY_NS),
    ],
)
def test_less_than_an_hour_means_the_default(configured: int, lasts: int) -> None:
    """A configured expiry under one hour becomes 90 days, anything else stays."""
    assert node_expiry_ns(configured) == lasts
