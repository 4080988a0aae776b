"""Right adapters that compute what the bridge does in another way: other products, other kernels, other tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from verifier_bridge import Bridge
from verifier_bridge.attention import BridgedAttention
from verifier_bridge.components import BridgedLinear, SplitProjection, computed_in
from verifier_bridge.verifier_adapter import BridgeAdapter, BridgeSubject


class OwnEagerAttention(BridgedAttention):
    """Computes scores, pattern and what is read in the model's own dtype, head by head."""

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Give the scores `[batch, head, query, key]`."""
        each = self._spec.layout.queries_per_group
        q = q / q.shape[-1] ** 0.5
        return torch.stack([q[:, :, head] @ k[:, :, head // each].mT for head in range(q.shape[2])], dim=1)

    def _mixed(self, pattern: Tensor, v: Tensor) -> Tensor:
        """Give what each head reads, `[batch, query, head, d_head]`."""
        each, pattern = self._spec.layout.queries_per_group, pattern.to(v.dtype)
        read = [pattern[:, head] @ v[:, :, head // each] for head in range(pattern.shape[1])]
        return torch.stack(read, dim=2)


class ExpandedHeads(BridgedAttention):
    """Repeats keys and values for each query head that reads them, and contracts all heads at once."""

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Give the scores `[batch, head, query, key]`."""
        wide = computed_in(q.dtype)
        k = k.to(wide).repeat_interleave(self._spec.layout.queries_per_group, dim=2)
        return torch.einsum("bqhd,bkhd->bhqk", q.to(wide), k) * q.shape[-1] ** -0.5

    def _mixed(self, pattern: Tensor, v: Tensor) -> Tensor:
        """Give what each head reads, `[batch, query, head, d_head]`."""
        wide = computed_in(v.dtype)
        expanded = v.to(wide).repeat_interleave(self._spec.layout.queries_per_group, dim=2)
        return torch.einsum("bhqk,bkhd->bqhd", pattern.to(wide), expanded).to(v.dtype)


class FusedLinear(BridgedLinear):
    """Adds the bias inside the product's kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class Float64Tables(Bridge):
    """Makes cosines and sines from exact inverse frequencies, in float64."""

    def _rotary(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        rotary: Any = self.rotary_emb.original
        width = 2 * rotary.inv_freq.numel()
        steps = torch.arange(0, width, 2, dtype=torch.float64, device=hidden.device) / width
        angles = position_ids[..., None].double() * rotary.config.rope_parameters["rope_theta"] ** -steps
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def rotated_in_float64(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int) -> tuple[Tensor, Tensor]:
    """Turn queries and keys `[batch, pos, head, d_head]` in float64, and round them once."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)

    def turned(x: Tensor) -> Tensor:
        first, second = x.double().chunk(2, dim=-1)
        return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)

    return turned(q), turned(k)


def _attention(kind: type[BridgedAttention]) -> Callable[[Bridge], None]:
    def change(bridge: Bridge) -> None:
        for block in bridge.blocks:
            block.attn.__class__ = kind

    return change


def fuse_biases(bridge: Bridge) -> None:
    for module in bridge.modules():
        if isinstance(module, BridgedLinear):
            module.__class__ = FusedLinear
        elif isinstance(module, SplitProjection):
            module._linear = functional.linear


def keep_float64_tables(bridge: Bridge) -> None:
    if bridge.rotary_emb is None or bridge.rotary_emb.original.rope_type != "default":
        return
    bridge.__class__ = Float64Tables
    for block in bridge.blocks:
        if block.attn._spec.rotate is not None:
            block.attn._spec = replace(block.attn._spec, rotate=rotated_in_float64)


class ChangedBridge(BridgeAdapter):
    """A bridge whose modules are exchanged on each instance."""

    def __init__(self, name: str, change: Callable[[Bridge], None]) -> None:
        self.name = name
        self._change = change

    def wrap(self, model: nn.Module) -> BridgeSubject:
        subject = super().wrap(model)
        self._change(subject.bridge)
        return subject


OWN_EAGER = ChangedBridge("own-eager", _attention(OwnEagerAttention))
EXPANDED_HEADS = ChangedBridge("expanded-heads", _attention(ExpandedHeads))
FUSED_BIAS = ChangedBridge("fused-bias", fuse_biases)
FLOAT64_TABLES = ChangedBridge("float64-tables", keep_float64_tables)
