"""Decoding with the cache: stepwise, chunked and padded, as in one forward; greedy generation as HF's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, gap, pair, tokens
from torch import Tensor

LEFT = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
CONFIGS = {**KINDS, "one-dimensional-heads": {"hidden_size": 12, "bias": True}, "no-layers": {"num_hidden_layers": 0}}


def _in_pieces(model: Any, ids: Tensor, sizes: list[int], mask: Tensor | None, cache_name: str) -> Tensor:
    cache, start, logits = None, 0, []
    for size in sizes:
        end = start + size
        seen = None if mask is None else mask[:, :end]
        output = model(ids[:, start:end], attention_mask=seen, use_cache=True, **{cache_name: cache})
        cache, start = getattr(output, cache_name), end
        logits.append(output.logits)
    return torch.cat(logits, dim=1)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("flags", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("sizes", [[1] * 9, [4, 1, 3, 1]], ids=["steps", "chunks"])
@pytest.mark.parametrize("mask", [None, LEFT], ids=["whole", "padded"])
@torch.no_grad()
def test_in_pieces_is_as_in_one(flags: dict[str, Any], sizes: list[int], mask: Tensor | None) -> None:
    model, bridge = pair(**flags)
    ids = tokens(3, 9)
    pieces = _in_pieces(bridge, ids, sizes, mask, "cache")
    real = torch.ones(3, 9, dtype=torch.bool) if mask is None else mask.bool()
    assert gap(pieces[real], model(ids, attention_mask=mask).logits[real]) < 1e-13
    # HF has no length for a cache without layers.
    if model.config.num_hidden_layers:
        assert gap(pieces, _in_pieces(model, ids, sizes, mask, "past_key_values")) < 1e-13


@pytest.mark.parametrize("flags", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("mask", [None, LEFT], ids=["whole", "padded"])
def test_greedy_generation_is_hugging_faces(flags: dict[str, Any], mask: Tensor | None) -> None:
    model, bridge = pair(**flags)
    model.generation_config.eos_token_id = None
    given = {} if mask is None else {"attention_mask": mask}
    theirs = model.generate(tokens(3, 9), max_new_tokens=6, do_sample=False, pad_token_id=0, **given)
    assert torch.equal(bridge.generate(tokens(3, 9), max_new_tokens=6, **given), theirs)


@torch.no_grad()
def test_a_cache_can_be_continued_twice() -> None:
    _, bridge = pair(**KINDS["40b"])
    prefix = bridge(tokens(2, 5), use_cache=True).cache
    one = bridge(tokens(2, 3, seed=8), cache=prefix, use_cache=True).logits
    bridge(tokens(2, 2, seed=9), cache=prefix, use_cache=True)
    assert prefix is not None
    assert prefix.length == 5
    assert torch.equal(bridge(tokens(2, 3, seed=8), cache=prefix).logits, one)


@torch.no_grad()
def test_the_cache_holds_unexpanded_heads() -> None:
    _, bridge = pair(**KINDS["40b"])
    cache = bridge(tokens(2, 5), use_cache=True).cache
    assert cache is not None
    assert [list(keys.shape) for keys, _ in cache.layers] == [[2, 5, 4, 6]] * 2
    assert bridge(tokens(2, 5)).cache is None


@torch.no_grad()
def test_hooks_see_the_new_positions_only() -> None:
    _, bridge = pair(**KINDS["7b"])
    cache = bridge(tokens(2, 5), use_cache=True).cache
    _, seen = bridge.run_with_cache(tokens(2, 3), cache=cache)
    assert list(seen["blocks.0.attn.hook_rot_k"].shape) == [2, 3, 1, 6]
    assert list(seen["blocks.0.attn.hook_pattern"].shape) == [2, 12, 3, 8]


@pytest.mark.parametrize("new", [0, 1])
def test_generation_of_nothing_and_of_one(new: int) -> None:
    _, bridge = pair(**KINDS["7b"])
    assert bridge.generate(tokens(), max_new_tokens=new).shape == (2, 7 + new)


def test_generation_counts_the_positions_of_padded_rows_as_hugging_face_does() -> None:
    model, bridge = pair(**KINDS["7b"])
    model.generation_config.eos_token_id = None
    positions: dict[Any, list[list[list[int]]]] = {model: [], bridge.model: []}
    for one, seen in positions.items():
        rotary = one.get_submodule("transformer.rotary_emb")
        rotary.register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.append(kwargs["position_ids"].tolist()), with_kwargs=True
        )
    model.generate(tokens(3, 9), max_new_tokens=3, do_sample=False, pad_token_id=0, attention_mask=LEFT)
    bridge.generate(tokens(3, 9), max_new_tokens=3, attention_mask=LEFT)
    assert positions[bridge.model] == positions[model]
    assert positions[model][1] == [[6], [8], [9]]
