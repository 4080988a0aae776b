"""Tiny models of several architectures of Hugging Face, for tests of what all families stand on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from verifier.reference import models

VOCABULARY = 53
POSITIONS = 32

_USUAL: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_GPT2: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 6,
    "n_positions": POSITIONS,
    "bos_token_id": None,
    "eos_token_id": None,
    "attn_pdrop": 0.0,
}
_DECODES: Mapping[str, Any] = {"pad_token_id": 1, "decoder_start_token_id": 2, "eos_token_id": None}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "GPT2LMHeadModel": _GPT2,
    "GPTBigCodeForCausalLM": _GPT2,
    "Gemma2ForCausalLM": _USUAL,
    "OPTForCausalLM": {
        **{name: value for name, value in _USUAL.items() if name not in ("head_dim", "num_key_value_heads")},
        "ffn_dim": 40,
        "word_embed_proj_dim": 24,
    },
    "BloomForCausalLM": {"vocab_size": VOCABULARY, "hidden_size": 24, "n_layer": 2, "n_head": 6},
    "MixtralForCausalLM": {**_USUAL, "num_local_experts": 5, "num_experts_per_tok": 2},
    "Qwen2MoeForCausalLM": {
        **_USUAL,
        "moe_intermediate_size": 20,
        "shared_expert_intermediate_size": 28,
        "num_experts": 5,
        "num_experts_per_tok": 2,
    },
    "Llama4ForCausalLM": {
        **_USUAL,
        "intermediate_size_mlp": 28,
        "num_local_experts": 5,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "attention_chunk_size": 16,
        "pad_token_id": 0,
    },
    "T5ForConditionalGeneration": {
        "vocab_size": VOCABULARY,
        "d_model": 24,
        "d_kv": 4,
        "d_ff": 40,
        "num_layers": 2,
        "num_heads": 6,
        **_DECODES,
    },
    "BartForConditionalGeneration": {
        "vocab_size": VOCABULARY,
        "d_model": 24,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 6,
        "decoder_attention_heads": 6,
        "encoder_ffn_dim": 28,
        "decoder_ffn_dim": 40,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": None,
        "forced_eos_token_id": None,
        **_DECODES,
    },
}
"""By the name of its class, the config of a tiny model."""


def build_tiny(
    architecture: str,
    *,
    dtype: torch.dtype = torch.float64,
    attention: str = "eager",
    seed: int = 0,
    **more: Any,
) -> Any:
    """Hugging Face's model of that class, tiny and random, as the harness builds it."""
    kind = getattr(transformers, architecture)
    return models.build(
        kind,
        kind.config_class,
        {**CONFIGS[architecture], **more},
        dtype=dtype,
        device="cpu",
        attention=attention,
        seed=seed,
    )


def draw_tokens(batch: int = 2, length: int = 7, *, seed: int = 0) -> torch.Tensor:
    """Token ids `[batch, length]`, the same ones every time."""
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))
