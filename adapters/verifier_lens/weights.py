"""Weights: TransformerLens' split projections, its canonical accessors, and its weight processings."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from verifier.adapter import SplitQKV
from verifier.canonical import WEIGHTS
from verifier_lens.components import components

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge

    from verifier.adapter import Subject

WHOLE = "enable_compatibility_mode"


class Process(Protocol):
    """Makes a subject of the model as it was given, with these processings applied; all the default ones without."""

    def __call__(self, **flags: bool) -> Subject: ...


class LensWeights:
    """The weights of one bridge."""

    def __init__(self, bridge: TransformerBridge, processed: Process) -> None:
        self._bridge = bridge
        self._processed = processed

    def split(self, layer: int) -> SplitQKV:
        """The linear modules inside the attention's `q`, `k` and `v` components."""
        attention: Any = self._bridge.blocks[layer].attn
        return SplitQKV(
            q=attention.q.original_component,
            k=attention.k.original_component,
            v=attention.v.original_component,
        )

    def canonical(self) -> Mapping[str, Tensor]:
        """What the components' accessors give (`blocks.0.attn.W_Q`), in TransformerLens' shapes; None is left out."""
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

    def restore(self, canonical: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """TransformerLens has no way back.

        Raises:
            NotImplementedError: always. Its conversions revert an attention's q, k, v and o to its own split
                projections, and nothing joins those to Hugging Face's fused ones or names them as it does.
        """
        raise NotImplementedError(
            "TransformerLens converts canonical weights to Hugging Face's names and shapes nowhere"
        )

    def gradients(self) -> Mapping[str, Tensor]:
        """Gradients of the bridge's parameters in the shapes that the accessors give; what has none is left out."""
        with torch.enable_grad():
            weights = self.canonical()
            leaves = [leaf for leaf in self._bridge.parameters() if leaf.grad is not None]
            pushed = {name: push_forward(weight, leaves) for name, weight in weights.items()}
        return {name: gradient for name, gradient in pushed.items() if gradient is not None}

    def processings(self) -> Mapping[str, Callable[[], Subject]]:
        """Each flag of `process_weights` alone, through `enable_compatibility_mode`; and all of its default ones."""
        if not self._bridge.adapter.supports_compatibility_mode:
            return {}
        parameters = inspect.signature(self._bridge.process_weights).parameters.values()
        flags = [one.name for one in parameters if isinstance(one.default, bool) and one.name != "verbose"]
        alone: dict[str, Callable[[], Subject]] = {
            flag: partial(self._processed, **{other: other == flag for other in flags}) for flag in flags
        }
        return {**alone, WHOLE: self._processed}


def push_forward(weight: Tensor, leaves: Sequence[Tensor]) -> Tensor | None:
    """The leaves' gradients through the linear map that made `weight` of them, in `weight`'s shape.

    An accessor permutes and reshapes parameters; so its Jacobian, applied to their gradients, gives those gradients in
    the accessor's layout without a second description of it. None if it depends on none of the leaves.
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
