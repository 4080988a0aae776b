"""Where a declared family's model shows an activation: a module, and a line of plain torch. No torch.

Rotated queries and keys, scores and pattern are no module's input or output, and what a head writes is never there by
itself; they have no line here.
"""

from __future__ import annotations

from collections.abc import Mapping

from verifier.canonical import template_of
from verifier.family import PointSource

LAYER_NORM: Mapping[str, str] = {
    "hook_scale": "(args[0].var(-1, keepdim=True, correction=0) + module.eps).sqrt()",
    "hook_normalized": "torch.layer_norm(args[0], module.normalized_shape, eps=module.eps)",
}
"""The lines of `torch.nn.LayerNorm`, for a family's `NORM_LINES`."""

_FIRST = "output[0] if isinstance(output, tuple) else output"

# By template: the component, and the line. `{heads}` and `{kv_heads}` are numbers of the config.
_LINES: Mapping[str, tuple[str, str]] = {
    "hook_embed": ("embed", "output"),
    "hook_pos_embed": ("pos_embed", "output"),
    "blocks.{i}.hook_resid_pre": ("blocks.{i}", "args[0]"),
    "blocks.{i}.attn.hook_q": ("blocks.{i}.attn.q", "output.unflatten(-1, ({heads}, -1))"),
    "blocks.{i}.attn.hook_k": ("blocks.{i}.attn.k", "output.unflatten(-1, ({kv_heads}, -1))"),
    "blocks.{i}.attn.hook_v": ("blocks.{i}.attn.v", "output.unflatten(-1, ({kv_heads}, -1))"),
    "blocks.{i}.attn.hook_z": ("blocks.{i}.attn.o", "args[0].unflatten(-1, ({heads}, -1))"),
    "blocks.{i}.hook_attn_out": ("attn", _FIRST),
    "blocks.{i}.hook_resid_mid": ("blocks.{i}.ln2", "args[0]"),
    "blocks.{i}.mlp.hook_pre_linear": ("blocks.{i}.mlp.in", "output"),
    "blocks.{i}.mlp.hook_post": ("blocks.{i}.mlp.out", "args[0]"),
    "blocks.{i}.hook_mlp_out": ("mlp", "output.clone()"),  # a parallel block adds into it in place
    "blocks.{i}.hook_resid_post": ("blocks.{i}", _FIRST),
}


def line_of(
    name: str, modules: Mapping[str, str], writers: Mapping[str, str], norms: Mapping[str, str], heads: tuple[int, int]
) -> PointSource | None:
    """Say where HF's model shows a hook point; None if reading it takes more than a line.

    Args:
        name: the canonical name of the point.
        modules: the path of each component's module in the model.
        writers: the component whose output `attn` and `mlp` of the point's block add to the stream.
        norms: the lines for a norm's `hook_scale` and `hook_normalized`.
        heads: how many query heads and key/value heads there are.
    """
    owner, _, what = name.rpartition(".")
    block = ".".join(name.split(".")[:2])
    if ".attn." in owner:
        return None  # where its heads stand is seen as it runs
    if what in norms and owner in modules:
        return PointSource(module=modules[owner], value=norms[what])
    template = template_of(name)
    if template == "blocks.{i}.mlp.hook_pre":
        component, line = f"{block}.mlp.{'gate' if f'{block}.mlp.gate' in modules else 'in'}", "output"
    elif template in _LINES:
        component, line = _LINES[template]
        component = f"{block}.{writers[component]}" if component in writers else component.replace("blocks.{i}", block)
    else:
        return None
    if component not in modules or (component.endswith(".mlp") and f"{block}.mlp.in" not in modules):
        return None  # experts give what they chose too
    return PointSource(module=modules[component], value=line.format(heads=heads[0], kv_heads=heads[1]))
