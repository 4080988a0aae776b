"""What a model is given in a circumstance is what the circumstance says."""

from __future__ import annotations

import itertools
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from verifier.cases.circumstance_configs import MOST_POSITIONS, config_in
from verifier.cases.circumstances import AXES, PLAIN, complete, is_allowed
from verifier.cases.inputs import NO_LABEL
from verifier.cases.lengths import NEW_TOKENS, choose_lengths
from verifier.observing.circumstances.texts import Texts, make_texts

pytestmark = pytest.mark.thinned(2)

MOST = 48
VOCABULARY, WIDTH = 31, 4
HIDING = ("left", "right", "gaps", "mixed", "boolean", "additive", "rewritten")


def texts(*, seed: int = 0, dtype: torch.dtype = torch.float64, device: str = "cpu", **values: str) -> Texts:
    """The texts of the plainest circumstance that has these values, for a config of 48 positions."""
    circumstance = complete(values, {})
    assert circumstance is not None, values
    most = config_in(circumstance, {"max_position_embeddings": MOST})["max_position_embeddings"]
    lengths = choose_lengths(circumstance, most=most, longest=None)
    assert lengths is not None
    return make_texts(
        circumstance, seed=seed, vocab=VOCABULARY, d_model=WIDTH, lengths=lengths, dtype=dtype, device=device
    )


def every(*axes: str, **fixed: str) -> list[dict[str, str]]:
    """Every meeting of the values of these axes that the constraints allow, beside fixed values."""
    found = [{**fixed, **dict(zip(axes, values, strict=True))} for values in itertools.product(*map(AXES.get, axes))]
    return [one for one in found if complete(one, {}) is not None]


def has_gap(row: Tensor) -> bool:
    """Whether a token that is hidden stands between two that are not; a row of booleans `[pos]`."""
    places = row.nonzero().flatten().tolist()
    return len(places) < places[-1] - places[0] + 1


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HIDING)
def test_each_row_of_a_mask_hides_something_and_leaves_something(kind: str) -> None:
    for values in every("rows", "length", "past", mask=kind):
        found = texts(**values)
        if values["length"] == "one" and kind == "additive":
            continue  # of one token a mask that is added has one element
        assert not found.readable.all(1).any(), values
        assert found.real.any(1).all(), values


@pytest.mark.parametrize("kind", ["none", "ones"])
def test_a_mask_that_hides_nothing_hides_nothing(kind: str) -> None:
    for values in every("rows", "length", "past", mask=kind):
        found = texts(**values)
        assert found.readable.all()
        assert (found.mask is None) == (kind == "none")


@pytest.mark.parametrize("kind", ["left", "boolean", "additive"])
def test_padding_on_the_left_is_a_beginning_of_another_length_in_each_row(kind: str) -> None:
    readable = texts(mask=kind).readable
    assert torch.equal(readable, readable.cummax(1).values)
    assert (~readable).sum(1).tolist() == [1, 2, 1]


def test_padding_on_the_right_is_an_end() -> None:
    readable = texts(mask="right").readable
    assert torch.equal(readable, readable.cummin(1).values)
    assert len(set((~readable).sum(1).tolist())) > 1


@pytest.mark.parametrize("past", NEW_TOKENS)
def test_padding_on_the_right_of_a_prompt_stands_before_what_follows_the_cache(past: str) -> None:
    found = texts(mask="right", past=past)
    assert found.real.all()
    assert not found.readable[:, found.prompt - 1].any()


@pytest.mark.parametrize("kind", ["gaps", "rewritten"])
def test_gaps_are_between_tokens(kind: str) -> None:
    for values in every("rows", "length", "past", mask=kind):
        for seed in range(3):
            found = texts(seed=seed, **values)
            if found.length > 2:  # two tokens have no room
                assert all(map(has_gap, found.readable)), values
            assert found.readable[:, -1].all()


def test_a_mixed_mask_pads_each_row_otherwise() -> None:
    left, gaps, right = texts(mask="mixed").readable
    assert left.tolist() == sorted(left.tolist())
    assert has_gap(gaps)
    assert right.tolist() == sorted(right.tolist(), reverse=True)


