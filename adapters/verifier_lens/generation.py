"""Decoding by TransformerLens' own `generate`, with its key/value cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge


class LensCache:
    """Generation by one bridge. Its cache is the one of Hugging Face that `return_type="logits_and_cache"` gives."""

    def __init__(self, bridge: TransformerBridge) -> None:
        self._bridge: Any = bridge

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
        """Continue greedily with the cache: `[batch, pos + max_new_tokens]`.

        Args:
            input_ids: `[batch, pos]`, the tokens to continue.
            max_new_tokens: the number of tokens to add to each row.
            attention_mask: `[batch, pos]`, 1 for a token and 0 for padding; None where nothing is padded.
        """
        tokens: Tensor = self._bridge.generate(
            input_ids,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            stop_at_eos=False,
            use_past_kv_cache=True,
            return_type="tokens",
            verbose=False,
            attention_mask=attention_mask,
        )
        return tokens
