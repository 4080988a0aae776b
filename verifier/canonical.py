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
    """A kind of hook point, which every layer and every expert that has it shares.

    Attributes:
        template: the name, with `{i}` for the layer if it stands in a block, and `{e}` for the expert if it stands in
            one.
        axes: the tensor's dimensions, by the names of `AXES`.
        meaning: what the tensor is.
    """

    template: str
    axes: tuple[str, ...]
    meaning: str

    @property
    def in_block(self) -> bool:
        """Whether the hook points of the kind stand in blocks."""
        return "{i}" in self.template

    @property
    def in_expert(self) -> bool:
        """Whether the hook points of the kind stand in experts of a block."""
        return "{e}" in self.template

    @property
    def is_scale(self) -> bool:
        """Whether the tensor is what a norm divides by: one number for each vector that is normalized."""
        return self.axes[-1] == "1"

    @property
    def is_discrete(self) -> bool:
        """Whether the tensor holds whole numbers, which name experts: it has no gradient, and is no sum or product."""
        return "choice" in self.axes

    def at(self, layer: int, expert: int | None = None) -> str:
        """Name the hook point of one layer, and of one of its experts if the kind stands in experts."""
        return name_in(self.template, layer, expert)


def name_in(template: str, layer: int | None, expert: int | None = None) -> str:
    """Write the layer and the expert into a template: `blocks.{i}.attn.W_Q` → `blocks.3.attn.W_Q`.

    Args:
        template: the name of a hook point, a weight or a component, with its placeholders.
        layer: the number of the block; None for a template that stands in none.
        expert: the number of the expert in the block; None for a template that stands in none.
    """
    return template.replace("{i}", str(layer)).replace("{e}", str(expert))


_VOCABULARY = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

AXES: Mapping[str, str] = _VOCABULARY["axis"]
"""What each axis of a hook point or a weight runs over."""

KINDS: tuple[Kind, ...] = tuple(
    Kind(template=template, axes=tuple(_VOCABULARY["axes"][kind["axes"]]), meaning=kind["meaning"])
    for template, kind in _VOCABULARY["points"].items()
)
"""Every kind of hook point in causal order: a point's value never depends on one that stands after it."""

_BY_TEMPLATE = {kind.template: kind for kind in KINDS}
_FIRST_IN_BLOCK = next(rank for rank, kind in enumerate(KINDS) if kind.in_block)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One canonical hook point of one model.

    Attributes:
        kind: what it is.
        layer: the number of its block; None outside the blocks.
        expert: the number of its expert in the block; None outside the experts.
    """

    kind: Kind
    layer: int | None
    expert: int | None = None

    @property
    def name(self) -> str:
        """The point's canonical name: `blocks.0.attn.hook_q`, `blocks.0.mlp.experts.2.hook_post`."""
        return name_in(self.kind.template, self.layer, self.expert)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the tensor's dimensions, those of the kind."""
        return self.kind.axes


def points(
    templates: Sequence[str],
    n_layers: int | None = None,
    *,
    by_layer: Sequence[Sequence[str]] | None = None,
    n_experts: int = 0,
) -> tuple[Point, ...]:
    """List the hook points of a model that has the given kinds, in causal order.

    A model whose blocks are alike says how many there are: `points([…], 2)`. One whose blocks differ says what each
    has, beside what `templates` gives to all of them: `points([…], by_layer=[[…], […]])`.

    Args:
        templates: the kinds outside the blocks and in every block, by their templates; their order does not matter.
        n_layers: how many blocks the model has; as many as `by_layer` has if not given.
        by_layer: for each block, the further kinds that it has; none if not given.
        n_experts: how many experts a block has whose kinds stand in experts.

    Raises:
        KeyError: a template is not in the vocabulary.
        ValueError: `by_layer` has not `n_layers` blocks or has a kind outside the blocks; or neither is given; or a
            kind stands in experts and there are none.
    """
    if by_layer is None:
        if n_layers is None:
            raise ValueError("points() needs n_layers or by_layer")
        by_layer = [()] * n_layers
    if n_layers not in (None, len(by_layer)):
        raise ValueError(f"by_layer has {len(by_layer)} blocks, and n_layers is {n_layers}")
    shared = {_BY_TEMPLATE[template].template for template in templates}
    own = [{_BY_TEMPLATE[template].template for template in layer} for layer in by_layer]
    asked = shared.union(*own)
    outside = [template for layer in own for template in layer if not _BY_TEMPLATE[template].in_block]
    if outside:
        raise ValueError(f"{outside[0]} stands in no block")
    lone = next((kind.template for kind in KINDS if kind.in_expert and kind.template in asked), None)
    if lone is not None and n_experts < 1:
        raise ValueError(f"{lone} stands in experts, and n_experts is {n_experts}")

    def around(kinds: Sequence[Kind]) -> list[Point]:
        return [Point(kind=kind, layer=None) for kind in kinds if kind.template in shared and not kind.in_block]

    inside = [
        Point(kind=kind, layer=layer, expert=expert)
        for layer, further in enumerate(own)
        for kind in KINDS
        if kind.in_block and kind.template in shared | further
        for expert in (range(n_experts) if kind.in_expert else (None,))
    ]
    return (*around(KINDS[:_FIRST_IN_BLOCK]), *inside, *around(KINDS[_FIRST_IN_BLOCK:]))


def templates_by_layer(points: Sequence[Point]) -> dict[int, frozenset[str]]:
    """Collect the templates of the hook points of each block: two blocks with the same ones are of one kind.

    Args:
        points: of a model, in causal order.

    Returns:
        By layer, in order; a block without a hook point is left out.
    """
    found: dict[int, set[str]] = {}
    for point in points:
        if point.layer is not None:
            found.setdefault(point.layer, set()).add(point.kind.template)
    return {layer: frozenset(templates) for layer, templates in found.items()}


def layers_with(points: Sequence[Point], part: str) -> list[int]:
    """List the layers that have hook points in a part of the block: `layers_with(points, "attn")`.

    Args:
        points: of a model, in causal order.
        part: the component of the block, by its name there.
    """
    inside = f"blocks.{{i}}.{part}."
    by_layer = templates_by_layer(points)
    return [layer for layer, templates in by_layer.items() if any(one.startswith(inside) for one in templates)]


def template_of(name: str) -> str:
    """Replace numbers in a name by placeholders, that of an expert by `{e}` and others by `{i}`.

    `blocks.3.attn.hook_q` → `blocks.{i}.attn.hook_q`; `blocks.3.mlp.experts.2.W_in` →
    `blocks.{i}.mlp.experts.{e}.W_in`.
    """
    parts = name.split(".")
    owners = ("", *parts)
    return ".".join(
        ("{e}" if owner == "experts" else "{i}") if part.isdigit() else part
        for owner, part in zip(owners, parts, strict=False)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A canonical weight: its name in the model, the meaning of its axes, and what it is."""

    template: str
    axes: tuple[str, ...]
    meaning: str


WEIGHTS: tuple[Weight, ...] = tuple(
    Weight(template=template, axes=tuple(weight["axes"]), meaning=weight["meaning"])
    for template, weight in _VOCABULARY["weights"].items()
)
"""Every canonical weight. One that a model does not have (no bias, no second norm, no gate) is simply not there."""

COMPONENTS: Mapping[str, str] = _VOCABULARY["components"]
"""What each canonical component is; `Components` of an adapter and `components` of a family name them alike."""

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
