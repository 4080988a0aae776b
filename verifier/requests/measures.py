"""Durations and sizes as people write them: `90s`, `4G`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from verifier.errors import UsageError

_MOST = 2.0**53  # floats count exactly up to here: a hundred million years, or eight million gigabytes
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A quantity and its units.

    Attributes:
        name: the word for people.
        factors: what each unit is worth; the empty one is that of a bare number.
        example: how it is written.
    """

    name: str
    factors: Mapping[str, float]
    example: str

    @property
    def words(self) -> str:
        """What a value must be."""
        units = ", ".join(unit for unit in self.factors if unit)
        return f"a {self.name} (a number and one of {units}, as in {self.example})"

    def read(self, value: str | float) -> float:
        """The number of seconds, or of bytes, that is written.

        Raises:
            UsageError: it is not so written, or too large to be meant; the message completes "it …".
        """
        match = _NUMBER.fullmatch(str(value).strip())
        if match is None or match[2].lower() not in self.factors:
            raise UsageError(f"must be {self.words}, not {value!r}")
        found = float(match[1]) * self.factors[match[2].lower()]
        if found > _MOST:
            raise UsageError(f"is more than any {self.name}: leave it out, or give 0 for no limit")
        return found


DURATIONS = Measure(name="duration", factors={"": 1, "s": 1, "m": 60, "h": 3600}, example="90s")
SIZES = Measure(name="size", factors={"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}, example="4G")
