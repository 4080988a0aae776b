"""No text, with what comes after it, is longer than a model has positions; what cannot be short enough cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from learned_positions import LearnedPositionsFamily, WholeModelAdapter
from tiny_models import POSITIONS

from verifier.cases import matrix
from verifier.cases.circumstances import AXES, PLAIN, Circumstance, complete, differences, is_allowed, read_rows
from verifier.cases.dealing import can_be_called
from verifier.cases.inputs import INPUT_MAKERS
from verifier.cases.lengths import GENERATED, choose_lengths, lack_of_positions, shorten_inputs
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.families.falcon import FalconFamily
from verifier.family import longest_text_of
from verifier.fuzz import fields
from verifier.observing.circumstances.row import Row

OF_LENGTHS = ("length", "positions", "past", "history")
ROWS: Sequence[Circumstance] = read_rows()


def family_of(positions: int = POSITIONS, name: str = "n_positions") -> LearnedPositionsFamily:
    return LearnedPositionsFamily(positions, name)


def spec_of(family: LearnedPositionsFamily) -> CaseSpec:
    return CaseSpec(family="learned", config={**family.dims(), "scale_attn_weights": True}, batch=3, length=9, long=20)


def singles() -> list[Circumstance]:
    """The plainest circumstance of each value of the axes that change lengths, and of each two of them."""
    asked = [{}, *({axis: value} for axis in OF_LENGTHS for value in AXES[axis])]
    both = [{**one, **other} for one in asked for other in asked if one.keys().isdisjoint(other)]
    found = [row for values in both if (row := complete(values, {})) is not None]
    return [dict(row) for row in {tuple(row.items()): row for row in found}.values()]


def run(family: LearnedPositionsFamily, circumstance: Circumstance) -> None:
    """Look at a right adapter in a circumstance: everything that is done there is called."""
    result = Row(spec_of(family), family, circumstance).run(WholeModelAdapter())
    words = differences(circumstance)
    assert result.refused is None or "index" not in result.refused, (words, result.refused)
    assert not result.errors, (words, result.errors)
    assert family.farthest, words
    assert max(family.farthest) < family.longest_text(spec_of(family).config), words


@pytest.mark.thinned(3)
@pytest.mark.parametrize("positions", [13, POSITIONS, 80])
def test_no_model_is_called_beyond_its_positions(positions: int) -> None:
    family = family_of(positions)
    able = [row for row in singles() if can_be_called(family, spec_of(family), row)]
    assert able
    for row in able[:: 1 if positions == POSITIONS else 3]:
        run(family, row)


@pytest.mark.slow
@pytest.mark.parametrize("positions", [POSITIONS, 80])
def test_no_model_is_called_beyond_its_positions_in_any_row_of_the_covering(positions: int) -> None:
    family = family_of(positions)
    for row in ROWS:
        if can_be_called(family, spec_of(family), row):
            run(family, row)


def test_a_circumstance_that_needs_more_positions_is_refused_before_anything_is_called() -> None:
    family = family_of()
    result = Row(spec_of(family), family, PLAIN | {"length": "long"}).run(WholeModelAdapter())
    assert result.refused == "the model has 32 positions, and the circumstance needs more"
    assert not family.farthest


@pytest.mark.parametrize(
    ("values", "possible"),
    [
        ({"length": "long"}, False),
        ({"length": "beyond"}, False),
        ({"length": "multiple"}, True),
        ({"length": "multiple", "past": "token"}, True),
        ({"length": "multiple", "history": "longer"}, True),
        ({"mask": "ones", "positions": "given"}, True),
        ({"mask": "ones", "positions": "far"}, False),
        ({"past": "cropped"}, True),
        ({"past": "generation"}, True),
        ({"history": "generated"}, True),
        ({"history": "generated+longer"}, True),
    ],
    ids=str,
)
def test_what_32_positions_have_room_for(values: Mapping[str, str], possible: bool) -> None:
    family = family_of()
    assert can_be_called(family, spec_of(family), PLAIN | values) is possible


def test_a_config_that_names_its_maximum_is_given_more_where_that_is_needed() -> None:
    family = family_of(name="max_position_embeddings")
    for values in ({"length": "long"}, {"mask": "ones", "positions": "far"}):
        row = PLAIN | values
        assert can_be_called(family, spec_of(family), row)
        result = Row(spec_of(family), family, row).run(WholeModelAdapter())
        assert result.refused is None
        assert not result.errors
    assert 64 < max(family.farthest) < 640
    assert not can_be_called(family, spec_of(family), PLAIN | {"length": "beyond"})


def test_lengths_are_shortened_no_further_than_their_meaning() -> None:
    def text(values: Mapping[str, str], longest: int) -> int | None:
        found = choose_lengths(PLAIN | values, most=longest, longest=longest)
        return None if found is None else found.text

    assert [text({"length": "multiple"}, most) for most in (15, 16, 31, 32, 99)] == [None, 16, 16, 32, 32]
    assert [text({"length": "multiple", "past": "chunk"}, most) for most in (18, 19, 34, 35)] == [None, 16, 16, 32]
    assert [text({"length": "long"}, most) for most in (64, 65, 69, 70, 99)] == [None, 65, 69, 70, 70]
    assert [text({}, most) for most in (6, 7)] == [None, 7]
    assert [text({"past": "cropped"}, most) for most in (10, 11)] == [None, 7]


def test_positions_that_are_given_are_not_the_default_ones_however_little_room_there_is() -> None:
    for positions in (9, 13, POSITIONS):
        family = family_of(positions)
        row = PLAIN | {"mask": "ones", "positions": "given"}
        texts = Row(spec_of(family), family, row).texts()
        assert texts.positions is not None
        default = torch.arange(texts.length)
        assert not any(torch.equal(one, default) for one in texts.positions)
        assert int(texts.positions.max()) < positions


def test_far_positions_begin_beyond_64_and_end_at_the_last() -> None:
    family = family_of(80)
    texts = Row(spec_of(family), family, PLAIN | {"mask": "ones", "positions": "far"}).texts()
    assert texts.positions is not None
    assert 64 < int(texts.positions.min()) <= int(texts.positions.max()) < 80


def test_inputs_leave_room_for_what_is_generated_after_them() -> None:
    family = family_of(12)
    for spec in matrix.cases(family, "learned"):
        assert spec.length == 12 - GENERATED
        assert spec.long == 12
        for make in INPUT_MAKERS.values():
            ids = make(spec, 31).inputs.input_ids
            assert ids is not None
            assert ids.shape[1] == spec.length


def test_a_model_with_room_gets_the_inputs_of_every_model(falcon: FalconFamily) -> None:
    usual = CaseSpec(family="learned", config=family_of(500).dims())
    assert shorten_inputs(family_of(500), usual) == usual
    assert longest_text_of(falcon, falcon.dims()) is None
    assert lack_of_positions(falcon, falcon.dims(), PLAIN | {"length": "beyond"}) is None


def test_a_model_that_is_too_small_for_any_inputs_is_told_so() -> None:
    with pytest.raises(UsageError, match="learned-positions: a model of 8 positions is too small"):
        matrix.cases(family_of(8), "learned")


def test_what_needs_more_positions_is_dealt_to_nobody() -> None:
    family = family_of()
    dealt = [(spec, PLAIN | one) for spec in matrix.cases(family, "learned") for one in spec.circumstances]
    assert dealt
    assert all(can_be_called(family, spec, row) for spec, row in dealt)
    shown = {row["length"] for _, row in dealt}
    assert shown == {"short", "one", "multiple"}


def test_a_campaign_draws_nothing_that_needs_more_positions() -> None:
    family: Any = family_of(14)
    space = fields.space(family, "learned")
    names = [field.name for field in space.fields]
    choice = list(space.plainest)
    if "length" in names:
        choice[names.index("length")] = len(space.fields[names.index("length")].values) - 1
    spec = space.spec(space.mended(tuple(choice)))
    assert spec.length <= 14 - GENERATED
    assert all(can_be_called(family, spec, PLAIN | one) and is_allowed(PLAIN | one) for one in spec.circumstances)


def test_a_refused_case_keeps_its_inputs() -> None:
    family = family_of(8)
    refused = replace(spec_of(family), valid=False, reason="no")
    assert shorten_inputs(family, refused) == refused
