"""Falcon's config space: flags, tiny dims, corners, presets, other shapes, and what a campaign varies. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verifier.family import Config

# The plainest value first: falcon-7b's.
FLAGS: Mapping[str, tuple[Any, ...]] = {
    "new_decoder_architecture": (False, True),
    "multi_query": (True, False),
    "alibi": (False, True),
    "parallel_attn": (True, False),
    "num_ln_in_parallel_attn": (None, 1, 2),
    "bias": (False, True),
    "num_kv_heads": (None, 1, 4, 12),
}

# No two alike, and unlike the inputs' [5, 11]: twelve heads are no power of two, more than the eight from which on
# ALiBi's slopes round in bfloat16, and divide into four groups of three; the vocabulary is prime.
DIMS: Config = {
    "hidden_size": 72,
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "ffn_hidden_size": 80,
    "vocab_size": 89,
    "max_position_embeddings": 64,
}

DROPOUTS: Config = {"hidden_dropout": 0.2, "attention_dropout": 0.3}

_NEW: Config = {"new_decoder_architecture": True}
_OLD_HEADS: Config = {"multi_query": False}
_SIXTEEN_HEADS: Config = {"hidden_size": 64, "num_attention_heads": 16}
_RW: Config = {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}

# What differs from `DIMS` and HF's defaults.
CORNERS: Mapping[str, Config] = {
    "three-layers-parallel-1ln": {"num_hidden_layers": 3, "bias": True},
    "three-layers-parallel-2ln": {**_NEW, "num_hidden_layers": 3, "num_kv_heads": 4, "bias": True},
    "three-layers-sequential": {"num_hidden_layers": 3, "parallel_attn": False, "multi_query": False},
    # So many that one layer's name begins with another's: `blocks.1` and `blocks.10`.
    "eleven-layers": {"num_hidden_layers": 11, "hidden_size": 24, "num_attention_heads": 6, "ffn_hidden_size": 20},
    "sixteen-heads-alibi": {**_RW, **_SIXTEEN_HEADS},
    "sixteen-heads-grouped-alibi": {**_NEW, "alibi": True, **_SIXTEEN_HEADS, "num_kv_heads": 2},
    "eight-heads-grouped": {**_NEW, "hidden_size": 80, "num_attention_heads": 8, "num_kv_heads": 2},
    "one-head": {"hidden_size": 10, "num_attention_heads": 1},
    "one-head-alibi": {"hidden_size": 3, "num_attention_heads": 1, "alibi": True},
    "d_head-1": {"hidden_size": 12},
    "d_head-2": {**_OLD_HEADS, "hidden_size": 24},
    "d_head-3-alibi": {**_RW, "hidden_size": 36},
    "no-layers": {"num_hidden_layers": 0},
    "untied": {**_NEW, "num_kv_heads": 4, "tie_word_embeddings": False},
    "ffn-twice-hidden": {**_OLD_HEADS, "ffn_hidden_size": 144},
    "ffn-default": {"ffn_hidden_size": None},
    "epsilon-large": {"layer_norm_epsilon": 0.1},
    "gelu-tanh": {"activation": "gelu_pytorch_tanh"},
    "relu": {"activation": "relu", "bias": True},
    "theta-500042": {**_NEW, "num_kv_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 500042.0}},
    "rope-linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    "rope-dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
    "rope-yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}},
    # Traps of published test checkpoints: HF ignores KV heads beside multi_query.
    "kv-heads-71-of-2": {"num_attention_heads": 2, "hidden_size": 20, "num_kv_heads": 71},
    "kv-heads-inferred": {**_OLD_HEADS, "num_kv_heads": -1},
    "flags-none": dict.fromkeys(("multi_query", "alibi", "new_decoder_architecture", "bias", "parallel_attn")),
    "three-norms-asked": {"num_ln_in_parallel_attn": 3},
    "three-norms-asked-new": {**_NEW, "num_ln_in_parallel_attn": 3},
    "d_head-3-rope": {"hidden_size": 36},
    "d_head-5-alibi": {**_RW, "hidden_size": 60},
    "hidden-not-divided": {"hidden_size": 73},
    "kv-heads-not-divided": {**_NEW, "num_kv_heads": 5},
    "kv-heads-too-many": {**_NEW, "num_kv_heads": 24},
    "kv-heads-zero": {**_NEW, "num_kv_heads": 0},
    "bias-text": {"bias": "yes"},
}

# Other shapes, by the values of the axis `dims`; with KV heads strictly between one and all those of the key, else all.
SHAPES: Mapping[str, tuple[int, Config]] = {
    "even": (4, {"hidden_size": 128, "num_attention_heads": 8, "ffn_hidden_size": 144, "vocab_size": 307}),
    "many": (4, {"hidden_size": 80, "num_attention_heads": 20, "ffn_hidden_size": 96}),
    "wide": (2, {"hidden_size": 160, "num_attention_heads": 4, "ffn_hidden_size": 176}),
}

# The published sizes in full, but for what does not change a layer: one of them is left, and a small vocabulary. In
# float64 a layer of falcon-7b is 1.7 GB, of falcon-40b 5.5 GB, of falcon-180B 18 GB, and a check holds up to four.
# Sources: the checkpoints' config files; falcon-11B, 180B and rw-7b from derived pages that agree.
_PRESET_VOCABULARY = 1021
_PRESET: Config = {"vocab_size": _PRESET_VOCABULARY, "max_position_embeddings": 2048, "num_hidden_layers": 1}
_PRESET_NEW: Config = {**_PRESET, **_NEW, "parallel_attn": True, "num_kv_heads": 8}
_PRESET_RW: Config = {**_PRESET, **_RW, "new_decoder_architecture": False}
_PRESET_11B: Config = {
    **_PRESET_NEW, "hidden_size": 4096, "num_attention_heads": 32, "ffn_hidden_size": 16384, "multi_query": True,
    "num_ln_in_parallel_attn": 1, "max_position_embeddings": 8192, "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500042.0},
}  # fmt: skip
PRESETS: Mapping[str, Config] = {
    "falcon-7b": {
        **_PRESET,
        "hidden_size": 4544,
        "num_attention_heads": 71,
        "multi_query": True,
        "parallel_attn": True,
    },
    "falcon-40b": {**_PRESET_NEW, "hidden_size": 8192, "num_attention_heads": 128},
    "falcon-180B": {**_PRESET_NEW, "hidden_size": 14848, "num_attention_heads": 232, "multi_query": True},
    "falcon-11B": _PRESET_11B,
    "falcon-rw-1b": {**_PRESET_RW, "hidden_size": 2048, "num_attention_heads": 32},
    "falcon-rw-7b": {**_PRESET_RW, "hidden_size": 4096, "num_attention_heads": 64},
}


def norms_of_new(config: Config) -> int:
    """Read `num_ln_in_parallel_attn` of the new architecture, where None means 2."""
    norms: int | None = config.get("num_ln_in_parallel_attn")
    return 2 if norms is None else norms


# The plainest value first: that of `DIMS`, or HF's default. Streams narrower than twelve are left out: a norm over a
# few numbers keeps their order and little else, and what rounding does there cannot be measured once.
FUZZED: Mapping[str, tuple[Any, ...]] = {
    "num_kv_heads": (None, 1, 2, 3, 4, 6, 8, 12, 16),
    "num_attention_heads": (12, 2, 3, 4, 5, 6, 8, 9, 16),
    "d_head": (6, 2, 3, 4, 8, 10, 16),
    "num_hidden_layers": (2, 1, 3, 0),
    "ffn_hidden_size": (80, None, 7, 40, 130),
    "vocab_size": (89, 23, 131, 331),
    "max_position_embeddings": (64, 16, 2048),
    "activation": ("gelu", "gelu_pytorch_tanh", "relu", "silu", "gelu_new"),
    "layer_norm_epsilon": (1e-5, 1e-12, 1e-3, 0.1),
    "tie_word_embeddings": (True, False),
    "rope": ("default", "linear", "dynamic", "yarn"),
    "rope_theta": (10000.0, 100.0, 500042.0),
}
_LEAST_WIDTH = 12
_LONGER_THAN_ANY = 2048


def fuzzed_config(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Make the config of one value for each flag and field, as wide as its heads, and at least `_LEAST_WIDTH`."""
    config = dict(chosen)
    rope, theta = config.pop("rope"), config.pop("rope_theta")
    heads, d_head = config["num_attention_heads"], config.pop("d_head")
    while heads * d_head < _LEAST_WIDTH:
        d_head *= 2
    config["hidden_size"] = heads * d_head
    if rope == "dynamic":
        # Beyond its maximum HF's model depends on the longest input that it has seen since the last short one, so that
        # nothing can be held against it; below, it is a table like the others.
        config["max_position_embeddings"] = max(_LONGER_THAN_ANY, config["max_position_embeddings"])
    parameters = {"rope_type": rope, "rope_theta": theta}
    if rope != "default":
        parameters["factor"] = 2.0
    if (rope, theta) != ("default", 10000.0):
        config["rope_parameters"] = parameters
    # HF's defaults need not be said: a config that says no more than the matrix's is the matrix's case.
    for name, value in (("activation", "gelu"), ("layer_norm_epsilon", 1e-5), ("tie_word_embeddings", True)):
        if config[name] == value:
            del config[name]
    return config
