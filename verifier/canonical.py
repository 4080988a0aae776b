"""The vocabulary: canonical hook points and weights, their axes, order and conventions.

Names, axes and conventions are TransformerLens'; `canonical.toml` lists them. An adapter says which of its own names is
which, and the checks use the canonical names alone.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of hook point, which every layer that has it shares.

    Attributes:
        template: the name, with `{i}` for the layer if it stands in a block.
        axes: the tensor's dimensions: `head` runs over query heads, `kv_head` over key/value heads (unexpanded: one
            entry for each head that the weights have), `query` and `key` over positions.
        meaning: what the tensor is.
    """

    template: str
    axes: tuple[str, ...]
    meaning: str

    @property
    def in_block(self) -> bool:
        """Whether each block has a hook point of the kind."""
        return "{i}" in self.template

    def at(self, layer: int) -> str:
        """Name the hook point of one layer."""
        return self.template.replace("{i}", str(layer))


_VOCABULARY = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_POINT_AXES = {name: tuple(axes) for name, axes in _VOCABULARY["axes"].items()}

RESIDUAL, SCALE, RESULT = (_POINT_AXES[name] for name in ("residual", "scale", "result"))

KINDS: tuple[Kind, ...] = tuple(
    Kind(template=template, axes=_POINT_AXES[kind["axes"]], meaning=kind["meaning"])
    for template, kind in _VOCABULARY["points"].items()
)
"""Every kind of hook point in causal order: a point's value never depends on one that stands after it."""

_BY_TEMPLATE = {kind.template: kind for kind in KINDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One canonical hook point of one model: a kind, and the layer that it stands in (None outside the blocks)."""

    kind: Kind
    layer: int | None

    @property
    def name(self) -> str:
        """The point's canonical name, with its layer if it stands in a block: `blocks.0.attn.hook_q`."""
        return self.kind.template if self.layer is None else self.kind.at(self.layer)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the tensor's dimensions, those of the kind."""
        return self.kind.axes


def points(templates: Sequence[str], n_layers: int) -> tuple[Point, ...]:
    """List the hook points of a model of `n_layers` blocks that has the given kinds, in causal order.

    Args:
        templates: the kinds, by their templates; their order does not matter.
        n_layers: how many blocks the model has.

    Raises:
        KeyError: a template is not in the vocabulary.
    """
    wanted = {_BY_TEMPLATE[template].template for template in templates}
    kinds = [kind for kind in KINDS if kind.template in wanted]
    inner = [kind for kind in kinds if kind.in_block]
    first, last = (inner[0], inner[-1]) if inner else (None, None)
    before = kinds[: kinds.index(first)] if first else [kind for kind in kinds if kind.template == "hook_embed"]
    after = kinds[kinds.index(last) + 1 :] if last else [kind for kind in kinds if kind not in before]
    return (
        *(Point(kind=kind, layer=None) for kind in before),
        *(Point(kind=kind, layer=layer) for layer in range(n_layers) for kind in inner),
        *(Point(kind=kind, layer=None) for kind in after),
    )


def template_of(name: str) -> str:
    """Replace the layer in a name by `{i}`: `blocks.3.attn.hook_q` → `blocks.{i}.attn.hook_q`."""
    return ".".join("{i}" if part.isdigit() else part for part in name.split("."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A canonical weight: its name in the model and the meaning of its axes."""

    template: str
    axes: tuple[str, ...]


WEIGHTS: tuple[Weight, ...] = tuple(
    Weight(template=template, axes=tuple(axes)) for template, axes in _VOCABULARY["weights"].items()
)
"""Every canonical weight. One that a model does not have (no bias, no second norm, no gate) is simply not there."""

COMPONENTS: tuple[str, ...] = tuple(_VOCABULARY["components"]["names"])
"""The canonical components, which `Components` of an adapter and `components` of a family name alike."""

FACTS: Mapping[str, str] = _VOCABULARY["facts"]
"""What is said of a model, by name, with its meaning; `facts` of an adapter and of a family use these names."""

LOGIT_AXES = ("batch", "pos", "d_vocab")

_AXES = {
    "logits": LOGIT_AXES,
    **{kind.template: kind.axes for kind in KINDS},
    **{weight.template: weight.axes for weight in WEIGHTS},
}


def axes_of(name: str) -> tuple[str, ...] | None:
    """Give the axes of a hook point, of a weight, or of the logits, by name; None for any other name."""
    return _AXES.get(template_of(name))
