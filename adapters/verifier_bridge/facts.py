"""What a bridge says of its model: read off its parts, and off the config where no part shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from verifier_bridge.bridge import Bridge


def facts(bridge: Bridge) -> Mapping[str, object]:
    """Give heads, widths and layers, norms, activation and positions, by TransformerLens' names for them."""
    config: Any = bridge.model.config
    embedding: Tensor = bridge.embed.original.weight  # type: ignore[assignment]
    found: dict[str, object] = {
        "n_layers": len(bridge.blocks),
        "d_model": embedding.shape[1],
        "d_vocab": embedding.shape[0],
        "n_ctx": config.max_position_embeddings,
        "normalization_type": "LN" if bridge.ln_final.centres else "RMS",
        "eps": bridge.ln_final.eps,
        "tie_word_embeddings": bridge.unembed.original.weight is embedding,
    }
    spec = bridge.architecture.block
    if spec is None:
        return found
    hidden: Tensor = bridge.get_submodule("blocks.0.mlp.in.original").weight  # type: ignore[assignment]
    found |= {
        "n_heads": spec.layout.n_heads,
        "n_key_value_heads": spec.layout.n_kv_heads,
        "d_head": spec.layout.d_head,
        "d_mlp": hidden.shape[0],
        "act_fn": config.activation,
        "positional_embedding_type": "alibi" if spec.alibi is not None else "rotary",
        "parallel_attn_mlp": spec.parallel,
    }
    if spec.rotate is not None:
        found["rotary_base"] = config.rope_parameters["rope_theta"]
    return found
