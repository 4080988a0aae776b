"""The types of the values that people give, wherever they give them: how a value is written and what it must be."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from verifier.cases.shards import parse_shard
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.output.validation import convert


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueType:
    """A type of value, as people write it.

    Attributes:
        words: completes the sentence "it must be …".
        type: what `msgspec` checks a value against.
        parse: turns a checked value into the request's; it raises a UsageError that completes "it …".
        metavar: stands for the value in a help text.
    """

    words: str
    type: Any
    parse: Callable[[Any], Any] | None = None
    metavar: str = "TEXT"

    def read(self, value: Any, *, strict: bool = True) -> Any:
        """Turn what was given into the request's value.

        Args:
            value: from a command line, a file or Python.
            strict: whether a number must be one, and not a text that spells one.

        Raises:
            UsageError: the value is of another type; the message completes "it …".
        """
        given = os.fspath(value) if isinstance(value, os.PathLike) else value
        try:
            checked = convert(given, self.type, of="it", strict=strict or self.parse is not None)
        except UsageError as error:
            raise UsageError(f"must be {self.words}, not {given!r}") from error
        return checked if self.parse is None else self.parse(checked)


def _parse_file(text: str) -> Path:
    if Path(text).is_dir():
        raise UsageError(f"must be a file, and {text!r} is a folder")
    return Path(text)


_MOST = 2.0**53  # floats count exactly up to here: a hundred million years, or eight million gigabytes


def _quantity(name: str, factors: Mapping[str, int], example: str, number: type[int] | type[float]) -> ValueType:
    """Make the type of a quantity that is written as a number and a unit.

    Args:
        name: the word for people.
        factors: what each unit is worth; the empty unit is that of a bare number.
        example: how such a quantity is written.
        number: what a request has.
    """
    units = ", ".join(unit for unit in factors if unit)
    words = f"a {name} (a number and one of {units}, as in {example})"

    def parse(given: str | float) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(given).strip())
        if match is None or match[2].lower() not in factors:
            raise UsageError(f"must be {words}, not {given!r}")
        quantity = float(match[1]) * factors[match[2].lower()]
        if quantity > _MOST:
            raise UsageError(f"is more than any {name}: leave it out, or give 0 for no limit")
        return number(quantity)

    return ValueType(words=words, type=str | int | float, parse=parse, metavar=name.upper())


Text = Annotated[str, msgspec.Meta(pattern=r"^[^\0]*[^\s\0][^\0]*$")]
FLAG = ValueType(words="true or false", type=bool)
TEXT = ValueType(words="a text", type=Text)
FAMILY, NAME, GLOB, REVISION, MODEL, IDENTITY = (
    replace(TEXT, metavar=metavar) for metavar in ("FAMILY", "NAME", "GLOB", "REV", "DIR", "ID")
)
REFERENCE = replace(TEXT, metavar="NAME|MODULE:OBJECT")
CONDITION = replace(TEXT, metavar="NAME=VALUE,…")
FOLDER = ValueType(words="a path", type=Text, parse=Path, metavar="DIR")
FILE = ValueType(words="a path", type=Text, parse=_parse_file, metavar="FILE")
DURATION = _quantity("duration", {"": 1, "s": 1, "m": 60, "h": 3600}, "90s", float)
"""In seconds."""
SIZE = _quantity("size", {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}, "4G", int)
"""In bytes."""
SHARD = ValueType(words="I/N", type=str, parse=parse_shard, metavar="I/N")


def whole_number(least: int, most: int | None = None) -> ValueType:
    """Make the type of a whole number within bounds, both included.

    Args:
        least: the least number that is allowed.
        most: the greatest number that is allowed; None for no upper bound.
    """
    words = f"a whole number from {least}" + ("" if most is None else f" to {most}")
    return ValueType(words=words, type=Annotated[int, msgspec.Meta(ge=least, le=most)], metavar="N")


COUNT = whole_number(1)


def one_of(*words: str) -> ValueType:
    """Make the type of a value that is one of these words."""
    listed = ", ".join(words)

    def choose(text: str) -> str:
        if text not in words:
            raise UsageError(f"must be one of {listed}, not {text!r}{nearest(text, words)}")
        return text

    return ValueType(words=f"one of {listed}", type=str, parse=choose, metavar="|".join(words))
