"""Weights: TransformerLens' split projections and its canonical accessors.

There is no way back (`restore`): its conversions revert an attention's q, k, v and o to its own split projections, and
nothing joins those to Hugging Face's fused ones or names them as it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from verifier.adapter import SplitQKV
from verifier.canonical import WEIGHTS
from verifier_lens.components import components

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge


class LensWeights:
    """The weights of one bridge."""

    def __init__(self, bridge: TransformerBridge) -> None:
        self._bridge = bridge

    def split(self, layer: int) -> SplitQKV:
        """Give the linear modules inside the attention's `q`, `k` and `v` components."""
        attention: Any = self._bridge.blocks[layer].attn
        return SplitQKV(
            q=attention.q.original_component,
            k=attention.k.original_component,
            v=attention.v.original_component,
        )

    def canonical(self) -> Mapping[str, Tensor]:
        """Read the components' accessors (`blocks.0.attn.W_Q`), in TransformerLens' shapes; None is left out."""
        held = components(self._bridge)
        found: dict[str, Tensor] = {}
        for weight in WEIGHTS:
            owner, _, accessor = weight.template.rpartition(".")
            for layer in range(len(self._bridge.blocks)) if "{i}" in owner else range(1):
                place = owner.replace("{i}", str(layer))
                value = getattr(held.get(place), accessor, None)
                if value is not None:
                    found[f"{place}.{accessor}"] = value
        return found

    def gradients(self) -> Mapping[str, Tensor]:
        """Compute the gradients of the bridge's parameters in the accessors' shapes; what has none is left out."""
        with torch.enable_grad():
            weights = self.canonical()
            leaves = [leaf for leaf in self._bridge.parameters() if leaf.grad is not None]
            pushed = {name: push_forward(weight, leaves) for name, weight in weights.items()}
        return {name: gradient for name, gradient in pushed.items() if gradient is not None}


def push_forward(weight: Tensor, leaves: Sequence[Tensor]) -> Tensor | None:
    """Push the leaves' gradients through the linear map that made `weight` of them, into `weight`'s shape.

    An accessor permutes and reshapes parameters; so its Jacobian, applied to their gradients, gives those gradients in
    the accessor's layout without a second description of it. None if it depends on none of the leaves.

    Args:
        weight: an accessor's tensor, in the graph of the parameters that it is made of.
        leaves: parameters that have a gradient.
    """
    if not weight.requires_grad or not leaves:
        return None
    # J^T u is linear in u, and its own vector-Jacobian product by g is J g.
    direction = torch.zeros_like(weight, requires_grad=True)
    pulled = torch.autograd.grad(weight, leaves, direction, create_graph=True, allow_unused=True)
    used = [(back, leaf.grad) for back, leaf in zip(pulled, leaves, strict=True) if back is not None]
    if not used:
        return None
    backs, gradients = zip(*used, strict=True)
    (pushed,) = torch.autograd.grad(backs, direction, gradients)
    return pushed
