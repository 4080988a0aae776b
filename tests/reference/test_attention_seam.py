"""A seam at attention leaves nothing behind, however a forward ends, and takes nobody's products for the model's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from short_families import FAMILIES
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.testing import assert_close
from transformers import AttentionInterface

from verifier.reference.declared import DeclaredFamily

IDS = torch.randint(3, 110, (3, 9), generator=torch.Generator().manual_seed(0))
EVERY_KIND = ("qwen3", "bloom", "neox")  # at the attention function, in old code, with a fused projection


def build(family: DeclaredFamily, attention: str | None = None, dtype: torch.dtype = torch.float64) -> Any:
    attention = attention or family.reference_attention
    return family.build(family.dims(), dtype=dtype, device="cpu", attention=attention, seed=1)


class Interrupted(BaseException):
    """What ends a forward and is no `Exception`."""


@pytest.mark.parametrize("error", [Interrupted, ValueError])
@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_forward_that_is_ended_leaves_nothing_behind(name: str, error: type[BaseException]) -> None:
    family = FAMILIES[name]
    model, found, modes = build(family), AttentionInterface.get_interface, len(_get_current_function_mode_stack())

    def end(value: Tensor) -> Tensor:
        raise error

    with pytest.raises(error), family.taps(model, edits={"blocks.1.attn.hook_z": end}):
        model(IDS, use_cache=False)
    assert AttentionInterface.get_interface is found
    assert len(_get_current_function_mode_stack()) == modes
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_hook_that_raises_before_the_attention_takes_away_no_mode_of_others() -> None:
    family = FAMILIES["qwen3"]
    model = build(family)

    def refuse(*_: Any) -> None:
        raise ValueError("refused")

    attention = model.model.layers[0].self_attn
    attention.register_forward_pre_hook(refuse)
    with torch.device("cpu"):
        modes = len(_get_current_function_mode_stack())
        with pytest.raises(ValueError, match="refused"), family.taps(model):
            model(IDS, use_cache=False)
        assert len(_get_current_function_mode_stack()) == modes


def test_two_that_are_left_in_the_order_in_which_they_were_entered_leave_nothing() -> None:
    family, found = FAMILIES["qwen3"], AttentionInterface.get_interface
    first, second = build(family), build(family)
    one, other = family.taps(first), family.taps(second)
    seen = one.__enter__()
    other.__enter__()
    with torch.no_grad():
        first(IDS, use_cache=False)
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)
    assert AttentionInterface.get_interface is found
    assert "blocks.0.attn.hook_pattern" in seen.values


@pytest.mark.parametrize("name", EVERY_KIND)
def test_an_edit_may_multiply_and_take_a_softmax(name: str) -> None:
    family = FAMILIES[name]
    model = build(family)
    heads = family.qkv_rows(model, 0).q.rows.shape
    turn = torch.randn(heads[0], heads[1], heads[1], generator=torch.Generator().manual_seed(3)).double()
    edits = {
        "blocks.0.attn.hook_q": lambda q: q.unsqueeze(-2).matmul(turn).squeeze(-2),
        "blocks.0.hook_attn_out": lambda value: value.softmax(-1),
    }
    same = {
        "blocks.0.attn.hook_q": lambda q: torch.einsum("bphd,hde->bphe", q, turn),
        "blocks.0.hook_attn_out": lambda value: value.exp() / value.exp().sum(-1, keepdim=True),
    }
    found = []
    for one in (edits, same):
        with torch.no_grad(), family.taps(model, edits=one) as seen:
            logits = model(IDS, use_cache=False).logits
        found.append((logits, seen.values))
    assert_close(found[0][0], found[1][0], rtol=1e-9, atol=1e-9)
    for point, value in found[0][1].items():
        assert_close(value, found[1][1][point], rtol=1e-9, atol=1e-9)


def test_patterns_that_are_asked_for_are_given_under_taps_too() -> None:
    family = FAMILIES["gpt2"]
    model = build(family, "eager", torch.float32)
    with torch.no_grad():
        bare = model(IDS, output_attentions=True).attentions
        with family.taps(model):
            tapped = model(IDS, output_attentions=True).attentions
    assert len(bare) == len(tapped) == 2
    for one, other in zip(bare, tapped, strict=True):
        assert_close(one, other)


def test_a_second_forward_is_told_at_every_point() -> None:
    family = FAMILIES["qwen3"]
    model = build(family)
    with torch.no_grad(), family.taps(model, names=["blocks.0.attn.hook_rot_q"]):
        model(IDS, use_cache=False)
        with pytest.raises(RuntimeError, match=r"blocks\.0\.attn attended twice in one forward"):
            model(IDS, use_cache=False)


def test_probing_keeps_what_hugging_face_installs_in_its_first_forward() -> None:
    family = FAMILIES["granite"]
    options = {"dtype": torch.float64, "device": "cpu", "attention": "sdpa", "seed": 1}
    one, other = (family.build({**family.dims(), "output_hidden_states": True}, **options) for _ in range(2))
    family.qkv_rows(one, 0)
    with torch.no_grad():
        assert len(one(IDS).hidden_states) == len(other(IDS).hidden_states) == 3


def test_a_model_that_drops_layers_in_training_is_probed() -> None:
    family = FAMILIES["opt"]
    options = {"dtype": torch.float64, "device": "cpu", "attention": "sdpa", "seed": 1}
    model = family.build({**family.dims(), "layerdrop": 0.9}, **options).train()
    assert len(family.qkv_rows(model, 1).reads) == 12
    assert all(module.training for module in model.modules())
