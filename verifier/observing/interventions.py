"""Plan the edits of a case: many interventions in one batch, a row each, or a factor for every point in one forward.

In a batch of interventions rows 0 and 1 are two prompts in which nothing is edited. Every other row is the first
prompt with one edit at one point: a random replacement, an addition, an ablation to zero, or the second prompt's
activation. The edit covers the whole tensor, or one head at one position. All interventions of a model cost one
forward. `edited_runs` runs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.canonical import SCALE, Point
from verifier.judging.numerics import rms
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.reference.random_weights import generator

Kind = Literal["replace", "add", "zero", "swap"]
KINDS: tuple[Kind, ...] = ("replace", "add", "zero", "swap")
Extent = Literal["everywhere", "one head and position"]
EXTENTS: tuple[Extent, ...] = ("everywhere", "one head and position")

# Outside the pairwise cases a point has the first of these in even layers and the second in odd ones: over two layers
# each kind is tried.
_FEWER: tuple[tuple[tuple[Kind, Extent], ...], ...] = (
    (("replace", "everywhere"), ("replace", "one head and position"), ("zero", "everywhere")),
    (("replace", "everywhere"), ("add", "everywhere"), ("swap", "everywhere")),
)
GRADIENT_EDITS: tuple[tuple[Kind, Extent], ...] = (("replace", "everywhere"), ("replace", "one head and position"))

UNEDITED = 2  # rows without an edit: the first prompt, and the one whose activations are swapped in
POSITIONS = 4  # enough for an edit in the middle of the text; every further position costs hundreds of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """One row of a batch: what is done at which point."""

    point: Point
    kind: Kind
    extent: Extent
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What the interventions at one point do to its rows: `value * keep + put`, or the second prompt's value.

    Attributes:
        first: the first of these rows in the batch.
        keep: `[row, …]`, the factor of the value.
        put: `[row, …]`, what is added.
        swap: `[row, …]`, true where the second prompt's value is taken.
    """

    first: int
    keep: Tensor
    put: Tensor
    swap: Tensor

    def select_rows(self, rows: Sequence[int], *, first: int) -> Change:
        """Select some rows of the change for a batch in which they start at row `first`.

        Args:
            rows: their numbers in the batch of the whole change.
            first: the number of the first of them in the new batch.
        """
        chosen = [row - self.first for row in rows]
        if len(chosen) == len(self.keep):
            return replace(self, first=first)
        return Change(first=first, keep=self.keep[chosen], put=self.put[chosen], swap=self.swap[chosen])

    def edit(self, in_place: bool = False) -> Edit:
        """Make an edit of a whole batch, which returns a new tensor or writes into the one it is given."""

        def act(value: Tensor) -> Tensor:
            last = self.first + self.keep.shape[0]
            changed = self.apply(value[self.first : last], value[1])
            if in_place:
                value[self.first : last] = changed
                return value
            return torch.cat([value[: self.first], changed, value[last:]])

        return act

    def apply(self, rows: Tensor, second_prompt: Tensor) -> Tensor:
        """Change the rows `[row, …]`, given the value `[…]` of the second prompt.

        Args:
            rows: `[row, …]`, the values in this change's rows.
            second_prompt: `[…]`, the value that is swapped in.

        Returns:
            The changed rows, `[row, …]`.
        """
        edited = rows * self.keep.to(rows.dtype) + self.put.to(rows.dtype)
        return torch.where(self.swap, second_prompt.expand_as(edited), edited)


Plan = tuple[tuple[Intervention, ...], Mapping[str, Change]]
"""Interventions in the order of their rows, and what they change by point."""


def plan_interventions(case: Case) -> Plan:
    """Plan every intervention on the case's activations."""

    def edits_of(point: Point) -> list[tuple[Kind, Extent]]:
        edits: Sequence[tuple[Kind, Extent]] = [(kind, extent) for kind in KINDS for extent in EXTENTS]
        if not case.spec.is_pairwise and point.layer is not None:
            edits = _FEWER[point.layer % 2]
        return [(kind, extent) for kind, extent in edits if kind != "zero" or point.axes != SCALE]

    def make() -> Plan:
        return _plan(case, case.reference.points, activations.reference_trace(case).values, edits_of)

    return case.shared_reference.memoize(("interventions", case.spec.is_pairwise), make)


def plan_gradient_interventions(case: Case) -> Plan:
    """Plan a replacement of the gradient at every point but the first, at which the effect is read."""
    gradients = activations.reference_trace(case).gradients
    return _plan(case, case.reference.points[1:], gradients, lambda _point: GRADIENT_EDITS)


def _plan(
    case: Case,
    points: Iterable[Point],
    like: Mapping[str, Tensor],
    edits_of: Callable[[Point], Sequence[tuple[Kind, Extent]]],
) -> Plan:
    """Plan these edits of each point; `like` has by point a tensor of the shape and scale that is edited."""
    interventions: list[Intervention] = []
    changes = {}
    for point in points:
        first = UNEDITED + len(interventions)
        at_point = [
            Intervention(point=point, kind=kind, extent=extent, row=first + number)
            for number, (kind, extent) in enumerate(edits_of(point))
        ]
        interventions += at_point
        changes[point.name] = _change(case, point, like[point.name], at_point)
    return tuple(interventions), changes


