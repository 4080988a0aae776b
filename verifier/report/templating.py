"""Render templates, and escape whatever comes from outside as each format needs it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup

from verifier.judging import wording
from verifier.judging.outcome import Verdict
from verifier.output import text

# What begins code, emphasis, a link, markup or a cell's end; an underscore between two letters begins nothing.
_SPECIAL = re.compile(r"([\\`*{}\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_]))")
# What a tracker makes mentions and references of is taken apart by a space that has no width.
_REFERENCES = re.compile(r"([@#])|(?<=GH)(?=-\d)")
# What XML 1.0 has no way to hold, besides the control characters and surrogates that are written out anyway.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escaped(one: str | None, limit: int = text.LINE_LIMIT) -> Markup:
    """The text on one line, with nothing in it that Markdown, or a tracker's mentions and references, would read.

    Args:
        one: the text; None counts as empty.
        limit: the largest number of characters of the text, before it is escaped.
    """
    plain = _SPECIAL.sub(r"\\\1", text.line(one, limit))
    return Markup(_REFERENCES.sub(lambda match: f"{match[0]}\u200b", plain))


def code(one: str | None, limit: int = text.LINE_LIMIT) -> Markup:
    """The text as code on one line of Markdown, whatever backticks it has.

    Args:
        one: the text; None counts as empty.
        limit: the largest number of characters between the backticks.
    """
    shown = text.line(one, limit)
    fence = "`" * (_longest_run(shown) + 1)
    padded = f" {shown} " if shown.startswith("`") or shown.endswith("`") else shown
    return Markup(f"{fence}{padded}{fence}")


def fenced(one: str, language: str = "") -> Markup:
    """The text as a block of code in Markdown.

    Args:
        one: the text.
        language: the language that the block names; empty names none.
    """
    fence = "`" * max(3, _longest_run(one) + 1)
    return Markup(f"{fence}{language}\n{text.visible(one)}\n{fence}")


def _longest_run(one: str) -> int:
    return max((len(run) for run in re.findall("`+", one)), default=0)


def in_a_cell(one: str) -> Markup:
    """Markdown in a table's cell: a bar in it is written so that it does not end the cell."""
    return Markup(str(one).replace("\\|", "|").replace("|", "\\|"))


# How each format writes a text from outside; HTML needs nothing beyond what jinja2 does.
_ESCAPES: Mapping[str, Callable[[str], str]] = {
    ".html": str,
    ".md": escaped,
    ".xml": lambda one: _NOT_IN_XML.sub("\ufffd", text.visible(one)),
}


def render(name: str, **values: object) -> str:
    """Render a template, with texts from outside escaped as the format in the template's name needs it.

    In Markdown every text is put on one line, unless a filter has made code of it.
    """
    return _environment(PurePath(name).suffixes[0]).get_template(name).render(**values)


@functools.cache
def _environment(suffix: str) -> jinja2.Environment:
    """Make the environment in which templates of one format are rendered."""
    escape = _ESCAPES[suffix]

    def finalize(one: Any) -> Any:
        return escape(one) if isinstance(one, str) and not isinstance(one, Markup) else one

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("verifier.report"),
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "line": text.line,
        "visible": text.visible,
        "anchor": text.anchor,
        "detail": text.detail,
        "config": text.config,
        "value": text.value,
        "number": text.number,
        "count": "{:,}".format,
        "marked": text.marked,
        "said": wording.outcome_message,
        "duration": text.duration,
        "limits": text.limits,
        "seconds": "{:.3f}".format,
        "escaped": escaped,
        "code": code,
        "fenced": fenced,
        "in_a_cell": in_a_cell,
    }
    environment.globals |= {
        "plural": text.plural,
        "verdicts": tuple(Verdict),
    }
    return environment
