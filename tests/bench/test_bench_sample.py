"""A sample stands for its matrix: each depth in its proportion, none left out."""

from __future__ import annotations

from dataclasses import replace

from verifier.bench import sample
from verifier.cases.spec import CaseSpec


def cases(spec: CaseSpec, **counts: int) -> list[CaseSpec]:
    """So many of each depth, and so many refused ones."""
    refused = counts.pop("refused", 0)
    found = [replace(spec, depth=depth, seed=seed) for depth, count in counts.items() for seed in range(count)]
    return found + [replace(spec, valid=False, reason="no", seed=seed) for seed in range(refused)]


def test_each_depth_is_there_in_its_proportion(spec: CaseSpec) -> None:
    strata = sample.strata(cases(spec, valid=200, spread=60, thorough=3, refused=80), 12)
    taken = {stratum.cases[0].depth: (len(stratum.cases), stratum.of) for stratum in strata}
    assert taken == {"valid": (10, 200), "spread": (3, 60), "thorough": (1, 3)}


def test_there_are_as_many_as_were_asked_for_or_all(spec: CaseSpec) -> None:
    specs = cases(spec, valid=7, thorough=4)
    for wanted in range(1, 12):
        assert sum(len(stratum.cases) for stratum in sample.strata(specs, wanted)) >= wanted
    everything = sample.strata(specs, 100)
    assert [one for stratum in everything for one in stratum.cases] == specs


def test_refused_cases_are_taken_in_the_same_proportion(spec: CaseSpec) -> None:
    found = sample.refused(cases(spec, valid=100, refused=50), 10)
    assert (len(found.cases), found.of) == (5, 50)
    assert not any(one.valid for one in found.cases)
    assert sample.refused(cases(spec, valid=100), 10) == sample.Stratum(cases=(), of=0)


def test_cases_are_taken_evenly(spec: CaseSpec) -> None:
    specs = cases(spec, valid=12)
    assert [one.seed for one in sample.evenly(specs, 3)] == [2, 6, 10]
    assert sample.evenly(specs, 12) == tuple(specs)
    assert sample.evenly([], 3) == ()
