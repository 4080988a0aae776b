"""How one thing can be asked for: through which doors, how its value is written, and what it means."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from verifier.cases.shards import parse_shard
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.output.validation import convert


class Door(enum.Flag):
    """Where a request comes from: a command that takes options, a call from Python, or pytest's command line."""

    RUN = enum.auto()
    FUZZ = enum.auto()
    SELFTEST = enum.auto()
    DOCTOR = enum.auto()
    PYTHON = enum.auto()
    PYTEST = enum.auto()


NOWHERE = Door(0)
ONE_ADAPTER = Door.FUZZ | Door.SELFTEST | Door.PYTHON | Door.PYTEST
"""The doors in which one adapter is put under test, and so one baseline is used."""


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
CONDITION = replace(TEXT, metavar="FLAG=VALUE,…")
FOLDER = ValueType(words="a path", type=Text, parse=Path, metavar="DIR")
FILE = ValueType(words="a path", type=Text, parse=_parse_file, metavar="FILE")
DURATION = _quantity("duration", {"": 1, "s": 1, "m": 60, "h": 3600}, "90s", float)
"""In seconds."""
SIZE = _quantity("size", {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}, "4G", int)
"""In bytes."""
SHARD = ValueType(words="I/N", type=str, parse=parse_shard, metavar="I/N")


def whole_number(least: int, most: int | None = None) -> ValueType:
    """Make the type of a whole number within bounds, both included."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One thing that can be asked for.

    Attributes:
        type: how a value is written; of a list, how each of its values is.
        doors: which doors have it.
        example: how the configuration has it; empty where it is no key of that.
        unconfigured: the doors that do not take what the configuration has.
        single: of a list, the doors in which it has one value.
        unlisted: whether the configuration may have a text in the place of a list of one.
        spelled: its name on command lines and in the configuration, where it is not the field's.
        recorded: whether a record keeps it as `asked`.
        name: the field's name.
        default: the field's default.
        help: what it means.
        helps: what it means in a door where that differs.
    """

    type: ValueType
    doors: Door
    example: str = ""
    unconfigured: Door = NOWHERE
    single: Door = NOWHERE
    unlisted: bool = False
    spelled: str = ""
    recorded: bool = False
    name: str = ""
    default: Any = None
    help: str = ""
    helps: Mapping[Door, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in the configuration and in a record."""
        return self.spelled or self.name

    @property
    def flag(self) -> str:
        """Its name on a command line, without the dashes."""
        return self.key.replace("_", "-")

    @property
    def pytest_name(self) -> str:
        """Its name in pytest's configuration."""
        return f"verifier_{self.key}"

    def help_for(self, door: Door) -> str:
        """What it means there."""
        return next((text for doors, text in self.helps.items() if door in doors), self.help)

    @property
    def is_list(self) -> bool:
        """Whether a request has several values of it."""
        return isinstance(self.default, tuple)

    def is_configured(self, door: Door) -> bool:
        """Whether the door takes what the configuration has where nothing is given."""
        takes = self.doors | Door.DOCTOR | Door.PYTEST  # these two have fewer options than they take settings
        return bool(self.example) and door in takes and door not in self.unconfigured

    def is_repeated(self, door: Door) -> bool:
        """Whether it can be given more than once there."""
        return self.is_list and door not in self.single

    def read(self, value: Any, *, strict: bool = True) -> Any:
        """The request's value of what was given; a text stands for a list of one.

        Raises:
            UsageError: the value is of another type; the message completes "it …".
        """
        if not self.is_list:
            return self.type.read(value, strict=strict)
        values = (value,) if isinstance(value, str | os.PathLike) else value
        if not isinstance(values, list | tuple):
            raise UsageError(f"must be a list, of which each is {self.type.words}, not {value!r}")
        return tuple(self.type.read(one, strict=strict) for one in values)


OPTION = "option"


def ask(default: Any, type: ValueType, doors: Door, example: str = "", **more: Any) -> Any:
    """Make a field of a request that can be asked for; `Option` says what its metadata mean."""
    return field(default=default, metadata={OPTION: Option(type=type, doors=doors, example=example, **more)})
