"""Deal the circumstances of the covering array over the cases of a run, by cost."""

from __future__ import annotations

import functools
from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace

from verifier.canonical import templates_by_layer
from verifier.cases.circumstances import (
    AXES,
    CLASSES,
    PLAIN,
    Circumstance,
    classes_in,
    complete,
    differences,
    read_rows,
)
from verifier.cases.lengths import lack_of_positions
from verifier.cases.spec import CaseSpec
from verifier.family import Family, RefusesCircumstances, Reshapes, longest_text_of
from verifier.reference.acceptance import refusal_of

WITH_GRADIENTS: Circumstance = {**PLAIN, "grad": "grad"}
"""The plainest circumstance in which gradients can be looked at."""

# A named case has another shape than the matrix, so it is also called with texts that are longer than its tables.
_OF_NAMED_CASES = ({"length": "beyond"}, {"history": "longer"})

EVERYDAY: Sequence[Circumstance] = (
    {"mask": "left", "positions": "given"},
    {"mask": "left", "labels": "some"},
    {"mask": "left", "tokens": "embeddings"},
    {"past": "token", "mask": "left"},
    {"past": "token", "mask": "left", "rows": "one"},
    {"past": "token", "mask": "ones", "positions": "given"},
    {"past": "chunk", "mask": "left", "positions": "given"},
    {"past": "token", "tokens": "embeddings"},
    {"past": "token", "length": "long"},
    {"past": "token", "dtype": "float16"},
    {"tokens": "embeddings", "dtype": "float16"},
)
"""What is most often given together: texts of several lengths, their positions, a cache, half precision."""

# The axes on which it depends whether a model can be called, which is asked once for each of their values.
_ASKED = ("mask", "dims")
_ASKED_OF_POSITIONS = ("length", "positions", "past", "history")

# How much longer a row takes than the plainest: measured, and rounded to halves.
_COSTS = {
    ("grad", "grad"): 2.0,
    ("grad", "frozen"): 2.0,
    ("grad", "autocast"): 2.5,
    ("length", "long"): 1.5,
    ("length", "beyond"): 1.5,
    ("depth", "three"): 1.5,
    ("depth", "eleven"): 4.0,
}


def deal(family: Family, specs: Sequence[CaseSpec], *, everywhere: bool = False, quick: bool = False) -> list[CaseSpec]:
    """Give each valid case the circumstances in which it is looked at.

    Every case is looked at in the plainest circumstance with gradients. Each row with one value that is not plain is
    given to cases that have every value of every flag, and every kind of block, among them. Each other row is given to
    one case, or with `everywhere` to such cases too.

    Args:
        family: of the cases.
        specs: the cases of a run.
        everywhere: whether every row meets every value of every flag.
        quick: whether only the plainest row of each value in each class, and what most often meets, is dealt: to one
            case, but for what shows in some kinds of block alone.
    """
    rows: Sequence[Circumstance] = read_rows()
    rows = [*_plainest_of_each_value(rows), *({**PLAIN, **row} for row in EVERYDAY)] if quick else rows
    valid = [number for number, spec in enumerate(specs) if spec.valid]
    matrix = [number for number in valid if specs[number].label is None] or valid
    models = {number: kind_of_model(family, specs[number]) for number in matrix}
    groups, flags = kinds_of_blocks(set(models.values())), family.flags()
    # What a case has that a circumstance should meet: its kinds of blocks, and the values of its flags.
    features: dict[int, frozenset[Hashable]] = {
        number: frozenset(
            [*((group, group & model) for group in groups), *((flag, specs[number].config.get(flag)) for flag in flags)]
        )
        for number, model in models.items()
    }
    dealt: dict[int, list[Circumstance]] = {number: [WITH_GRADIENTS] for number in valid}
    load = dict.fromkeys(valid, 0.0)
    for number in set(valid) - set(matrix):
        for part in _OF_NAMED_CASES:
            row = complete(part, {})
            assert row is not None
            if can_be_called(family, specs[number], row):
                dealt[number].append(row)

    @functools.cache
    def able(*values: str) -> Sequence[int]:
        row = {**PLAIN, **dict(zip(asked, values, strict=True))}
        return [number for number in matrix if can_be_called(family, specs[number], row)]

    limited = any(longest_text_of(family, specs[number].config) is not None for number in matrix)
    asked = (*_ASKED, *(_ASKED_OF_POSITIONS if limited else ()))
    for row in (row for row in rows if row != WITH_GRADIENTS):
        candidates = able(*(row[axis] for axis in asked))
        missing = set[Hashable]().union(*(features[number] for number in candidates))
        to_each = everywhere or (_depends_on_blocks(row) if quick else is_single(row))
        while missing:
            # Of those that show most of what is missing the one with the least to do.
            best = min(
                candidates, key=lambda number: (-len(features[number] & missing) if to_each else 0, load[number])
            )
            dealt[best].append(row)
            load[best] += cost(row)
            missing = missing - features[best] if to_each else set()
    # Last of all: a case is looked at in the same circumstances whichever other dtypes are run.
    return [
        replace(
            spec,
            circumstances=tuple(
                differences(row)
                for row in dealt.get(number, ())
                if row["dtype"] in dtypes_of_circumstances(spec.dtypes)
            ),
        )
        for number, spec in enumerate(specs)
    ]


