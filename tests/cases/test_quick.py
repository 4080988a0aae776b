"""A quick run has a covering of the flags, and each single value of each axis once for each class of observables."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from verifier import family, faults
from verifier.cases import matrix
from verifier.cases.circumstances import (
    AXES,
    CLASSES,
    PLAIN,
    ObservableClass,
    classes_in,
    complete,
    differences,
    is_looked_at,
)
from verifier.cases.dealing import WITH_GRADIENTS, kind_of_model, kinds_of_blocks
from verifier.cases.spec import CaseSpec
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import Fault


@pytest.fixture(scope="module")
def whole(falcon: FalconFamily) -> list[CaseSpec]:
    return matrix.cases(falcon, "falcon")


@pytest.fixture(scope="module")
def quick(falcon: FalconFamily) -> list[CaseSpec]:
    return matrix.cases(falcon, "falcon", quick=True)


def meetings(specs: Sequence[CaseSpec], names: Sequence[str]) -> set[Any]:
    return {
        met for spec in specs for met in itertools.combinations([(name, repr(spec.config[name])) for name in names], 2)
    }


def kinds(falcon: FalconFamily, specs: Sequence[CaseSpec]) -> set[frozenset[str]]:
    return {frozenset(point.kind.template for point in falcon.points(spec.config)) for spec in specs if spec.valid}


def test_it_is_a_part_of_the_whole_matrix_in_its_order(whole: list[CaseSpec], quick: list[CaseSpec]) -> None:
    chosen = {spec.id for spec in quick}
    assert [spec.id for spec in quick] == [spec.id for spec in whole if spec.id in chosen]
    assert len(quick) < len(whole) / 8
    assert quick[0] == replace(whole[0], circumstances=quick[0].circumstances)


@pytest.mark.parametrize("valid", [True, False], ids=["valid", "refused"])
def test_every_two_values_of_the_flags_meet(
    falcon: FalconFamily, whole: list[CaseSpec], quick: list[CaseSpec], valid: bool
) -> None:
    every, chosen = ([one for one in some if one.valid is valid and not one.label] for some in (whole, quick))
    wanted = meetings(every, [*falcon.flags()])
    assert meetings(chosen, [*falcon.flags()]) == wanted
    if valid:
        assert meetings([one for one in chosen if one.is_pairwise], [*falcon.flags()]) == wanted


def test_every_kind_of_model_and_every_field_is_there(
    falcon: FalconFamily, whole: list[CaseSpec], quick: list[CaseSpec]
) -> None:
    assert kinds(falcon, quick) == kinds(falcon, whole)
    assert {name for spec in quick for name in spec.config} == {name for spec in whole for name in spec.config}
    assert kinds(falcon, [spec for spec in quick if spec.is_sampled]) == kinds(
        falcon, [s for s in whole if s.is_sampled]
    )


def test_no_kind_of_model_is_repeated_among_the_corners(falcon: FalconFamily, quick: list[CaseSpec]) -> None:
    usual = falcon.flags().keys() | falcon.dims().keys()
    corners = [spec for spec in quick if spec.valid and spec.label and spec.config.keys() <= usual]
    product = [spec for spec in quick if spec.valid and not spec.label]
    assert len(kinds(falcon, corners)) == len(corners)
    assert not kinds(falcon, corners) & kinds(falcon, product)


@pytest.mark.parametrize("kind", CLASSES, ids=[kind.name for kind in CLASSES])
def test_each_value_of_each_axis_has_a_row_of_each_class(quick: list[CaseSpec], kind: ObservableClass) -> None:
    rows = [PLAIN | one for spec in quick for one in spec.circumstances]
    looked_at = {item for row in rows if kind in classes_in(row) for item in row.items()}
    for axis in kind.axes or AXES:
        for value in AXES[axis]:
            assert ((axis, value) in looked_at) == (complete({axis: value}, kind.needs) is not None), (axis, value)


def depends_on_blocks(row: Mapping[str, str]) -> bool:
    return not {"dtype", "positions"}.isdisjoint(row) or row in (
        {"depth": "eleven", "grad": "grad"},
        {"past": "generation", "mask": "left"},
    )


def test_what_depends_on_blocks_is_looked_at_on_each_kind(falcon: FalconFamily, quick: list[CaseSpec]) -> None:
    product = [spec for spec in quick if spec.valid and not spec.label]
    models = {spec.id: kind_of_model(falcon, spec) for spec in product}
    groups = kinds_of_blocks(set(models.values()))
    rows = {frozenset(one.items()) for spec in product for one in spec.circumstances if depends_on_blocks(one)}
    assert len(rows) > 20
    for row in rows:
        having = [models[spec.id] for spec in product if row in [frozenset(one.items()) for one in spec.circumstances]]
        for group in groups:
            assert {group & model for model in having} == {group & model for model in models.values()}, row


@pytest.mark.parametrize("fault", faults.list_faults(family.load("falcon")), ids=lambda fault: fault.name)
def test_the_circumstances_of_every_planted_fault_are_looked_at(quick: list[CaseSpec], fault: Fault) -> None:
    rows = [PLAIN | one for spec in quick for one in spec.circumstances]
    for check in fault.caught_by:
        assert any(
            is_looked_at(check, row) and one.items() <= row.items() for row in rows for one in fault.circumstances
        ), check


def test_each_row_is_dealt_once_and_none_has_many(quick: list[CaseSpec]) -> None:
    product = [spec for spec in quick if spec.valid and not spec.label]
    dealt = Counter(frozenset(one.items()) for spec in product for one in spec.circumstances)
    # But for that in which every case is looked at.
    assert dealt.pop(frozenset(differences(WITH_GRADIENTS).items())) == len(product)
    assert {number for row, number in dealt.items() if not depends_on_blocks(dict(row))} == {1}
    sizes = [len(spec.circumstances) for spec in product]
    assert max(sizes) - min(sizes) < min(sizes)


def test_where_narrows_a_quick_run(falcon: FalconFamily, quick: list[CaseSpec]) -> None:
    found = matrix.cases(falcon, "falcon", quick=True, where={"alibi": "true", "dtype": "float16"})
    known = {spec.id: spec for spec in quick}
    assert {spec.id for spec in found} == {spec.id for spec in quick if spec.config.get("alibi") is True}
    for spec in found:
        before = known[spec.id].circumstances
        assert spec.circumstances == tuple(one for one in before if one.get("dtype") == "float16")
