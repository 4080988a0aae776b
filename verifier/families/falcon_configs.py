"""Falcon's config space: flags, tiny dims, corners, presets, and which configs Hugging Face refuses, and why.

Needs neither torch nor transformers. That `refusal` equals what HF does is a test and a check, not a hope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]

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
_RW: Config = {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}

# What differs from `DIMS` and HF's defaults.
CORNERS: Mapping[str, Config] = {
    "three-layers-parallel-1ln": {"num_hidden_layers": 3, "bias": True},
    "three-layers-parallel-2ln": {**_NEW, "num_hidden_layers": 3, "num_kv_heads": 4, "bias": True},
    "three-layers-sequential": {"num_hidden_layers": 3, "parallel_attn": False, "multi_query": False},
    "sixteen-heads-alibi": {**_RW, "hidden_size": 64, "num_attention_heads": 16},
    "sixteen-heads-grouped-alibi": {
        **_NEW,
        "alibi": True,
        "hidden_size": 64,
        "num_attention_heads": 16,
        "num_kv_heads": 2,
    },
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
    # Traps of published test checkpoints: HF ignores KV heads beside multi_query.
    "kv-heads-71-of-2": {"num_attention_heads": 2, "hidden_size": 20, "num_kv_heads": 71},
    "kv-heads-inferred": {**_OLD_HEADS, "num_kv_heads": -1},
    "flags-none": {
        "multi_query": None,
        "alibi": None,
        "new_decoder_architecture": None,
        "bias": None,
        "parallel_attn": None,
    },
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

# The published sizes in full, but for what does not change a layer: one of them is left, and a small vocabulary. In
# float64 a layer of falcon-7b is 1.7 GB, of falcon-40b 5.5 GB, of falcon-180B 18 GB, and a check holds up to four.
# Sources: the checkpoints' config files; falcon-11B, 180B and rw-7b from derived pages that agree.
_PRESET_VOCABULARY = 1021
_PUBLISHED: Mapping[str, Config] = {
        "falcon-7b": {
            "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 1,
            "multi_query": True, "parallel_attn": True,
        },
        "falcon-40b": {
            "hidden_size": 8192, "num_attention_heads": 128, "num_kv_heads": 8, "num_hidden_layers": 1,
            "new_decoder_architecture": True, "parallel_attn": True,
        },
        "falcon-180B": {
            "hidden_size": 14848, "num_attention_heads": 232, "num_kv_heads": 8, "num_hidden_layers": 1,
            "new_decoder_architecture": True, "multi_query": True, "parallel_attn": True,
        },
        "falcon-11B": {
            "hidden_size": 4096, "num_attention_heads": 32, "num_kv_heads": 8, "num_hidden_layers": 1,
            "ffn_hidden_size": 16384, "new_decoder_architecture": True, "multi_query": True, "parallel_attn": True,
            "num_ln_in_parallel_attn": 1, "max_position_embeddings": 8192, "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500042.0},
        },
        "falcon-rw-1b": {
            "hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 1,
            "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False,
            "new_decoder_architecture": False,
        },
        "falcon-rw-7b": {
            "hidden_size": 4096, "num_attention_heads": 64, "num_hidden_layers": 1,
            "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False,
            "new_decoder_architecture": False,
        },
}  # fmt: skip
PRESETS: Mapping[str, Config] = {
    name: {"vocab_size": _PRESET_VOCABULARY, "max_position_embeddings": 2048, **config}
    for name, config in _PUBLISHED.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How a valid config's blocks are made: what `FalconDecoderLayer` reads, not what it merely builds.

    Attributes:
        sequential: attention and MLP one after the other, with a stream between them.
        attention_norm: the name of the module before the attention.
        mlp_norm: the name of the MLP's own norm; None where it shares the attention's.
    """

    sequential: bool
    attention_norm: str
    mlp_norm: str | None

    @classmethod
    def of(cls, config: Config) -> Blocks:
        """Read off `FalconDecoderLayer.forward`."""
        new = bool(config.get("new_decoder_architecture", False))
        if not new and not config.get("parallel_attn", True):
            return cls(sequential=True, attention_norm="input_layernorm", mlp_norm="post_attention_layernorm")
        if new and norms_of_new(config) == 2:
            return cls(sequential=False, attention_norm="ln_attn", mlp_norm="ln_mlp")
        return cls(sequential=False, attention_norm="input_layernorm", mlp_norm=None)


def norms_of_new(config: Config) -> int:
    """`num_ln_in_parallel_attn` of the new architecture, where None means 2."""
    norms: int | None = config.get("num_ln_in_parallel_attn")
    return 2 if norms is None else norms


