"""Falcon's forward written out in plain torch, to hold what the taps show against; it shares no code with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Edit = Callable[[Tensor], Tensor]


def split(fused: Tensor, config: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `[…, head, d_head]`, keys and values `[…, kv_head, d_head]` of a fused row."""
    heads = config["num_attention_heads"]
    d_head = config["hidden_size"] // heads
    if config.get("new_decoder_architecture"):  # for each key/value head its queries, then its key, then its value
        groups = fused.unflatten(-1, (config["num_kv_heads"], -1, d_head))
        return groups[..., :-2, :].flatten(-3, -2), groups[..., -2, :], groups[..., -1, :]
    if config.get("multi_query", True):  # all queries, then the one key, then the one value
        rows = fused.unflatten(-1, (heads + 2, d_head))
        return rows[..., :heads, :], rows[..., heads : heads + 1, :], rows[..., heads + 1 :, :]
    rows = fused.unflatten(-1, (heads, 3, d_head))  # for each head its query, key and value
    return rows[..., 0, :], rows[..., 1, :], rows[..., 2, :]


def _slopes(heads: int) -> Tensor:
    """ALiBi's slopes `[head]`: a geometric series, and every second one of a finer series for the heads beyond."""
    power = 2 ** math.floor(math.log2(heads))
    coarse = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    fine = [2 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)]
    return torch.tensor(coarse + fine, dtype=torch.float64)


def _rotated(x: Tensor) -> Tensor:  # [batch, pos, head, d_head]
    d_head = x.shape[-1]
    frequencies = 1.0 / (10000.0 ** (torch.arange(0, d_head, 2, dtype=torch.float32) / d_head))
    angles = torch.outer(torch.arange(x.shape[1], dtype=torch.float32), frequencies).repeat(1, 2)[:, None]
    turned = torch.cat([-x[..., d_head // 2 :], x[..., : d_head // 2]], dim=-1)
    return x * angles.cos().double() + turned * angles.sin().double()


class WrittenOut:
    """One forward; `shown` holds what stood at each canonical point before its edit, in the graph."""

    def __init__(self, model: Any, config: Mapping[str, Any], edits: Mapping[str, Edit] | None = None) -> None:
        self.weights: dict[str, Tensor] = dict(model.named_parameters())
        self.config = config
        self.shown: dict[str, Tensor] = {}
        self._edits = edits or {}

    def _show(self, name: str, value: Tensor) -> Tensor:
        self.shown[name] = value
        return self._edits[name](value) if name in self._edits else value.clone()

    def _linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _norm(self, x: Tensor, name: str, prefix: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        epsilon = self.config.get("layer_norm_epsilon", 1e-5)
        scale = self._show(f"{prefix}.hook_scale", ((centred**2).mean(-1, keepdim=True) + epsilon) ** 0.5)
        normalized = self._show(f"{prefix}.hook_normalized", centred / scale)
        return normalized * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _attention(self, x: Tensor, module: str, here: str, mask: Tensor) -> Tensor:
        heads, alibi = self.config["num_attention_heads"], self.config.get("alibi")
        fused = self._linear(x, f"{module}.query_key_value")
        q, k, v = (
            self._show(f"{here}.hook_{letter}", one)
            for letter, one in zip("qkv", split(fused, self.config), strict=True)
        )
        if not alibi:
            q, k = self._show(f"{here}.hook_rot_q", _rotated(q)), self._show(f"{here}.hook_rot_k", _rotated(k))
        k, v = (one.repeat_interleave(heads // one.shape[2], dim=2) for one in (k, v))
        root = q.shape[-1] ** 0.5
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / root
        if alibi:
            # HF rounds the slopes, and slope times position, to bfloat16.
            positions = (mask.cumsum(-1) - 1) * mask
            bias = _slopes(heads).float().bfloat16()[None, :, None] * positions[:, None]
            scores = scores + bias.double()[:, :, None] / root
        length = x.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool).tril() & mask.bool()[:, None, None]
        scores = self._show(f"{here}.hook_attn_scores", scores.masked_fill(~seen, torch.finfo(x.dtype).min))
        pattern = self._show(f"{here}.hook_pattern", scores.softmax(-1))
        z = self._show(f"{here}.hook_z", torch.einsum("bhqk,bkhd->bqhd", pattern, v))
        matrix = self.weights[f"{module}.dense.weight"].unflatten(1, (heads, -1))  # [d_model, head, d_head]
        result = self._show(f"{here}.hook_result", torch.einsum("bqhd,mhd->bqhm", z, matrix))
        bias_o = self.weights.get(f"{module}.dense.bias")
        return result.sum(2) if bias_o is None else result.sum(2) + bias_o

    def _mlp(self, x: Tensor, module: str, here: str) -> Tensor:
        pre = self._show(f"{here}.mlp.hook_pre", self._linear(x, f"{module}.dense_h_to_4h"))
        post = self._show(f"{here}.mlp.hook_post", F.gelu(pre))
        return self._show(f"{here}.hook_mlp_out", self._linear(post, f"{module}.dense_4h_to_h"))

    def _block(self, x: Tensor, layer: int, mask: Tensor) -> Tensor:
        here, module = f"blocks.{layer}", f"transformer.h.{layer}"
        config, attention, mlp = self.config, f"{module}.self_attention", f"{module}.mlp"
        x = self._show(f"{here}.hook_resid_pre", x)
        new = config.get("new_decoder_architecture")
        two_norms = new and config.get("num_ln_in_parallel_attn", 2) == 2
        first = self._norm(x, f"{module}.{'ln_attn' if two_norms else 'input_layernorm'}", f"{here}.ln1")
        written = self._show(f"{here}.hook_attn_out", self._attention(first, attention, f"{here}.attn", mask))
        if not new and not config.get("parallel_attn", True):
            x = self._show(f"{here}.hook_resid_mid", x + written)
            second = self._norm(x, f"{module}.post_attention_layernorm", f"{here}.ln2")
            return self._show(f"{here}.hook_resid_post", x + self._mlp(second, mlp, here))
        second = self._norm(x, f"{module}.ln_mlp", f"{here}.ln2") if two_norms else first
        return self._show(f"{here}.hook_resid_post", x + written + self._mlp(second, mlp, here))

    def __call__(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits `[batch, pos, d_vocab]`; `mask [batch, pos]` is 1 where a token stands."""
        mask = torch.ones_like(ids) if mask is None else mask
        embedding = self.weights["transformer.word_embeddings.weight"]
        x = self._show("hook_embed", embedding[ids])
        for layer in range(self.config["num_hidden_layers"]):
            x = self._block(x, layer, mask)
        x = self._norm(x, "transformer.ln_f", "ln_final")
        unembedding = self.weights.get("lm_head.weight", embedding)
        return x @ unembedding.T
