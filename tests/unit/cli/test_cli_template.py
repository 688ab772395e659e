"""Each expected text is what docker's own CLI prints for the same template."""

import pytest

from cais.cli.template import Template, TemplateError

DOCUMENT = {
    "Name": "/a",
    "State": {"Running": True, "Pid": 7, "Error": ""},
    "Args": ["x", "y"],
    "Mounts": [{"Name": "v1"}, {"Name": "v2"}],
    "Labels": {"b.c": "2", "a": "1"},
    "Nothing": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "/a"),
        ("{{ .State.Pid }}!", "7!"),
        ("{{.State.Running}}", "true"),
        ("{{json .State}}", '{"Running":true,"Pid":7,"Error":""}'),
        ("{{json .}}", None),
        ("{{.Args}}", "[x y]"),
        ("{{.Labels}}", "map[a:1 b.c:2]"),
        ('{{index .Labels "b.c"}}', "2"),
        ('{{index .Labels "none"}}', ""),
        ("{{index .Args 1}}", "y"),
        ("{{(len .Args)}}", TemplateError),
        ("{{len .Args}}", "2"),
        ('{{join .Args ","}}', "x,y"),
        ("{{range .Mounts}}{{.Name}};{{end}}", "v1;v2;"),
        ("{{range .Mounts}}{{$.Name}}{{.Name}} {{end}}", "/av1 /av2 "),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Error}}bad{{else}}good{{end}}", "good"),
        ('{{if eq .Name "/a"}}same{{end}}', "same"),
        ("{{.Name | upper}}", "/A"),
        ('{{ne .Name "/a"}} {{ne .Name "/b"}} {{not .Name}}', "false true false"),
        ("{{.State.Pid | json | println}}", "7\n"),
        ("a {{- .Name -}} b", "a/ab"),
        ("{{/* nothing */}}x", "x"),
        ("{{.Nothing}}", "<no value>"),
    ],
)
def test_templates(template: str, text: str | type[Exception] | None) -> None:
    if isinstance(text, type):
        with pytest.raises(text):
            Template(template)
    elif text is None:
        assert Template(template).render(DOCUMENT).startswith('{"Name":"/a","State"')
    else:
        assert Template(template).render(DOCUMENT) == text


@pytest.mark.parametrize(
    "template",
    ["{{", "{{end}}", "{{if .A}}", "{{nosuch .A}}", "{{.A .B}}", "{{with .A}}x{{end}}", "{{}}",
     '{{template "x"}}', "{{$x := .A}}", "{{if .A}}{{else if .B}}{{end}}", "{{.A || .B}}"],
)  # fmt: skip
def test_what_is_not_understood_is_refused(template: str) -> None:
    with pytest.raises(TemplateError):
        Template(template)


@pytest.mark.parametrize(
    "template", ["{{.NoSuch}}", "{{.Name.Deeper}}", "{{index .Args 9}}", "{{len .State.Pid}}"]
)
def test_what_is_not_there_is_an_error(template: str) -> None:
    with pytest.raises(TemplateError):
        Template(template).render(DOCUMENT)