def _change(case: Case, point: Point, value: Tensor, interventions: Sequence[Intervention]) -> Change:
    """Draw what these interventions do at a point whose tensor, an activation or a gradient, is like `value`."""
    shape = _shortened(value, point).shape[1:]
    draw = torch.randn((len(interventions), *shape), generator=generator("edits", case.spec.seed, point.name)).double()
    draw = draw.to(value.device)
    if point.axes == SCALE:
        draw = draw.exp()  # the model divides by a scale, so it stays positive
    draw = draw * rms(value, case.reference.defined(point.axes))
    where = torch.stack([region(point.axes, tuple(shape), one.extent, value.device) for one in interventions])

    def rows_of(*kinds: Kind) -> Tensor:
        chosen = torch.tensor([one.kind in kinds for one in interventions], device=value.device)
        return chosen.reshape(-1, *[1] * len(shape)) & where

    return Change(
        first=interventions[0].row,
        keep=(~rows_of("replace", "zero", "swap")).double(),
        put=draw * rows_of("replace", "add"),
        swap=rows_of("swap"),
    )


def _shortened(value: Tensor, point: Point) -> Tensor:
    """Cut a value to the first `POSITIONS` positions."""
    for axis, name in enumerate(point.axes):
        if name in ("pos", "query", "key"):
            value = value.narrow(axis, 0, min(POSITIONS, value.shape[axis]))
    return value


@functools.lru_cache(maxsize=256)  # alike in every layer, and in every case of the same dims; nobody writes into it
def region(axes: tuple[str, ...], shape: tuple[int, ...], extent: Extent, device: torch.device) -> Tensor:
    """Mark where an edit acts: booleans of the shape of one row. In attention it acts where a query may see the key.

    Args:
        axes: the names of the point's axes, the batch first.
        shape: of one row, thus without the batch.
        extent: whether the edit acts everywhere, or at one head and position.
        device: of the result.
    """
    where = torch.ones(shape, dtype=torch.bool, device=device)
    if "query" in axes:
        where = where.tril()
    if extent == "everywhere":
        return where
    for axis, name in enumerate(axes[1:]):
        if name in ("head", "kv_head", "pos", "query"):
            # The last head, so that one head too few shows; a position in the middle, so that later ones see it.
            chosen = shape[axis] - 1 if "head" in name else shape[axis] // 2
            on_axis = torch.zeros(shape[axis], dtype=torch.bool, device=device)
            on_axis[chosen] = True
            where = where & on_axis.reshape(-1, *[1] * (len(shape) - axis - 1))
    return where


def batch(
    changes: Mapping[str, Change],
    names: Iterable[str],
    *,
    wanted: Callable[[int], bool] = lambda _row: True,
    in_place: bool = False,
) -> tuple[list[int], dict[str, Edit]]:
    """Choose the unedited prompts and the interventions at some points, and make the edits for a batch of just those.

    Args:
        changes: by point.
        names: the points.
        wanted: which of their rows.
        in_place: whether the edits write into the tensor they are given.

    Returns:
        The chosen rows of the whole plan in the order of the batch, and the edits by point.
    """
    rows, edits = list(range(UNEDITED)), {}
    for name in names:
        change = changes[name]
        chosen = [row for row in range(change.first, change.first + len(change.keep)) if wanted(row)]
        edits[name] = change.select_rows(chosen, first=len(rows)).edit(in_place)
        rows += chosen
    return rows, edits


def prompts(case: Case, rows: int) -> Tensor:
    """Repeat the case's first prompt in every row but row 1, which has another prompt: `[rows, pos]`.

    Args:
        case: of the prompts.
        rows: how many rows to make, the unedited ones included.
    """
    ids = case.reference.inputs().input_ids
    assert ids is not None
    first, second = ids[0, :POSITIONS], ids[-1, :POSITIONS].clone()
    second[0] = (first[0] + 1) % case.reference.model().get_input_embeddings().weight.shape[0]  # even in a batch of one
    return torch.stack([first, second, *[first] * (rows - UNEDITED)])


def scaling_edits(points: Sequence[Point]) -> dict[str, Edit]:
    """Multiply the value at each point, or the gradient there, by a factor of its own between 0.8 and 1.

    The factors are alike in each row and at each position, so these edits can be made in any way of calling a model:
    with padding, with a cache, with gradients. No two are equal: an edit that does not act, or acts at another point,
    changes the logits. None exceeds 1, because a mask's lowest number would overflow.
    """

    def by(factor: float) -> Edit:
        return lambda value: value * factor

    return {point.name: by(1 - (place + 1) / (5 * (len(points) + 1))) for place, point in enumerate(points)}
