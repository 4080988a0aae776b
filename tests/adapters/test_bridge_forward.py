"""What a forward can be called with, corners of the config, dtypes: HF's sdpa path is right."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, build, gap, hugging_face_activations, pair, tokens
from torch import Tensor
from verifier_bridge import Bridge, BridgeRefusal, InputError

MASKS = {
    "left": [[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]],
    "right": [[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0]],
    "gaps": [[1, 0, 1, 0, 0, 1, 1], [0, 1, 1, 0, 1, 0, 1]],
    "nothing": [[0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]],
}


def _mask(name: str) -> Tensor:
    return torch.tensor(MASKS[name])


@pytest.mark.thinned(3)
@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("padding", MASKS)
def test_padding(flags: dict[str, Any], padding: str) -> None:
    model, bridge = pair(**flags)
    ours = bridge(tokens(), attention_mask=_mask(padding)).logits
    theirs = model(tokens(), attention_mask=_mask(padding)).logits
    assert gap(ours, theirs) < 1e-13


@pytest.mark.parametrize("kind", ["40b", "rw"])
@pytest.mark.parametrize("padding", MASKS)
def test_gradients_under_padding(kind: str, padding: str) -> None:
    model, bridge = pair(**KINDS[kind])
    # No loss is taken where a padding token asks: torch's fused CPU kernel, on which HF runs, gives a row that is all
    # finfo.min its uniform pattern in the forward, and ones in its place in the backward.
    asks = _mask(padding).roll(1, dims=1) * _mask(padding)
    labels = tokens().masked_fill(asks == 0, -100)
    seen: list[Tensor] = []
    with bridge.switched(bridge.hook_points), bridge.hooked(backward=dict.fromkeys(bridge.hook_points, seen.append)):
        bridge(tokens(), attention_mask=_mask(padding), labels=labels).loss.backward()
    model(tokens(), attention_mask=_mask(padding), labels=labels).loss.backward()
    assert len(seen) == len(bridge.hook_points)
    assert all(bool(one.isfinite().all()) for one in seen)
    for ours, theirs in zip(bridge.model.parameters(), model.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert gap(ours.grad, theirs.grad) < 1e-6  # the loss is taken in float32


@pytest.mark.parametrize("kind", ["7b", "rw"])
def test_position_ids_embeddings_and_loss(kind: str) -> None:
    model, bridge = pair(**KINDS[kind])
    positions = torch.tensor([[5, 3, 9, 0, 1, 2, 700], [0, 0, 0, 1, 1, 1, 1]])
    labels = tokens(seed=3).masked_fill(torch.rand(2, 7) < 0.3, -100)
    embeds = torch.randn(2, 7, 72, dtype=torch.float64)
    ours = bridge(inputs_embeds=embeds, position_ids=positions, labels=labels)
    theirs = model(inputs_embeds=embeds, position_ids=positions, labels=labels)
    assert gap(ours.logits, theirs.logits) < 1e-13
    assert gap(ours.loss, theirs.loss) < 1e-13


def test_gradients_reach_the_embeddings_that_came_in() -> None:
    model, bridge = pair(**KINDS["40b"])
    mine = torch.randn(2, 7, 72, dtype=torch.float64, requires_grad=True)
    other = mine.detach().clone().requires_grad_()
    bridge(inputs_embeds=mine, labels=tokens()).loss.backward()
    model(inputs_embeds=other, labels=tokens()).loss.backward()
    assert mine.grad is not None
    assert other.grad is not None
    assert gap(mine.grad, other.grad) < 1e-12


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 0, "alibi": True, "new_decoder_architecture": True, "parallel_attn": False},
        {"num_hidden_layers": 0, "hidden_size": 6},
        {"hidden_size": 12},
        {"hidden_size": 12, "alibi": True},
        {"hidden_size": 36, "alibi": True},
        {"num_attention_heads": 1},
        {"num_attention_heads": 1, "alibi": True, "multi_query": False},
        {"multi_query": True, "num_kv_heads": 71},
        {"num_ln_in_parallel_attn": 3},
        {"activation": "silu"},
        {"is_causal": False},
        {"is_causal": False, "alibi": True},
        dict.fromkeys(("alibi", "bias", "multi_query", "new_decoder_architecture", "parallel_attn")),
        {"tie_word_embeddings": False},
        {"ffn_hidden_size": 1},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "max_position_embeddings": 4},
    ],
    ids=str,
)
def test_corners_of_the_config(config: dict[str, Any]) -> None:
    model, bridge = pair(**config)
    theirs = hugging_face_activations(model, input_ids=tokens())
    with torch.no_grad(), bridge.switched(bridge.hook_points):
        output, seen = bridge.run_with_cache(tokens())
    assert gap(output.logits, theirs["logits"]) < 1e-13
    assert seen.keys() == theirs.keys() - {"logits"}
    assert all(gap(value, theirs[name]) < 1e-12 for name, value in seen.items())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"hidden_size": 36}, "even head dim.*gives 3"),
        ({"layer_norm_epsilon": None}, "layer_norm_epsilon is None"),
        ({"layer_norm_epsilon": None, "num_hidden_layers": 0}, "layer_norm_epsilon is None"),
        ({"hidden_dropout": None}, "hidden_dropout is None"),
        ({"hidden_dropout": 1.5}, "hidden_dropout is 1.5"),
        ({"new_decoder_architecture": True, "num_kv_heads": 5}, "5 does not divide"),
        ({"new_decoder_architecture": True, "num_kv_heads": 9}, "9 does not divide"),
        ({"new_decoder_architecture": True, "num_kv_heads": 24}, "24 does not divide"),
        ({"new_decoder_architecture": True, "num_kv_heads": 0}, "0 does not divide"),
        ({"new_decoder_architecture": True, "num_ln_in_parallel_attn": 0}, "num_ln_in_parallel_attn=0"),
        ({"new_decoder_architecture": True, "num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn=3"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        (
            {
                "rope_parameters": {
                    "rope_type": "linear",
                    "factor": 2.0,
                    "rope_theta": 1e4,
                    "partial_rotary_factor": 0.5,
                }
            },
            "turns 4 dimensions, but each head has 6",
        ),
    ],
    ids=str,
)
def test_what_hugging_face_cannot_run_is_refused(config: dict[str, Any], reason: str) -> None:
    model = build(**config)
    with pytest.raises((TypeError, ValueError, RuntimeError, ArithmeticError, NameError)):
        model(tokens())
    with pytest.raises(BridgeRefusal, match=reason):
        Bridge(model)


def test_a_model_of_another_class_is_refused() -> None:
    with pytest.raises(BridgeRefusal, match=r"Linear is not an architecture.*FalconForCausalLM"):
        Bridge(torch.nn.Linear(2, 2))
    imposter = type("FalconForCausalLM", (torch.nn.Linear,), {})(2, 2)
    with pytest.raises(BridgeRefusal, match="is not the FalconForCausalLM of transformers"):
        Bridge(imposter)


def test_a_model_with_a_part_that_has_no_place_is_refused() -> None:
    model = build(**KINDS["7b"])
    model.transformer.h[0].extra = torch.nn.Linear(2, 2)
    with pytest.raises(BridgeRefusal, match=r"transformer\.h\.0\.extra\.weight is no part of any component"):
        Bridge(model)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sdpa_is_followed_whatever_the_model_was_built_with(attention: str) -> None:
    right = build(**KINDS["rw"])
    bridge = Bridge(build(**KINDS["rw"], attention=attention))
    mask = _mask("gaps")
    assert gap(bridge(tokens(), attention_mask=mask).logits, right(tokens(), attention_mask=mask).logits) < 1e-13


@pytest.mark.parametrize("kind", ["40b", "rw", "sequential-rope"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_no_dtype_loses_more_than_hugging_face_does(kind: str, dtype: torch.dtype) -> None:
    model = build(**KINDS[kind], dtype=dtype)
    truth = build(**KINDS[kind])
    truth.load_state_dict(model.state_dict())
    inputs = tokens(4, 40)
    with torch.no_grad():
        true, theirs, ours = truth(inputs).logits, model(inputs).logits, Bridge(model)(inputs).logits
    assert ours.dtype == dtype
    assert (ours.double() - true).square().mean() < 1.5**2 * (theirs.double() - true).square().mean()


def test_a_row_alone_is_the_row_in_a_batch_and_later_tokens_change_nothing_before_them() -> None:
    _, bridge = pair(**KINDS["alibi-grouped"])
    whole = bridge(tokens(3, 9)).logits
    assert gap(bridge(tokens(3, 9)[1:2]).logits, whole[1:2]) < 1e-14
    assert gap(bridge(tokens(3, 9)[:, :4]).logits, whole[:, :4]) < 1e-14


def test_twice_the_same() -> None:
    _, bridge = pair(**KINDS["40b"])
    assert torch.equal(bridge(tokens()).logits, bridge(tokens()).logits)


def test_the_model_is_left_as_it_was() -> None:
    model = build(**KINDS["rw"])
    model.transformer.h[0].mlp.train()
    before, config = copy.deepcopy(model.state_dict()), copy.deepcopy(model.config.to_dict())
    modules = dict(model.named_modules())
    modes = [module.training for module in model.modules()]
    bridge = Bridge(model)
    with bridge.hooked({"blocks.0.hook_attn_out": torch.zeros_like}, {"hook_embed": torch.zeros_like}):
        bridge(tokens(), labels=tokens()).loss.backward()
    assert dict(model.named_modules()) == modules
    assert [module.training for module in model.modules()] == modes
    assert not any(
        module._forward_hooks or module._backward_hooks or "forward" in vars(module) for module in modules.values()
    )
    assert model.config.to_dict() == config
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert gap(bridge(tokens()).logits, model(tokens()).logits) < 1e-13


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "exactly one of input_ids and inputs_embeds"),
        ({"input_ids": tokens(), "attention_mask": torch.ones(2, 5)}, r"\[2, 5\]; it must be .* \[2, 7\]"),
        ({"input_ids": tokens(), "cache": ()}, "cache is a tuple"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: dict[str, Any], message: str) -> None:
    _, bridge = pair(**KINDS["7b"])
    with pytest.raises(InputError, match=message):
        bridge(**inputs)
