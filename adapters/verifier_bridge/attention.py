"""Attention with a fused projection, with rotary positions or ALiBi, hooked at every stage.

Its arithmetic is that of Hugging Face's sdpa path: scores are scaled after the product, mask and position bias are
added, and in half precision scores, pattern and mixing are computed in float32. `hook_attn_scores` and
`hook_pattern` are float32 there.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from verifier_bridge.components import BridgedLinear, SplitProjection, computed_in
from verifier_bridge.errors import InputError
from verifier_bridge.hook_point import HookPoint

if TYPE_CHECKING:
    from verifier_bridge.architecture import BlockSpec
    from verifier_bridge.kv_cache import LayerSlot

RESULT_SWITCH = "use_attn_result"  # the property of the bridge


class BridgedAttention(nn.Module):
    """Attention with hook points: `[batch, pos, d_model]` → `[batch, pos, d_model]`."""

    def __init__(self, original: nn.Module, *, spec: BlockSpec, qkv: nn.Module, o: nn.Module) -> None:
        super().__init__()
        self.training = original.training
        self._spec = spec
        self.qkv = BridgedLinear(qkv)
        self.q = SplitProjection(self.qkv, layout=spec.layout, part="q", linear=spec.linear)
        self.k = SplitProjection(self.qkv, layout=spec.layout, part="k", linear=spec.linear)
        self.v = SplitProjection(self.qkv, layout=spec.layout, part="v", linear=spec.linear)
        self.o = BridgedLinear(o)
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        if spec.rotate is not None:
            self.hook_rot_q = HookPoint()
            self.hook_rot_k = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        self.hook_result = HookPoint(switch=RESULT_SWITCH)

    def forward(
        self,
        hidden_states: Tensor,
        alibi: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        layer_past: LayerSlot | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend.

        The arguments are those with which Falcon's block calls its attention. As on the sdpa path, `alibi` is part of
        `attention_mask` already, `position_ids` of `position_embeddings`, and the flags change nothing here.

        Args:
            hidden_states: `[batch, pos, d_model]`.
            alibi: not read.
            attention_mask: `[batch, 1 or head, query, key]`: booleans, False where nothing may be read, or what is
                added to the scores; None for a causal mask alone.
            position_ids: not read.
            layer_past: keys and values of the positions before, and the place for those of now.
            use_cache: not read.
            output_attentions: not read.
            position_embeddings: cosines and sines `[batch, pos, d_head]`, for rotary positions.
        """
        q, k, v = self._spec.layout.split(self.qkv(hidden_states))
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self._spec.rotate is not None:
            if position_embeddings is None:
                raise InputError("attention with rotary positions needs position_embeddings=(cos, sin)")
            q, k = self._spec.rotate(q, k, *position_embeddings, unsqueeze_dim=2)
            q, k = self.hook_rot_q(q), self.hook_rot_k(k)
        if layer_past is not None:
            k, v = layer_past.extend(k, v)
        scores = self.hook_attn_scores(_masked(self._scores(q, k), attention_mask))
        pattern = self.hook_pattern(_softmax(scores))
        if self.training and self._spec.pattern_dropout:
            pattern = functional.dropout(pattern, p=self._spec.pattern_dropout, training=True)
        return self._output(self.hook_z(self._mixed(pattern, v)))

    # Grouped queries become rows, so that keys and values need no expanding. Every operand of a product is made
    # contiguous: its bits must not depend on whether a hook handed on a copy.
    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Queries `[batch, query, head, d]` and keys `[batch, key, kv_head, d]` → `[batch, head, query, key]`."""
        wide = computed_in(q.dtype)
        groups, queries = self._spec.layout.n_groups, self._spec.layout.queries_per_group
        grouped = torch.unflatten(q.to(wide), 2, (groups, queries))  # [batch, query, group, queries, d]
        rows = grouped.permute(0, 2, 3, 1, 4).contiguous().flatten(2, 3)
        keys = k.to(wide).transpose(1, 2).contiguous()  # [batch, group, key, d]
        scores = rows @ keys.transpose(-1, -2)  # [batch, group, queries · query, key]
        # The width of the queries that are there: rotation makes two dimensions of a head of one.
        scores = scores * q.shape[-1] ** -0.5
        return torch.unflatten(scores, 2, (queries, q.shape[1])).flatten(1, 2)

    def _mixed(self, pattern: Tensor, v: Tensor) -> Tensor:
        """Pattern `[batch, head, query, key]` and values `[batch, key, kv_head, d]` → `[batch, query, head, d]`."""
        wide = computed_in(v.dtype)
        groups, queries = self._spec.layout.n_groups, self._spec.layout.queries_per_group
        rows = torch.unflatten(pattern.to(wide).contiguous(), 1, (groups, queries)).flatten(2, 3)
        values = v.to(wide).transpose(1, 2).contiguous()  # [batch, group, key, d]
        z = torch.unflatten(rows @ values, 2, (queries, pattern.shape[2]))  # [batch, group, queries, query, d]
        return z.permute(0, 3, 1, 2, 4).flatten(2, 3).to(v.dtype)

    def _output(self, z: Tensor) -> Tensor:
        """Project the heads' `[batch, pos, head, d_head]` to the output `[batch, pos, d_model]`."""
        if self.hook_result.on:
            return self._output_through_result(z)
        if self.hook_result.hooked:
            warnings.warn(f"the hooks at {self.hook_result.name} do not run: {RESULT_SWITCH} is off", stacklevel=2)
        out: Tensor = self.o(z.flatten(2, 3))
        return out

    def _output_through_result(self, z: Tensor) -> Tensor:
        """Compute the output as the sum over heads of what each writes; its gradient goes through `hook_result`.

        Where no edit changes anything the value is the unsplit product's, so that turning the switch on changes no bit
        of it. Where one does it is the sum alone: the difference of two sums would leave their rounding behind.
        """
        layout = self._spec.layout
        per_head = torch.unflatten(self.o.weight.T, 0, (layout.n_heads, layout.d_head))  # [head, d_head, d_model]
        result = torch.einsum("bphd,hdm->bphm", z, per_head)
        edited = self.hook_result(result)
        total = edited.sum(2)
        if self.o.bias is not None:
            total = total + self.o.bias
        with torch.no_grad():
            value = self.o(z.flatten(2, 3))
            if edited is not result:
                changed = (edited != result).flatten(2).any(-1, keepdim=True)
                value = torch.where(changed, total, value)
        out: Tensor = _WithValue.apply(total, value)  # type: ignore[no-untyped-call]
        return out


class _WithValue(torch.autograd.Function):
    """The second tensor's value with the first one's gradient."""

    @staticmethod
    def forward(ctx: Any, graph: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores `[batch, head, query, key]` with the mask in them, as sdpa reads its `attn_mask`."""
    if mask is None:
        queries, keys = scores.shape[-2:]
        if queries == 1:
            return scores
        mask = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril()
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -torch.inf)
    return scores + mask.to(scores.dtype)


def _softmax(scores: Tensor) -> Tensor:
    """Take the softmax over keys; a query that may read nothing gets zeros, with no gradient."""
    unread = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(unread, 0.0).softmax(-1, dtype=scores.dtype).masked_fill(unread, 0.0)