def _plainest_of_each_value(rows: Sequence[Circumstance]) -> list[Circumstance]:
    """Select for each value of each axis, and each class, the plainest of the rows in which the two are looked at."""
    found: dict[tuple[str, str, str], Circumstance] = {}
    for row in sorted(rows, key=lambda row: len(differences(row))):
        for kind in classes_in(row):
            for axis in kind.axes or AXES:
                found.setdefault((kind.name, axis, row[axis]), row)
    return [row for row in rows if row in found.values()]


def is_single(row: Circumstance) -> bool:
    """Whether one value alone is not plain, in a call with gradients, in which most can be looked at.

    What the constraints ask for beside that value is there too. A value that nothing can be looked at with in a call
    with gradients is single in the plainest call that has it.
    """
    return row in _single_rows()


def _depends_on_blocks(row: Circumstance) -> bool:
    """Whether some blocks alone may show what is wrong: beyond rounding, by a position, in a deep layer, in a token."""
    found = differences(row)
    return not {"dtype", "positions"}.isdisjoint(found) or found in (
        {"depth": "eleven", "grad": "grad"},
        {"past": "generation", "mask": "left"},
    )


@functools.cache
def _single_rows() -> Sequence[Circumstance]:
    found: list[Circumstance] = []
    for axis, value in ((axis, value) for axis, values in AXES.items() for value in values):
        attempts = (complete({axis: value}, {"grad": grads}) for grads in (("grad",), tuple(AXES["grad"])))
        possible = (row for row in attempts if row is not None and any(kind.can_look(row) for kind in CLASSES))
        found.append(next(possible))
    return found


def cost(row: Circumstance) -> float:
    """Estimate how long a row takes, in units of the plainest."""
    found = 1.0
    for (axis, value), factor in _COSTS.items():
        found *= factor if row[axis] == value else 1.0
    return found


def can_be_called(family: Family, spec: CaseSpec, row: Circumstance) -> bool:
    """Whether Hugging Face's model of a case can be built and called in a circumstance.

    Args:
        family: of the case.
        spec: the case.
        row: the circumstance.
    """
    if isinstance(family, RefusesCircumstances) and family.circumstance_refusal(spec.config, row) is not None:
        return False
    if lack_of_positions(family, spec.config, {**PLAIN, **row}) is not None:
        return False
    if row["dims"] in ("usual", "extreme"):
        return True
    config = family.reshaped(spec.config, row["dims"]) if isinstance(family, Reshapes) else None
    return config is not None and refusal_of(family)(config) is None


def kind_of_model(family: Family, spec: CaseSpec) -> frozenset[str]:
    """Name the kind of model of a case, which is what hook points it has.

    Where the blocks of a model differ, it is also which hook points stand together in one, as a name for each kind of
    block.

    Args:
        family: of the case.
        spec: the case.
    """
    points = family.points(spec.config)
    blocks = {" ".join(sorted(templates)) for templates in templates_by_layer(points).values()}
    return frozenset(point.kind.template for point in points) | (blocks if len(blocks) > 1 else frozenset())


def kinds_of_blocks(models: Collection[frozenset[str]]) -> list[frozenset[str]]:
    """Group the hook points that some models have and others lack: points of two groups come and go independently.

    In one group are the points of a sequential or a parallel block, say, and in another those of rotary positions.

    Args:
        models: the kinds of models.
    """
    changing = sorted({point for model in models for point in model if any(point not in other for other in models)})
    groups: list[frozenset[str]] = []
    for point in changing:

        def depends(other: str, point: str = point) -> bool:
            return len({(point in model, other in model) for model in models}) < 4

        joined = [group for group in groups if any(map(depends, group))]
        groups = [group for group in groups if group not in joined] + [frozenset({point}).union(*joined)]
    return groups


def dtypes_of_circumstances(dtypes: Collection[str]) -> set[str]:
    """List the values of the axis `dtype` in which a case with these working dtypes is looked at."""
    return {"float64", *dtypes, *(["mixed"] if "bfloat16" in dtypes else [])}


def plainly(specs: Sequence[CaseSpec]) -> list[CaseSpec]:
    """Give each valid case the plainest circumstance with gradients alone: models of published sizes are dear."""
    row = differences(WITH_GRADIENTS)
    return [replace(spec, circumstances=(row,)) if spec.valid else spec for spec in specs]
