"""Llama as a third party would bring it: `llama_family:LlamaFamily`, written against the public protocol alone.

HF's sdpa path is the reference: its eager path takes the softmax in float32 whatever the model's dtype.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from verifier.canonical import Point, points
from verifier.family import Config, Projection, QKVRows, Taps

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from verifier.adapter import Edit
    from verifier.reference.taps import TapRecorder

FLAGS: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False, True),
    "mlp_bias": (False, True),
    "num_key_value_heads": (None, 1, 4, 12),
    "tie_word_embeddings": (False, True),
    "head_dim": (None, 10),  # 6 by default; with 10 the heads are wider than the stream
}

# No two alike, and unlike the inputs' 5 and 11: twelve heads are no power of two and divide into four groups of three.
DIMS: Config = {
    "hidden_size": 72,
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "intermediate_size": 100,
    "vocab_size": 113,
    "max_position_embeddings": 96,
}

_GROUPED: Config = {"num_key_value_heads": 4}
_ROPE: Config = {"rope_theta": 10000.0}

CORNERS: Mapping[str, Config] = {
    "three-layers": {**_GROUPED, "num_hidden_layers": 3, "attention_bias": True, "mlp_bias": True},
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

# At full width; the depth and the vocabulary, which change no layer, are reduced.
PRESETS: Mapping[str, Config] = {
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


_BLOCK = (
    "hook_resid_pre",
    "ln1.hook_scale",
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_rot_q",
    "attn.hook_rot_k",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_z",
    "attn.hook_result",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_scale",
    "ln2.hook_normalized",
    "mlp.hook_pre",
    "mlp.hook_pre_linear",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)
_AROUND = ("hook_embed", "ln_final.hook_scale", "ln_final.hook_normalized")


class LlamaFamily:
    """The reference side of Llama."""

    name = "llama"
    architecture = "LlamaForCausalLM"
    reference_attention = "sdpa"
    attentions: tuple[str, ...] = ("sdpa", "eager")

    def flags(self) -> Mapping[str, Sequence[Any]]:
        """Every flag and its values, the plainest first."""
        return FLAGS

    def dims(self) -> Config:
        """Tiny dims, no two alike."""
        return DIMS

    def corners(self) -> Mapping[str, Config]:
        """Other shapes, and what HF refuses."""
        return CORNERS

    def presets(self) -> Mapping[str, Config]:
        """A published checkpoint at full width."""
        return PRESETS

    def dropouts(self) -> Config:
        """The one dropout that Llama has."""
        return {"attention_dropout": 0.3}

    def refusal(self, config: Config) -> str | None:
        """Why HF refuses the config."""
        return refusal(config)

    def build(self, config: Config, *, dtype: torch.dtype, device: str, attention: str, seed: int) -> PreTrainedModel:
        """HF's model with random weights."""
        from transformers import LlamaConfig, LlamaForCausalLM

        from verifier.reference.models import build

        return build(LlamaForCausalLM, LlamaConfig, config, dtype=dtype, device=device, attention=attention, seed=seed)

    def facts(self, model: Any) -> Mapping[str, object]:
        """What is so of HF's model, read off it and its config."""
        from verifier.reference.models import common_facts

        config = model.config
        found = {
            **common_facts(model, self),
            "normalization_type": "RMS",
            "eps": config.rms_norm_eps,
            "positional_embedding_type": "rotary",
            "rotary_base": config.rope_parameters["rope_theta"],
        }
        if config.num_hidden_layers:
            found |= {
                "d_mlp": config.intermediate_size,
                "act_fn": config.hidden_act,
                "parallel_attn_mlp": False,
            }
        return found

    def points(self, config: Config) -> Sequence[Point]:
        """The hook points: all of a sequential block with a gated MLP, whatever the flags."""
        return points([*_AROUND, *(f"blocks.{{i}}.{name}" for name in _BLOCK)], config["num_hidden_layers"])

    @contextlib.contextmanager
    def taps(
        self, model: Any, *, names: Collection[str] | None = None, edits: Mapping[str, Edit] | None = None
    ) -> Iterator[Taps]:
        """Read and edit the activations of an untouched model."""
        from verifier.reference.taps import TapRecorder

        chosen = [point.name for point in self.points(model.config.to_dict())] if names is None else names
        with TapRecorder(chosen, edits or {}) as taps:
            self._place_taps(model, taps)
            yield taps

    def _place_taps(self, model: Any, taps: TapRecorder) -> None:
        import torch

        from verifier.reference import taps as at

        def tap_norm(prefix: str, module: Any) -> None:
            # `LlamaRMSNorm.forward` casts to float32 whatever it is given.
            eps = module.variance_epsilon
            at.tap_norm(taps, prefix, module, eps=eps, centred=False, computed_in=torch.float32)

        body = model.model
        at.tap_output(taps, "hook_embed", body.embed_tokens)
        attentions = {}
        for layer, block in enumerate(body.layers):
            here, attn, mlp = f"blocks.{layer}", block.self_attn, block.mlp
            norm2 = block.post_attention_layernorm
            rows = self.qkv_rows(model, layer)
            attentions[f"{here}.attn"] = (attn, rows.reads)
            at.tap_input(taps, f"{here}.hook_resid_pre", block)
            tap_norm(f"{here}.ln1", block.input_layernorm)
            at.tap_projections(taps, f"{here}.attn", model, rows)
            at.tap_output_projection(taps, f"{here}.attn", attn.o_proj, n_heads=len(rows.reads))
            at.tap_output(taps, f"{here}.hook_attn_out", attn)
            at.tap_residual_mid(taps, f"{here}.hook_resid_mid", block=block, norm=norm2)
            tap_norm(f"{here}.ln2", norm2)
            at.tap_output(taps, f"{here}.mlp.hook_pre", mlp.gate_proj)
            at.tap_output(taps, f"{here}.mlp.hook_pre_linear", mlp.up_proj)
            at.tap_input(taps, f"{here}.mlp.hook_post", mlp.down_proj)
            at.tap_output(taps, f"{here}.hook_mlp_out", mlp)
            at.tap_output(taps, f"{here}.hook_resid_post", block)
        tap_norm("ln_final", body.norm)
        at.AttentionTaps(taps, attentions)

    def qkv_rows(self, model: nn.Module, layer: int) -> QKVRows:
        """The rows of three separate modules, in order; which head reads which is read off HF's `repeat_kv`."""
        import torch
        from transformers.models.llama.modeling_llama import repeat_kv

        path = f"model.layers.{layer}.self_attn"
        attention: Any = model.get_submodule(path)

        def projection(letter: str) -> Projection:
            module = f"{path}.{letter}_proj"
            outputs: Any = model.get_submodule(module)
            return Projection(module=module, rows=torch.arange(outputs.out_features).view(-1, attention.head_dim))

        q, k, v = (projection(letter) for letter in "qkv")
        numbers = torch.arange(k.rows.shape[0]).view(1, -1, 1, 1)  # [batch, kv_head, pos, d_head]
        return QKVRows(q=q, k=k, v=v, reads=repeat_kv(numbers, attention.num_key_value_groups).flatten())

    def components(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """HF's module for each canonical component."""
        body: Any = model.model
        found: dict[str, Any] = {
            "embed": body.embed_tokens,
            "rotary_emb": body.rotary_emb,
            "ln_final": body.norm,
            "unembed": model.lm_head,
        }
        for layer, block in enumerate(body.layers):
            here, attn, mlp = f"blocks.{layer}", block.self_attn, block.mlp
            found |= {
                here: block,
                f"{here}.ln1": block.input_layernorm,
                f"{here}.attn": attn,
                **{f"{here}.attn.{letter}": getattr(attn, f"{letter}_proj") for letter in "qkvo"},
                f"{here}.ln2": block.post_attention_layernorm,
                f"{here}.mlp": mlp,
                f"{here}.mlp.gate": mlp.gate_proj,
                f"{here}.mlp.in": mlp.up_proj,
                f"{here}.mlp.out": mlp.down_proj,
            }
        return found
