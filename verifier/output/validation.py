"""Read plain data into typed classes, and say in one line what is wrong with data that does not fit."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import msgspec

from verifier.errors import UsageError
from verifier.output import text
from verifier.output.text import nearest

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # thirty years, and nothing without an end

_WORDS: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "array": "a list",
    "object": "an object",
    "date": "a day",
}
_IN_TOML = {**_WORDS, "object": "a table", "date": "a day (2027-01-31, without quotes)", "null": ""}
_TYPES = re.compile(r"`([a-z |]+)`")
_EXPECTED = re.compile(r"Expected (.*?)(?:, got (.*))?")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_INVALID = re.compile(r"Invalid enum value .* - at `\$\.(\w+)`", re.DOTALL)
_STEP = re.compile(r"\[(\d+|\.\.\.)\]|([^.\[]+)")
_SAID: Mapping[str, str] = {
    "Invalid enum value": "cannot be",
    "Number out of range": "is a number out of range",
    "Invalid RFC3339 encoded date": "is no day, as in 2027-01-31",
}


def convert(
    data: object, kind: type[T], *, of: str, strict: bool = True, toml: bool = False, keys: Sequence[str] = ()
) -> T:
    """Make an instance of a typed class of plain data, as JSON or TOML gives it.

    Args:
        data: what a file or another process gave.
        kind: a dataclass, a `msgspec.Struct`, or any other type that `msgspec` knows. A `UsageError` or `ValueError`
            that its `__post_init__` raises is an error of the data.
        of: what the data is, for the message: `a case`.
        strict: whether a number must be a number; otherwise a text that spells one will do, `"inf"` among them.
        toml: whether the data is of a TOML file, which has days of its own, and no null.
        keys: those that the data may have, of which the nearest to an unknown one is suggested.

    Raises:
        UsageError: the data does not fit; one line says where, and what would be right.
    """
    try:
        return msgspec.convert(data, kind, strict=strict, builtin_types=(date, datetime) if toml else None)
    except msgspec.ValidationError as error:
        raise UsageError(
            text.line(
                _explain(str(error), data, of, _IN_TOML if toml else _WORDS, keys) + _list_choices(str(error), kind)
            )
        ) from error
    except UnicodeEncodeError as error:
        raise UsageError(f"{of} holds half a character, {error.object[error.start]!r}") from error


def _explain(message: str, data: object, of: str, words: Mapping[str, str], keys: Sequence[str]) -> str:
    """Say what `msgspec` found wrong with data in the words of the data's author."""
    what, _, place = message.partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    if field := _FIELD.fullmatch(what):
        said = f"an unknown key {field[2]!r}{nearest(field[2], keys)}" if "unknown" in field[1] else f"no `{field[2]}`"
        return f"{of}{f', at `{place}`,' if place else ''} has {said}"
    within = place.removeprefix("[...]").replace("[...]", ".*")
    where = f"{of}'s `{within}`" if within else of
    if expected := _EXPECTED.fullmatch(what):
        wanted = _TYPES.sub(
            lambda types: " or ".join(filter(None, map(words.get, types[1].split(" | "), types[1].split(" | ")))),
            expected[1],
        )
        wanted = wanted.replace(" >= ", " of at least ").replace(" <= ", " of at most ")
        return f"{where} must be {wanted}, not {_show_value(data, place)}"
    for start, said in _SAID.items():
        if what.startswith(start):
            return f"{where} {said}{what.removeprefix(start)}"
    return f"{where}: {what}"


def _list_choices(message: str, kind: Any) -> str:
    """List the values that a field of an enumeration may have, if the message is that it has none of them."""
    invalid = _INVALID.fullmatch(message)
    field = get_type_hints(kind).get(invalid[1]) if invalid else None
    for one in (field, *get_args(field)):
        if isinstance(one, type) and issubclass(one, Enum):
            return f": it must be one of {', '.join(str(member.value) for member in one)}"
    return ""


def _show_value(data: object, place: str) -> str:
    """Show what stands at a place of the data; `msgspec` does not say which value of a mapping it means."""
    for number, name in _STEP.findall(place):
        if isinstance(data, Mapping) and name in data:
            data = data[name]
        elif isinstance(data, Mapping) and len(data) == 1:
            (data,) = data.values()
        elif isinstance(data, Sequence) and number.isdigit():
            data = data[int(number)]
        else:
            return "what stands there"
    return reprlib.repr(data)
