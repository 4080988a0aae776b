"""A transformer block: sequential, or parallel with one norm or two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from verifier_bridge.attention import BridgedAttention
from verifier_bridge.components import BridgedMLP, BridgedNorm
from verifier_bridge.hook_point import HookPoint

if TYPE_CHECKING:
    from verifier_bridge.architecture import Architecture, BlockSpec


class BridgedBlock(nn.Module):
    """A transformer block with hook points: `[batch, pos, d_model]` → `[batch, pos, d_model]`.

    Nothing is added in place, so a tensor that a hook kept does not change later.
    """

    def __init__(self, model: nn.Module, architecture: Architecture, spec: BlockSpec, layer: int) -> None:
        super().__init__()

        def part(name: str) -> nn.Module:
            return architecture.module(model, f"blocks.{{i}}{name}", layer)

        self.training = part("").training
        self._spec = spec
        self.hook_resid_pre = HookPoint()
        self.ln1 = BridgedNorm(part(".ln1"))
        self.attn = BridgedAttention(part(".attn"), spec=spec, qkv=part(".attn.qkv"), o=part(".attn.o"))
        self.hook_attn_out = HookPoint()
        if not spec.parallel:
            self.hook_resid_mid = HookPoint()
        self.ln2 = BridgedNorm(part(".ln2")) if architecture.has("blocks.{i}.ln2") else None
        self.mlp = BridgedMLP(
            part(".mlp"), linear_in=part(".mlp.in"), act=part(".mlp.act"), linear_out=part(".mlp.out")
        )
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the residual stream after the block.

        Args:
            hidden_states: `[batch, pos, d_model]`, the residual stream before the block.
            args: what `BridgedAttention.forward` takes after the hidden states.
            kwargs: what `BridgedAttention.forward` takes by name.
        """
        residual = self.hook_resid_pre(hidden_states)
        normed = self.ln1(residual)
        attn_out = self.hook_attn_out(self.attn(normed, *args, **kwargs))
        if self._spec.parallel:
            mlp_in = normed if self.ln2 is None else self.ln2(residual)
            written = self.hook_mlp_out(self.mlp(mlp_in)) + attn_out
        else:
            residual = self.hook_resid_mid(residual + self._dropped(attn_out, self._spec.attn_dropout))
            mlp_in = residual if self.ln2 is None else self.ln2(residual)
            written = self.hook_mlp_out(self.mlp(mlp_in))
        out: Tensor = self.hook_resid_post(residual + self._dropped(written, self._spec.out_dropout))
        return out

    def _dropped(self, x: Tensor, probability: float) -> Tensor:
        return functional.dropout(x, p=probability, training=self.training)
