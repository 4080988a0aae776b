"""What of Falcon's config varies when it is fuzzed, beside its flags. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    """Make the config of these values, as wide as heads times head dim, and at least `_LEAST_WIDTH`."""
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
