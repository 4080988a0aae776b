"""Falcon: Hugging Face's `FalconForCausalLM`, where its parts are, and in which flags its blocks differ.

HF's sdpa path is the reference. For ALiBi its other path, `eager`, adds the position bias twice: once in the mask
that `FalconModel.forward` builds with ALiBi in it, and once to the scores in `FalconAttention.forward`. The original
Falcon-RW code has `softmax((scores + alibi) / sqrt(d_head) + mask)`: once, and scaled, which is what sdpa computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from verifier.families import falcon_configs, falcon_refusals
from verifier.family import Config, PointSource
from verifier.reference.declared import DeclaredFamily
from verifier.reference.point_sources import LAYER_NORM

if TYPE_CHECKING:
    from verifier.faults.mutants import Fault

_LETTERS = ("q", "k", "v")


class FalconFamily(DeclaredFamily):
    """The reference side of Falcon."""

    name = "falcon"
    architecture = "FalconForCausalLM"
    COMPONENTS = {
        "embed": "transformer.word_embeddings",
        "rotary_emb": "transformer.rotary_emb",
        "blocks": "transformer.h",
        "ln_final": "transformer.ln_f",
        "unembed": "lm_head",
    }
    BLOCK = {
        "attn": "self_attention",
        "attn.qkv": "self_attention.query_key_value",
        "attn.o": "self_attention.dense",
        "mlp": "mlp",
        "mlp.in": "mlp.dense_h_to_4h",
        "mlp.out": "mlp.dense_4h_to_h",
    }
    FIELDS = {"num_key_value_heads": "num_kv_heads"}
    FLAGS = falcon_configs.FLAGS
    DIMS = falcon_configs.DIMS
    CORNERS = falcon_configs.CORNERS
    PRESETS = falcon_configs.PRESETS
    DROPOUTS = falcon_configs.DROPOUTS
    SHAPES = falcon_configs.SHAPES
    FUZZED = falcon_configs.FUZZED
    NORM_LINES = LAYER_NORM

    refusal = staticmethod(falcon_refusals.refusal)
    fuzzed_config = staticmethod(falcon_configs.fuzzed_config)

    def faults(self) -> tuple[Fault, ...]:
        """List the planted faults that only Falcon can have."""
        from verifier.families import falcon_faults
        from verifier.faults.mutants import collect_faults

        return collect_faults(falcon_faults)

    def positions(self, config: Config) -> str:
        """Say what tells the model positions."""
        return "alibi" if config.get("alibi") else "rotary"

    def is_sequential(self, config: Config) -> bool:
        """Whether the MLP reads what the attention wrote; of the new architecture none does."""
        return not config.get("new_decoder_architecture", False) and not config.get("parallel_attn", True)

    def block(self, config: Config, layer: int) -> Mapping[str, str]:
        """Find the norms that `FalconDecoderLayer.forward` reads, not those that it merely builds."""
        if self.is_sequential(config):
            return {**self.BLOCK, "ln1": "input_layernorm", "ln2": "post_attention_layernorm"}
        if config.get("new_decoder_architecture") and falcon_configs.norms_of_new(config) == 2:
            return {**self.BLOCK, "ln1": "ln_attn", "ln2": "ln_mlp"}
        return {**self.BLOCK, "ln1": "input_layernorm"}

    def circumstance_refusal(self, config: Config, circumstance: Mapping[str, str]) -> str | None:
        """Say why HF's Falcon cannot be called in a circumstance; None if it can."""
        if config.get("alibi") and circumstance["mask"] == "additive":
            return "with alibi HF counts the tokens of a mask of two dimensions"
        return None

    def point_source(self, config: Config, name: str) -> PointSource | None:
        """Say where HF's model shows a hook point; queries, keys and values by HF's own split."""
        *block, letter = name.replace("attn.hook_", "").split(".")
        if not name.endswith(f"attn.hook_{letter}") or letter not in _LETTERS:
            return super().point_source(config, name)
        path = f"transformer.h.{block[1]}.self_attention"
        # It gives each group's key and value once for every query head of the group.
        heads, kv_heads = config["num_attention_heads"], config.get("num_kv_heads")
        copies = heads // kv_heads if config.get("new_decoder_architecture") and kv_heads else 1
        each = f"[:, :, ::{copies}]" if copies > 1 and letter != "q" else ""
        value = f"model.transformer.h[{block[1]}].self_attention._split_heads(output)[{_LETTERS.index(letter)}]{each}"
        return PointSource(module=f"{path}.query_key_value", value=value)
