"""The bridge as a torch module: copies, state dicts, casting, tied weights."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, build, gap, pair, tokens
from verifier_bridge import Bridge


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_a_deep_copy_shares_nothing_and_computes_the_same(flags: dict[str, Any]) -> None:
    _, bridge = pair(**flags)
    bridge.get_submodule("blocks.0.attn.q").weight  # noqa: B018 (leaves a tensor of the graph behind)
    twin = copy.deepcopy(bridge)
    mine = {one.data_ptr() for model in (bridge, bridge.model) for one in (*model.parameters(), *model.buffers())}
    its = {one.data_ptr() for model in (twin, twin.model) for one in (*model.parameters(), *model.buffers())}
    before = bridge(tokens()).logits
    assert not mine & its
    assert torch.equal(twin(tokens()).logits, before)
    for parameter in twin.parameters():
        parameter.data.mul_(1.5)
    assert torch.equal(bridge(tokens()).logits, before)
    assert gap(twin(tokens()).logits, twin.model(tokens()).logits) < 1e-13


def test_a_copy_starts_without_hooks_and_neither_sees_the_others() -> None:
    _, bridge = pair(**KINDS["7b"])
    handle = bridge.add_hook("hook_embed", torch.zeros_like)
    twin = copy.deepcopy(bridge)
    assert not any(point.hooked for point in twin.hook_points.values())
    handle.remove()
    with twin.hooked({"hook_embed": torch.zeros_like}):
        assert not bridge.hook_points["hook_embed"].hooked
        assert not torch.equal(twin(tokens()).logits, bridge(tokens()).logits)


def test_a_state_dict_carries_every_weight_over() -> None:
    bridge, other = Bridge(build(**KINDS["rw"])), Bridge(build(**KINDS["rw"], seed=9))
    assert gap(other(tokens()).logits, bridge(tokens()).logits) > 1e-2
    other.load_state_dict(bridge.state_dict())
    assert torch.equal(other(tokens()).logits, bridge(tokens()).logits)
    assert torch.equal(other.model(tokens()).logits, bridge.model(tokens()).logits)


def test_casting_reaches_the_model_and_is_what_casting_the_model_does() -> None:
    model, bridge = pair(**KINDS["40b"], dtype=torch.float32)
    bridge.to(dtype=torch.bfloat16)
    model.to(torch.bfloat16)
    ours = {**dict(bridge.model.named_parameters()), **dict(bridge.model.named_buffers())}
    theirs = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(ours[name].dtype == one.dtype and torch.equal(ours[name], one) for name, one in theirs.items())
    assert {id(one) for one in bridge.parameters()} == {id(one) for one in bridge.model.parameters()}
    assert gap(bridge(tokens()).logits, model(tokens()).logits) < 0.05


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_tied_and_untied_ones_apart(tied: bool) -> None:
    _, bridge = pair(**KINDS["7b"], tie_word_embeddings=tied)
    for one in (bridge, copy.deepcopy(bridge), bridge.to(torch.float32)):
        embed, unembed = (one.get_parameter(f"{part}.original.weight") for part in ("embed", "unembed"))
        assert (embed is unembed) == tied


def test_a_dropped_bridge_is_gone() -> None:
    bridge = Bridge(build(**KINDS["7b"]))
    with bridge.hooked({"hook_embed": torch.zeros_like}, {"hook_embed": torch.zeros_like}):
        bridge(tokens(), labels=tokens()).loss.backward()
    watch = weakref.ref(bridge)
    del bridge
    gc.collect()
    assert watch() is None
