"""What of the config space was exercised: each value of each flag, each pair of values, and what never was."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from verifier.cases.spec import CaseSpec
from verifier.output import text
from verifier.record import Record
from verifier.record.case_description import find_value


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueCoverage:
    """A value of a flag: in how many valid cases it was, and in how many refused ones."""

    flag: str
    value: Any
    valid: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPair:
    """Values of two flags that no valid case has together, and the number of refused cases that have them."""

    values: Mapping[str, Any]
    refused: int

    @property
    def words(self) -> str:
        """`alibi=true bias=false`."""
        return text.config(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class DimCoverage:
    """A field of the config that is no flag: the values that valid cases have, and in how many cases it is."""

    name: str
    values: tuple[Any, ...]
    cases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigCoverage:
    """What of the config space a record's cases exercise.

    Attributes:
        values: every value of every flag.
        pairs: how many pairs of values there are.
        met: how many of them some valid case has.
        missing: the pairs that no valid case has.
        dims: the other fields of the config and of the inputs, with their values.
        strange: flags' values that valid cases have and the family does not list, by flag.
    """

    values: tuple[ValueCoverage, ...]
    pairs: int
    met: int
    missing: tuple[MissingPair, ...]
    dims: tuple[DimCoverage, ...]
    strange: Mapping[str, tuple[Any, ...]]


def measure_coverage(record: Record) -> ConfigCoverage:
    """Measure which values and pairs of a record's flags valid cases have; a flag left out has its plainest value."""
    flags = record.run.flags
    values = {name: [(name, index) for index, _ in enumerate(listed)] for name, listed in flags.items()}
    single: Counter[tuple[tuple[str, int], bool]] = Counter()
    double: Counter[tuple[tuple[tuple[str, int], ...], bool]] = Counter()
    strange: dict[str, dict[str, Any]] = {}
    for spec in record.cases.values():
        taken = []
        for name, listed in flags.items():
            value = spec.config.get(name, listed[0])
            index = find_value(value, listed)
            if index is not None:
                taken.append((name, index))
            elif spec.valid:
                strange.setdefault(name, {})[repr(value)] = value
        single.update((one, spec.valid) for one in taken)
        double.update((pair, spec.valid) for pair in itertools.combinations(taken, 2))
    pairs = [
        pair
        for first, second in itertools.combinations(flags, 2)
        for pair in itertools.product(values[first], values[second])
    ]
    missing = [pair for pair in pairs if not double[pair, True]]
    return ConfigCoverage(
        values=tuple(
            ValueCoverage(flag=name, value=flags[name][index], valid=single[one, True], refused=single[one, False])
            for one in itertools.chain(*values.values())
            for name, index in (one,)
        ),
        pairs=len(pairs),
        met=len(pairs) - len(missing),
        missing=tuple(
            MissingPair(values={name: flags[name][index] for name, index in pair}, refused=double[pair, False])
            for pair in missing
        ),
        dims=_dims((spec for spec in record.cases.values() if spec.valid), flags),
        strange={name: tuple(found[key] for key in sorted(found)) for name, found in strange.items()},
    )


def _dims(specs: Iterable[CaseSpec], flags: Mapping[str, object]) -> tuple[DimCoverage, ...]:
    """Collect the values of every field that is no flag."""
    found: dict[str, list[Any]] = {}
    for spec in specs:
        inputs = {"batch": spec.batch, "length": spec.length, "long": spec.long, "dtypes": list(spec.dtypes)}
        for name, value in {**spec.config, **inputs}.items():
            if name not in flags:
                found.setdefault(name, []).append(value)
    return tuple(
        DimCoverage(
            name=name, values=tuple(sorted({repr(one): one for one in values}.values(), key=_order)), cases=len(values)
        )
        for name, values in found.items()
    )


def _order(value: Any) -> tuple[bool, int | float, str]:
    """Put numbers before everything else, and the rest in the order of the alphabet."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return not number, value if number else 0, repr(value)
