"""Falcon: Hugging Face's `FalconForCausalLM`, where its activations are and how it splits its fused QKV.

HF's sdpa path is the reference. For ALiBi its other path, `eager`, adds the position bias twice: once in the mask
that `FalconModel.forward` builds with ALiBi in it, and once to the scores in `FalconAttention.forward`. The original
Falcon-RW code has `softmax((scores + alibi) / sqrt(d_head) + mask)`: once, and scaled, which is what sdpa computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from verifier.canonical import Point, points
from verifier.families import falcon_configs, falcon_fuzzed, falcon_point_sources, falcon_refusals
from verifier.families.falcon_configs import CORNERS, DIMS, DROPOUTS, FLAGS, PRESETS, Blocks
from verifier.family import Config, Projection, QKVRows, Taps

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from verifier.adapter import Edit
    from verifier.faults.mutants import Fault
    from verifier.reference.taps import TapRecorder


class FalconFamily:
    """The reference side of Falcon."""

    name = "falcon"
    architecture = "FalconForCausalLM"
    reference_attention = "sdpa"
    attentions = ("sdpa", "eager")

    refusal = staticmethod(falcon_refusals.refusal)
    point_source = staticmethod(falcon_point_sources.point_source)
    reshaped = staticmethod(falcon_configs.reshaped)
    circumstance_refusal = staticmethod(falcon_configs.circumstance_refusal)
    fuzzed_config = staticmethod(falcon_fuzzed.fuzzed_config)

    def __init__(self) -> None:
        self._rows: WeakKeyDictionary[nn.Module, QKVRows] = WeakKeyDictionary()

    def flags(self) -> Mapping[str, Sequence[Any]]:
        """List every flag and its values, the plainest first."""
        return FLAGS

    def dims(self) -> Config:
        """Give tiny dims, no two alike."""
        return DIMS

    def corners(self) -> Mapping[str, Config]:
        """Give named configs of other shapes, published traps, and configs that HF refuses."""
        return CORNERS

    def presets(self) -> Mapping[str, Config]:
        """Give the configs of published checkpoints at full width."""
        return PRESETS

    def fuzzed(self) -> Mapping[str, Sequence[Any]]:
        """List what varies beside the flags: heads, depth, widths, activations, epsilons, rotary types and bases."""
        return falcon_fuzzed.FUZZED

    def dropouts(self) -> Config:
        """Turn on every dropout of the model."""
        return DROPOUTS

    def faults(self) -> tuple[Fault, ...]:
        """List the planted faults that only Falcon can have."""
        from verifier.families import falcon_faults
        from verifier.faults.mutants import collect_faults

        return collect_faults(falcon_faults)

    def build(self, config: Config, **options: Any) -> PreTrainedModel:
        """Build HF's model with random weights or a checkpoint's; the options are those of `Family.build`."""
        from transformers import FalconConfig, FalconForCausalLM

        from verifier.reference.models import build

        return build(FalconForCausalLM, FalconConfig, config, **options)

    def facts(self, model: Any) -> Mapping[str, object]:
        """Give what is so of HF's model, read off it and its config."""
        from verifier.reference.models import common_facts

        config = model.config
        found: dict[str, object] = {
            **common_facts(model, self),
            "normalization_type": "LN",
            "eps": config.layer_norm_epsilon,
            "positional_embedding_type": "alibi" if config.alibi else "rotary",
        }
        if not config.alibi:
            found["rotary_base"] = config.rope_parameters["rope_theta"]
        if config.num_hidden_layers:
            found |= {
                "d_mlp": config.ffn_hidden_size,
                "act_fn": config.activation,
                "parallel_attn_mlp": not Blocks.of(vars(config)).sequential,
            }
        return found

    def points(self, config: Config) -> Sequence[Point]:
        """List the hook points of a model of this config in causal order."""
        blocks = Blocks.of(config)
        kinds = ["hook_embed", "ln_final.hook_scale", "ln_final.hook_normalized"]
        inner = ["hook_resid_pre", "ln1.hook_scale", "ln1.hook_normalized", "attn.hook_q", "attn.hook_k", "attn.hook_v"]
        if not config.get("alibi"):
            inner += ["attn.hook_rot_q", "attn.hook_rot_k"]
        inner += ["attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z", "attn.hook_result", "hook_attn_out"]
        if blocks.sequential:
            inner += ["hook_resid_mid"]
        if blocks.mlp_norm is not None:
            inner += ["ln2.hook_scale", "ln2.hook_normalized"]
        inner += ["mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"]
        return points([*kinds, *(f"blocks.{{i}}.{name}" for name in inner)], config["num_hidden_layers"])

    @contextlib.contextmanager
    def taps(
        self, model: Any, *, names: Collection[str] | None = None, edits: Mapping[str, Edit] | None = None
    ) -> Iterator[Taps]:
        """Read and edit the activations of an untouched model.

        Args:
            model: HF's model.
            names: the canonical points to read; all of the config's if not given.
            edits: by canonical point, the edit of its value.

        Returns:
            A context that gives the taps, which show the activations of a forward inside it.
        """
        from verifier.reference.taps import TapRecorder

        config = vars(model.config)  # `to_dict` would copy it in each run
        chosen = [point.name for point in self.points(config)] if names is None else names
        with TapRecorder(chosen, edits or {}) as taps:
            self._place_taps(model, taps, Blocks.of(config))
            yield taps

    def _place_taps(self, model: Any, taps: TapRecorder, blocks: Blocks) -> None:
        from verifier.reference import taps as at

        transformer = model.transformer
        at.tap_output(taps, "hook_embed", transformer.word_embeddings)
        attentions = {}
        for layer, block in enumerate(transformer.h):
            here, attn = f"blocks.{layer}", block.self_attention
            norm1 = getattr(block, blocks.attention_norm)
            rows = self.qkv_rows(model, layer)
            attentions[f"{here}.attn"] = (attn, rows.reads)
            at.tap_input(taps, f"{here}.hook_resid_pre", block)
            at.tap_norm(taps, f"{here}.ln1", norm1, eps=norm1.eps, centred=True)
            at.tap_projections(taps, f"{here}.attn", model, rows)
            at.tap_output_projection(taps, f"{here}.attn", attn.dense, n_heads=attn.num_heads)
            at.tap_output(taps, f"{here}.hook_attn_out", attn)
            if blocks.mlp_norm is not None:
                norm2 = getattr(block, blocks.mlp_norm)
                if blocks.sequential:
                    at.tap_residual_mid(taps, f"{here}.hook_resid_mid", block=block, norm=norm2)
                at.tap_norm(taps, f"{here}.ln2", norm2, eps=norm2.eps, centred=True)
            at.tap_output(taps, f"{here}.mlp.hook_pre", block.mlp.dense_h_to_4h)
            at.tap_input(taps, f"{here}.mlp.hook_post", block.mlp.dense_4h_to_h)
            at.tap_output(taps, f"{here}.hook_mlp_out", block.mlp)
            at.tap_output(taps, f"{here}.hook_resid_post", block)
        at.tap_norm(taps, "ln_final", transformer.ln_f, eps=transformer.ln_f.eps, centred=True)
        at.AttentionTaps(taps, attentions)

    def qkv_rows(self, model: nn.Module, layer: int) -> QKVRows:
        """Read the rows off `FalconAttention._split_heads`, which is given the fused row numbers themselves.

        Each module is read once, because every run with taps needs its rows.

        Args:
            model: HF's model.
            layer: its number, from 0.
        """
        path = f"transformer.h.{layer}.self_attention"
        attention = model.get_submodule(path)
        if attention not in self._rows:
            import torch

            with torch.inference_mode(False):  # what is kept is used in every mode
                self._rows[attention] = _read_rows(attention, f"{path}.query_key_value")
        return self._rows[attention]

    def components(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Find HF's module for each canonical component."""
        modules = Blocks.of(vars(model.config)).modules()
        transformer: Any = model.transformer
        found: dict[str, nn.Module] = {
            "embed": transformer.word_embeddings,
            "rotary_emb": transformer.rotary_emb,
            "ln_final": transformer.ln_f,
            "unembed": model.lm_head,  # type: ignore[dict-item]
        }
        for layer, block in enumerate(transformer.h):
            found[f"blocks.{layer}"] = block
            found |= {f"blocks.{layer}.{name}": block.get_submodule(path) for name, path in modules.items()}
        return found


def _read_rows(attention: Any, fused: str) -> QKVRows:
    import torch

    numbers = torch.arange(attention.query_key_value.out_features).view(1, 1, -1)
    q, k, v = (heads[0, 0] for heads in attention._split_heads(numbers))  # [head, d_head]
    # HF gives keys and values once for each query head, or once for all: equal ones are one key/value head.
    keys = k[:, 0].expand(len(q)).tolist()
    distinct = list(dict.fromkeys(keys))
    first = [keys.index(key) for key in distinct]
    return QKVRows(
        q=Projection(module=fused, rows=q.clone()),
        k=Projection(module=fused, rows=k[first].clone()),
        v=Projection(module=fused, rows=v[first].clone()),
        reads=torch.tensor([distinct.index(key) for key in keys]),
    )
