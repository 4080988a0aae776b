"""Llama: Hugging Face's `LlamaForCausalLM`.

HF's sdpa path is the reference: its eager path takes the softmax in float32 whatever the model's dtype.
"""

from __future__ import annotations

from verifier.reference.declared import DeclaredFamily

_GROUPED = {"num_key_value_heads": 4}
_ROPE = {"rope_theta": 10000.0}


class LlamaFamily(DeclaredFamily):
    """The reference side of Llama."""

    name = "llama"
    architecture = "LlamaForCausalLM"
    COMPONENTS = {
        "embed": "model.embed_tokens",
        "rotary_emb": "model.rotary_emb",
        "blocks": "model.layers",
        "ln_final": "model.norm",
        "unembed": "lm_head",
    }
    BLOCK = {
        "ln1": "input_layernorm",
        "attn": "self_attn",
        **{f"attn.{letter}": f"self_attn.{letter}_proj" for letter in "qkvo"},
        "ln2": "post_attention_layernorm",
        "mlp": "mlp",
        "mlp.gate": "mlp.gate_proj",
        "mlp.in": "mlp.up_proj",
        "mlp.out": "mlp.down_proj",
    }
    FLAGS = {
        "attention_bias": (False, True),
        "mlp_bias": (False, True),
        "num_key_value_heads": (None, 1, 4, 12),
        "tie_word_embeddings": (False, True),
        "head_dim": (None, 10),  # 6 by default; with 10 the heads are wider than the stream
    }
    # No two alike, and unlike the inputs' 5 and 11: twelve heads are no power of two and divide into four groups of
    # three.
    DIMS = {
        "hidden_size": 72,
        "num_attention_heads": 12,
        "num_hidden_layers": 2,
        "intermediate_size": 100,
        "vocab_size": 113,
        "max_position_embeddings": 96,
    }
    DROPOUTS = {"attention_dropout": 0.3}
    SHAPES = {
        "even": (4, {"hidden_size": 128, "num_attention_heads": 8, "intermediate_size": 144, "vocab_size": 307}),
        "many": (4, {"hidden_size": 80, "num_attention_heads": 20, "intermediate_size": 96}),
        "wide": (2, {"hidden_size": 160, "num_attention_heads": 4, "intermediate_size": 176}),
    }
    CORNERS = {
        "three-layers": {**_GROUPED, "num_hidden_layers": 3, "attention_bias": True, "mlp_bias": True},
        # So many that one layer's name begins with another's: `blocks.1` and `blocks.10`.
        "eleven-layers": {"num_hidden_layers": 11, "hidden_size": 24, "num_attention_heads": 6},
        "sixteen-heads": {"hidden_size": 64, "num_attention_heads": 16, "num_key_value_heads": 2},
        "one-head": {"hidden_size": 10, "num_attention_heads": 1},
        "d_head-2": {**_GROUPED, "head_dim": 2},
        "d_head-1": {"hidden_size": 12},
        "no-layers": {"num_hidden_layers": 0},
        "epsilon-large": {"rms_norm_eps": 0.1},
        "relu": {"hidden_act": "relu", "mlp_bias": True},
        "rope-linear": {"rope_parameters": {**_ROPE, "rope_type": "linear", "factor": 2.0}},
        "rope-dynamic": {"rope_parameters": {**_ROPE, "rope_type": "dynamic", "factor": 2.0}},
        "rope-llama3": {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 48,
            }
        },
        # What HF refuses.
        "d_head-3": {"head_dim": 3},
        "d_head-5": {"hidden_size": 60},
        "d_head-zero": {"head_dim": 0},
        "hidden-not-divided": {"hidden_size": 73, "head_dim": 6},
        "kv-heads-not-divided": {"num_key_value_heads": 5},
        "kv-heads-more-than-half": {"num_key_value_heads": 7},
        "kv-heads-too-many": {"num_key_value_heads": 24},
        "kv-heads-zero": {"num_key_value_heads": 0},
        "bias-none": {"attention_bias": None},
        "tied-text": {"tie_word_embeddings": "yes"},
    }
    # At full width; the depth and the vocabulary, which change no layer, are reduced. Source: the checkpoint's config.
    PRESETS = {
        "tinyllama-1.1b": {
            "hidden_size": 2048,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "intermediate_size": 5632,
            "num_hidden_layers": 2,
            "vocab_size": 1021,
            "rms_norm_eps": 1e-5,
        }
    }
