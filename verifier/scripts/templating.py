"""Render Python files from templates in which every value becomes a literal, unless it is marked as code.

Text of a record comes from outside: it gets into a file only as a literal, or into a comment that it cannot end.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from verifier.errors import UsageError
from verifier.output import text

WIDTH = 88  # of a line: formatters leave it as it is
_COMMENT_CHARACTERS = 240  # of what a check said
_INDENT = " " * 4


def render(template: str, **values: Any) -> str:
    """Render a template to the text of a Python file.

    Args:
        template: the name of a file in `templates`.
        values: what the template needs; each is printed as a literal, or by one of the filters.

    Raises:
        UsageError: a value cannot be written as a literal.
    """
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("verifier.scripts"),
        autoescape=True,  # so that code is told from text by its type
        finalize=lambda value: value if isinstance(value, Markup | jinja2.Undefined) else Markup(write_literal(value)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "comment": _comment, "fitted": _fitted, "assigned": _assigned}
    return environment


def _code(statements: str | Iterable[str], depth: int = 0) -> Markup:
    """Mark statements of an adapter or a family as code, one a line; all but the first are indented `depth` levels."""
    lines = [statements] if isinstance(statements, str) else statements
    return Markup(f"\n{_INDENT * depth}".join(lines))


def _comment(words: str) -> Markup:
    """Write words as comments, in which nothing of them can end the line."""
    lines = textwrap.wrap(text.line(words, _COMMENT_CHARACTERS), WIDTH - len("# "), break_on_hyphens=False)
    return Markup("\n".join(f"# {line}" for line in lines))


def _fitted(call: str, depth: int, before: str = "", after: str = "") -> Markup:
    """Write a call as formatters do: if it is too long, with its arguments on a line of their own."""
    statement = f"{before}{call}{after}"
    if len(statement) <= WIDTH - depth * len(_INDENT) or "(" not in statement:
        return _code(statement)
    opening, _, rest = statement.partition("(")
    arguments, _, closing = rest.rpartition(")")
    return _code([f"{opening}(", f"{_INDENT}{arguments}", f"){closing}"], depth)


def _assigned(value: Any, name: str, depth: int = 0) -> Markup:
    """Write the assignment of a list or a dict to a name, with an item a line."""
    return Markup("\n".join(_laid_out(f"{name} = ", value, _INDENT * depth)).lstrip())


def _laid_out(before: str, value: Any, indent: str) -> list[str]:
    line = f"{indent}{before}{write_literal(value)}"
    is_mapping = isinstance(value, Mapping)
    if not value or not isinstance(value, Mapping | list | tuple) or (not is_mapping and len(line) < WIDTH):
        return [line]
    items = [(f"{write_literal(key)}: ", value[key]) for key in value] if is_mapping else [("", item) for item in value]
    inner = [_laid_out(key, item, indent + _INDENT) for key, item in items]
    opening, closing = "{}" if is_mapping else "[]"
    return [
        f"{indent}{before}{opening}",
        *(line for lines in inner for line in (*lines[:-1], f"{lines[-1]},")),
        f"{indent}{closing}",
    ]


def write_literal(value: Any) -> str:
    """Write a plain value as code; a text is in double quotes if it has no quote itself.

    Raises:
        UsageError: the value is not plain.
    """
    match value:
        case None | bool() | int() | float():
            return repr(value)
        case str():
            spelt = repr(str(value))
            return spelt if "'" in value or '"' in value else f'"{spelt[1:-1]}"'
        case list() | tuple():
            return f"[{', '.join(map(write_literal, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{write_literal(key)}: {write_literal(item)}' for key, item in value.items())}}}"
        case _:
            raise UsageError(f"a {type(value).__name__} in a case cannot be written as code")
