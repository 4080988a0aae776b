"""The curves: what cases cost as layers, width, positions and their number grow, from the family's plainest config."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from verifier import family
from verifier.bench import children
from verifier.bench.curves import Curve, Point
from verifier.bench.orders import CaseRun, Order
from verifier.bench.sample import evenly
from verifier.cases.spec import DEPTHS, CaseSpec
from verifier.family import AXES, Axis, Family, Grows

_FACTORS = (1, 2, 4, 8, 16)
_COUNTS = (8, 16, 32, 64)
_REPEATS = 3  # of each size, unless
_ENOUGH_SECONDS = 5.0  # it takes so long that noise is small beside it
# The dearest depth asks a number of forwards of each hook point, and of a few cases only.
_DEPTH = DEPTHS[1]


def curves(reference: str, adapter: str, only: Sequence[str], specs: Sequence[CaseSpec]) -> tuple[Curve, ...]:
    """Measure each of them, in one process each.

    Args:
        reference: of the family.
        adapter: reference.
        only: globs that select checks.
        specs: the matrix.

    Raises:
        VerifierError: a process could not do it.
    """

    def measured(cases: Iterable[CaseSpec], repeats: int) -> list[CaseRun]:
        order = Order(
            family=reference,
            adapter=adapter,
            only=tuple(only),
            cases=tuple(cases),
            repeats=repeats,
            enough=_ENOUGH_SECONDS,
        )
        return children.measure(order)

    def measured_at(axis: str, ladder: Mapping[int, CaseSpec]) -> Curve:
        return Curve(axis=axis, points=points(ladder, measured(ladder.values(), _REPEATS)))

    described = family.load(reference)

    found = []
    for axis in AXES:
        if ladder := configs(described, reference, axis):
            found.append(measured_at(axis, ladder))
        else:
            left_out = f"the family {reference!r} does not say how its dims grow (`grown` in verifier/family.py)"
            found.append(Curve(axis=axis, left_out=left_out))
    found.append(measured_at("positions", lengths(described, reference)))
    found.append(Curve(axis="cases", points=of_counts(measured(spread(specs), 1))))
    return tuple(found)


def plainest(described: Family, reference: str) -> CaseSpec:
    """The case of the plainest config, every flag at its first value."""
    flags = {name: values[0] for name, values in described.flags().items()}
    return CaseSpec(family=reference, config={**described.dims(), **flags}, depth=_DEPTH)


def configs(described: Family, reference: str, axis: Axis) -> dict[int, CaseSpec]:
    """By size: the plainest config grown along the axis; empty where the family cannot say."""
    if not isinstance(described, Grows):
        return {}
    spec = plainest(described, reference)
    found = {}
    for factor in _FACTORS:
        size, dims = described.grown(axis, factor)
        found[size] = replace(spec, config={**spec.config, **dims})
    return found


def lengths(described: Family, reference: str) -> dict[int, CaseSpec]:
    """By number of positions: the plainest config on longer and longer inputs, of as many rows."""
    spec = plainest(described, reference)
    return {spec.length * factor: replace(spec, length=spec.length * factor) for factor in _FACTORS}


def spread(specs: Sequence[CaseSpec]) -> list[CaseSpec]:
    """As many valid cases as the longest run has, over and over where there are too few, in such an order that the
    first of them are spread over the matrix as evenly as all."""
    most = _COUNTS[-1]
    chosen = evenly([spec for spec in specs if spec.valid], most)
    halving = sorted(range(len(chosen)), key=lambda place: f"{place:b}".zfill(most.bit_length())[::-1])
    ordered = (replace(chosen[place], depth=_DEPTH) for place in halving)
    return list(itertools.islice(itertools.cycle(ordered), most))


def points(ladder: Mapping[int, CaseSpec], runs: Sequence[CaseRun]) -> tuple[Point, ...]:
    """One for each size, of the run that took the median time."""
    found = []
    for size, spec in ladder.items():
        mine = sorted((run for run in runs if run.case == spec.id), key=lambda run: run.seconds)
        found.append(_point(size, [mine[(len(mine) - 1) // 2]]))
    return tuple(found)


def of_counts(runs: Sequence[CaseRun]) -> tuple[Point, ...]:
    """One for each count, of so many runs from the first on."""
    return tuple(_point(count, runs[:count]) for count in _COUNTS)


def _point(size: int, runs: Sequence[CaseRun]) -> Point:
    return Point(
        size=size,
        seconds=sum(run.seconds for run in runs),
        models=sum(run.models for run in runs),
        gating=sum(check.gates for run in runs for check in run.checks),
    )
