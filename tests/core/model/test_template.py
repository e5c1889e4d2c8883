"""Placeholders in specs (core/model/template.py)."""

from __future__ import annotations

import pytest

from swarmctl.core.model.template import check_template, expand

FIELDS = {".Service.Name": "web", ".Task.Slot": "3", ".Node.Platform.OS": "linux"}
LABELS = {"b": "2", "a": "1", "com.example.x": "y"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain } text", "plain } text"),
        ("{{.Service.Name}}-{{ .Task.Slot }}", "web-3"),
        ("{{- .Node.Platform.OS -}}", "linux"),
        ("a  {{- .Task.Slot -}} \n b {{ .Task.Slot }} c", "a3b 3 c"),
        ("{{.Service.Labels.a}}{{.Service.Labels.gone}}", "1"),
        ('{{index .Service.Labels "com.example.x"}}', "y"),
        ("{{index .Service.Labels `a`}}", "1"),
        ("{{.Service.Labels}}", "map[a:1 b:2 com.example.x:y]"),
    ],
)
def test_expanding(text: str, expanded: str) -> None:
    """Fields and labels are put in, all other text stays."""
    assert expand(text, FIELDS, LABELS) == expanded


def test_a_value_is_not_expanded_again() -> None:
    """What a label holds is text, even if it looks like a placeholder."""
    assert expand("{{.Service.Labels.a}}", FIELDS, {"a": "{{.Task.Slot}}"}) == "{{.Task.Slot}}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{.Task.Slut}}", "unknown placeholder '{{.Task.Slut}}'; known are .Service.ID,"),
        ("{{}}", "unknown placeholder '{{}}'"),
        ("{{env `PATH`}}", "unknown placeholder"),
        ("{{.Task.Slot", "is not closed by '}}'"),
        ("{{.Task.ID}}{{", "is not closed by '}}'"),
        pytest.param("{{" + " " * 50_000, "is not closed by '}}'", id="much to look through"),
    ],
)
def test_bad_templates(text: str, error: str) -> None:
    """What is not understood is refused, with what would be."""
    with pytest.raises(ValueError) as caught:
        check_template(text)
    assert error in str(caught.value)
