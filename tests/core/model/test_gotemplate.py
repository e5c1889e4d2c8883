"""Templates understand the common part of Go's templates, and says so about the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmctl.core.model.base import Time
from swarmctl.core.model.gofunctions import Columns, TemplateError
from swarmctl.core.model.gotemplate import Template
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import ContainerSpec, ServiceSpec, TaskSpec

DATA: dict[str, Any] = {
    "Name": "web",
    "Count": 3,
    "Ratio": 0.5,
    "On": True,
    "Off": False,
    "Labels": {"b": "2", "a": "1"},
    "Ports": [{"Published": 80}, {"Published": 443}],
    "Empty": [],
    "Spec": {"Mode": {"Replicated": {"Replicas": 2}}},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "web"),
        ("{{ .Spec.Mode.Replicated.Replicas }}", "2"),
        ("{{.On}} {{.Off}} {{.Ratio}}", "true false 0.5"),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.Ports}}", "[map[Published:80] map[Published:443]]"),
        ("{{.Nope}}", "<no value>"),
        ("{{.Nope.Deeper}}", "<no value>"),
        ("{{json .Labels}}", '{"a":"1","b":"2"}'),
        ("{{.Name | json}}", '"web"'),
        ("{{json .Nope}}", "null"),
        ("{{range .Ports}}{{.Published}};{{end}}", "80;443;"),
        ("{{range $i, $p := .Ports}}{{$i}}={{$p.Published}} {{end}}", "0=80 1=443 "),
        ("{{range $k, $v := .Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Ports}}{{$.Name}}{{end}}", "webweb"),
        ("{{if .On}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}yes{{else if .On}}on{{else}}no{{end}}", "on"),
        ("{{if not .Nope}}none{{end}}", "none"),
        ("{{if and .On .Off}}x{{else}}y{{end}}{{if or .On .Off}}x{{end}}", "yx"),
        ("{{with .Spec.Mode}}{{.Replicated.Replicas}}{{end}}", "2"),
        ("{{with .Nope}}x{{else}}y{{end}}", "y"),
        ('{{index .Labels "a"}} {{(index .Ports 1).Published}}', "1 443"),
        (
            '{{eq .Name "web"}} {{ne .Count 3}} {{gt .Count 2}} {{le .Count 2}}',
            "true false true false",
        ),
        ('{{if eq .Name "x" "web"}}in{{end}}', "in"),
        ("{{len .Ports}} {{len .Name}} {{len .Nope}}", "2 3 0"),
        ("{{upper .Name}} {{title .Name}} {{lower `ABC`}}", "WEB Web abc"),
        ('{{join (split "a,b" ",") "-"}}', "a-b"),
        ("{{println .Name .Count}}", "web 3\n"),
        ('{{printf "%-5s|%3d|%q|%v|%%" .Name .Count .Name .On}}', 'web  |  3|"web"|true|%'),
        ('{{print .Name "x" 1 2}}', "webx1 2"),
        ("{{$x := .Name}}{{$x}}{{$x = .Count}}{{$x}}", "web3"),
        ("a {{- .Name -}} b", "awebb"),
        ("a{{/* said nothing */}}b", "ab"),
        (r'{{"\"q\"\t"}}', '"q"\t'),
        ("{{truncate .Name 2}}{{pad .Name 1 1}}", "we web "),
    ],
)
def test_templates_give_what_gos_would(template: str, text: str) -> None:
    """Fields, pipelines, blocks, variables, trimming and functions do what Go's do."""
    assert Template(template).render(DATA) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Name", "unclosed action"),
        ("{{if .Name}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{}}", "missing value for command"),
        ("{{bogus .Name}}", "function 'bogus' not defined; known are"),
        ("{{.Name .Count}}", "only functions take arguments"),
        ("{{.Name | .Count}}", "only a function can follow '|'"),
        ("{{template `x`}}", "not available here"),
        ("{{.Name ? 1}}", "unexpected '?'"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{$x}}", "undefined variable '$x'"),
        ("{{index .Ports 5}}", "out of range"),
        ("{{.Name.Deeper}}", "can't evaluate field Deeper"),
        ("{{range .Name}}{{end}}", "can't iterate"),
        ('{{printf "%x" 1}}', "%x is not available here"),
        ("{{len}}", "wrong number or kind of arguments"),
        ("{{upper .Name .Name}}", "wrong number or kind of arguments"),
        ("{{if .On}}{{else foo}}{{end}}", "after else"),
        ("{{if .On}}" * 60 + "{{end}}" * 60, "nested"),
    ],
)
def test_what_is_not_understood_is_an_error(template: str, words: str) -> None:
    """A template is never half understood: it is refused, in words."""
    with pytest.raises(TemplateError) as caught:
        Template(template).render(DATA)
    assert words in str(caught.value)


