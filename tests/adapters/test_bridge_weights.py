"""Canonical weights: shapes, the way back, gradients, and that they are the weights that the forward uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, build, gap, pair, tokens
from verifier_bridge import Bridge, BridgeError


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_hugging_face_to_canonical_and_back_is_bit_exact(flags: dict[str, Any]) -> None:
    model, bridge = pair(**flags)
    theirs = model.state_dict()
    restored = bridge.weight_map().to_hugging_face(bridge.canonical_weights())
    assert restored.keys() == theirs.keys()
    assert all(torch.equal(restored[name], theirs[name]) for name in theirs)


def test_shapes_are_canonical() -> None:
    _, bridge = pair(**KINDS["40b"])
    shapes = {name: list(value.shape) for name, value in bridge.canonical_weights().items()}
    assert shapes["embed.W_E"] == [113, 72]
    assert shapes["unembed.W_U"] == [72, 113]
    assert shapes["blocks.1.attn.W_Q"] == [12, 72, 6]
    assert shapes["blocks.1.attn.W_K"] == shapes["blocks.1.attn.W_V"] == [4, 72, 6]
    assert shapes["blocks.1.attn.W_O"] == [12, 6, 72]
    assert shapes["blocks.1.attn.b_Q"] == [12, 6]
    assert shapes["blocks.1.attn.b_V"] == [4, 6]
    assert shapes["blocks.1.mlp.W_in"] == [72, 100]
    assert shapes["blocks.1.mlp.W_out"] == [100, 72]
    assert shapes["blocks.1.ln2.w"] == shapes["ln_final.b"] == [72]


def test_activations_follow_from_canonical_weights() -> None:
    _, bridge = pair(**KINDS["rw"])
    weights = bridge.canonical_weights()
    with torch.no_grad(), bridge.switched(bridge.hook_points):
        _, seen = bridge.run_with_cache(tokens())
    at = "blocks.1."
    read = seen[at + "ln1.hook_normalized"] * weights[at + "ln1.w"] + weights[at + "ln1.b"]
    keys = torch.einsum("bpm,hmd->bphd", read, weights[at + "attn.W_K"]) + weights[at + "attn.b_K"]
    result = torch.einsum("bphd,hdm->bphm", seen[at + "attn.hook_z"], weights[at + "attn.W_O"])
    out = seen[at + "mlp.hook_post"] @ weights[at + "mlp.W_out"] + weights[at + "mlp.b_out"]
    assert gap(seen[at + "attn.hook_k"], keys) < 1e-14
    assert gap(seen[at + "attn.hook_result"], result) < 1e-14
    assert gap(seen[at + "hook_attn_out"], result.sum(2) + weights[at + "attn.b_O"]) < 1e-14
    assert gap(seen[at + "hook_mlp_out"], out) < 1e-14


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_gradients_are_those_of_hugging_face(flags: dict[str, Any]) -> None:
    model, bridge = pair(**flags)
    model(tokens(), labels=tokens()).loss.backward()
    bridge(tokens(), labels=tokens()).loss.backward()
    theirs = {name: one.grad for name, one in model.named_parameters(remove_duplicate=False)}
    ours = bridge.weight_map().to_hugging_face(bridge.canonical_gradients())
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient is not None
        assert gap(ours[name], gradient) < 1e-12, name


def test_canonical_weights_are_copies() -> None:
    _, bridge = pair(**KINDS["7b"])
    before = bridge(tokens()).logits
    for weight in bridge.canonical_weights().values():
        weight.zero_()
    assert torch.equal(bridge(tokens()).logits, before)


def test_an_activation_with_a_parameter_keeps_it() -> None:
    model = build(activation="prelu")
    restored = Bridge(model).weight_map().to_hugging_face(Bridge(model).canonical_weights())
    assert torch.equal(restored["transformer.h.0.mlp.act.weight"], model.transformer.h[0].mlp.act.weight)


def test_a_missing_or_unknown_canonical_weight_is_named() -> None:
    _, bridge = pair(**KINDS["7b"])
    weights = bridge.canonical_weights()
    with pytest.raises(BridgeError, match=r"'blocks.0.attn.W_q'.*did you mean 'blocks.0.attn.W_Q'"):
        bridge.weight_map().to_hugging_face({**weights, "blocks.0.attn.W_q": weights["embed.W_E"]})
    del weights["blocks.1.attn.W_O"]
    with pytest.raises(BridgeError, match=r"'blocks.1.attn.W_O' is missing"):
        bridge.weight_map().to_hugging_face(weights)
