"""Which Falcon configs Hugging Face refuses, and why, in words.

HF refuses some when the config is made, some when the model is built, and most only at its first forward. Needs
neither torch nor transformers. That `refusal` equals what HF does is a test and a check, not a hope.
"""

from __future__ import annotations

from collections.abc import Mapping

from verifier.families.falcon_configs import Config, norms_of_new

# HF's strict config dataclass: a bool is no int, an int no bool, and only dropouts may be either number.
_NONE = type(None)
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"), (int,)),
    **dict.fromkeys(("num_ln_in_parallel_attn", "num_kv_heads", "ffn_hidden_size"), (int, _NONE)),
    **dict.fromkeys(("hidden_dropout", "attention_dropout"), (float, int, _NONE)),
    **dict.fromkeys(("alibi", "new_decoder_architecture", "multi_query", "parallel_attn", "bias"), (bool, _NONE)),
    "max_position_embeddings": (int,),
    "layer_norm_epsilon": (float, _NONE),
    "rope_parameters": (dict, _NONE),
    "activation": (str, _NONE),
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
    {
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh"),
        *("gelu_python_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu"),
        *("relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu"),
    }
)

# `validate_rope` lets small odd head dims pass, for the sake of published test checkpoints.
LARGEST_ODD_D_HEAD = 4

# What each RoPE type must be told; yarn makes up for a factor of None.
ROPE_KEYS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "yarn": frozenset({"factor"}),
    "longrope": frozenset({"short_factor", "long_factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor"}),
    "proportional": frozenset(),
}


def refusal(config: Config) -> str | None:
    """Say why HF refuses the config, when it is built or at its first forward; None if HF accepts it."""
    full = {**_DEFAULTS, **config}
    return _refused_type(full) or _refused_anywhere(full) or _refused_rope(full) or _refused_in_blocks(full)


def _refused_type(config: Config) -> str | None:
    for name in _DEFAULTS:
        types, value = _TYPES[name], config[name]
        if type(value) not in types:
            wanted = " or ".join("None" if kind is _NONE else kind.__name__ for kind in types)
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
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind not in ROPE_KEYS:
        return f"rope_type {kind!r} is not known"
    missing = ROPE_KEYS[kind] - parameters.keys()
    if missing:
        return f"rope_type {kind!r} needs {', '.join(sorted(missing))}"
    for name in ("rope_theta", *sorted(ROPE_KEYS[kind] - {"short_factor", "long_factor"})):
        value = parameters.get(name, 1)
        if not isinstance(value, int | float) and not (kind == "yarn" and name == "factor" and value is None):
            return f"{name} of rope_parameters must be a number, not {value!r}"
    if kind == "dynamic" and d_head == 2:
        return "HF's dynamic RoPE divides by the head dim less two"
    if kind == "longrope" and len(parameters["short_factor"]) != (d_head + 1) // 2:
        return f"short_factor of rope_parameters must have {(d_head + 1) // 2} entries"
    return None


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
