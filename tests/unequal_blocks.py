"""Falcon said to have blocks of different kinds: one without an attention, and one without an MLP.

The model computes what it always does. What is left out is neither a point nor a component, and whoever asks for the
heads of a block without attention is told off: nobody may take for granted that a block has what another one has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from verifier.canonical import Point, points
from verifier.family import Config, QKVRows
from verifier.faults.mutants import Delegate


class UnequalFamily(Delegate):
    """Falcon without the points, components and rows of an attention in one block and of an MLP in another."""

    def __init__(self, original: Any, *, without_attention: int = 0, without_mlp: int = 1) -> None:
        super().__init__(original)
        self.lacking = {without_attention: "attn", without_mlp: "mlp"}

    def points(self, config: Config) -> tuple[Point, ...]:
        whole = self.original.points(config)
        around = [one.kind.template for one in whole if one.layer is None]
        inner = dict.fromkeys(one.kind.template for one in whole if one.layer is not None)
        by_layer = [
            [template for template in inner if template.split(".")[2] != self.lacking.get(layer)]
            for layer in range(config["num_hidden_layers"])
        ]
        return points(around, by_layer=by_layer)

    @contextlib.contextmanager
    def taps(self, model: Any, *, names: Any = None, edits: Any = None) -> Iterator[Any]:
        names = [one.name for one in self.points(model.config.to_dict())] if names is None else names
        with self.original.taps(model, names=names, edits=edits) as taps:
            yield taps

    def components(self, model: Any) -> Mapping[str, nn.Module]:
        lacking = tuple(f"blocks.{layer}.{part}" for layer, part in self.lacking.items())
        return {name: one for name, one in self.original.components(model).items() if not name.startswith(lacking)}

    def qkv_rows(self, model: Any, layer: int) -> QKVRows:
        assert self.lacking.get(layer) != "attn", f"block {layer} has no attention"
        rows: QKVRows = self.original.qkv_rows(model, layer)
        return rows
