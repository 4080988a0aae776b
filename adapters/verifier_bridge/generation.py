"""Greedy continuation with the bridge's own key/value cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from verifier_bridge.errors import InputError


@torch.no_grad()
def greedy(bridge: nn.Module, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None) -> Tensor:
    """Continue `[batch, pos]` greedily to `[batch, pos + max_new_tokens]`; no token ends the text early.

    As in Hugging Face's `generate`, the positions of a padded row count its tokens, not its padding.

    Args:
        bridge: the bridge that runs.
        input_ids: `[batch, pos]`.
        max_new_tokens: the number of tokens to add to each row.
        attention_mask: `[batch, pos]`, 1 for a token and 0 for padding; None where nothing is padded.

    Raises:
        InputError: `max_new_tokens` is negative, or there is no token to continue.
    """
    if max_new_tokens < 0:
        raise InputError(f"max_new_tokens is {max_new_tokens}; it must not be negative")
    if max_new_tokens and not input_ids.shape[1]:
        raise InputError("there is no token to continue: input_ids is [batch, 0]")
    tokens, new, cache = input_ids, input_ids, None
    positions = None if attention_mask is None else _positions(attention_mask)
    for _ in range(max_new_tokens):
        output = bridge(
            new,
            attention_mask=attention_mask,
            position_ids=positions,
            cache=cache,
            use_cache=True,
            last_logits_only=True,
        )
        cache = output.cache
        new = output.logits[:, -1:].argmax(-1)
        tokens = torch.cat((tokens, new), dim=1)
        if attention_mask is not None and positions is not None:
            attention_mask = torch.cat((attention_mask, torch.ones_like(attention_mask[:, :1])), dim=1)
            positions = positions[:, -1:] + 1
    return tokens


def _positions(attention_mask: Tensor) -> Tensor:
    """Count each token's place among the row's tokens: `[batch, pos]`."""
    return (attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 0)
