"""Plain values, calls and comments as lines of code, as formatters leave them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from verifier.errors import UsageError
from verifier.output import text

WIDTH = 88  # of a line: formatters leave it as it is
SAID = 240  # characters of what a check said
INDENT = " " * 4


def comment(words: str) -> list[str]:
    """The words in comments, in which nothing of them can end the line."""
    wrapped = textwrap.wrap(text.line(words, SAID), WIDTH - len("# "), break_on_hyphens=False)
    return [f"# {line}" for line in wrapped]


def indented(lines: Sequence[str]) -> list[str]:
    return [f"{INDENT}{line}" for line in lines]


def fitting(call: str, width: int) -> list[str]:
    """The call, or what formatters make of one that is too long: its arguments on a line of their own."""
    if len(call) <= width or "(" not in call:
        return [call]
    before, _, rest = call.partition("(")
    arguments, _, after = rest.rpartition(")")
    return [f"{before}(", f"{INDENT}{arguments}", f"){after}"]


def laid_out(before: str, value: Any, indent: str = "") -> list[str]:
    """A list or a dict as code, an item a line, after `before`."""
    if not isinstance(value, Mapping | list | tuple) or not value:
        return [f"{indent}{before}{literal(value)}"]
    one_line = f"{indent}{before}{literal(value)}"
    if not isinstance(value, Mapping) and len(one_line) < WIDTH:
        return [one_line]
    deeper = indent + INDENT
    if isinstance(value, Mapping):
        items = [laid_out(f"{literal(key)}: ", item, deeper) for key, item in value.items()]
    else:
        items = [laid_out("", item, deeper) for item in value]
    inner = [line for item in items for line in (*item[:-1], f"{item[-1]},")]
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    return [f"{indent}{before}{opening}", *inner, f"{indent}{closing}"]


def literal(value: Any) -> str:
    """A plain value as code, a text in double quotes where it has no quote.

    Raises:
        UsageError: it is no plain value.
    """
    match value:
        case None | bool() | int() | float():
            return repr(value)
        case str():
            spelt = repr(value)
            return spelt if "'" in value or '"' in value else f'"{spelt[1:-1]}"'
        case list() | tuple():
            return f"[{', '.join(literal(item) for item in value)}]"
        case Mapping():
            return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
        case _:
            raise UsageError(f"a {type(value).__name__} in a case cannot be written as code")
