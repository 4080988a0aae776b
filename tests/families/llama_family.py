"""Llama with a predicate of what Hugging Face refuses, as a third party would bring it: `llama_family:LlamaFamily`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verifier.families import llama
from verifier.family import Config

FLAGS, DIMS, CORNERS, PRESETS = (getattr(llama.LlamaFamily, name) for name in ("FLAGS", "DIMS", "CORNERS", "PRESETS"))

# What HF's strict config takes (a bool is no int), and its default.
_FIELDS: Mapping[str, tuple[tuple[type, ...], Any]] = {
    "vocab_size": ((int,), 32000),
    "hidden_size": ((int,), 4096),
    "intermediate_size": ((int,), 11008),
    "num_hidden_layers": ((int,), 32),
    "num_attention_heads": ((int,), 32),
    "num_key_value_heads": ((int, type(None)), None),
    "head_dim": ((int, type(None)), None),
    "hidden_act": ((str,), "silu"),
    "max_position_embeddings": ((int,), 2048),
    "rms_norm_eps": ((float,), 1e-6),
    "tie_word_embeddings": ((bool,), False),
    "attention_bias": ((bool,), False),
    "mlp_bias": ((bool,), False),
    "attention_dropout": ((int, float, type(None)), 0.0),
    "rope_parameters": ((dict, type(None)), None),
}
# HF's config lets a head this small be odd, for the sake of published test checkpoints.
_LARGEST_ODD_D_HEAD = 4


def refusal(config: Config) -> str | None:
    """Why HF refuses the config, when it is built or at its first forward."""
    for name, (types, default) in _FIELDS.items():
        value = config.get(name, default)
        if type(value) not in types:
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
            return f"{name} must be {wanted}, not {value!r}"
    full = {**{name: default for name, (_, default) in _FIELDS.items()}, **config}
    return _refused_anywhere(full) or (_refused_in_blocks(full) if full["num_hidden_layers"] > 0 else None)


def _refused_anywhere(config: Config) -> str | None:
    for name, least in (("vocab_size", 1), ("num_attention_heads", 1), ("hidden_size", 0)):
        if config[name] < least:
            return f"{name} must be at least {least}"
    if config["hidden_size"] % config["num_attention_heads"]:
        return "num_attention_heads does not divide hidden_size, which HF asks for with a head_dim of one's own too"
    d_head = _d_head(config)
    if d_head < 0:
        return "head_dim is negative"
    if d_head % 2 and d_head > _LARGEST_ODD_D_HEAD:
        return f"HF's config refuses an odd head dim above {_LARGEST_ODD_D_HEAD}"
    return None


def _refused_in_blocks(config: Config) -> str | None:
    d_head, heads, kv_heads = _d_head(config), config["num_attention_heads"], config["num_key_value_heads"]
    if config["intermediate_size"] < 0:
        return "intermediate_size is negative"
    if d_head == 0:
        return "the head dim is 0, and scores are divided by its root"
    if d_head % 2 and d_head > 1:
        return "RoPE cannot halve an odd head dim"  # with 1 HF's product broadcasts and is accepted
    if kv_heads is not None and (kv_heads < 1 or heads % kv_heads):
        return "num_key_value_heads does not divide num_attention_heads"
    return None


def _d_head(config: Config) -> int:
    given: int | None = config["head_dim"]
    return config["hidden_size"] // config["num_attention_heads"] if given is None else given


class LlamaFamily(llama.LlamaFamily):
    """The family of the product, and the predicate."""

    refusal = staticmethod(refusal)
