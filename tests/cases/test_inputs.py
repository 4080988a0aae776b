"""The inputs of a case: each shows one way of calling a model, and the same case always has the same ones."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from falcons import BATCH, DIMS, LENGTH, LONG, spec
from torch import Tensor

from verifier.adapter import Inputs
from verifier.cases.inputs import INPUT_MAKERS, NO_LABEL, PADDINGS, ScenarioInputs, select_row
from verifier.cases.spec import CaseSpec, Scenario

SPEC = spec(DIMS)
VOCAB, D_MODEL = DIMS["vocab_size"], DIMS["hidden_size"]


def make(name: str, case: CaseSpec = SPEC) -> ScenarioInputs:
    return INPUT_MAKERS[name](case, VOCAB, D_MODEL)


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    found = {name: getattr(inputs, name) for name in Inputs.__dataclass_fields__}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


every_scenario = pytest.mark.parametrize("name", INPUT_MAKERS)


@every_scenario
def test_a_case_always_has_the_same_inputs(name: str) -> None:
    first, again, other = make(name), make(name), make(name, replace(SPEC, seed=1))
    assert tensors(first.inputs).keys() == tensors(again.inputs).keys()
    assert all(torch.equal(one, tensors(again.inputs)[key]) for key, one in tensors(first.inputs).items())
    tokens = "inputs_embeds" if name == Scenario.INPUTS_EMBEDS else "input_ids"
    assert not torch.equal(tensors(first.inputs)[tokens], tensors(other.inputs)[tokens])


@every_scenario
def test_tokens_or_embeddings_but_not_both(name: str) -> None:
    inputs = make(name).inputs
    assert (inputs.input_ids is None) != (inputs.inputs_embeds is None)


@every_scenario
def test_every_row_says_what_it_shows(name: str) -> None:
    scenario = make(name)
    assert len(scenario.rows) == scenario.real.shape[0] == len(set(scenario.rows))


@every_scenario
def test_every_row_has_a_real_token(name: str) -> None:
    assert bool(make(name).real.any(-1).all())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (Scenario.PLAIN, (BATCH, LENGTH)),
        (Scenario.ONE_TOKEN, (BATCH, 1)),
        (Scenario.LONG, (1, LONG)),
        (Scenario.PADDED, (5, LENGTH)),
    ],
)
def test_sizes_are_the_cases(name: str, shape: tuple[int, int]) -> None:
    ids = make(name).inputs.input_ids
    assert ids is not None
    assert tuple(ids.shape) == shape


def test_tokens_are_of_the_vocabulary_and_many() -> None:
    ids = make(Scenario.LONG).inputs.input_ids
    assert ids is not None
    assert int(ids.min()) >= 0
    assert int(ids.max()) < VOCAB
    assert len(ids.unique()) > VOCAB // 2


@pytest.mark.parametrize("length", [7, 11, 33])
def test_each_way_of_padding_is_what_it_is_called(length: int) -> None:
    scenario = make(Scenario.PADDED, replace(SPEC, length=length))
    spelt = ["".join("x" if real else "." for real in row) for row in scenario.real.tolist()]
    ways = {
        "no padding": "x+",
        "left padding": r"\.+x+",
        "right padding": r"x+\.+",
        "gaps": r"x+(\.+x+)+",
        "left, right and gaps": r"\.+x+(\.+x+)+\.+",
    }
    assert tuple(ways) == PADDINGS
    for row, (name, pattern) in zip(spelt, ways.items(), strict=True):
        assert re.fullmatch(pattern, row), f"{name}: {row}"


def test_what_is_real_is_what_the_mask_says() -> None:
    scenario = make(Scenario.PADDED)
    assert scenario.inputs.attention_mask is not None
    assert torch.equal(scenario.real, scenario.inputs.attention_mask.bool())


def test_positions_jump_and_differ_from_row_to_row() -> None:
    positions = make(Scenario.POSITION_IDS).inputs.position_ids
    assert positions is not None
    steps = positions.diff(dim=-1)
    assert set(steps.unique().tolist()) == {1, 2, 3}
    assert len({tuple(row) for row in positions.tolist()}) == BATCH


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_dtype_is_given_the_same_embeddings(dtype: torch.dtype) -> None:
    scenario = make(Scenario.INPUTS_EMBEDS)
    given, exact = scenario.in_dtype(dtype).inputs_embeds, scenario.inputs.inputs_embeds
    assert given is not None
    assert exact is not None
    assert given.dtype == dtype
    assert torch.equal(given.double(), exact)


def test_some_labels_are_ignored_and_the_rest_are_the_tokens() -> None:
    inputs = make(Scenario.LABELS).inputs
    assert inputs.labels is not None
    assert inputs.input_ids is not None
    ignored = inputs.labels == NO_LABEL
    assert 0 < int(ignored.sum()) < ignored.numel()
    assert torch.equal(inputs.labels[~ignored], inputs.input_ids[~ignored])
    assert len(set(ignored.sum(1).tolist())) > 1, "a mean of each row's mean would be the mean"


def test_a_row_alone_is_that_row_of_everything() -> None:
    for name in INPUT_MAKERS:
        inputs = make(name).inputs
        alone = tensors(select_row(inputs, 0))
        assert alone.keys() == tensors(inputs).keys()
        assert all(torch.equal(value, tensors(inputs)[key][:1]) for key, value in alone.items())


def test_what_might_be_taken_for_padding_stands_at_the_ends_of_rows() -> None:
    with_roles = replace(SPEC, config={**SPEC.config, "eos_token_id": 11, "pad_token_id": None, "bos_token_id": VOCAB})
    ids = make(Scenario.PLAIN, with_roles).inputs.input_ids
    assert ids is not None
    ends = [(row[0].item(), row[-2].item(), row[-1].item()) for row in ids[1:]]
    assert ends[:3] == [(0, 0, 0), (VOCAB - 1, VOCAB - 1, VOCAB - 1), (11, 11, 11)]
    assert torch.equal(ids[0], make(Scenario.PLAIN).inputs.input_ids[0])  # type: ignore[index]
