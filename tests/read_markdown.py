"""Markdown as whoever shows it reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a text amounts to once it is read.

    Attributes:
        tokens: everything, in order.
    """

    tokens: tuple[Token, ...]

    def of(self, *kinds: str) -> list[str]:
        """What stands in tokens of these kinds."""
        return [token.content.strip("\n") for token in self.tokens if token.type in kinds]

    def count(self, kind: str) -> int:
        return sum(token.type == kind for token in self.tokens)

    @property
    def html(self) -> set[str]:
        """Markup that a browser would read."""
        return set(self.of("html_block", "html_inline"))

    @property
    def links(self) -> list[str]:
        return [
            str(token.attrs.get("href", token.attrs.get("src")))
            for token in self.tokens
            if token.type in ("link_open", "image")
        ]

    @property
    def words(self) -> str:
        """Everything that is no code."""
        return " ".join(" ".join(self.of("text")).split())

    @property
    def headings(self) -> list[tuple[str, str]]:
        return [
            (token.tag, self.tokens[place + 1].content)
            for place, token in enumerate(self.tokens)
            if token.type == "heading_open"
        ]

    @property
    def mentions(self) -> list[str]:
        """Whom a tracker would tell of it."""
        return re.findall(r"@\w+", self.words)


def read(text: str) -> Read:
    """The text, read."""
    return Read(tokens=tuple(_flat(_PARSER.parse(text))))


def _flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _flat(token.children or [])


def tables(text: str) -> list[list[int]]:
    """Of each table, how many cells each of its lines has: a bar without a backslash before it ends one."""
    blocks = re.findall(r"(?m)(?:^\|.*\n?)+", text)
    return [[len(re.findall(r"(?<!\\)\|", line)) - 1 for line in block.splitlines()] for block in blocks]
