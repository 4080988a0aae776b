"""Wrong Falcons: faults that only this family can have."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from verifier.faults.mutants import Mutation, fault, in_adapter, in_model
from verifier.judging.outcome import NotApplicable


def exact_slopes(n_heads: int) -> Tensor:
    """ALiBi's slopes in float64, `[head]`.

    A geometric series over the largest power of two of heads, and every other member of the next finer one for the
    heads that are left (Press, Smith and Lewis 2022; HF's `build_alibi_tensor`).
    """
    whole = 2 ** math.floor(math.log2(n_heads))

    def series(heads: int, count: int, step: int) -> list[float]:
        return [2.0 ** (-8.0 / heads * (1 + step * number)) for number in range(count)]

    return torch.tensor(series(whole, whole, 1) + series(2 * whole, n_heads - whole, 2), dtype=torch.float64)


@torch.no_grad()
def _attention_bias_lost(model: Any) -> None:
    model.transformer.h[-1].self_attention.dense.bias.zero_()


@fault("forward.logits", plant=in_adapter)
def one_combination_wrong(model: Any) -> Mutation:
    """Wrong only with ALiBi, biases and a key for each head together."""
    config = model.config
    if not (config.alibi and config.bias and not config.multi_query and not config.new_decoder_architecture):
        raise NotApplicable("its flags are others")
    return Mutation(model=_attention_bias_lost)


@fault("forward.logits", plant=in_adapter)
def alibi_unrounded(model: Any) -> Mutation:
    """ALiBi in full precision, where HF passes it through bfloat16."""
    if not model.config.alibi:
        raise NotApplicable("there is no ALiBi")
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    n_heads = model.config.num_attention_heads
    d_head = model.config.hidden_size // n_heads

    def edit(scores: Tensor) -> Tensor:  # [batch, head, query, key]
        keys = scores.shape[-1]
        rounded = build_alibi_tensor(torch.ones(1, keys, dtype=torch.long), n_heads, scores.dtype)[None, :, 0]
        exact = (exact_slopes(n_heads)[:, None] * torch.arange(keys)).to(scores.dtype)
        return scores + ((exact - rounded) / math.sqrt(d_head))[:, :, None]

    return Mutation(edits={"attn.hook_attn_scores": edit})


@fault("forward.logits", plant=in_model)
@torch.no_grad()
def norms_swapped(model: Any) -> None:
    """The norms of attention and MLP are taken for each other."""
    for block in model.transformer.h:
        if not hasattr(block, "ln_mlp"):
            raise NotApplicable("there is one norm")
        for one, other in zip(block.ln_attn.parameters(), block.ln_mlp.parameters(), strict=True):
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)


@fault("forward.logits", plant=in_model)
def gelu_approximated(model: Any) -> None:
    """The tanh form of gelu for the exact one."""
    for block in model.transformer.h:
        if model.config.activation != "gelu":
            raise NotApplicable("its activation is another one")
        block.mlp.act = nn.GELU(approximate="tanh")


@fault("forward.logits", plant=in_model)
def epsilon_wrong(model: Any) -> None:
    """The layer norms' epsilon is ten times as large."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps *= 10


@fault("forward.logits", plant=in_model)
def theta_wrong(model: Any) -> None:
    """Rotary frequencies of another base."""
    if model.config.alibi or not len(model.transformer.h):
        raise NotApplicable("there are no rotary positions")
    rotary = model.transformer.rotary_emb
    rotary.inv_freq = rotary.inv_freq.square()
    rotary.original_inv_freq = rotary.inv_freq
