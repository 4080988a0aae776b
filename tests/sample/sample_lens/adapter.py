"""Sample Lens, offered to `verifier`: forward, weights and hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import FalconForCausalLM

import sample_lens
from sample_lens.lens import Block, Lens, Norm
from verifier.adapter import AdapterRefusal, Edit, HookInfo, Inputs, Output, SplitQKV, Subject, Usage


class LensAdapter:
    """The adapter `sample-lens`."""

    name = "sample-lens"
    version = sample_lens.__version__

    def wrap(self, model: nn.Module) -> LensSubject:
        """Take the model apart.

        Raises:
            AdapterRefusal: it is no Falcon, or one that Hugging Face itself cannot run.
        """
        if not isinstance(model, FalconForCausalLM):
            raise AdapterRefusal(f"Sample Lens looks into FalconForCausalLM, and this is a {type(model).__name__}")
        try:
            with torch.no_grad():
                model(torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
        except Exception as error:
            raise AdapterRefusal(f"this Falcon does not run before anything is changed: {error}") from error
        return LensSubject(Lens(model))

    def usage(self, given: Sequence[str]) -> Usage:
        """How the library is used without the harness, for `verifier repro --script`."""
        return Usage(
            imports=("from sample_lens import Lens",),
            wrap=("subject = Lens(model)",),
            logits=f"subject({', '.join(f'{name}={name}' for name in given)}).logits",
        )


class LensSubject(Subject):
    """A model under the lens."""

    declared_mutations = frozenset({"modules", "hooks"})

    def __init__(self, lens: Lens) -> None:
        self.lens = lens
        self.weights = LensWeights(lens=lens)
        self.hooks = LensHooks(lens=lens)

    def forward(self, inputs: Inputs) -> Output:
        """One forward through the lens."""
        given = {
            "inputs_embeds": inputs.inputs_embeds,
            "attention_mask": inputs.attention_mask,
            "position_ids": inputs.position_ids,
            "labels": inputs.labels,
        }
        more = {name: value for name, value in given.items() if value is not None}
        result = self.lens(inputs.input_ids, **more)
        return Output(logits=result.logits, loss=result.loss)

    def close(self) -> None:
        """Let go of the model."""
        del self.lens, self.weights, self.hooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Some rows of a fused projection, as a linear map of its own."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, /) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class LensWeights:
    """Weights, and their gradients, in canonical names and shapes."""

    lens: Lens

    def split(self, layer: int) -> SplitQKV:
        """The layer's projections: copies of the fused rows."""
        attention = self.lens.model.transformer.h[layer].attention
        fused = attention.original.query_key_value
        weights = [heads.flatten(-2).T.clone() for heads in attention.split(fused.weight.T)]
        biases = [None] * 3 if fused.bias is None else [heads.flatten() for heads in attention.split(fused.bias)]
        parts = [Projection(weight=weight, bias=bias) for weight, bias in zip(weights, biases, strict=True)]
        return SplitQKV(q=parts[0], k=parts[1], v=parts[2])

    def canonical(self) -> Mapping[str, Tensor]:
        """Every weight by canonical name."""
        return dict(self._each(lambda parameter: parameter.detach()))

    def gradients(self) -> Mapping[str, Tensor]:
        """The gradient of every weight, by the same names."""
        return dict(self._each(lambda parameter: parameter.grad))

    def _each(self, value: Callable[[Tensor], Tensor | None]) -> Iterator[tuple[str, Tensor]]:
        model = self.lens.model
        for name, parameter, reshape in [
            ("embed.W_E", model.transformer.word_embeddings.weight, _same),
            *(one for layer, block in enumerate(model.transformer.h) for one in _of_block(f"blocks.{layer}", block)),
            *_of_norm("ln_final", model.transformer.ln_f),
            ("unembed.W_U", model.lm_head.weight, _transposed),
        ]:
            found = None if parameter is None else value(parameter)
            if found is not None:
                yield name, reshape(found)


Part = tuple[str, Tensor | None, Callable[[Tensor], Tensor]]
"""A canonical name, the parameter that it is made of, and how."""


