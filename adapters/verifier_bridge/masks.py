"""Attention masks and ALiBi biases, with the exact values of Hugging Face's sdpa path."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from verifier_bridge.architecture import AlibiBias
    from verifier_bridge.qkv import QKVLayout


def readable(
    attention_mask: Tensor | None, *, batch: int, queries: int, past: int, causal: bool, device: torch.device
) -> Tensor:
    """Mark which keys a query may read: `[batch, 1, query, key]`, with the keys of `past` positions first.

    Args:
        attention_mask: `[batch, past + queries]`, nonzero for a token.
        batch: number of rows.
        queries: number of positions that ask.
        past: number of positions before them.
        causal: whether nothing after itself may be read.
        device: where it is wanted.
    """
    keys = past + queries
    allowed = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if causal:
        allowed = allowed.tril(diagonal=past)
    allowed = allowed.expand(batch, 1, queries, keys)
    if attention_mask is None:
        return allowed
    return allowed & attention_mask.to(device=device, dtype=torch.bool)[:, None, None, :]


def with_alibi(
    allowed: Tensor, attention_mask: Tensor | None, *, alibi: AlibiBias, layout: QKVLayout, dtype: torch.dtype
) -> Tensor:
    """Make what is added to the scores: the scaled bias, and the dtype's lowest value where nothing may be read.

    `[batch, head, query, key]`. Positions count the tokens of the mask, not its padding.

    Args:
        allowed: `[batch, 1, query, key]`, True where a query may read a key.
        attention_mask: `[batch, key]`, 1 for a token and 0 for padding; None where nothing is padded.
        alibi: makes the unscaled bias of a mask, a number of heads and a dtype.
        layout: says how many heads there are, and `d_head`, by whose root the bias is divided.
        dtype: of the result.
    """
    batch, _, _, keys = allowed.shape
    if attention_mask is None:
        attention_mask = torch.ones(batch, keys, dtype=torch.long, device=allowed.device)
    bias = alibi(attention_mask, layout.n_heads, dtype).reshape(batch, layout.n_heads, 1, keys)
    return torch.masked_fill(bias / math.sqrt(layout.d_head), ~allowed, torch.finfo(dtype).min)
