"""The registry of swarmctl's own labels (core/model/labels.py)."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from swarmctl.core.errors import InvalidArgument
from swarmctl.core.model import labels
from swarmctl.core.model.labels import FILES, LABELS, SERVICES, check_labels, find_label
from swarmctl.core.model.validate import check_object_name


def _refusal(name: str, value: str) -> str:
    with pytest.raises(InvalidArgument) as caught:
        check_labels({name: value}, on=SERVICES)
    return str(caught.value)


def test_foreign_labels_pass() -> None:
    """Labels of users, of Docker and of our plugins are nobody's business here."""
    check_labels(
        {
            "com.docker.stack.namespace": "s",
            "swarmctl": "x",
            "swarmctlx.a": "b",
            "": "",
            "swarmctl.x.myplugin.weight": "3",
            "swarmctl.x.my-plugin.a.b": "",
        }
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "swarmctl.scale.mn",
            "unknown label 'swarmctl.scale.mn'; did you mean 'swarmctl.scale.min'?",
        ),
        (
            "swarmctl.Strategy",
            "unknown label 'swarmctl.Strategy'; did you mean 'swarmctl.strategy'?",
        ),
        (
            "swarmctl.qqq",
            (
                "unknown label 'swarmctl.qqq'; labels that begin with 'swarmctl.' are reserved for "
                "swarmctl's own"
            ),
        ),
        (
            "swarmctl.x.weight",
            "label 'swarmctl.x.weight': a plugin's labels are named swarmctl.x.<plugin>.<name>",
        ),
    ],
)
def test_a_typo_is_an_error(name: str, text: str) -> None:
    """An unknown label is refused, with the nearest known one."""
    assert _refusal(name, "1") == text


def test_a_wrong_word_is_an_error_with_all_that_there_are() -> None:
    """Where a label has a few words, they are named."""
    assert _refusal("swarmctl.rebalance", "sometimes") == (
        "label 'swarmctl.rebalance' has the invalid value 'sometimes'; right would be 'on-join', "
        "'never'"
    )
    assert _refusal("swarmctl.scale.mode", "on") == (
        "label 'swarmctl.scale.mode' has the invalid value 'on'; right would be 'act', "
        "'recommend', 'off'\n  on\n  ^"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("swarmctl.scale.min", "two"),
        ("swarmctl.scale.min", "-1"),
        ("swarmctl.scale.min", "\N{ARABIC-INDIC DIGIT THREE}"),
        ("swarmctl.scale.min", "1\n"),
        ("swarmctl.depends-on", "db"),
        ("swarmctl.publish.8080.ip", ""),
    ],
)
def test_a_wrong_value_is_an_error_with_a_right_one(name: str, value: str) -> None:
    """A value outside its grammar is refused, and the text shows one that is right."""
    text = _refusal(name, value)
    assert f"has the invalid value {value!r}; right would be, for example, " in text


def test_a_long_name_that_is_wrong_is_refused_at_once() -> None:
    """However it could be cut into pieces it is read once; to try all of them would never end."""
    text = _refusal("swarmctl.depends-on", "authentication-service-of-the-whole-production-cluster")
    assert "for example, 'db:healthy,migrate:completed'" in text
    with pytest.raises(InvalidArgument, match="must be valid as a DNS name component"):
        check_object_name("authenticationserviceofthewholeproductioncluster.example")


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.name)
def test_nothing_is_accepted_and_not_done(label: labels.Label) -> None:
    """A registered label whose feature is not there is refused in clear words."""
    name = re.sub(r"<port>", "8080", label.name)
    name = re.sub(r"<\w+>", "front", name)
    assert find_label(name) is label
    if label.available:
        check_labels({name: label.example}, on=label.on)
    else:
        text = f"label {name!r} is not available in this release"
        assert _refusal(name, label.example) == text


@pytest.mark.parametrize(
    ("name", "value", "on", "where"),
    [
        ("swarmctl.versions", "auto", SERVICES, "secrets and configs"),
        ("swarmctl.strategy", "spread", FILES, "services"),
        ("swarmctl.strategy", "spread", labels.OTHERS, "services"),
    ],
)
def test_a_label_in_the_wrong_place_is_an_error(name: str, value: str, on: str, where: str) -> None:
    """It would be accepted and mean nothing."""
    with pytest.raises(InvalidArgument, match=f"label '{name}' is for {where} only"):
        check_labels({name: value}, on=on)


def test_an_available_label_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flipping ``available`` is all that a feature has to do here."""
    label = replace(LABELS[0], available=True)
    monkeypatch.setattr(labels, "_PATTERNS", ((label, labels._pattern(label.name)),))
    check_labels({label.name: label.example}, on=label.on)


def test_names_are_unique_and_prefixed() -> None:
    """No two rows of the table share a name, and all are in our own space."""
    names = [label.name for label in LABELS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("swarmctl.") for name in names)
    assert find_label("swarmctl.publish.http.ip") is None
