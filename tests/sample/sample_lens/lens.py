"""The library: Falcon's blocks, written once more around Hugging Face's parts, with a point at each activation.

```python
lens = Lens(FalconForCausalLM.from_pretrained(…))
with lens.hooked({"transformer.h.3.attention.pattern": lambda pattern: print(pattern.shape)}):
    lens(input_ids)
```

It is for models in evaluation mode, and does not decode with a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.falcon.modeling_falcon import FalconForCausalLM, apply_rotary_pos_emb

Edit = Callable[[Tensor], Tensor | None]


class Point(nn.Module):
    """A place at which a tensor, or its gradient, is read or replaced. An edit gets a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.edits: list[Edit] = []
        self.gradient_edits: list[Edit] = []

    def forward(self, value: Tensor) -> Tensor:
        """The value that goes on from here."""
        for edit in self.edits:
            value = _edited(value, edit)
        if self.gradient_edits and torch.is_grad_enabled():
            # Where every parameter is frozen, the gradients of activations begin at the first point that is asked.
            value = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
            value.register_hook(self._gradient)
            value = value.clone()  # whoever writes into it in place must not write into what the hook is on
        return value

    def _gradient(self, gradient: Tensor) -> Tensor:
        for edit in self.gradient_edits:  # those that are there when the backward comes: none after the hooks are off
            gradient = _edited(gradient, edit)
        return gradient


def _edited(value: Tensor, edit: Edit) -> Tensor:
    shown = value.clone()
    answer = edit(shown)
    return shown.clone() if answer is None else answer


def _wide(tensor: Tensor) -> Tensor:
    """Sums over many terms are formed in float32 at least, as torch's own kernels do."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class Norm(nn.Module):
    """A layer norm, `[batch, pos, d_model]` → the same."""

    def __init__(self, original: nn.LayerNorm) -> None:
        super().__init__()
        self.original, self.scale, self.normalized = original, Point(), Point()

    def forward(self, x: Tensor) -> Tensor:
        """Centre, divide by the scale, apply weight and bias."""
        centred = _wide(x) - _wide(x).mean(-1, keepdim=True)
        scale = self.scale((centred.square().mean(-1, keepdim=True) + self.original.eps).sqrt())
        normalized = self.normalized(centred / scale)
        return (normalized * self.original.weight + self.original.bias).to(x.dtype)


class Attention(nn.Module):
    """Falcon's attention, `[batch, pos, d_model]` → the same, with rotary positions or ALiBi."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.original, self.use_result = original, False
        self.query, self.key, self.value = Point(), Point(), Point()
        if not original.config.alibi:
            self.rotated_query, self.rotated_key = Point(), Point()
        self.scores, self.pattern, self.z, self.result = Point(), Point(), Point(), Point()

    def split(self, fused: Tensor, dim: int = -1) -> tuple[Tensor, Tensor, Tensor]:
        """`[…, row]` → queries `[…, head, d_head]`, keys and values `[…, kv_head, d_head]`.

        The rows come in groups, each of some query heads and their key and value head.
        """
        falcon = self.original
        one_for_all = 1 if falcon.multi_query else falcon.num_heads
        groups = falcon.num_kv_heads if falcon.new_decoder_architecture else one_for_all
        grouped = fused.unflatten(-1, (groups, -1, falcon.head_dim))
        return grouped[..., :-2, :].flatten(-3, -2), grouped[..., -2, :], grouped[..., -1, :]

    def forward(self, x: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Attend, as Hugging Face's sdpa path does: position bias and mask are in `mask`."""
        query, key, value = self.split(self.original.query_key_value(x))
        query, key, value = self.query(query), self.key(key), self.value(value)
        if not self.original.config.alibi:
            query, key = apply_rotary_pos_emb(query, key, *rotary, unsqueeze_dim=2)
            query, key = self.rotated_query(query), self.rotated_key(key)
        shared = query.shape[2] // key.shape[2]
        keys, values = (_wide(each).repeat_interleave(shared, dim=2) for each in (key, value))
        scores = torch.einsum("bqhd,bkhd->bhqk", _wide(query), keys) * query.shape[-1] ** -0.5
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, torch.finfo(scores.dtype).min)
        pattern = self.pattern(self.scores(scores + mask).softmax(-1))
        z = self.z(torch.einsum("bhqk,bkhd->bqhd", pattern, values).to(x.dtype))
        return self.output(z)

    def output(self, z: Tensor) -> Tensor:
        """`[batch, pos, head, d_head]` → `[batch, pos, d_model]`; what each head writes only where it is asked for."""
        if not self.use_result:
            return self.original.dense(z.flatten(2))
        per_head = self.original.dense.weight.T.unflatten(0, z.shape[2:])
        written = self.result(torch.einsum("bphd,hdm->bphm", z, per_head)).sum(2)
        return written if self.original.dense.bias is None else written + self.original.dense.bias


