"""Interventions: many edits in one batch, a row each, made alike in Hugging Face's model and in the subject.

Row 0 and row 1 are two prompts in which nothing is edited. Every other row is the first prompt with one edit at one
point: a random replacement, an addition, an ablation to zero, or the second prompt's activation in the place of its
own; of the whole tensor, or of one head at one position. So a whole model's interventions cost one forward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs
from verifier.canonical import RESULT, SCALE, Point
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE
from verifier.family import Family
from verifier.judging.numerics import moved_rows, rms, row_noise
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.observing.dependencies import Dependencies, read_dependencies
from verifier.reference import models
from verifier.reference.random_weights import generator

Kind = Literal["replace", "add", "zero", "swap"]
KINDS: tuple[Kind, ...] = ("replace", "add", "zero", "swap")
Extent = Literal["everywhere", "one head and position"]
EXTENTS: tuple[Extent, ...] = ("everywhere", "one head and position")

# Where a case is none of the pairwise ones, a point has these in even layers and those in odd ones, so that over both
# it has each kind.
_FEWER: tuple[tuple[tuple[Kind, Extent], ...], ...] = (
    (("replace", "everywhere"), ("replace", "one head and position"), ("zero", "everywhere")),
    (("replace", "everywhere"), ("add", "everywhere"), ("swap", "everywhere")),
)

UNEDITED = 2  # rows: the prompt, and the one that it is swapped with
POSITIONS = 4  # enough for a spot in the middle; what it costs is theirs times hundreds of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """One row: what is done there, and where."""

    point: Point
    kind: Kind
    extent: Extent
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a point's rows become: `value * keep + put`, and where `swap`, the second prompt's value.

    Each is `[row, …]`, of the rows from `first` on.
    """

    first: int
    keep: Tensor
    put: Tensor
    swap: Tensor

    def select_rows(self, rows: Sequence[int], *, first: int) -> Change:
        """What becomes of these rows, in a batch in which the first of them stands there."""
        here = [row - self.first for row in rows]
        if len(here) == len(self.keep):
            return replace(self, first=first)
        return Change(first=first, keep=self.keep[here], put=self.put[here], swap=self.swap[here])

    def edit(self, in_place: bool = False) -> Edit:
        """As an edit of a whole batch."""

        def act(value: Tensor) -> Tensor:
            last = self.first + self.keep.shape[0]
            changed = self.changed(value[self.first : last], value[1])
            if in_place:
                value[self.first : last] = changed
                return value
            return torch.cat([value[: self.first], changed, value[last:]])

        return act

    def changed(self, rows: Tensor, second: Tensor) -> Tensor:
        """What these rows become."""
        made = rows * self.keep.to(rows.dtype) + self.put.to(rows.dtype)
        return torch.where(self.swap, second.expand_as(made), made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Every intervention of a case, and what came of it in Hugging Face's model.

    Attributes:
        interventions: in the order of their rows.
        changes: by point.
        ids: `[row, pos]`.
        results: what HF's model gave: logits `[row, pos, d_vocab]`, or gradients `[row, pos, d_model]` at one point.
        noise: `[row]`: of the results there.
        acts: `[row]`: whether the results are others than without the edit.
    """

    interventions: tuple[Intervention, ...]
    changes: Mapping[str, Change]
    ids: Tensor
    results: Tensor
    noise: Tensor
    acts: Tensor


def run_interventions(case: Case) -> Experiment:
    """Run every intervention of the case in HF's model, once."""

    def run(dtype: str, ids: Tensor, edits: Mapping[str, Edit]) -> Tensor:
        model = case.reference.model(dtype)
        with torch.no_grad(), case.family.taps(model, names=[], edits=edits):
            return models.forward(model, Inputs(input_ids=ids)).logits

    return case.shared_reference.memoize(
        ("experiment", case.spec.is_pairwise), lambda: run_in_reference(case, *_plan(case), run)
    )


def run_in_reference(
    case: Case,
    interventions: tuple[Intervention, ...],
    changes: Mapping[str, Change],
    run: Callable[[str, Tensor, Mapping[str, Edit]], Tensor],
) -> Experiment:
    """Run every intervention in HF's model, in float64 and, for the noise, in float32.

    The points whose tensors are larger than all others have a batch of their own, which is small.

    Args:
        case: whose model it is.
        interventions: all of them, a row each.
        changes: by point.
        run: gives what a model in that dtype makes of these ids under these edits, `[row, …]`.
    """
    count = UNEDITED + len(interventions)
    ids = prompts(case, count)
    found: Tensor | None = None
    noise = torch.zeros(count, dtype=torch.float64)
    wide = {one.point.name for one in interventions if one.point.axes == RESULT}
    for names in (changes.keys() - wide, wide):
        rows, edits = batch(changes, [name for name in changes if name in names])
        true, rough = (run(dtype, ids[rows], edits) for dtype in (SEMANTIC_DTYPE, SINGLE))
        if found is None:
            found = true.new_zeros(count, *true.shape[1:])
        found[rows] = true
        noise[rows] = row_noise(true, rough)
    assert found is not None
    return Experiment(
        interventions=interventions,
        changes=changes,
        ids=ids,
        results=found,
        # What an edit makes exactly zero has no noise; a subject's rounding there is that of the model without it.
        noise=noise.clamp(min=float(noise[0])),
        acts=moved_rows(found, found[:1], float(noise[0])),
    )


def batch(
    changes: Mapping[str, Change],
    names: Iterable[str],
    *,
    wanted: Callable[[int], bool] = lambda _row: True,
    in_place: bool = False,
) -> tuple[list[int], dict[str, Edit]]:
    """The rows of the unedited prompts and of these points' interventions, and the edits for a batch of just those.

    Args:
        changes: by point.
        names: the points.
        wanted: which of their rows.
        in_place: whether the edits write into what they are given.
    """
    rows, edits = list(range(UNEDITED)), {}
    for name in names:
        change = changes[name]
        mine = [row for row in range(change.first, change.first + len(change.keep)) if wanted(row)]
        edits[name] = change.select_rows(mine, first=len(rows)).edit(in_place)
        rows += mine
    return rows, edits


def reference_dependencies(case: Case) -> Dependencies:
    """Which point of HF's model depends on which: tried once for each set of points, as blocks are wired alike then."""
    key = (id(case.family), tuple(point.name for point in case.reference.points))
    if key not in _TRIED:
        _TRIED[key] = (case.family, _find_dependencies(case))
    return _TRIED[key][1]


# By family and points. The family is held, so that its identity is given to no other one.
_TRIED: dict[tuple[int, tuple[str, ...]], tuple[Family, Dependencies]] = {}


def _find_dependencies(case: Case) -> Dependencies:
    interventions, changes = _plan(case)
    added = [one for one in interventions if one.kind == "replace" and one.extent == "everywhere"]
    edits, rows = {}, {}
    for row, one in enumerate(added, start=UNEDITED):
        change, name = changes[one.point.name], one.point.name
        edits[name], rows[name] = change.select_rows([one.row], first=row).edit(), row
    model, ids = case.reference.model(), prompts(case, UNEDITED + len(added))
    with torch.no_grad(), case.family.taps(model, edits=edits) as taps:
        models.forward(model, Inputs(input_ids=ids))
    return read_dependencies(taps.values, activations.noise(case).values, rows)


def prompts(case: Case, rows: int) -> Tensor:
    """`[rows, pos]`: the case's first prompt in every row but the second one, which has another."""
    ids = case.reference.inputs().input_ids
    assert ids is not None
    first, second = ids[0, :POSITIONS], ids[-1, :POSITIONS].clone()
    second[0] = (first[0] + 1) % case.reference.model().get_input_embeddings().weight.shape[0]  # even in a batch of one
    return torch.stack([first, second, *[first] * (rows - UNEDITED)])


def _plan(case: Case) -> tuple[tuple[Intervention, ...], Mapping[str, Change]]:
    return case.shared_reference.memoize(("interventions", case.spec.is_pairwise), lambda: _planned(case))


def _planned(case: Case) -> tuple[tuple[Intervention, ...], Mapping[str, Change]]:
    def edits_of(point: Point) -> list[tuple[Kind, Extent]]:
        edits: Sequence[tuple[Kind, Extent]] = [(kind, extent) for kind in KINDS for extent in EXTENTS]
        if not case.spec.is_pairwise and point.layer is not None:
            edits = _FEWER[point.layer % 2]
        return [(kind, extent) for kind, extent in edits if kind != "zero" or point.axes != SCALE]

    return planned(case, case.reference.points, activations.reference_trace(case).values, edits_of)


def planned(
    case: Case,
    points: Iterable[Point],
    like: Mapping[str, Tensor],
    edits_of: Callable[[Point], Sequence[tuple[Kind, Extent]]],
) -> tuple[tuple[Intervention, ...], Mapping[str, Change]]:
    """Rows for these edits of each point, one after the other, and what they do to tensors like those given."""
    interventions: list[Intervention] = []
    changes = {}
    for point in points:
        first = UNEDITED + len(interventions)
        mine = [
            Intervention(point=point, kind=kind, extent=extent, row=first + number)
            for number, (kind, extent) in enumerate(edits_of(point))
        ]
        interventions += mine
        changes[point.name] = _change(case, point, like[point.name], mine)
    return tuple(interventions), changes


def _change(case: Case, point: Point, value: Tensor, rows: Sequence[Intervention]) -> Change:
    """What these rows do at a point whose tensor is like `value` (its activation, or the gradient there)."""
    shape = _cut(value, point).shape[1:]
    draw = torch.randn((len(rows), *shape), generator=generator("edits", case.spec.seed, point.name)).double()
    draw = draw.to(value.device)
    if point.axes == SCALE:
        draw = draw.exp()  # it is divided by
    draw = draw * rms(value, case.reference.defined(point.axes))
    where = torch.stack([region(point.axes, tuple(shape), one.extent, value.device) for one in rows])

    def kinds(*wanted: Kind) -> Tensor:
        chosen = torch.tensor([one.kind in wanted for one in rows], device=value.device)
        return chosen.reshape(-1, *[1] * len(shape)) & where

    return Change(
        first=rows[0].row,
        keep=(~kinds("replace", "zero", "swap")).double(),
        put=draw * kinds("replace", "add"),
        swap=kinds("swap"),
    )


def _cut(value: Tensor, point: Point) -> Tensor:
    """A value of a longer run as long as the experiment's."""
    for axis, name in enumerate(point.axes):
        if name in ("pos", "query", "key"):
            value = value.narrow(axis, 0, min(POSITIONS, value.shape[axis]))
    return value


@functools.lru_cache(maxsize=256)  # the same in every layer, and in every case of the same dims; not to be written into
def region(axes: tuple[str, ...], shape: tuple[int, ...], extent: Extent, device: torch.device) -> Tensor:
    """Where a row's edit acts, of the row's shape: of attention, only what a query may see."""
    where = torch.ones(shape, dtype=torch.bool, device=device)
    if "query" in axes:
        where = where.tril()
    if extent == "everywhere":
        return where
    for axis, name in enumerate(axes[1:]):
        if name in ("head", "kv_head", "pos", "query"):
            # The last head, so that one head too few shows; a position in the middle, so that later ones see it.
            chosen = shape[axis] - 1 if "head" in name else shape[axis] // 2
            here = torch.zeros(shape[axis], dtype=torch.bool, device=device)
            here[chosen] = True
            where = where & here.reshape(-1, *[1] * (len(shape) - axis - 1))
    return where


def run_in_subject(
    case: Case,
    experiment: Experiment,
    points: Iterable[Point],
    run: Callable[[Tensor, Mapping[str, Edit]], Tensor],
    *,
    kinds: Sequence[Kind] = KINDS,
    in_place: bool = False,
) -> dict[int, Tensor]:
    """What the subject gives in the rows of these points, one run for each switch.

    Args:
        case: whose subject it is.
        experiment: whose rows they are.
        points: those whose rows are wanted; one that is not edited has none.
        run: gives the results for ids and edits.
        kinds: which of their rows.
        in_place: whether the edits write into what they are given.

    Returns:
        By row: its result; the unedited row 0 among them, as the first group of points gives it.
    """
    found: dict[int, Tensor] = {}
    chosen = {one.row for one in experiment.interventions if one.kind in kinds}
    edited = [point.name for point in points if point.name in experiment.changes]
    for names in activations.by_switch(case, edited).values():
        rows, edits = batch(experiment.changes, names, wanted=chosen.__contains__, in_place=in_place)
        results = run(experiment.ids[rows], edits)
        for place, row in enumerate(rows):
            found.setdefault(row, results[place])
    return found
