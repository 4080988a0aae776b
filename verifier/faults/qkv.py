"""Faults of the QKV split: adapters that take the query, key and value projections apart wrongly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from verifier.adapter import ProjectionLike, SplitQKV
from verifier.family import Family
from verifier.faults.mutants import SLIGHTLY, Delegate, Mutation, Plant, fault, in_family, in_split
from verifier.judging.outcome import NotApplicable
from verifier.reference.weights import attention_layers


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A linear map of given rows, which stands for a wrong projection."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def _changed(projection: ProjectionLike, change: Callable[[Tensor], Tensor]) -> _Rows:
    """Change the rows of a projection: its weight and, where it has one, its bias."""
    bias = projection.bias
    return _Rows(weight=change(projection.weight), bias=None if bias is None else change(bias))


def _in_projection(letter: str) -> Callable[[Callable[[Any], ProjectionLike]], Plant]:
    """Plant a change of one of the three projections: `q`, `k` or `v`."""
    return lambda change: in_split(lambda split, _layer: replace(split, **{letter: change(getattr(split, letter))}))


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


@fault("qkv.rows", "qkv.projections", plant=_in_projection("q"))
def split_heads_reversed(queries: ProjectionLike) -> ProjectionLike:
    """The heads of the query projection come in another order."""
    return _changed(queries, lambda rows: rows.detach().flip(0))


@fault("qkv.rows", "qkv.projections", plant=in_split)
def split_k_v_swapped(split: SplitQKV, _layer: int) -> SplitQKV:
    """Keys and values are taken for each other."""
    return replace(split, k=split.v, v=split.k)


@fault("qkv.rows", "qkv.projections", plant=_in_projection("v"))
def split_bias_lost(values: ProjectionLike) -> ProjectionLike:
    """The value projection has lost its bias."""
    return _Rows(weight=values.weight, bias=None)


@fault("qkv.projections", plant=_in_projection("k"))
def split_computes_otherwise(keys: ProjectionLike) -> Any:
    """A projection holds the right weights and computes something else."""
    return _Scaled(keys)


@fault("qkv.heads", "qkv.rows", plant=in_split)
def split_kv_expanded(split: SplitQKV, _layer: int) -> SplitQKV:
    """Keys and values have a head for each query head."""

    def expand(projection: ProjectionLike) -> ProjectionLike:
        times = split.q.weight.shape[0] // projection.weight.shape[0]
        return _changed(projection, lambda rows: torch.cat([rows] * times))

    return replace(split, k=expand(split.k), v=expand(split.v))


@fault("qkv.reads", "forward.logits", plant=in_family)
def kv_tiled(family: Family, model: Any) -> Mutation:
    """Key/value heads are tiled over the query heads instead of repeated."""
    layers = attention_layers(family, model)
    if not layers:
        return Mutation()
    reads = family.qkv_rows(model, layers[0]).reads
    n_kv, n_heads = int(reads.max()) + 1, len(reads)
    slots = torch.tensor([(head % n_kv) * (n_heads // n_kv) + head // n_kv for head in range(n_heads)])
    return Mutation(
        edits={
            "attn.hook_q": lambda q: q[:, :, slots.argsort()],
            "attn.hook_z": lambda z: z[:, :, slots],
        }
    )


@fault("qkv.placement", "qkv.rows", plant=_in_projection("q"))
def split_downcast(queries: ProjectionLike) -> ProjectionLike:
    """The split weights are float32 in a float64 model."""
    return _changed(queries, Tensor.float)


@fault("qkv.aliasing", "qkv.rows")
def split_layer_forgotten() -> Mutation:
    """Every layer is given the first layer's split."""
    first: list[SplitQKV] = []

    def change(split: SplitQKV, _layer: int) -> SplitQKV:
        if not first:
            copies = {letter: _changed(getattr(split, letter), lambda rows: rows.detach().clone()) for letter in "qkv"}
            first.append(SplitQKV(**copies))
        return first[0]

    return Mutation(split=change)