class Block(nn.Module):
    """One layer, in whichever of Falcon's wirings."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        config = original.config
        self.parallel = config.new_decoder_architecture or config.parallel_attn
        two = config.new_decoder_architecture and config.num_ln_in_parallel_attn == 2
        self.attention, self.mlp = Attention(original.self_attention), original.mlp
        self.norm = Norm(original.ln_attn if two else original.input_layernorm)
        self.mlp_norm = None
        if two or not self.parallel:
            self.mlp_norm = Norm(original.ln_mlp if two else original.post_attention_layernorm)
        self.before, self.after = Point(), Point()
        self.attention_out, self.mlp_pre, self.mlp_post, self.mlp_out = Point(), Point(), Point(), Point()
        if not self.parallel:
            self.between = Point()

    def forward(
        self, stream: Tensor, *, attention_mask: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> tuple[Tensor, None]:
        """What Hugging Face's model expects of a layer: the residual stream, and no pattern."""
        stream = self.before(stream)
        normed = self.norm(stream)
        attended = self.attention_out(self.attention(normed, attention_mask, position_embeddings))
        if not self.parallel:
            stream = self.between(stream + attended)
        if self.mlp_norm is not None:
            normed = self.mlp_norm(stream)
        hidden = self.mlp_post(self.mlp.act(self.mlp_pre(self.mlp.dense_h_to_4h(normed))))
        written = self.mlp_out(self.mlp.dense_4h_to_h(hidden))
        return self.after((written + attended if self.parallel else written) + stream), None


class Lens(nn.Module):
    """A Falcon that can be looked into. The model is taken apart: its blocks and its last norm are replaced.

    Attributes:
        points: every point by its name.
    """

    def __init__(self, model: FalconForCausalLM) -> None:
        super().__init__()
        self.model, self.embedded = model, Point()
        body = model.transformer
        body.word_embeddings.register_forward_hook(lambda module, args, out: self.embedded(out))
        for layer, block in enumerate(body.h):
            body.h[layer] = Block(block)
        body.ln_f = Norm(body.ln_f)
        self.points = {
            name.removeprefix("model."): module for name, module in self.named_modules() if isinstance(module, Point)
        }

    def forward(self, input_ids: Tensor | None = None, **more: Any) -> Any:
        """What Hugging Face's model gives for these inputs, without a cache."""
        return self.model(input_ids, use_cache=False, **more)

    @contextmanager
    def hooked(self, edits: Mapping[str, Edit], gradient_edits: Mapping[str, Edit] | None = None) -> Iterator[None]:
        """Inside it the edits run at the points of these names: on values, and on gradients."""
        added = [(self.points[name].edits, edit) for name, edit in edits.items()]
        added += [(self.points[name].gradient_edits, edit) for name, edit in (gradient_edits or {}).items()]
        for edits_there, edit in added:
            edits_there.append(edit)
        try:
            yield
        finally:
            for edits_there, edit in added:
                edits_there.remove(edit)

    @contextmanager
    def with_results(self) -> Iterator[None]:
        """Inside it the points `attention.result` are passed: they cost a product for each head."""
        attentions = [module for module in self.modules() if isinstance(module, Attention)]
        before = [attention.use_result for attention in attentions]
        for attention in attentions:
            attention.use_result = True
        try:
            yield
        finally:
            for attention, was in zip(attentions, before, strict=True):
                attention.use_result = was
