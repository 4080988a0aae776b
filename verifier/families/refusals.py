"""What Hugging Face's configs of every family refuse, in words: types, activations, rotary positions.

Needs neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verifier.family import Config

NONE = type(None)

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


def fill(config: Config, fields: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Give every field its value, or the default of HF's config.

    Args:
        config: what is said.
        fields: by name: the default, and the types that HF's strict config takes.
    """
    return {**{name: default for name, (default, *_) in fields.items()}, **config}


def refused_type(config: Config, fields: Mapping[str, tuple[Any, ...]]) -> str | None:
    """Say which field has a type that HF's strict config does not take: a bool is no int there, and an int no bool.

    Args:
        config: with every field.
        fields: by name: the default, and the types that HF's strict config takes.
    """
    for name, (_, *types) in fields.items():
        if type(config[name]) not in types:
            wanted = " or ".join("None" if kind is NONE else kind.__name__ for kind in types)
            return f"{name} must be {wanted}, not {config[name]!r}"
    return None


def refused_rope(parameters: Mapping[str, Any], d_head: int) -> str | None:
    """Say what is wrong with `rope_parameters`, which HF validates where no rotary position is used too.

    Args:
        parameters: of the config.
        d_head: the width of a head.
    """
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
