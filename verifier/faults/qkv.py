"""Faults of the QKV split: adapters that take the query, key and value projections apart wrongly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier.adapter import SplitQKV
from verifier.family import Family
from verifier.faults.mutants import SLIGHTLY, Delegate, Mutation, Plant, fault, in_adapter, in_family
from verifier.judging.outcome import NotApplicable


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A linear map of given rows, which stands for a wrong projection."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def _mapped(split: SplitQKV, **changes: Callable[[Any], Any]) -> SplitQKV:
    return replace(split, **{letter: change(getattr(split, letter)) for letter, change in changes.items()})


def _heads_reversed(projection: Any) -> _Rows:
    return _Rows(
        weight=projection.weight.detach().flip(0),
        bias=None if projection.bias is None else projection.bias.detach().flip(0),
    )


def _copied(projection: Any) -> _Rows:
    bias = None if projection.bias is None else projection.bias.detach().clone()
    return _Rows(weight=projection.weight.detach().clone(), bias=bias)


def _without_bias(projection: Any) -> _Rows:
    return _Rows(weight=projection.weight, bias=None)


def _expanded(split: SplitQKV, _layer: int) -> SplitQKV:
    """Give every query head a copy of its key and value rows."""

    def expand(projection: Any) -> _Rows:
        times = split.q.weight.shape[0] // projection.weight.shape[0]
        return _Rows(
            weight=projection.weight.repeat(times, 1),
            bias=None if projection.bias is None else projection.bias.repeat(times),
        )

    return _mapped(split, k=expand, v=expand)


class _Scaled(Delegate):
    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self.original(x) * (1 + SLIGHTLY)
        return result


@fault("qkv.rows", "qkv.projections", plant=in_family)
def split_contiguous(family: Family, model: Any) -> Mutation:
    """The fused weight is cut into all queries, all keys, all values, whatever its layout."""
    whole = copy.deepcopy(model)  # the adapter may take the model apart

    def change(_split: SplitQKV, layer: int) -> SplitQKV:
        rows = family.qkv_rows(whole, layer)
        if rows.q.module != rows.k.module:
            raise NotApplicable("nothing is fused")
        fused = whole.get_submodule(rows.q.module)
        sizes = [getattr(rows, letter).rows.numel() for letter in "qkv"]
        weights = fused.weight.detach().split(sizes)
        biases = [None] * 3 if fused.bias is None else fused.bias.detach().split(sizes)
        return SplitQKV(
            **{letter: _Rows(weight=w, bias=b) for letter, w, b in zip("qkv", weights, biases, strict=True)}
        )

    return Mutation(split=change)


@fault("qkv.rows", "qkv.projections")
def split_heads_reversed() -> Plant:
    """The heads of the query projection come in another order."""
    return in_adapter(Mutation(split=lambda split, _layer: _mapped(split, q=_heads_reversed)))


@fault("qkv.rows", "qkv.projections")
def split_k_v_swapped() -> Plant:
    """Keys and values are taken for each other."""
    return in_adapter(Mutation(split=lambda split, _layer: replace(split, k=split.v, v=split.k)))


@fault("qkv.rows", "qkv.projections")
def split_bias_lost() -> Plant:
    """The value projection has lost its bias."""
    return in_adapter(Mutation(split=lambda split, _layer: _mapped(split, v=_without_bias)))


@fault("qkv.projections")
def split_computes_otherwise() -> Plant:
    """A projection holds the right weights and computes something else."""
    return in_adapter(Mutation(split=lambda split, _layer: _mapped(split, k=_Scaled)))


@fault("qkv.heads", "qkv.rows")
def split_kv_expanded() -> Plant:
    """Keys and values have a head for each query head."""
    return in_adapter(Mutation(split=_expanded))


@fault("qkv.reads", "forward.logits", plant=in_family)
def kv_tiled(family: Family, model: Any) -> Mutation:
    """Key/value heads are tiled over the query heads instead of repeated."""
    layers = [point for point in family.points(model.config.to_dict()) if point.layer is not None]
    reads = family.qkv_rows(model, 0).reads if layers else None
    if reads is None:
        return Mutation()
    n_kv, n_heads = int(reads.max()) + 1, len(reads)
    slots = torch.tensor([(head % n_kv) * (n_heads // n_kv) + head // n_kv for head in range(n_heads)])
    return Mutation(
        edits={
            "attn.hook_q": lambda q: q[:, :, slots.argsort()],
            "attn.hook_z": lambda z: z[:, :, slots],
        }
    )


@fault("qkv.placement", "qkv.rows")
def split_downcast() -> Plant:
    """The split weights are float32 in a float64 model."""
    return in_adapter(
        Mutation(
            split=lambda split, _layer: _mapped(
                split,
                q=lambda one: _Rows(weight=one.weight.float(), bias=None if one.bias is None else one.bias.float()),
            )
        )
    )


@fault("qkv.aliasing", "qkv.rows", plant=in_adapter)
def split_layer_forgotten(_model: nn.Module) -> Mutation:
    """Every layer is given the first layer's split."""
    first: list[SplitQKV] = []

    def change(split: SplitQKV, _layer: int) -> SplitQKV:
        if not first:
            first.append(_mapped(split, q=_copied, k=_copied, v=_copied))
        return first[0]

    return Mutation(split=change)
