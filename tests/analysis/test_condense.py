"""Few rows that together say exactly what came out for each combination."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.analysis.condense import condense

SIZES = (2, 3, 2)
PRODUCT = list(itertools.product(*(range(size) for size in SIZES)))


def _holds(box, combination):
    return all(values is None or index in values for index, values in zip(combination, box.values, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional={place: st.sampled_from("abc") for place in PRODUCT}))
def test_each_combination_is_in_a_box_of_its_result_and_in_none_of_another(results):
    for result, boxes in condense(results, SIZES):
        for box in boxes:
            assert all(results.get(place, result) == result for place in PRODUCT if _holds(box, place))
            assert all(_holds(box, member) for member in box.members)
        members = [member for box in boxes for member in box.members]
        assert sorted(members) == sorted(place for place, other in results.items() if other == result)


def test_what_does_not_matter_is_any():
    results = {place: place[0] for place in PRODUCT}
    boxes = {result: [box.values for box in found] for result, found in condense(results, SIZES)}
    assert boxes == {0: [(frozenset({0}), None, None)], 1: [(frozenset({1}), None, None)]}


def test_combinations_that_were_not_run_stand_in_no_ones_way():
    results = {place: "ok" for place in PRODUCT if place[1] != 1 or place[2] != 1}
    assert [[box.values for box in boxes] for _, boxes in condense(results, SIZES)] == [[(None, None, None)]]


def test_no_flags_make_one_row():
    [(result, boxes)] = condense({(): "ok"}, ())
    assert (result, [box.members for box in boxes]) == ("ok", [((),)])
