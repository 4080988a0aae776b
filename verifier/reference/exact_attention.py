"""An attention of the harness' own, `exact`, for models that Hugging Face offers no right one for in float64.

HF's eager functions take the softmax in float32, and hide padding by float64's lowest number, which is -inf there: not
a number where a whole row is hidden. HF's sdpa knows no softcap and no sinks. This one computes what both mean, in the
model's own dtype, from HF's boolean masks.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import sdpa_mask

from verifier.reference.attention_seam import asked_of_hf

EXACT = "exact"
"""The name of the attention implementation, for a family's `reference_attention`."""


def _exact(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **more: Any
) -> tuple[Tensor, Tensor]:
    """Attend: `[batch, pos, head, d_head]`, and the pattern `[batch, head, query, key]`."""
    groups = query.shape[1] // key.shape[1]
    asked = asked_of_hf(module, query, repeat_kv(key, groups), repeat_kv(value, groups), attention_mask, **more)
    pattern = asked.pattern(asked.scores())
    return asked.mix(pattern).transpose(1, 2).contiguous(), pattern


def offer() -> None:
    """Let HF's models find it by its name; done again, it changes nothing."""
    AttentionInterface.register(EXACT, _exact)
    AttentionMaskInterface.register(EXACT, sdpa_mask)
