"""Replaced gradients: many in one backward, a row each, made alike in Hugging Face's model and in the subject.

As in `experiments`, each row of a batch has one edit at one point, here of the gradient that comes back to it; what
it does is seen at the first point of the model, to which all gradients flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs
from verifier.canonical import Point
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.observing.interventions import (
    UNEDITED,
    Change,
    Extent,
    Intervention,
    Kind,
    batch,
    planned,
    prompts,
    run_in_reference,
)
from verifier.reference import models
from verifier.reference.random_weights import generator

ROWS: tuple[tuple[Kind, Extent], ...] = (
    ("replace", "everywhere"),
    ("replace", "one head and position"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientExperiment:
    """Every replaced gradient of a case, and what came of it in Hugging Face's model.

    Attributes:
        seen_at: the point at which it shows, the model's first.
        interventions: in the order of their rows.
        changes: by point, of gradients.
        ids: `[row, pos]`.
        along: `[row, pos, d_vocab]`: what the logits are multiplied with to be differentiated.
        gradients: `[row, pos, d_model]`: HF's at `seen_at`.
        noise: `[row]`: of those.
        acts: `[row]`: whether they are others than without the edit.
    """

    seen_at: Point
    interventions: tuple[Intervention, ...]
    changes: Mapping[str, Change]
    ids: Tensor
    along: Tensor
    gradients: Tensor
    noise: Tensor
    acts: Tensor


def run_gradient_interventions(case: Case) -> GradientExperiment:
    """The case's experiment, run once in HF's model."""
    return case.shared_reference.memoize(("gradient experiment",), lambda: _run(case))


def _run(case: Case) -> GradientExperiment:
    seen_at, *others = case.reference.points
    interventions, changes = planned(case, others, activations.reference_trace(case).gradients, lambda _point: ROWS)
    ids = prompts(case, UNEDITED + len(interventions))
    vocab = case.reference.model().get_input_embeddings().weight.shape[0]
    along = torch.randn(
        1, ids.shape[1], vocab, generator=generator("replaced gradients", case.spec.seed), dtype=torch.float64
    )
    along = along.to(ids.device).expand(len(ids), -1, -1)

    def with_edits(dtype: str, rows: list[int], edits: Mapping[str, Edit]) -> Tensor:
        return _with_edits(case, dtype, seen_at, ids[rows], along[rows], edits)

    gradients, noise, acts = run_in_reference(interventions, changes, with_edits)
    return GradientExperiment(
        seen_at=seen_at,
        interventions=interventions,
        changes=changes,
        ids=ids,
        along=along,
        gradients=gradients,
        noise=noise,
        acts=acts,
    )


def _with_edits(
    case: Case, dtype: str, seen_at: Point, ids: Tensor, along: Tensor, edits: Mapping[str, Edit]
) -> Tensor:
    """HF's gradients at the first point, with those at the others replaced on their way to it."""

    def replacing(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor:
            handed_on = value.clone()
            handed_on.register_hook(edit)
            return handed_on

        return act

    model = case.reference.model(dtype)
    there = {name: replacing(edit) for name, edit in edits.items()}
    with torch.enable_grad(), case.family.taps(model, names=[seen_at.name], edits=there) as taps:
        logits = models.forward(model, Inputs(input_ids=ids)).logits
    (found,) = models.differentiate(logits, along, [taps.values[seen_at.name]])
    return found


def run_in_subject(
    case: Case, points: Iterable[Point], run: Callable[[Tensor, Tensor, Mapping[str, Edit]], Tensor]
) -> dict[int, Tensor]:
    """By row: what the subject gives, one backward for each switch.

    Args:
        case: whose experiment it is.
        points: those whose rows are wanted.
        run: gives the gradients at the first point for ids, a cotangent, and edits of gradients.
    """
    experiment, found = run_gradient_interventions(case), dict[int, Tensor]()
    for names in activations.by_switch(case, [one.name for one in points if one.name in experiment.changes]).values():
        rows, edits = batch(experiment.changes, names)
        gradients = run(experiment.ids[rows], experiment.along[rows], edits)
        for place, row in enumerate(rows):
            found.setdefault(row, gradients[place])
    return found
