"""Durations and sizes as people write them: `90s`, `4G`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from verifier.errors import UsageError

_MOST = 2.0**53  # what counts exactly; a hundred million years, or as many petabytes as there are nowhere
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What is measured, and in which units.

    Attributes:
        name: the word for people.
        factors: what each unit is worth, the empty one that of a bare number.
        example: how it is written.
    """

    name: str
    factors: Mapping[str, float]
    example: str


DURATION = Measure(name="duration", factors={"": 1, "s": 1, "m": 60, "h": 3600}, example="90s")
SIZE = Measure(name="size", factors={"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}, example="4G")


def duration(text: str) -> float:
    """The seconds that a text like `90`, `90s` or `5m` says.

    Raises:
        UsageError: it says none.
    """
    return _read(text, DURATION)


def size(text: str) -> int:
    """The bytes that a text like `512M` or `4G` says.

    Raises:
        UsageError: it says none.
    """
    return int(_read(text, SIZE))


def _read(text: str, measure: Measure) -> float:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2].lower() not in measure.factors:
        units = ", ".join(unit for unit in measure.factors if unit)
        raise UsageError(f"{text!r} is no {measure.name}: a number and one of {units}, as in {measure.example}")
    found = float(match[1]) * measure.factors[match[2].lower()]
    if found > _MOST:
        raise UsageError(f"{text!r} is more than any {measure.name}; leave it out, or give 0 for no limit")
    return found
