"""The map between canonical weights and Hugging Face's, exact in both directions.

Each canonical tensor is a rearrangement of one of Hugging Face's, so the same map serves weights and gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier_bridge.errors import BridgeError, unknown_name
from verifier_bridge.qkv import QKV, QKVLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from verifier_bridge.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """How one tensor of Hugging Face becomes canonical ones, and how they become it again."""

    source: str
    targets: tuple[str, ...]
    take_apart: Callable[[Tensor], tuple[Tensor, ...]]
    put_together: Callable[[tuple[Tensor, ...]], Tensor]


class WeightMap:
    """Between the names and shapes of a model's state dict and the canonical ones.

    What has no canonical name (an activation with parameters) keeps Hugging Face's.
    """

    def __init__(self, architecture: Architecture, names: Collection[str]) -> None:
        """`names` are the keys of the model's state dict."""
        rules = [
            rule
            for component, path in architecture.components()
            for rule in _rules(component, path, architecture)
            if rule.source in names
        ]
        mapped = {rule.source for rule in rules}
        self._rules = [*rules, *(_same(name, name) for name in names if name not in mapped)]

    def to_canonical(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy the tensors that are there into canonical names and shapes."""
        return {
            target: _copy(part)
            for rule in self._rules
            if rule.source in tensors
            for target, part in zip(rule.targets, rule.take_apart(tensors[rule.source]), strict=True)
        }

    def to_hugging_face(self, canonical: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring all canonical tensors back to Hugging Face's names and shapes.

        Raises:
            BridgeError: one is missing, or one is no weight of this model.
        """
        expected = dict.fromkeys(target for rule in self._rules for target in rule.targets)
        for name in expected:
            if name not in canonical:
                raise BridgeError(f"canonical weight {name!r} is missing")
        for name in canonical:
            if name not in expected:
                raise BridgeError(unknown_name("canonical weight", name, expected))
        return {
            rule.source: _copy(rule.put_together(tuple(canonical[target] for target in rule.targets)))
            for rule in self._rules
        }


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _rules(component: str, path: str, architecture: Architecture) -> list[_Rule]:
    weight, bias = f"{path}.weight", f"{path}.bias"
    owner, _, part = component.rpartition(".")
    if component == "embed":
        return [_same(weight, "embed.W_E")]
    if component == "unembed":
        return [_transposed(weight, "unembed.W_U"), _same(bias, "unembed.b_U")]
    if part in ("ln1", "ln2") or component == "ln_final":
        return [_same(weight, f"{component}.w"), _same(bias, f"{component}.b")]
    if part in ("in", "out") and owner.endswith("mlp"):
        return [_transposed(weight, f"{owner}.W_{part}"), _same(bias, f"{owner}.b_{part}")]
    if architecture.block is None:
        return []
    if part == "qkv":
        return [
            _fused_weight(weight, owner, architecture.block.layout),
            _fused_bias(bias, owner, architecture.block.layout),
        ]
    if part == "o":
        return [_per_head(weight, f"{owner}.W_O", architecture.block.layout), _same(bias, f"{owner}.b_O")]
    return []


def _same(source: str, target: str) -> _Rule:
    return _Rule(source=source, targets=(target,), take_apart=lambda t: (t,), put_together=lambda parts: parts[0])


def _transposed(source: str, target: str) -> _Rule:
    """Map `[d_out, d_in]` ↔ `[d_in, d_out]`."""
    return _Rule(source=source, targets=(target,), take_apart=lambda t: (t.T,), put_together=lambda parts: parts[0].T)


def _per_head(source: str, target: str, layout: QKVLayout) -> _Rule:
    """Map `[d_model, head * d_head]` ↔ `[head, d_head, d_model]`."""
    return _Rule(
        source=source,
        targets=(target,),
        take_apart=lambda t: (torch.unflatten(t.T, 0, (layout.n_heads, layout.d_head)),),
        put_together=lambda parts: parts[0].flatten(0, 1).T,
    )


def _fused_weight(source: str, owner: str, layout: QKVLayout) -> _Rule:
    """`[rows, d_model]` ↔ `[head, d_model, d_head]` for queries, `[kv_head, d_model, d_head]` for keys and values."""
    return _Rule(
        source=source,
        targets=(f"{owner}.W_Q", f"{owner}.W_K", f"{owner}.W_V"),
        take_apart=lambda t: tuple(part.transpose(1, 2) for part in layout.split(t, dim=0)),
        put_together=lambda parts: layout.fuse(QKV(*(part.transpose(1, 2) for part in parts)), dim=0),
    )


def _fused_bias(source: str, owner: str, layout: QKVLayout) -> _Rule:
    """Map `[rows]` ↔ `[head, d_head]`, `[kv_head, d_head]`, `[kv_head, d_head]`."""
    return _Rule(
        source=source,
        targets=(f"{owner}.b_Q", f"{owner}.b_K", f"{owner}.b_V"),
        take_apart=lambda t: tuple(layout.split(t, dim=0)),
        put_together=lambda parts: layout.fuse(QKV(*parts), dim=0),
    )
