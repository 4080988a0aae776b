"""What of the config space was exercised: each value of each flag, each pair of values, and what never was."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.cases.spec import CaseSpec
from verifier.output import text
from verifier.record import Record
from verifier.record.case_description import same_value


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueCoverage:
    """A value of a flag: in how many valid cases it was, and in how many refused ones."""

    flag: str
    value: Any
    valid: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPair:
    """Two values of two flags that no valid case has together; `refused` is how many refused ones have."""

    flags: tuple[str, str]
    values: tuple[Any, Any]
    refused: int

    @property
    def words(self) -> str:
        """`alibi=true bias=false`."""
        return text.config(dict(zip(self.flags, self.values, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DimCoverage:
    """A field of the config that is no flag: the values that valid cases have, and in how many cases it is."""

    name: str
    values: tuple[Any, ...]
    cases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigCoverage:
    """What was exercised.

    Attributes:
        values: every value of every flag.
        pairs: how many pairs of values there are.
        met: how many of them some valid case has.
        missing: the others.
        dims: what else varied, or stood still.
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
    plain = {name: values[0] for name, values in flags.items()}
    cases = [({**plain, **spec.config}, spec) for spec in record.cases.values()]
    single: Counter[tuple[str, int, bool]] = Counter()
    double: Counter[tuple[str, int, str, int, bool]] = Counter()
    strange: dict[str, dict[str, Any]] = {}
    for config, spec in cases:
        places = {name: _place(config[name], values) for name, values in flags.items()}
        for name, place in places.items():
            if place is None and spec.valid:
                strange.setdefault(name, {})[repr(config[name])] = config[name]
        known = [(name, place) for name, place in places.items() if place is not None]
        single.update((name, place, spec.valid) for name, place in known)
        double.update((*one, *other, spec.valid) for one, other in itertools.combinations(known, 2))
    pairs = [
        ((one, place), (other, there))
        for one, other in itertools.combinations(flags, 2)
        for place in range(len(flags[one]))
        for there in range(len(flags[other]))
    ]
    missing = tuple(
        MissingPair(flags=(one, other), values=(flags[one][place], flags[other][there]), refused=double[*pair, False])
        for (one, place), (other, there) in pairs
        if not double[*(pair := (one, place, other, there)), True]
    )
    return ConfigCoverage(
        values=tuple(
            ValueCoverage(flag=name, value=value, valid=single[name, place, True], refused=single[name, place, False])
            for name, values in flags.items()
            for place, value in enumerate(values)
        ),
        pairs=len(pairs),
        met=len(pairs) - len(missing),
        missing=missing,
        dims=_dims([spec for _, spec in cases if spec.valid], flags),
        strange={name: tuple(found[key] for key in sorted(found)) for name, found in strange.items()},
    )


def _place(value: Any, values: Sequence[Any]) -> int | None:
    return next((place for place, one in enumerate(values) if same_value(one, value)), None)


def _dims(specs: Sequence[CaseSpec], flags: Mapping[str, Sequence[Any]]) -> tuple[DimCoverage, ...]:
    found: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    for spec in specs:
        of_inputs = {"batch": spec.batch, "length": spec.length, "long": spec.long, "dtypes": list(spec.dtypes)}
        for name, value in {**spec.config, **of_inputs}.items():
            if name not in flags:
                found.setdefault(name, {})[repr(value)] = value
                counts[name] += 1
    return tuple(
        DimCoverage(name=name, values=tuple(sorted(values.values(), key=_order)), cases=counts[name])
        for name, values in found.items()
    )


def _order(value: Any) -> tuple[bool, int | float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return not number, value if number else 0, repr(value)
