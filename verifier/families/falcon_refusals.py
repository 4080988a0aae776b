"""Which Falcon configs Hugging Face refuses, and why, in words.

HF refuses some when the config is made, some when the model is built, and most only at its first forward. Needs
neither torch nor transformers. That `refusal` equals what HF does is a test and a check, not a hope.
"""

from __future__ import annotations

from verifier.families.falcon_configs import norms_of_new
from verifier.families.refusals import ACTIVATIONS, LARGEST_ODD_D_HEAD, NONE, fill, refused_rope, refused_type
from verifier.family import Config

# The defaults of `FalconConfig`, and the types that it takes; only dropouts may be either number.
_FIELDS = {
    "vocab_size": (65024, int), "hidden_size": (4544, int), "num_hidden_layers": (32, int),
    "num_attention_heads": (71, int), "num_ln_in_parallel_attn": (None, int, NONE), "num_kv_heads": (None, int, NONE),
    "ffn_hidden_size": (None, int, NONE), "hidden_dropout": (0.0, float, int, NONE),
    "attention_dropout": (0.0, float, int, NONE), "alibi": (False, bool, NONE),
    "new_decoder_architecture": (False, bool, NONE), "multi_query": (True, bool, NONE),
    "parallel_attn": (True, bool, NONE), "bias": (False, bool, NONE), "max_position_embeddings": (2048, int),
    "layer_norm_epsilon": (1e-5, float, NONE), "rope_parameters": (None, dict, NONE),
    "activation": ("gelu", str, NONE), "tie_word_embeddings": (True, bool),
}  # fmt: skip


def refusal(config: Config) -> str | None:
    """Say why HF refuses the config, when it is built or at its first forward; None if HF accepts it."""
    full = fill(config, _FIELDS)
    return refused_type(full, _FIELDS) or _refused_anywhere(full) or _refused_in_blocks(full)


def _refused_anywhere(config: Config) -> str | None:
    for name in ("vocab_size", "num_attention_heads"):
        if config[name] < 1:
            return f"{name} must be at least 1"
    if config["hidden_size"] < 0:
        return "hidden_size is negative"
    if config["layer_norm_epsilon"] is None:
        return "layer_norm_epsilon is None, and the layer norms need a number"
    # HF validates and builds the rotary embedding whatever `alibi` says, and in a model without blocks.
    d_head = config["hidden_size"] // config["num_attention_heads"]
    if d_head % 2 and d_head > LARGEST_ODD_D_HEAD:
        return f"HF's config refuses an odd head dim above {LARGEST_ODD_D_HEAD}, with ALiBi too"
    return refused_rope(config["rope_parameters"] or {}, d_head)


def _refused_in_blocks(config: Config) -> str | None:
    if config["num_hidden_layers"] < 1:
        return None  # no block is built or run
    hidden, heads, d_ffn = config["hidden_size"], config["num_attention_heads"], config["ffn_hidden_size"]
    if hidden == 0 or hidden % heads:
        return "num_attention_heads does not divide hidden_size" if hidden else "hidden_size must be at least 1"
    if d_ffn is not None and d_ffn < 0:
        return "ffn_hidden_size is negative"
    if config["activation"] not in ACTIVATIONS:
        return f"activation {config['activation']!r} is not known"
    for name in ("hidden_dropout", "attention_dropout"):
        if config[name] is None or not 0 <= config[name] <= 1:
            return f"{name} must lie between 0 and 1"
    d_head = hidden // heads
    if not config["alibi"] and d_head % 2 and d_head > 1:
        # HF's tables have d_head + 1 columns then; with d_head 1 the product broadcasts and is accepted.
        return "RoPE cannot halve an odd head dim"
    return _refused_norms(config) or _refused_heads(config)


def _refused_norms(config: Config) -> str | None:
    norms = config["num_ln_in_parallel_attn"]
    if config["new_decoder_architecture"]:
        norms = norms_of_new(config)
        if not config["parallel_attn"]:
            return "the new architecture is parallel, but parallel_attn=False builds the norms of a sequential block"
        if norms not in (1, 2):
            return f"the new architecture has one or two norms, not num_ln_in_parallel_attn={norms}"
        return None
    if config["parallel_attn"] and norms == 2:
        return "two norms are of the new architecture: the old parallel block builds them and reads input_layernorm"
    return None


def _refused_heads(config: Config) -> str | None:
    heads = config["num_attention_heads"]
    kv_heads = heads if config["num_kv_heads"] is None else config["num_kv_heads"]
    if config["new_decoder_architecture"]:
        return None if kv_heads >= 1 and heads % kv_heads == 0 else "num_kv_heads does not divide num_attention_heads"
    if config["multi_query"]:
        return None  # num_kv_heads is ignored
    # Keys are split for every head, then reshaped to num_kv_heads; -1 lets reshape infer the right number.
    own = "without multi_query every head has its own key: num_kv_heads is not that"
    return None if kv_heads in (heads, -1) else own
