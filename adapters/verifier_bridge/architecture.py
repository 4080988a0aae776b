"""The description of an architecture: where each canonical component is in the model, and how blocks are wired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from verifier_bridge.qkv import QKVLayout

Rotate = Callable[..., tuple[Tensor, Tensor]]
"""`rotate(q, k, cos, sin, unsqueeze_dim=…)`: queries and keys turned by their positions."""

AlibiBias = Callable[[Tensor, int, Any], Tensor]
"""`alibi(mask [batch, key], n_heads, dtype)`: the bias `[batch * head, 1, key]`, unscaled."""

LinearArithmetic = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`linear(x, weight, bias)`: a product as the model's own linear modules compute it."""

UNNAMED = ("blocks.{i}.mlp.act",)
"""Paths that an architecture has for parts of components; they are no components themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """The wiring of the blocks, which is the same in all of them.

    Attributes:
        layout: of the fused queries, keys and values.
        parallel: whether attention and MLP both read the block's input.
        rotate: applies rotary positions; None if the model has none.
        alibi: builds the attention's position bias; None if the model has none.
        linear: arithmetic of the linear modules.
        pattern_dropout: probability with which entries of the attention pattern are dropped in training.
        attn_dropout: dropout probability of the attention's output, in sequential blocks.
        out_dropout: dropout probability of what is added to the residual stream last.
    """

    layout: QKVLayout
    parallel: bool
    rotate: Rotate | None
    alibi: AlibiBias | None
    linear: LinearArithmetic
    pattern_dropout: float
    attn_dropout: float
    out_dropout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The description of one model.

    Attributes:
        paths: canonical component template (`blocks.{i}.attn.o`) → path of the Hugging Face module;
            those in `UNNAMED` too.
        n_layers: number of blocks.
        causal: whether a position sees only itself and those before it.
        block: None where there are no blocks.
    """

    paths: Mapping[str, str]
    n_layers: int
    causal: bool
    block: BlockSpec | None

    def components(self) -> Iterator[tuple[str, str]]:
        """List every canonical component with its module's path, layers written out."""
        for template, path in self.paths.items():
            if template in UNNAMED:
                continue
            if "{i}" not in template:
                yield template, path
                continue
            for layer in range(self.n_layers):
                yield at_layer(template, layer), at_layer(path, layer)

    def has(self, template: str) -> bool:
        """Whether the model has a component of that template."""
        return template in self.paths

    def module(self, model: nn.Module, template: str, layer: int | None = None) -> nn.Module:
        """Find the Hugging Face module that is this component.

        Args:
            model: the Hugging Face model.
            template: the canonical name, with `{i}` for the layer: `blocks.{i}.attn`.
            layer: which layer, where the template has one.

        Raises:
            KeyError: the model has no component of that template.
        """
        path = self.paths[template]
        return model.get_submodule(path if layer is None else at_layer(path, layer))


def at_layer(template: str, layer: int) -> str:
    """Write a layer into a template: `blocks.{i}.attn` becomes `blocks.3.attn`.

    Args:
        template: a name or a path with `{i}` for the layer.
        layer: what to write there.
    """
    return template.replace("{i}", str(layer))
