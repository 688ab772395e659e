"""JSON by the standard library's C code alone: ``json`` itself loads ``re`` and ``enum``.

That is 7 ms, a quarter of what a command such as ``cais-runtime`` may take. What these functions
read and write is what ``json.loads`` and ``json.dumps`` do, errors included: a text that the C code
stumbles over goes to ``json``, which knows what is wrong with it and where.

Import-light: the runtime's and the shim's processes load it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

try:
    from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner
except ImportError:  # another Python than CPython
    make_scanner = make_encoder = None  # type: ignore[assignment, misc]

_BLANKS = " \t\n\r"
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class Rules:
    """How numbers, constants and objects become values; what the C scanner asks for by name."""

    __slots__ = ("array_hook", "object_pairs_hook", "parse_constant", "parse_float")

    strict = True
    object_hook = None
    parse_int = int

    def __init__(
        self,
        *,
        object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
        parse_constant: Callable[[str], Any] = _CONSTANTS.__getitem__,
        parse_float: Callable[[str], float] = float,
    ) -> None:
        self.array_hook = None
        self.object_pairs_hook = object_pairs_hook
        self.parse_constant = parse_constant
        self.parse_float = parse_float


_PLAIN = Rules()


def decode(text: str | bytes, rules: Rules = _PLAIN) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of one document; ``bytes`` are UTF-8.

    Raises:
        ValueError: not JSON; as ``json.loads``.
        RecursionError: nested too deeply for this interpreter.

    """
    if isinstance(text, bytes):
        text = text.decode()
    if make_scanner is not None:
        stripped = text.strip(_BLANKS)
        try:
            value, end = make_scanner(rules)(stripped, 0)  # type: ignore[arg-type] # by name
        except (StopIteration, SystemError, ValueError):  # SystemError: it misses json's exception
            end = -1
        if end == len(stripped):
            return value
    import json

    return json.loads(
        text,
        object_pairs_hook=rules.object_pairs_hook,
        parse_constant=rules.parse_constant,
        parse_float=rules.parse_float,
    )


def encode(
    document: object,
    *,
    ascii_only: bool = True,
    compact: bool = False,
    indent: int | str | None = None,
) -> str:
    """Return the text of a document; ``indent`` (``json.dumps``'s) makes it one for people.

    Raises:
        TypeError: something in it is no JSON value.
        ValueError: NaN or an infinity.

    """
    comma, colon = (",", ":") if compact else (", ", ": ")
    if make_encoder is None or indent is not None:
        import json

        return json.dumps(
            document,
            ensure_ascii=ascii_only,
            separators=(comma if indent is None else ",", colon),
            allow_nan=False,
            indent=indent,
        )
    quote = encode_basestring_ascii if ascii_only else encode_basestring
    sort_keys = skip_keys = allow_nan = False
    encoder = make_encoder(
        None, _refuse, quote, None, colon, comma, sort_keys, skip_keys, allow_nan
    )
    return "".join(encoder(document, 0))


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
