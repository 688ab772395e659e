"""The part of Go's ``text/template`` that ``--format`` is used with.

Fields (``{{.State.Pid}}``), ``json``, ``index``, ``len``, ``join``, ``lower``, ``upper``,
``title``, ``println``, ``eq``, ``ne``, ``not``, pipelines, ``if``/``else``/``end`` and ``range``.
Anything else is refused by name: a template half understood would print something wrong.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ACTION = re.compile(r"{{(-\s)?\s*(.*?)\s*(\s-)?}}", re.DOTALL)
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\||-?\d+|\$?[.\w]+)')


class TemplateError(InvalidArgumentError):
    """Not a template we understand, or not one this document has the fields for."""

    def __init__(self, why: str) -> None:
        super().__init__(f"template parsing error: {why}")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _index(value: Any, *keys: Any) -> Any:  # noqa: ANN401
    for key in keys:
        value = value.get(key, "") if isinstance(value, dict) else value[key]
    return value


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "index": _index,
    "len": len,
    "join": lambda values, separator: separator.join(values),
    "split": lambda text, separator: text.split(separator),
    "lower": str.lower,
    "upper": str.upper,
    "title": _title,
    "println": lambda *values: " ".join(map(_text, values)) + "\n",
    "print": lambda *values: "".join(map(_text, values)),
    "eq": lambda value, *others: value in others,
    "ne": lambda value, other: value != other,
    "not": lambda value: not value,
}


class Template:
    """A parsed template. Raises TemplateError for what it does not understand."""

    def __init__(self, text: str) -> None:
        self._parts = _split(text)
        self._tree, rest = _parse_block(self._parts, 0, ())
        if rest != len(self._parts):
            raise TemplateError("unexpected {{end}}")

    def render(self, document: object) -> str:
        """Return the text for one document. Raises TemplateError for an unknown field."""
        return "".join(_render(self._tree, document, document))


def _split(text: str) -> list[tuple[str, str]]:
    """Return ("text", …) and ("action", …) parts, white space trimmed where ``{{-`` says so."""
    parts: list[tuple[str, str]] = []
    position, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trim else before
        parts.append(("text", before.rstrip() if match[1] else before))
        parts.append(("action", match[2]))
        position, trim = match.end(), bool(match[3])
    tail = text[position:]
    if "{{" in tail:
        raise TemplateError("unclosed action")
    parts.append(("text", tail.lstrip() if trim else tail))
    return parts


# A tree is a list of nodes: str, or ("value" | "if" | "range", pipeline, then, otherwise).
_Node = Any
_Pipeline = list[list[str]]


def _parse_block(
    parts: list[tuple[str, str]], position: int, ends: tuple[str, ...]
) -> tuple[list[_Node], int]:
    nodes: list[_Node] = []
    while position < len(parts):
        kind, text = parts[position]
        word = text.split(None, 1)[0] if text.split() else ""
        if kind == "text":
            nodes.append(text)
        elif word in ("end", "else"):
            if word not in ends:
                raise TemplateError(f"unexpected {{{{{word}}}}}")
            return nodes, position
        elif word in ("if", "range"):
            node, position = _parse_branch(parts, position, word, text[len(word) :])
            nodes.append(node)
        elif not text.startswith("/*"):
            nodes.append(("value", _parse_pipeline(text), [], []))
        position += 1
    if ends:
        raise TemplateError("unexpected EOF")
    return nodes, position


def _parse_branch(
    parts: list[tuple[str, str]], position: int, word: str, condition: str
) -> tuple[_Node, int]:
    then, position = _parse_block(parts, position + 1, ("else", "end"))
    otherwise: list[_Node] = []
    if parts[position][1].startswith("else"):
        if parts[position][1] != "else":
            raise TemplateError("{{else if}} is not supported")
        otherwise, position = _parse_block(parts, position + 1, ("end",))
    return (word, _parse_pipeline(condition), then, otherwise), position


def _parse_pipeline(text: str) -> _Pipeline:
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise TemplateError(f"not supported: {{{{{text}}}}}")
        tokens.append(match[1])
        position = match.end()
    stages: _Pipeline = [[]]
    for token in tokens:
        if token == "|":  # noqa: S105 - a pipe, no secret
            stages.append([])
        else:
            stages[-1].append(token)
    for stage in stages:
        _check_stage(stage, text)
    return stages


def _check_stage(stage: list[str], text: str) -> None:
    if not stage:
        raise TemplateError(f"missing value in {{{{{text}}}}}")
    head = stage[0]
    if head[0] in '.$"`-' or head[0].isdecimal():
        if len(stage) > 1:
            raise TemplateError(f"can't give argument to non-function {head}")
    elif head not in _FUNCTIONS:
        raise TemplateError(f'function "{head}" not defined')


def _render(tree: list[_Node], dot: object, root: object) -> Iterator[str]:
    for node in tree:
        if isinstance(node, str):
            yield node
            continue
        kind, pipeline, then, otherwise = node
        value = _evaluate(pipeline, dot, root)
        if kind == "value":
            yield _text(value)
        elif kind == "if":
            yield from _render(then if value else otherwise, dot, root)
        elif not value:
            yield from _render(otherwise, dot, root)
        else:
            for item in value.values() if isinstance(value, dict) else value:
                yield from _render(then, item, root)


def _evaluate(pipeline: _Pipeline, dot: object, root: object) -> Any:  # noqa: ANN401
    piped: list[Any] = []
    for stage in pipeline:
        arguments = [_operand(token, dot, root) for token in stage[1:]] + piped
        function = _FUNCTIONS.get(stage[0])
        try:
            value = function(*arguments) if function else _operand(stage[0], dot, root)
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise TemplateError(f"error calling {stage[0]}: {error}") from error
        piped = [value]
    return piped[0]


def _operand(token: str, dot: object, root: object) -> Any:  # noqa: ANN401
    if token[0] == '"':
        return json.loads(token)
    if token[0] == "`":
        return token[1:-1]
    if token.lstrip("-").isdecimal():
        return int(token)
    if token in ("true", "false"):
        return token == "true"  # noqa: S105
    if token[0] == "$":
        return _field(root, token[1:])
    if token[0] == ".":
        return _field(dot, token)
    raise TemplateError(f'function "{token}" not defined')


def _field(value: Any, path: str) -> Any:  # noqa: ANN401
    for name in filter(None, path.split(".")):
        if not isinstance(value, dict) or name not in value:
            raise TemplateError(f"can't evaluate field {name}")
        value = value[name]
    return value


def _text(value: object) -> str:
    """Return a value as Go prints it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + " ".join(map(_text, value)) + "]"
    if isinstance(value, dict):
        pairs = (f"{key}:{_text(item)}" for key, item in sorted(value.items()))
        return "map[" + " ".join(pairs) + "]"
    return str(value)
