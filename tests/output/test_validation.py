"""Data that does not fit a typed class is refused in one line that says where, and what would be right."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest

from verifier.errors import UsageError
from verifier.output.validation import Count, convert


class Colour(enum.StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Inner:
    day: date | None = None
    numbers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.numbers) > 2:
            raise ValueError("it has too many numbers")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    size: int = 0
    colour: Colour = Colour.RED
    inner: Inner = field(default_factory=Inner)
    counts: dict[str, Count] = field(default_factory=dict)


RIGHT: dict[str, Any] = {"name": "x"}


def said(data: Any, **how: Any) -> str:
    with pytest.raises(UsageError) as caught:
        convert(data, Outer, of="a thing", **how)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "a thing must be an object, not []"),
        ({}, "a thing has no `name`"),
        ({"name": 3}, "a thing's `name` must be a text, not 3"),
        ({**RIGHT, "size": "5"}, "a thing's `size` must be a whole number, not '5'"),
        ({**RIGHT, "size": True}, "a thing's `size` must be a whole number, not True"),
        ({**RIGHT, "colour": "green"}, "a thing's `colour` cannot be 'green': it must be one of red"),
        ({**RIGHT, "inner": {"day": "soon"}}, "a thing's `inner.day` is no day, as in 2027-01-31"),
        ({**RIGHT, "inner": {"numbers": [1, None]}}, "a thing's `inner.numbers[1]` must be a number, not None"),
        ({**RIGHT, "inner": {"numbers": [10**400]}}, "a thing's `inner.numbers[0]` is a number out of range"),
        ({**RIGHT, "inner": {"numbers": [1, 2, 3]}}, "a thing's `inner`: it has too many numbers"),
        ({**RIGHT, "counts": {"a": -1}}, "a thing's `counts.*` must be a whole number of at least 0, not -1"),
        ({**RIGHT, "colour": "\ud800"}, "a thing holds half a character, '\\ud800'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data: Any, words: str) -> None:
    assert said(data) == words


def test_what_is_said_is_short_and_harmless() -> None:
    words = said({**RIGHT, "colour": "\x1b[31m\n" + "5" * 10_000})
    assert words.isprintable()
    assert len(words) <= 400


def test_a_text_that_spells_a_number_is_one_only_where_that_is_asked_for() -> None:
    data = {**RIGHT, "inner": {"numbers": ["inf", "2"]}}
    assert convert(data, Outer, of="a thing", strict=False).inner.numbers == (float("inf"), 2.0)
    assert said(data) == "a thing's `inner.numbers[0]` must be a number, not 'inf'"


def test_toml_has_days_of_its_own() -> None:
    day = date(2027, 1, 31)
    assert convert({**RIGHT, "inner": {"day": day}}, Outer, of="a thing", toml=True).inner.day == day
    words = said({**RIGHT, "inner": {"day": "2027-01-31"}}, toml=True)
    assert words == "a thing's `inner.day` must be a day (2027-01-31, without quotes), not '2027-01-31'"
    assert said({**RIGHT, "inner": []}, toml=True) == "a thing's `inner` must be a table, not []"