def test_masks_have_the_type_that_they_are_called_by() -> None:
    masks = {kind: texts(mask=kind).mask for kind in AXES["mask"] if kind != "none"}
    additive, boolean = masks.pop("additive"), masks.pop("boolean")
    assert boolean is not None
    assert boolean.dtype == torch.bool
    assert all(one is not None and one.dtype == torch.long for one in masks.values())
    assert additive is not None
    assert additive.shape == (3, 1, 7, 7)
    assert additive.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_mask_that_is_added_hides_what_is_later_and_what_is_padding(dtype: torch.dtype) -> None:
    found = texts(mask="additive", dtype=dtype)
    assert found.mask is not None
    assert found.mask.dtype == dtype
    causal = torch.ones(found.length, found.length, dtype=torch.bool).tril()
    shows = causal & found.readable[:, None, None, :]
    assert torch.equal(found.mask == 0, shows)
    assert set(found.mask[~shows].tolist()) == {torch.finfo(dtype).min}


def test_a_mask_that_is_rewritten_was_another_one_before() -> None:
    found = texts(mask="rewritten")
    assert found.before is not None
    assert found.mask is not None
    assert found.before.shape == found.mask.shape
    assert found.before.all()
    assert not found.mask.all()
    assert all(texts(mask=kind).before is None for kind in AXES["mask"] if kind != "rewritten")


def test_padding_has_no_weight_where_there_are_no_labels() -> None:
    found = texts(mask="left")
    assert found.weighting.shape == (3, 7, VOCABULARY)
    assert torch.equal(found.weighting.any(-1), found.real)


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["given", "some"])
def test_at_least_one_label_is_left_after_the_shift_and_none_is_at_padding(kind: str) -> None:
    for values in every("rows", "length", "mask", "past", labels=kind):
        for seed in range(3):
            found = texts(seed=seed, **values)
            assert found.labels is not None
            kept = found.labels != NO_LABEL
            assert kept[:, 1:].any(), values
            assert not (kept & ~found.real).any(), values
            assert torch.equal(found.labels[kept], found.ids[:, found.prompt :].long()[kept]), values


def test_some_labels_are_fewer_than_all() -> None:
    given, some = texts(labels="given").labels, texts(labels="some").labels
    assert given is not None
    assert some is not None
    assert (given != NO_LABEL).all()
    assert 0 < int((some[:, 1:] != NO_LABEL).sum()) < given[:, 1:].numel()
    assert texts().labels is None


# --- tokens and positions --------------------------------------------------------------------------------------------


def test_rows_and_lengths() -> None:
    shapes = {values["length"]: list(texts(**values).ids.shape) for values in every("length")}
    assert shapes["short"] == [3, 7]
    assert shapes["one"] == [3, 1]
    assert shapes["multiple"][1] % 16 == 0
    assert shapes["long"][0] == shapes["beyond"][0] == 3  # what takes three rows shows in long texts too
    assert shapes["long"][1] > 64
    assert shapes["beyond"][1] > MOST
    assert list(texts(rows="one").ids.shape) == [1, 7]
    assert list(texts(rows="square").ids.shape) == [7, 7]


@pytest.mark.parametrize("past", NEW_TOKENS)
def test_square_means_the_tokens_of_the_call(past: str) -> None:
    found = texts(rows="square", past=past)
    rows, new = found.real.shape
    assert new == NEW_TOKENS[past]
    assert rows == (new if new > 1 else 7)


def test_a_text_beyond_the_maximum_is_so_for_every_config_that_names_one() -> None:
    for most in (16, 48, 256):
        found = choose_lengths(PLAIN | {"length": "beyond"}, most=most, longest=None)
        assert found is not None
        assert found.text > most
    assert config_in(PLAIN | {"length": "beyond"}, {"max_position_embeddings": MOST}) == {
        "max_position_embeddings": MOST
    }


def test_a_config_has_room_for_what_is_long_or_far() -> None:
    config = {"max_position_embeddings": MOST}
    assert config_in(PLAIN, config) == config
    assert config_in(PLAIN | {"length": "long"}, config) == {"max_position_embeddings": MOST_POSITIONS}
    assert config_in(PLAIN | {"positions": "far"}, config) == {"max_position_embeddings": MOST_POSITIONS}
    large = {"max_position_embeddings": 2048}
    assert config_in(PLAIN | {"positions": "far"}, large) == large
    assert config_in(PLAIN | {"positions": "far"}, {}) == {}  # no maximum is named


def test_tokens_have_the_form_that_they_are_called_by() -> None:
    plain = texts()
    assert plain.ids.dtype == torch.long
    assert plain.ids.is_contiguous()
    assert texts(tokens="int32").ids.dtype == torch.int32
    strided = texts(tokens="strided").ids
    assert strided.dtype == torch.long
    assert not strided.is_contiguous()
    embeds = texts(tokens="embeddings").embeds
    assert embeds is not None
    assert embeds.shape == (3, 7, WIDTH)
    assert plain.embeds is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_embeddings_are_what_every_dtype_can_represent(dtype: torch.dtype) -> None:
    embeds = texts(tokens="embeddings").embeds
    assert embeds is not None
    assert torch.equal(embeds.to(dtype).double(), embeds)


