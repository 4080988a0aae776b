"""Where Hugging Face's Falcon shows an activation: a module, and a line of plain torch. No torch.

Rotated queries and keys, scores and pattern are no module's input or output, and what a head writes is never there by
itself; they have no line here.
"""

from __future__ import annotations

from collections.abc import Mapping

from verifier.families.falcon_configs import Blocks, Config
from verifier.family import PointSource


def point_source(config: Config, name: str) -> PointSource | None:
    """Find where HF's model shows a hook point, by canonical name; None if reading it takes more than a line.

    Args:
        config: the fields of HF's config.
        name: the canonical name of the point, such as `blocks.0.hook_resid_pre`.
    """
    if not name.startswith("blocks."):
        found = {"hook_embed": ("word_embeddings", "output"), **_norm("ln_final", "ln_f")}.get(name)
        return None if found is None else PointSource(module=f"transformer.{found[0]}", value=found[1])
    _, layer, point = name.split(".", 2)
    found = _in_block(config, layer).get(point)
    if found is None:
        return None
    module, value = found
    return PointSource(module=f"transformer.h.{layer}" + (f".{module}" if module else ""), value=value)


def _in_block(config: Config, layer: str) -> Mapping[str, tuple[str, str]]:
    """Give the module in the block and an expression of its hook's arguments, by the point's name in the block."""
    blocks = Blocks.of(config)
    split = f"model.transformer.h[{layer}].self_attention._split_heads(output)"
    # It gives each group's key and value once for every query head of the group.
    expanded = _expanded(config)
    first = f"[:, :, ::{expanded}]" if expanded > 1 else ""
    found = {
        "hook_resid_pre": ("", "args[0]"),
        **_norm("ln1", blocks.attention_norm),
        "attn.hook_q": ("self_attention.query_key_value", f"{split}[0]"),
        "attn.hook_k": ("self_attention.query_key_value", f"{split}[1]{first}"),
        "attn.hook_v": ("self_attention.query_key_value", f"{split}[2]{first}"),
        "attn.hook_z": ("self_attention.dense", "args[0].unflatten(-1, (model.config.num_attention_heads, -1))"),
        "hook_attn_out": ("self_attention", "output[0]"),
        "mlp.hook_pre": ("mlp.dense_h_to_4h", "output"),
        "mlp.hook_post": ("mlp.dense_4h_to_h", "args[0]"),
        "hook_mlp_out": ("mlp", "output.clone()"),  # a parallel block adds into it in place
        "hook_resid_post": ("", "output[0]"),
    }
    if blocks.mlp_norm is not None:
        found |= _norm("ln2", blocks.mlp_norm)
        if blocks.sequential:
            found["hook_resid_mid"] = (blocks.mlp_norm, "args[0]")
    return found


def _norm(name: str, module: str) -> dict[str, tuple[str, str]]:
    return {
        f"{name}.hook_scale": (module, "(args[0].var(-1, keepdim=True, correction=0) + module.eps).sqrt()"),
        f"{name}.hook_normalized": (module, "torch.layer_norm(args[0], module.normalized_shape, eps=module.eps)"),
    }


def _expanded(config: Config) -> int:
    """Count the copies of a group's key that `FalconAttention._split_heads` gives."""
    if not config.get("new_decoder_architecture"):
        return 1
    heads: int = config["num_attention_heads"]
    kv_heads = config.get("num_kv_heads")
    return 1 if kv_heads is None else heads // kv_heads
