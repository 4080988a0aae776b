"""Replaced gradients: many in one backward, a row each, made alike in Hugging Face's model and in the subject.

As in `interventions`, each row of a batch has one edit at one point, here of the gradient that comes back to it; what
it does is seen at the first point of the model, to which all gradients flow.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.observing.interventions import Experiment, Extent, Kind, planned, run_in_reference
from verifier.reference import models
from verifier.reference.random_weights import generator

ROWS: tuple[tuple[Kind, Extent], ...] = (
    ("replace", "everywhere"),
    ("replace", "one head and position"),
)


def draw_cotangent(case: Case, ids: Tensor) -> Tensor:
    """Draw what logits are multiplied with to be differentiated: `[row, pos, d_vocab]`, alike in each row."""
    vocab = case.reference.model().get_input_embeddings().weight.shape[0]
    source = generator("replaced gradients", case.spec.seed)
    draw = torch.randn(1, ids.shape[1], vocab, generator=source, dtype=torch.float64)
    return draw.to(ids.device).repeat(len(ids), 1, 1)


def run_gradient_interventions(case: Case) -> Experiment:
    """Replace every gradient of the case in HF's model, once; the results are the gradients at its first point."""

    def make() -> Experiment:
        gradients = activations.reference_trace(case).gradients
        interventions, changes = planned(case, case.reference.points[1:], gradients, lambda _point: ROWS)
        return run_in_reference(
            case, interventions, changes, lambda dtype, ids, edits: _with_edits(case, dtype, ids, edits)
        )

    return case.shared_reference.memoize(("gradient experiment",), make)


def _with_edits(case: Case, dtype: str, ids: Tensor, edits: Mapping[str, Edit]) -> Tensor:
    """HF's gradients at the first point, with those at the others replaced on their way to it."""

    def replacing(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor:
            handed_on = value.clone()
            handed_on.register_hook(edit)
            return handed_on

        return act

    model, first = case.reference.model(dtype), case.reference.points[0].name
    there = {name: replacing(edit) for name, edit in edits.items()}
    with torch.enable_grad(), case.family.taps(model, names=[first], edits=there) as taps:
        logits = models.forward(model, Inputs(input_ids=ids)).logits
    (found,) = models.differentiate(logits, draw_cotangent(case, ids), [taps.values[first]])
    return found