@pytest.mark.parametrize("kind", ["given", "far"])
def test_given_positions_go_up_and_are_not_the_models_own(kind: str) -> None:
    for values in every("length", "past", positions=kind):
        found = texts(**values).positions
        assert found is not None
        assert (found[:, 1:] > found[:, :-1]).all()
        assert not torch.equal(found, torch.arange(found.shape[1]).expand_as(found))


def test_far_positions_are_beyond_64_and_within_the_configs_maximum() -> None:
    for values in every("rows", "length", "past", positions="far"):
        found = texts(**values).positions
        assert found is not None
        assert found.min() > 64
        assert found.max() < MOST_POSITIONS
    assert texts().positions is None


@pytest.mark.parametrize(("past", "new"), NEW_TOKENS.items())
def test_what_follows_a_cache_is_as_long_as_it_is_called(past: str, new: int) -> None:
    found = texts(past=past, mask="left", labels="given" if past == "chunk" else "none")
    assert found.length - found.prompt == new
    assert found.real.shape == (3, new)
    assert found.weighting.shape == (3, new, VOCABULARY)
    assert (found.cropped > 0) == (past == "cropped")
    assert found.mask is not None
    assert found.mask.shape[1] == found.length
    if found.labels is not None:
        assert found.labels.shape == (3, new)


def test_inputs_are_a_part_of_the_whole() -> None:
    found = texts(past="chunk", mask="ones", positions="given")
    assert found.positions is not None
    call = found.inputs(found.prompt, found.length, mask=found.mask, use_cache=True)
    assert call.input_ids is not None
    assert torch.equal(call.input_ids, found.ids[:, found.prompt :])
    assert call.position_ids is not None
    assert torch.equal(call.position_ids, found.positions[:, found.prompt :])
    assert call.use_cache
    embeds = torch.ones(3, found.length, WIDTH)
    given = found.inputs(0, 2, mask=None, embeds=embeds)
    assert given.input_ids is None
    assert given.inputs_embeds is not None
    assert given.inputs_embeds.shape == (3, 2, WIDTH)


# --- alike everywhere ------------------------------------------------------------------------------------------------


def differing(one: Texts, other: Texts) -> set[str]:
    """The fields in which two differ."""

    def same(left: object, right: object) -> bool:
        if isinstance(left, Tensor) and isinstance(right, Tensor):
            return left.dtype == right.dtype and torch.equal(left, right)
        return type(left) is type(right) and left == right

    names = [field.name for field in fields(Texts)]
    return {name for name in names if not same(getattr(one, name), getattr(other, name))}


TRIED = [
    {},
    {"mask": "mixed", "labels": "some"},
    {"mask": "gaps", "positions": "given", "past": "chunk"},
    {"tokens": "embeddings", "mask": "rewritten"},
]


@pytest.mark.parametrize("values", TRIED, ids=map(str, TRIED))
def test_the_numbers_are_the_same_in_every_dtype_and_however_the_device_is_named(values: dict[str, str]) -> None:
    first = texts(**values)
    assert differing(first, texts(**values)) == set()
    assert differing(first, texts(device="cpu:0", **values)) == set()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert differing(first, texts(dtype=dtype, **values)) == set()


def test_a_mask_that_is_added_differs_between_dtypes_in_what_is_lowest_alone() -> None:
    first, other = texts(mask="additive"), texts(mask="additive", dtype=torch.bfloat16)
    assert differing(first, other) == {"mask"}
    assert first.mask is not None
    assert other.mask is not None
    assert torch.equal(first.mask == 0, other.mask == 0)


@pytest.mark.parametrize("axis", ["dtype", "mode", "grad", "attention", "model", "history", "depth", "dims"])
def test_what_does_not_belong_to_a_text_does_not_change_it(axis: str) -> None:
    values = {"mask": "gaps", "labels": "some"}
    for value in AXES[axis]:
        if is_allowed(PLAIN | values | {axis: value}):
            assert differing(texts(**values), texts(**values, **{axis: value})) == set(), value


def test_a_seed_makes_other_texts() -> None:
    assert {"ids", "weighting"} <= differing(texts(), texts(seed=1))
