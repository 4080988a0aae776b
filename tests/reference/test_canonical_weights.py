"""HF's parameters in canonical names and shapes: they compute what HF computes, in every layout of linear modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from falcons import KINDS, SPREAD, build, tokens
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from verifier.canonical import WEIGHTS, template_of
from verifier.families.falcon import FalconFamily
from verifier.family import Projection, QKVRows
from verifier.reference.weights import canonical_gradients, canonical_of, canonical_weights, n_layers_of

TEMPLATES = {weight.template: weight.axes for weight in WEIGHTS}


@pytest.mark.parametrize("kind", SPREAD)
def test_names_and_axes_are_canonical(falcon: FalconFamily, kind: str) -> None:
    weights = canonical_weights(falcon, build(falcon, SPREAD[kind]))
    assert {"embed.W_E", "ln_final.w", "unembed.W_U"} <= weights.keys()
    for name, weight in weights.items():
        assert weight.ndim == len(TEMPLATES[template_of(name)]), name


@pytest.mark.parametrize("kind", SPREAD)
def test_every_value_of_hf_is_in_them_once(falcon: FalconFamily, kind: str) -> None:
    model = build(falcon, SPREAD[kind])
    given = torch.cat([parameter.flatten() for parameter in model.state_dict().values()])
    found = torch.cat([weight.flatten() for weight in canonical_weights(falcon, model).values()])
    assert torch.equal(found.sort().values, given.sort().values)


@pytest.mark.parametrize("kind", ["two-norms-grouped-rope", "sequential-own-keys-alibi"])
def test_queries_keys_values_and_output_follow_from_them(falcon: FalconFamily, kind: str) -> None:
    model = build(falcon, KINDS[kind])
    weights = canonical_weights(falcon, model)
    with torch.no_grad(), falcon.taps(model) as taps:
        model(tokens())
    seen = taps.values
    read = seen["blocks.1.ln1.hook_normalized"] * weights["blocks.1.ln1.w"] + weights["blocks.1.ln1.b"]
    for letter in "QKV":
        heads = torch.einsum("bpm,hmd->bphd", read, weights[f"blocks.1.attn.W_{letter}"])
        heads = heads + weights[f"blocks.1.attn.b_{letter}"]
        torch.testing.assert_close(heads, seen[f"blocks.1.attn.hook_{letter.lower()}"], rtol=0, atol=1e-13)
    result = torch.einsum("bphd,hdm->bphm", seen["blocks.1.attn.hook_z"], weights["blocks.1.attn.W_O"])
    torch.testing.assert_close(result, seen["blocks.1.attn.hook_result"], rtol=0, atol=1e-13)


def test_gradients_of_tied_weights_stand_under_both_names(falcon: FalconFamily) -> None:
    model = build(falcon, KINDS["one-norm-own-keys-rope"])
    assert model.config.tie_word_embeddings
    model(tokens(), labels=tokens()).loss.backward()
    gradients = canonical_gradients(falcon, model)
    assert gradients.keys() == canonical_weights(falcon, model).keys()
    assert torch.equal(gradients["embed.W_E"], gradients["unembed.W_U"].T)
    assert torch.equal(gradients["embed.W_E"], model.lm_head.weight.grad)


def test_what_has_no_value_is_left_out(falcon: FalconFamily) -> None:
    model = build(falcon, KINDS["two-norms-grouped-rope"])
    model.transformer.ln_f.weight.grad = torch.ones(24, dtype=torch.float64)
    assert canonical_gradients(falcon, model).keys() == {"ln_final.w"}
    assert canonical_of(falcon, model, lambda _: None) == {}


class Transposed:
    """GPT-2, whose linear modules keep their input axis first; the two methods that are needed here."""

    def components(self, model: Any) -> Mapping[str, nn.Module]:
        found = {"embed": model.transformer.wte, "ln_final": model.transformer.ln_f, "unembed": model.lm_head}
        for layer, block in enumerate(model.transformer.h):
            here = f"blocks.{layer}"
            found |= {here: block, f"{here}.ln1": block.ln_1, f"{here}.attn.o": block.attn.c_proj}
            found |= {f"{here}.mlp.in": block.mlp.c_fc, f"{here}.mlp.out": block.mlp.c_proj}
        return found

    def qkv_rows(self, model: Any, layer: int) -> QKVRows:
        rows = torch.arange(3 * 12).view(3, 3, 4)  # [q, k or v; head; d_head]
        q, k, v = (Projection(module=f"transformer.h.{layer}.attn.c_attn", rows=part) for part in rows)
        return QKVRows(q=q, k=k, v=v, reads=torch.arange(3))


def test_linear_modules_with_their_input_first_are_read_the_right_way_round() -> None:
    sizes: dict[str, Any] = {"n_embd": 12, "n_head": 3, "n_layer": 2, "vocab_size": 31, "n_positions": 8}
    model: Any = GPT2LMHeadModel(GPT2Config(n_inner=20, **sizes))
    family: Any = Transposed()
    weights = canonical_weights(family, model)
    assert n_layers_of(family, model) == 2
    block = model.transformer.h[1]
    assert weights["blocks.1.mlp.W_in"].shape == (12, 20)
    assert torch.equal(weights["blocks.1.mlp.W_out"], block.mlp.c_proj.weight)
    assert weights["blocks.1.attn.W_O"].shape == (3, 4, 12)
    x: Tensor = torch.randn(2, 12, generator=torch.Generator().manual_seed(1))
    keys = torch.einsum("bm,hmd->bhd", x, weights["blocks.1.attn.W_K"]) + weights["blocks.1.attn.b_K"]
    torch.testing.assert_close(keys.flatten(1), block.attn.c_attn(x)[:, 12:24])