def test_a_row_has_its_columns_and_no_others() -> None:
    """A mistyped column of a list is an error that names those there are."""
    with pytest.raises(TemplateError, match="the columns are ID, Name"):
        Template("{{.Nmae}}").render(Columns(ID="1", Name="web"))


def test_objects_of_the_api_know_their_fields() -> None:
    """An absent field of a typed object prints empty, as Go's zero; an unknown one is an error."""
    service = Service(
        ID="x",
        CreatedAt=Time(1_000_000_000_500_000_000),
        Spec=ServiceSpec(Name="web", TaskTemplate=TaskSpec(ContainerSpec=ContainerSpec(Image="i"))),
    )
    absent = "{{.Spec.TaskTemplate.ContainerSpec.Hostname}}"
    form = f"{{{{.Spec.Name}}}}|{absent}|{{{{.CreatedAt}}}}|{{{{.PreviousSpec}}}}"
    assert Template(form).render(service) == "web||2001-09-09 01:46:40.5 +0000 UTC|<nil>"
    assert Template("{{json .Spec.Mode}}{{json .CreatedAt}}").render(service) == (
        '{}"2001-09-09T01:46:40.5Z"'
    )
    with pytest.raises(TemplateError, match="can't evaluate field Nope in type ServiceSpec"):
        Template("{{.Spec.Nope}}").render(service)


PIECES = st.sampled_from(
    [
        "{{",
        "}}",
        "{{-",
        "-}}",
        ".Name",
        "range",
        "if",
        "else",
        "end",
        "|",
        "(",
        ")",
        "$x",
        ":=",
        '"s"',
        "index",
        "len",
        " ",
        "\n",
        ".Ports",
        "1",
        "with",
        "/*",
        "*/",
        "{{end}}",
        "{{.}}",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join))
def test_any_text_is_rendered_or_refused(text: str) -> None:
    """Whatever is written after --format gives text or a TemplateError."""
    try:
        assert isinstance(Template(text).render(DATA), str)
    except TemplateError:
        return


def test_a_caller_adds_functions() -> None:
    """A template may call what its caller adds, with arguments and in a pipeline; nothing else."""
    added = {"env": lambda name: f"<{name}>"}
    assert Template('{{env "A"}}{{"b" | env | upper}}', added).render({}) == "<A><B>"
    with pytest.raises(TemplateError, match="function 'env' not defined"):
        Template('{{env "A"}}')


@pytest.mark.parametrize(
    "text",
    [
        "{{" + "(" * 60 + "1" + ")" * 60 + "}}",
        "{{" + "1 " * 4000 + "}}",
        "{{" * 100_000,
        "{{99999999999999999999}}",
    ],
)
def test_what_is_too_much_is_an_error(text: str) -> None:
    """No text takes long to refuse, or fails in another way than by saying so."""
    with pytest.raises(TemplateError):
        Template(text)


@pytest.mark.parametrize("text", ['{{printf "%99999d" 1}}', '{{pad "x" 99999 0}}', "{{join 1 2}}"])
def test_functions_refuse_what_is_too_much(text: str) -> None:
    """Widths are bounded, and a wrong kind of argument is an error of the template."""
    with pytest.raises(TemplateError, match="error calling"):
        Template(text).render({})
