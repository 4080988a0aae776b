"""A mixture of experts runs in every dtype, with the loop over experts that its modeling code spells out."""

from __future__ import annotations

import pytest
import torch
from tiny_models import CONFIGS, build_tiny, draw_tokens
from torch.testing import assert_close

from verifier.adapter import Inputs
from verifier.reference import models

MIXTURES = ("MixtralForCausalLM", "Qwen2MoeForCausalLM")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("architecture", MIXTURES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_mixture_runs_forward_and_backward_in_every_dtype(architecture: str, dtype: torch.dtype) -> None:
    model = build_tiny(architecture, dtype=dtype)
    logits = models.forward(model, Inputs(input_ids=draw_tokens(length=32))).logits
    logits.float().square().sum().backward()
    assert logits.dtype == dtype
    experts = {name: one for name, one in model.named_parameters() if ".experts." in name}
    assert experts
    assert all(one.grad is not None and one.grad.isfinite().all() and one.grad.any() for one in experts.values())


@pytest.mark.parametrize("architecture", MIXTURES)
def test_a_mixture_that_is_cast_to_float64_still_runs(architecture: str) -> None:
    model = build_tiny(architecture, dtype=torch.float32).to(torch.float64)
    truth = build_tiny(architecture, dtype=torch.float32)
    ids = Inputs(input_ids=draw_tokens())
    assert_close(models.forward(model, ids).logits.float(), models.forward(truth, ids).logits)


@pytest.mark.parametrize("architecture", MIXTURES)
@pytest.mark.parametrize("other", ["grouped_mm", "batched_mm"])
def test_the_loop_agrees_with_hugging_faces_other_ways_in_float32(architecture: str, other: str) -> None:
    ids = Inputs(input_ids=draw_tokens())
    outputs = []
    for more in ({}, {"experts_implementation": other}):
        model = build_tiny(architecture, dtype=torch.float32, **more)
        logits = models.forward(model, ids).logits
        logits.square().sum().backward()
        outputs.append([logits, *(one.grad for one in model.parameters())])
    for ours, theirs in zip(*outputs, strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-4)  # rounding of sums in another order


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_loop_is_chosen_unless_the_config_names_another_way(architecture: str) -> None:
    assert build_tiny(architecture).config._experts_implementation == "eager"


def test_a_config_may_name_another_way() -> None:
    model = build_tiny("MixtralForCausalLM", experts_implementation="batched_mm")
    assert model.config._experts_implementation == "batched_mm"


def test_hugging_faces_default_has_no_float64() -> None:
    model = build_tiny("MixtralForCausalLM", experts_implementation="grouped_mm")
    with pytest.raises(RuntimeError, match="Double"):
        models.forward(model, Inputs(input_ids=draw_tokens()))
