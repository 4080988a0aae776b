"""The inputs of a case: each shows one way of calling a model, and the same case always has the same ones."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from falcons import BATCH, DIMS, LENGTH, spec
from torch import Tensor

from verifier.adapter import Inputs
from verifier.cases.inputs import INPUT_MAKERS, PADDINGS, ScenarioInputs
from verifier.cases.spec import CaseSpec, Scenario

SPEC = spec(DIMS)
VOCAB = DIMS["vocab_size"]


def make(name: str, case: CaseSpec = SPEC) -> ScenarioInputs:
    return INPUT_MAKERS[name](case, VOCAB)


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    found = {name: getattr(inputs, name) for name in Inputs.__dataclass_fields__}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


every_scenario = pytest.mark.parametrize("name", INPUT_MAKERS)


@every_scenario
def test_a_case_always_has_the_same_inputs(name: str) -> None:
    first, again, other = make(name), make(name), make(name, replace(SPEC, seed=1))
    assert tensors(first.inputs).keys() == tensors(again.inputs).keys()
    assert all(torch.equal(one, tensors(again.inputs)[key]) for key, one in tensors(first.inputs).items())
    assert not torch.equal(tensors(first.inputs)["input_ids"], tensors(other.inputs)["input_ids"])


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
        (Scenario.PADDED, (5, LENGTH)),
    ],
)
def test_sizes_are_the_cases_and_tokens_are_of_the_vocabulary(name: str, shape: tuple[int, int]) -> None:
    ids = make(name).inputs.input_ids
    assert ids is not None
    assert tuple(ids.shape) == shape
    assert int(ids.min()) >= 0
    assert int(ids.max()) < VOCAB


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


def test_what_might_be_taken_for_padding_stands_at_the_ends_of_rows() -> None:
    with_roles = replace(SPEC, config={**SPEC.config, "eos_token_id": 11, "pad_token_id": None, "bos_token_id": VOCAB})
    ids = make(Scenario.PLAIN, with_roles).inputs.input_ids
    assert ids is not None
    ends = [(row[0].item(), row[-2].item(), row[-1].item()) for row in ids[1:]]
    assert ends[:3] == [(0, 0, 0), (VOCAB - 1, VOCAB - 1, VOCAB - 1), (11, 11, 11)]
    assert torch.equal(ids[0], make(Scenario.PLAIN).inputs.input_ids[0])  # type: ignore[index]