def _of_block(here: str, block: Block) -> Iterator[Part]:
    attention, mlp = block.attention, block.mlp
    fused, dense = attention.original.query_key_value, attention.original.dense
    yield from _of_norm(f"{here}.ln1", block.norm)
    for which, letter in enumerate("QKV"):
        # [row, d_model] → [head, d_model, d_head], and [row] → [head, d_head]
        yield f"{here}.attn.W_{letter}", fused.weight, lambda w, at=which: attention.split(w.T)[at].transpose(0, 1)
        yield f"{here}.attn.b_{letter}", fused.bias, lambda b, at=which: attention.split(b)[at]
    heads = (attention.original.num_heads, attention.original.head_dim)
    yield f"{here}.attn.W_O", dense.weight, lambda w: w.T.unflatten(0, heads)
    yield f"{here}.attn.b_O", dense.bias, _same
    if block.mlp_norm is not None:
        yield from _of_norm(f"{here}.ln2", block.mlp_norm)
    yield f"{here}.mlp.W_in", mlp.dense_h_to_4h.weight, _transposed
    yield f"{here}.mlp.b_in", mlp.dense_h_to_4h.bias, _same
    yield f"{here}.mlp.W_out", mlp.dense_4h_to_h.weight, _transposed
    yield f"{here}.mlp.b_out", mlp.dense_4h_to_h.bias, _same


def _of_norm(here: str, norm: Norm) -> Iterator[Part]:
    yield f"{here}.w", norm.original.weight, _same
    yield f"{here}.b", norm.original.bias, _same


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _transposed(tensor: Tensor) -> Tensor:
    """`[d_out, d_in]` → `[d_in, d_out]`."""
    return tensor.T


# The lens' names of points, and the canonical ones.
_BLOCK = {
    "before": "hook_resid_pre",
    "norm.scale": "ln1.hook_scale",
    "norm.normalized": "ln1.hook_normalized",
    "attention.query": "attn.hook_q",
    "attention.key": "attn.hook_k",
    "attention.value": "attn.hook_v",
    "attention.rotated_query": "attn.hook_rot_q",
    "attention.rotated_key": "attn.hook_rot_k",
    "attention.scores": "attn.hook_attn_scores",
    "attention.pattern": "attn.hook_pattern",
    "attention.z": "attn.hook_z",
    "attention.result": "attn.hook_result",
    "attention_out": "hook_attn_out",
    "between": "hook_resid_mid",
    "mlp_norm.scale": "ln2.hook_scale",
    "mlp_norm.normalized": "ln2.hook_normalized",
    "mlp_pre": "mlp.hook_pre",
    "mlp_post": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
    "after": "hook_resid_post",
}
_ELSEWHERE = {
    "embedded": "hook_embed",
    "transformer.ln_f.scale": "ln_final.hook_scale",
    "transformer.ln_f.normalized": "ln_final.hook_normalized",
}


def canonical_name(own: str) -> str:
    """`transformer.h.3.attention.query` → `blocks.3.attn.hook_q`."""
    if own in _ELSEWHERE:
        return _ELSEWHERE[own]
    layer, _, inside = own.removeprefix("transformer.h.").partition(".")
    return f"blocks.{layer}.{_BLOCK[inside]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LensHooks:
    """The lens' points under their canonical names."""

    lens: Lens

    def names(self) -> Mapping[str, HookInfo]:
        """Every point; those of what each head writes need their switch."""
        return {
            canonical_name(own): HookInfo(native_name=own, switch="with_results" if own.endswith(".result") else None)
            for own in self.lens.points
        }

    def switched(self, names: Set[str]) -> AbstractContextManager[None]:
        """The one switch, where one of its points is asked for."""
        return self.lens.with_results() if any(name.endswith("hook_result") for name in names) else nullcontext()

    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """The edits, at the points of these canonical names."""
        own = {canonical_name(name): name for name in self.lens.points}
        return self.lens.hooked(
            {own[name]: edit for name, edit in forward.items()}, {own[name]: edit for name, edit in backward.items()}
        )