# HF's strict config dataclass: a bool is no int, an int no bool, and only dropouts may be either number.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "vocab_size": (int,),
    "hidden_size": (int,),
    "num_hidden_layers": (int,),
    "num_attention_heads": (int,),
    "num_ln_in_parallel_attn": (int, type(None)),
    "layer_norm_epsilon": (float, type(None)),
    "hidden_dropout": (float, int, type(None)),
    "attention_dropout": (float, int, type(None)),
    "num_kv_heads": (int, type(None)),
    "alibi": (bool, type(None)),
    "new_decoder_architecture": (bool, type(None)),
    "multi_query": (bool, type(None)),
    "parallel_attn": (bool, type(None)),
    "bias": (bool, type(None)),
    "max_position_embeddings": (int,),
    "rope_parameters": (dict, type(None)),
    "ffn_hidden_size": (int, type(None)),
    "activation": (str, type(None)),
    "tie_word_embeddings": (bool,),
}

# The defaults of `FalconConfig`.
_DEFAULTS: Config = {
    "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
    "num_ln_in_parallel_attn": None, "layer_norm_epsilon": 1e-5, "hidden_dropout": 0.0, "attention_dropout": 0.0,
    "num_kv_heads": None, "alibi": False, "new_decoder_architecture": False, "multi_query": True,
    "parallel_attn": True, "bias": False, "max_position_embeddings": 2048, "rope_parameters": None,
    "ffn_hidden_size": None, "activation": "gelu", "tie_word_embeddings": True,
}  # fmt: skip

# The keys of transformers' `ACT2FN`; a test compares.
ACTIVATIONS = frozenset(
    [
        "gelu",
        "gelu_10",
        "gelu_accurate",
        "gelu_fast",
        "gelu_new",
        "gelu_python",
        "gelu_pytorch_tanh",
        "gelu_python_tanh",
        "hardswish",
        "laplace",
        "leaky_relu",
        "linear",
        "mish",
        "quick_gelu",
        "relu",
        "relu2",
        "relu6",
        "sigmoid",
        "silu",
        "sqrtsoftplus",
        "swish",
        "tanh",
        "prelu",
        "xielu",
    ]
)

# `validate_rope` lets small odd head dims pass, for the sake of published test checkpoints.
LARGEST_ODD_D_HEAD = 4

# What each RoPE type must be told.
ROPE_KEYS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
}


def refusal(config: Config) -> str | None:
    """Why HF refuses the config, when it is built or at its first forward, or None where it accepts it."""
    full = {**_DEFAULTS, **config}
    return _refused_type(full) or _refused_anywhere(full) or _refused_rope(full) or _refused_in_blocks(full)


def _refused_type(config: Config) -> str | None:
    for name, types in _TYPES.items():
        value = config[name]
        if type(value) not in types:
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
            return f"{name} must be {wanted}, not {value!r}"
    return None


def _refused_anywhere(config: Config) -> str | None:
    for name in ("vocab_size", "num_attention_heads"):
        if config[name] < 1:
            return f"{name} must be at least 1"
    if config["hidden_size"] < 0:
        return "hidden_size is negative"
    if config["layer_norm_epsilon"] is None:
        return "layer_norm_epsilon is None, and the layer norms need a number"
    return None


def _refused_rope(config: Config) -> str | None:
    # HF validates and builds the rotary embedding whatever `alibi` says, and in a model without blocks.
    d_head = config["hidden_size"] // config["num_attention_heads"]
    if d_head % 2 and d_head > LARGEST_ODD_D_HEAD:
        return f"HF's config refuses an odd head dim above {LARGEST_ODD_D_HEAD}, with ALiBi too"
    parameters = config["rope_parameters"] or {}
    kind = parameters.get("rope_type", "default")
    if kind not in ROPE_KEYS:
        return f"rope_type {kind!r} is not known"
    missing = ROPE_KEYS[kind] - parameters.keys()
    return f"rope_type {kind!r} needs {', '.join(sorted(missing))}" if missing else None


def _refused_in_blocks(config: Config) -> str | None:
    if config["num_hidden_layers"] < 1:
        return None  # no block is built or run
    hidden, heads, d_ffn = config["hidden_size"], config["num_attention_heads"], config["ffn_hidden_size"]
    if hidden == 0:
        return "hidden_size must be at least 1"
    if hidden % heads:
        return "num_attention_heads does not divide hidden_size"
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
        return (
            "two norms are of the new architecture: the old parallel block builds them and then reads input_layernorm"
        )
    return None


def _refused_heads(config: Config) -> str | None:
    heads = config["num_attention_heads"]
    kv_heads = heads if config["num_kv_heads"] is None else config["num_kv_heads"]
    if config["new_decoder_architecture"]:
        return None if kv_heads >= 1 and heads % kv_heads == 0 else "num_kv_heads does not divide num_attention_heads"
    if config["multi_query"]:
        return None  # num_kv_heads is ignored
    # Keys are split for every head, then reshaped to num_kv_heads; -1 lets reshape infer the right number.
    return (
        None if kv_heads in (heads, -1) else "without multi_query every head has its own key: num_kv_heads is not that"
    )
